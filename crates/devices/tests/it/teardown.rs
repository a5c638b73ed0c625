//! Mappings after the end of their node, the session or the device, or after a pause of the guest; also while an
//! answer of the front end is outstanding.

use std::fs;

use driver::fs::Requests;
use rstest::rstest;
use rustix::io::Errno;
use vhost_user::channel::BackendRequest;

use crate::mapping::{Mapping, UNIT, readable};

impl Mapping {
    /// Maps a unit of the file, and has the front end do it.
    fn map(&mut self, offset: u64) {
        self.submit_setup(offset);
        self.answer_map(|_, _, _| {});
        assert_eq!(self.errno(), 0);
    }

    /// Forgets the file on hiprio.
    fn forget(&mut self, count: u64) {
        let forget = self.client.requests.forget(self.node, count);
        self.client.guest.queues[0].submit(&forget.readable, 0).unwrap();
    }

    fn forgotten(&mut self) {
        let (_, written, _) = self.client.guest.queues[0].wait().unwrap();
        assert_eq!(written, 0);
    }

    /// Waits for SHMEM_UNMAP and answers it with this status; the offset that it is for.
    fn answer_unmap(&mut self, status: u64) -> u64 {
        let mut asked = None;
        let serve = |request| match request {
            BackendRequest::Unmap(mapping) => {
                asked = Some(mapping.offset);
                status
            }
            _ => 1,
        };
        assert!(readable(&self.channel, 30), "the device asks for nothing");
        assert!(self.channel.serve(serve).unwrap());
        asked.expect("SHMEM_UNMAP")
    }
}

/// The offsets in any order.
fn sorted<const N: usize>(mut offsets: [u64; N]) -> [u64; N] {
    offsets.sort_unstable();
    offsets
}

#[rstest]
fn the_last_forget_of_a_node_unmaps_what_it_had(#[values(false, true)] packed: bool) {
    let mut mapping = Mapping::new(packed);
    // A node of its own beside it, which keeps what it has.
    fs::write(mapping.daemon.share().join("other"), vec![1; UNIT as usize]).unwrap();
    let file = mapping.node;
    mapping.node = mapping.client.node("other");
    mapping.map(4 * UNIT);
    mapping.node = file;
    mapping.map(0);
    mapping.map(2 * UNIT);
    // The driver looked it up once; once more, so that it takes two to forget it.
    assert_eq!(mapping.client.node("file"), file);
    mapping.forget(1);
    mapping.forgotten();
    mapping.assert_nothing_more_is_asked();
    mapping.forget(1);
    let unmapped = [mapping.answer_unmap(0), mapping.answer_unmap(0)];
    assert_eq!(sorted(unmapped), [0, 2 * UNIT]);
    mapping.forgotten();
    mapping.submit_setup(0);
    assert_eq!(mapping.errno(), libc::ESTALE);
    mapping.assert_nothing_more_is_asked();
    // The front end is asked for what is left, and that alone.
    let destroy = mapping.client.requests.destroy();
    mapping.submit(&destroy);
    assert_eq!(mapping.answer_unmap(0), 4 * UNIT);
    assert_eq!(mapping.errno(), 0);
}

#[rstest]
fn a_forget_of_what_was_never_mapped_asks_nobody(#[values(false, true)] packed: bool) {
    let mut mapping = Mapping::new(packed);
    mapping.submit_setup(0);
    assert!(readable(&mapping.channel, 30));
    // While the front end owes an answer for another node.
    fs::write(mapping.daemon.share().join("other"), "").unwrap();
    let file = mapping.node;
    mapping.node = 1 << 40;
    mapping.forget(1);
    mapping.forgotten();
    mapping.node = file;
    mapping.answer_map(|_, _, _| {});
    assert_eq!(mapping.errno(), 0);
    mapping.assert_nothing_more_is_asked();
}

