//! The record of requests in flight: what the front end may do with it, and what that costs.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use backend::{Ended, Session};
use driver::{Guest, Options};
use rstest::rstest;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use virtqueue::{InflightRecord, QueueConfig};

use crate::counted::{Counted, QUEUES};
use crate::echo::{self, Daemon};

const SIZE: u16 = 16;

fn device() -> Counted {
    let log = std::fs::File::options().write(true).open("/dev/null").unwrap();
    Counted { log: log.into() }
}

fn options(packed: bool) -> Options {
    Options {
        queues: QUEUES,
        packed,
        queue_size: SIZE,
        place_size: 4096,
        ..Options::default()
    }
}

/// Has `act` be the guest of a device whose requests are tracked.
fn with_guest(packed: bool, act: impl FnOnce(&mut Guest)) {
    let device = device();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let never = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let mut session = Session::new(theirs, &device, backend::Options::default());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| session.run(never.as_fd()).unwrap());
        let mut guest = Guest::attach(ours, &options(packed)).unwrap();
        act(&mut guest);
        drop(guest);
        assert_eq!(running.join().unwrap(), Ended::Gone);
    });
}

fn assert_served(guest: &mut Guest, queue: u16) {
    let answer = guest.queues[usize::from(queue)].call(&7_u64.to_le_bytes(), 8).unwrap();
    assert_eq!(answer, (8, 8_u64.to_le_bytes().to_vec()));
}

/// Where the record of a queue starts: the next multiple of 64.
fn start_of(packed: bool, queue: u16) -> u64 {
    InflightRecord::bytes(packed, SIZE).next_multiple_of(64) as u64 * u64::from(queue)
}

fn record(guest: &Guest) -> OwnedFd {
    guest.inflight().unwrap().1.try_clone_to_owned().unwrap()
}

#[test]
fn only_a_device_that_wants_it_is_tracked() {
    let daemon = Daemon::new();
    let client = daemon.connect(&echo::options(false));
    assert!(client.0.inflight().is_none());
}

#[rstest]
fn there_is_no_record_for_queues_that_do_not_exist(#[values(false, true)] packed: bool) {
    with_guest(packed, |guest| {
        for (queues, size) in [(0, SIZE), (QUEUES + 1, SIZE), (u16::MAX, SIZE), (1, 0), (1, 32769)] {
            let none = guest.frontend().inflight(queues, size).unwrap();
            assert!(none.is_none(), "{queues} queues of {size}");
        }
        let (largest, _file) = guest.frontend().inflight(QUEUES, 32768).unwrap().unwrap();
        assert!(largest.mmap_size >= 3 * InflightRecord::bytes(packed, 32768) as u64);
        assert_served(guest, 0);
    });
}

#[rstest]
fn a_record_is_not_replaced_under_a_running_queue(#[values(false, true)] packed: bool) {
    with_guest(packed, |guest| {
        let (inflight, file) = guest.inflight().unwrap();
        let file = file.try_clone_to_owned().unwrap();
        assert!(guest.frontend().set_inflight(inflight, file.as_fd()).is_err());
        let bases = [0, 1, 2].map(|queue| guest.stop(queue).unwrap());
        guest.frontend().set_inflight(inflight, file.as_fd()).unwrap();
        for (queue, base) in (0..).zip(bases) {
            guest.start(queue, base).unwrap();
            assert_served(guest, queue);
        }
    });
}

#[rstest]
fn a_record_that_lies_costs_its_queue(#[values(false, true)] packed: bool) {
    with_guest(packed, |guest| {
        assert_served(guest, 1);
        let base = guest.stop(1).unwrap();
        let version = start_of(packed, 1) + 8;
        rustix::io::pwrite(record(guest), &[7, 0], version).unwrap();
        assert!(guest.start(1, base).is_err());
        assert_served(guest, 0);
        assert_served(guest, 2);
        // A reset ends the use of the record.
        guest.frontend().reset_device().unwrap();
        guest.start(1, base).unwrap();
        assert_served(guest, 1);
    });
}

#[rstest]
fn a_record_that_ends_too_soon_costs_the_last_queue(#[values(false, true)] packed: bool) {
    with_guest(packed, |guest| {
        let bases = [0, 1, 2].map(|queue| guest.stop(queue).unwrap());
        let (mut inflight, _) = guest.inflight().unwrap();
        let file = record(guest);
        inflight.mmap_size = start_of(packed, 2);
        guest.frontend().set_inflight(inflight, file.as_fd()).unwrap();
        assert!(guest.start(2, bases[2]).is_err());
        inflight.mmap_size = u64::MAX;
        assert!(guest.frontend().set_inflight(inflight, file.as_fd()).is_err());
        guest.start(0, bases[0]).unwrap();
        assert_served(guest, 0);
    });
}

#[rstest]
fn a_record_that_is_shortened_costs_its_queues(#[values(false, true)] packed: bool) {
    with_guest(packed, |guest| {
        let bases = [0, 1, 2].map(|queue| guest.stop(queue).unwrap());
        let (inflight, _) = guest.inflight().unwrap();
        let file = memfd_create("record", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, inflight.mmap_size).unwrap();
        guest.frontend().set_inflight(inflight, file.as_fd()).unwrap();
        guest.start(0, bases[0]).unwrap();
        assert_served(guest, 0);
        ftruncate(&file, 0).unwrap();
        guest.queues[0].submit(&[7; 8], 8).unwrap();
        assert!(guest.queues[0].wait_for_error().unwrap());
        // The daemon is there.
        assert_eq!(guest.frontend().queue_num().unwrap(), u64::from(QUEUES));
    });
}

#[rstest]
fn tracking_goes_on_in_a_session_that_moves(#[values(false, true)] packed: bool) {
    let device = device();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let stop = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let mut session = Session::new(theirs, &device, backend::Options::default());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            assert_eq!(session.run(stop.as_fd()).unwrap(), Ended::Stopped);
            session
        });
        let mut guest = Guest::attach(ours, &options(packed)).unwrap();
        assert_served(&mut guest, 2);
        rustix::io::write(&stop, &1_u64.to_ne_bytes()).unwrap();
        let saved = running.join().unwrap().stop().unwrap();
        let mut session = Session::resume(saved, &device, backend::Options::default()).unwrap();
        rustix::io::read(&stop, &mut [0; 8]).unwrap();
        let stop = stop.as_fd();
        scope.spawn(move || assert_eq!(session.run(stop).unwrap(), Ended::Gone));
        assert_served(&mut guest, 2);
        assert_eq!(guest.stop(2).unwrap() & 0x7fff, 2);
        // The used index, after both requests.
        let mut used = [0; 2];
        let field = if packed { 16 } else { 14 };
        rustix::io::pread(record(&guest), &mut used, start_of(packed, 2) + field).unwrap();
        assert_eq!(u16::from_le_bytes(used), 2);
        let fresh = QueueConfig::fresh_base(packed);
        guest.start(2, fresh).unwrap();
        assert_served(&mut guest, 2);
        drop(guest);
    });
}
