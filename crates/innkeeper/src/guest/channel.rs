//! The channel between innkeeper on the host and innkeeper in the guest, over a virtio-serial port: frames of a kind,
//! a length and that many bytes. Neither side trusts the other's lengths.

use std::io::{self, Read, Write};

/// Name of the port in the guest.
pub(crate) const PORT: &str = "innkeeper";

/// The longest payload.
pub(crate) const PAYLOAD_BYTES: usize = 64 << 10;

const HEADER_BYTES: usize = 5;

/// One message, in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// To the guest: more standard input.
    Input(Vec<u8>),
    /// To the guest: standard input is at its end.
    InputEnd,
    /// To the guest: the terminal's rows and columns.
    Size(u16, u16),
    /// To the host: standard output.
    Output(Vec<u8>),
    /// To the host: standard error.
    Errors(Vec<u8>),
    /// To the host, as the last frame: the command's exit status.
    Exit(u8),
}

impl Frame {
    /// Writes the frame with one `write_all`, so that frames of several threads do not mix under a lock.
    pub(crate) fn send(&self, to: &mut impl Write) -> io::Result<()> {
        let size;
        let (kind, payload): (u8, &[u8]) = match self {
            Self::Input(bytes) => (1, bytes),
            Self::InputEnd => (2, &[]),
            Self::Size(rows, columns) => {
                size = [rows.to_le_bytes(), columns.to_le_bytes()].concat();
                (3, &size)
            }
            Self::Output(bytes) => (4, bytes),
            Self::Errors(bytes) => (5, bytes),
            Self::Exit(code) => (6, std::slice::from_ref(code)),
        };
        let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
        frame.push(kind);
        frame.extend((payload.len() as u32).to_le_bytes());
        frame.extend(payload);
        to.write_all(&frame)
    }

    /// Waits for the next frame. [`io::ErrorKind::InvalidData`] if the other side speaks out of turn.
    pub(crate) fn receive(from: &mut impl Read) -> io::Result<Self> {
        let mut header = [0; HEADER_BYTES];
        from.read_exact(&mut header)?;
        let [kind, length @ ..] = header;
        let length = u32::from_le_bytes(length) as usize;
        if length > PAYLOAD_BYTES {
            return Err(invalid(format!(
                "a frame of {length} bytes, {PAYLOAD_BYTES} are the limit"
            )));
        }
        let mut payload = vec![0; length];
        from.read_exact(&mut payload)?;
        match (kind, &payload[..]) {
            (1, _) => Ok(Self::Input(payload)),
            (2, []) => Ok(Self::InputEnd),
            (3, &[r0, r1, c0, c1]) => Ok(Self::Size(u16::from_le_bytes([r0, r1]), u16::from_le_bytes([c0, c1]))),
            (4, _) => Ok(Self::Output(payload)),
            (5, _) => Ok(Self::Errors(payload)),
            (6, &[code]) => Ok(Self::Exit(code)),
            _ => Err(invalid(format!("a frame of kind {kind} with {length} bytes"))),
        }
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_arrives_as_it_was_sent() {
        let sent = [
            Frame::Input(b"\0\xff".to_vec()),
            Frame::InputEnd,
            Frame::Size(24, 300),
            Frame::Output(vec![7; PAYLOAD_BYTES]),
            Frame::Errors(Vec::new()),
            Frame::Exit(137),
        ];
        let mut bytes = Vec::new();
        for frame in &sent {
            frame.send(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        for frame in sent {
            assert_eq!(Frame::receive(&mut rest).unwrap(), frame);
        }
        assert_eq!(
            Frame::receive(&mut rest).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn a_lying_frame_is_refused_before_it_is_believed() {
        for wrong in [
            &[4, 255, 255, 255, 255][..],
            &[9, 0, 0, 0, 0],
            &[6, 0, 0, 0, 0],
            &[3, 1, 0, 0, 0, 1],
        ] {
            assert_eq!(
                Frame::receive(&mut &wrong[..]).unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
        }
    }
}