#[rstest]
fn a_forget_that_is_called_off_unmaps_later(#[values(false, true)] packed: bool) {
    let mut mapping = Mapping::new(packed);
    mapping.map(0);
    mapping.map(UNIT);
    mapping.forget(1);
    assert!(readable(&mapping.channel, 30));
    // The guest pauses, and its front end answers nothing until the queue has stopped.
    let base = mapping.client.guest.stop(0).unwrap();
    mapping.client.guest.start(0, base).unwrap();
    mapping.forgotten();
    let first = mapping.answer_unmap(0);
    // The rest goes ahead of the next change.
    mapping.node = mapping.client.node("file");
    mapping.submit_setup(4 * UNIT);
    assert_eq!(sorted([first, mapping.answer_unmap(0)]), [0, UNIT]);
    mapping.answer_map(|_, _, _| {});
    assert_eq!(mapping.errno(), 0);
}

#[rstest]
fn a_destroy_that_is_called_off_goes_on(#[values(false, true)] packed: bool) {
    let mut mapping = Mapping::new(packed);
    for unit in 0..3 {
        mapping.map(unit * UNIT);
    }
    let destroy = mapping.client.requests.destroy();
    mapping.submit(&destroy);
    let mut unmapped = [0; 3];
    for unmapped in &mut unmapped {
        assert!(readable(&mapping.channel, 30));
        let base = mapping.client.guest.stop(1).unwrap();
        mapping.client.guest.start(1, base).unwrap();
        *unmapped = mapping.answer_unmap(0);
    }
    assert_eq!(sorted(unmapped), [0, UNIT, 2 * UNIT], "each once");
    assert_eq!(mapping.errno(), 0);
    mapping.assert_nothing_more_is_asked();
    let again = mapping.client.ask(Requests::destroy);
    assert_eq!(again, Err(libc::ENOTCONN));
}

#[rstest]
fn a_pause_loses_no_mapping(#[values(false, true)] packed: bool) {
    let mut mapping = Mapping::new(packed);
    mapping.map(0);
    for _ in 0..3 {
        let bases = [0, 1].map(|queue| mapping.client.guest.stop(queue).unwrap());
        // QEMU sets status 0 for a pause too.
        mapping.client.guest.frontend().set_status(0).unwrap();
        for (queue, base) in [0, 1].into_iter().zip(bases) {
            mapping.client.guest.start(queue, base).unwrap();
        }
        // It is there: nothing need be asked.
        mapping.submit_setup(0);
        assert_eq!(mapping.errno(), 0);
        mapping.assert_nothing_more_is_asked();
    }
}

/// QEMU empties the window at a reset by itself.
#[rstest]
fn a_reset_unmaps_nothing_that_the_front_end_has_dropped(
    #[values(false, true)] packed: bool,
    #[values(false, true)] granted: bool,
) {
    let mut mapping = Mapping::new(packed);
    mapping.map(0);
    mapping.submit_setup(UNIT);
    assert!(readable(&mapping.channel, 30));
    // Only to learn the position: the queue runs when the reset comes, which does not wait for what the front end owes.
    let base = mapping.client.guest.stop(1).unwrap();
    mapping.client.guest.start(1, base).unwrap();
    mapping.client.guest.frontend().reset_device().unwrap();
    // The front end comes to the mapping only now, or finds that its device has gone.
    let status = u64::from(!granted);
    assert!(mapping.channel.serve(|_| status).unwrap());
    mapping.client.guest.start(1, base).unwrap();
    assert_eq!(
        mapping.errno(),
        libc::ENOTCONN,
        "the request is of a session that has ended"
    );
    mapping.client.init();
    mapping.node = mapping.client.node("file");
    mapping.submit_setup(2 * UNIT);
    if granted {
        // It was made after the reset, and nobody wants it.
        assert_eq!(mapping.answer_unmap(Errno::NOENT.raw_os_error() as u64), UNIT);
    }
    let asked = mapping.answer_map(|_, _, _| {});
    assert_eq!(asked.offset, 2 * UNIT);
    assert_eq!(mapping.errno(), 0);
    mapping.assert_nothing_more_is_asked();
}
