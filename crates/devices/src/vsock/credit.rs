//! Credit: how much each side may send (VIRTIO 1.2 5.10.6.3). All counters wrap around at 32 bits.

use super::wire::Header;

/// The counters of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credit {
    /// Size of our receive buffer, in bytes.
    buffer: u32,
    /// Bytes that the guest sent.
    received: u32,
    /// Bytes of them that left our buffer for the socket.
    forwarded: u32,
    /// `forwarded` as the guest last saw it.
    announced: u32,
    /// Bytes that the guest was sent.
    sent: u32,
    guest_buffer: u32,
    guest_forwarded: u32,
}

/// The guest sent more than there was room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overrun;

impl Credit {
    pub(super) fn new(buffer: u32) -> Self {
        Self {
            buffer,
            received: 0,
            forwarded: 0,
            announced: 0,
            sent: 0,
            guest_buffer: 0,
            guest_forwarded: 0,
        }
    }

    /// Takes over what every packet says of its sender's buffer.
    pub(super) fn learn(&mut self, header: &Header) {
        self.guest_buffer = header.buffer.get();
        self.guest_forwarded = header.forwarded.get();
    }

    /// Puts into a packet what it says of our buffer.
    pub(super) fn announce(&mut self, header: &mut Header) {
        header.buffer = self.buffer.into();
        header.forwarded = self.forwarded.into();
        self.announced = self.forwarded;
    }

    /// Bytes that the guest may be sent. A guest that claims to have taken out more than it got has no room.
    pub(super) fn for_guest(&self) -> u32 {
        let in_flight = self.sent.wrapping_sub(self.guest_forwarded);
        self.guest_buffer.saturating_sub(in_flight)
    }

    /// Size of the guest's buffer: no message larger than this ever fits.
    pub(super) fn guest_buffer(&self) -> u32 {
        self.guest_buffer
    }

    /// Counts bytes that the guest was sent.
    pub(super) fn spend(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// Counts bytes that the guest sent.
    pub(super) fn receive(&mut self, bytes: u32) -> Result<(), Overrun> {
        let held = self.received.wrapping_sub(self.forwarded);
        if bytes > self.buffer.saturating_sub(held) {
            return Err(Overrun);
        }
        self.received = self.received.wrapping_add(bytes);
        Ok(())
    }

    /// Counts bytes that left the buffer. Returns whether the guest should hear of it: it sees less than half of the buffer
    /// free, and would soon wait.
    pub(super) fn forward(&mut self, bytes: u32) -> bool {
        self.forwarded = self.forwarded.wrapping_add(bytes);
        let seen = self.received.wrapping_sub(self.announced);
        seen > self.buffer / 2 && self.announced != self.forwarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(buffer: u32, forwarded: u32) -> Header {
        Header {
            buffer: buffer.into(),
            forwarded: forwarded.into(),
            ..Header::default()
        }
    }

    #[test]
    fn counters_wrap_around() {
        let mut credit = Credit::new(100);
        credit.learn(&says(50, u32::MAX - 9));
        credit.sent = u32::MAX - 9;
        credit.spend(20);
        assert_eq!(credit.for_guest(), 30);
        (credit.received, credit.forwarded, credit.announced) = (u32::MAX, u32::MAX, u32::MAX);
        assert_eq!(credit.receive(100), Ok(()));
        assert_eq!(credit.receive(1), Err(Overrun));
        credit.forward(60);
        assert_eq!(credit.receive(60), Ok(()));
        assert_eq!(credit.receive(1), Err(Overrun));
    }

    /// A guest that took out what it never got, or shrank its buffer below what is on its way.
    #[test]
    fn a_guest_that_lies_gets_nothing() {
        let mut credit = Credit::new(100);
        credit.learn(&says(1000, 1));
        assert_eq!(credit.for_guest(), 0);
        credit.learn(&says(1000, 0));
        credit.spend(600);
        credit.learn(&says(599, 0));
        assert_eq!(credit.for_guest(), 0);
    }

    #[test]
    fn the_guest_hears_of_room_before_it_has_none() {
        let mut credit = Credit::new(100);
        credit.receive(50).unwrap();
        assert!(!credit.forward(50));
        credit.receive(1).unwrap();
        assert!(credit.forward(1));
        credit.announce(&mut Header::default());
        assert!(!credit.forward(0), "it has heard of it");
    }
}
