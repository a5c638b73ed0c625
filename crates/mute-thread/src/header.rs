//! Finds the Message-ID header at the head of a message, and reads no further.

use std::io::{self, BufRead, Read};

/// The longest header section that is looked through, in bytes. Servers refuse mail with a tenth of that.
pub const LONGEST: u64 = 1 << 20;

/// Why the header section of a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// No Message-ID, and no end of the header section within [`LONGEST`] bytes.
    #[error("not a mail message: its header section does not end within {LONGEST} bytes")]
    TooLong,
    /// The source of the message failed.
    #[error("cannot read the message: {0}")]
    Read(#[from] io::Error),
}

/// The value of the first Message-ID header, unfolded, if the message has one.
///
/// # Errors
/// When reading fails or the header section has no end.
pub fn message_id(message: &mut impl BufRead) -> Result<Option<Vec<u8>>, HeaderError> {
    let mut header = message.take(LONGEST);
    let mut value: Option<Vec<u8>> = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        if header.read_until(b'\n', &mut line)? == 0 {
            let cut = header.limit() == 0 && value.is_none();
            return if cut { Err(HeaderError::TooLong) } else { Ok(value) };
        }
        let line = without_line_end(&line);
        match (&mut value, line) {
            (_, []) => return Ok(value),
            // RFC 5322 2.2.3: unfolding takes out the line ends and nothing else.
            (Some(value), [b' ' | b'\t', ..]) => value.extend_from_slice(line),
            (Some(_), _) => return Ok(value),
            (None, _) => value = message_id_field(line).map(<[u8]>::to_vec),
        }
    }
}

fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// What follows the colon, if this line begins a Message-ID field. RFC 5322 4.5.4: blanks may stand before the colon.
fn message_id_field(line: &[u8]) -> Option<&[u8]> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = line[..colon].trim_ascii_end();
    name.eq_ignore_ascii_case(b"Message-ID").then(|| &line[colon + 1..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(message: &[u8]) -> Option<String> {
        let value = message_id(&mut &*message).expect("reads");
        value.map(|value| String::from_utf8(value).expect("UTF-8"))
    }

    #[test]
    fn a_folded_header_is_one_value() {
        let message = b"Subject: a\r\nMESSAGE-id:\r\n <a@\r\n\tb>\r\nTo: c\r\n\r\nbody";
        assert_eq!(value(message).as_deref(), Some(" <a@\tb>"));
    }

    #[test]
    fn the_body_is_not_searched() {
        assert_eq!(value(b"Subject: a\n\nMessage-ID: <a@b>\n"), None);
        assert_eq!(value(b"\nMessage-ID: <a@b>\n"), None);
    }

    #[test]
    fn the_line_that_begins_an_mbox_message_is_no_header() {
        let message = b"From a@b Mon Jan  1 00:00:00 2024\nMessage-ID: <a@b>\n\n";
        assert_eq!(value(message).as_deref(), Some(" <a@b>"));
    }

    #[test]
    fn only_the_exact_name_counts_and_no_continuation_line() {
        let message =
            b"Resent-Message-ID: <no@b>\nX-Message-ID: <no@b>\nSubject: a\n Message-ID: <no@b>\nMessage-ID : <a@b>\n\n";
        assert_eq!(value(message).as_deref(), Some(" <a@b>"));
    }

    #[test]
    fn a_body_of_any_size_is_left_unread() {
        struct Endless;
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer.fill(b'x');
                Ok(buffer.len())
            }
        }
        let mut message = io::BufReader::new(Read::chain(&b"A: b\nMessage-ID: <a@b>\n\n"[..], Endless));
        assert_eq!(
            message_id(&mut message).expect("reads").as_deref(),
            Some(&b" <a@b>"[..])
        );
        assert!(matches!(
            message_id(&mut io::BufReader::new(Endless)),
            Err(HeaderError::TooLong)
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(message in proptest::collection::vec(any::<u8>(), 0..400)) {
            let value = message_id(&mut &*message).expect("memory can be read");
            prop_assert!(value.is_none_or(|value| !value.contains(&b'\n')));
        }

        #[test]
        fn the_header_is_found_wherever_it_stands(
            before in proptest::collection::vec("[A-LN-Z][a-zA-Z-]{0,12}: [ -~]{0,40}", 0..6),
            id in "[!-;=?-~]{1,30}@[!-;=?-~]{1,30}",
            end in prop_oneof![Just("\n"), Just("\r\n")],
            fold in prop_oneof![Just(" "), Just("\n "), Just("\r\n\t"), Just("\n \n ")],
            after in "[ -~\n]{0,200}",
        ) {
            let before: String = before.iter().map(|line| format!("{line}{end}")).collect();
            let message = format!("{before}Message-Id:{fold}<{id}>{end}To: x{end}{end}{after}");
            let found = value(message.as_bytes()).expect("is there");
            prop_assert_eq!(found.trim(), format!("<{id}>"));
        }
    }
}
