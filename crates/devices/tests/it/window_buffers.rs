//! Requests whose data lies in a window (O_DIRECT between mapped files), whether or not the front end announced the
//! window.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use driver::fs::{ROOT, Request, field_u64};
use rstest::rstest;
use vhost_user::message::{MemoryRegion, VringAddress};
use virtqueue::Buffer;

use crate::mapping::{Mapping, UNIT};

/// Where the front end has the window in the guest's address space, and in its own.
const WINDOW: u64 = 1 << 40;
const USER: u64 = 1 << 46;
const DATA: u32 = 8192;

fn region(offset: u64, length: u64, mmap_offset: u64) -> MemoryRegion {
    MemoryRegion {
        guest_address: WINDOW + offset,
        size: length,
        user_address: USER + offset,
        mmap_offset,
    }
}

/// A guest that has mapped the first 2 MiB of `file` to the start of its window, and another file, `other`, open.
struct World {
    mapping: Mapping,
    node: u64,
    handle: u64,
}

impl World {
    fn new(packed: bool) -> Self {
        let mut mapping = Mapping::new(packed);
        let other: Vec<u8> = (0..DATA).map(|index| (index % 249) as u8).collect();
        fs::write(mapping.daemon.share().join("other"), other).unwrap();
        let client = &mut mapping.client;
        let node = field_u64(&client.ask(|requests| requests.lookup(ROOT, b"other")).unwrap(), 0);
        let handle = field_u64(
            &client.ask(|requests| requests.open(node, libc::O_RDWR as u32)).unwrap(),
            0,
        );
        Self { mapping, node, handle }
    }

    /// Maps `file`, and announces that as QEMU does.
    fn mapped(packed: bool) -> Self {
        let mut world = Self::new(packed);
        world.mapping.submit_setup(0);
        world.mapping.answer_map(|client, asked, file| {
            let shown = region(asked.offset, asked.length, asked.file_offset);
            client.guest.frontend().add_memory_region(shown, file).unwrap();
        });
        assert_eq!(world.mapping.errno(), 0);
        world
    }

    fn file(&self) -> PathBuf {
        self.mapping.daemon.share().join("file")
    }

    fn other(&self) -> PathBuf {
        self.mapping.daemon.share().join("other")
    }

    fn read(&mut self) -> Request {
        self.mapping.client.requests.read(self.node, self.handle, 0, DATA)
    }

    /// A WRITE without its data.
    fn write(&mut self) -> Request {
        let requests = &mut self.mapping.client.requests;
        let mut request = requests.write(self.node, self.handle, 0, &vec![0; DATA as usize]);
        let head = request.readable.len() - DATA as usize;
        request.readable.truncate(head);
        request
    }

    /// Sends a request whose data lies at `data`, in front of (`WRITE`) or behind (`READ`) its reply header. Gives the errno, and
    /// the first word of the reply's body.
    fn send(&mut self, request: &Request, data: u64, length: u32, reading: bool) -> (i32, u32) {
        // A place of hiprio, which has nothing to do here.
        let guest = &mut self.mapping.client.guest;
        let idle = guest.queues[0].config();
        let place = (idle.device + 6 + 8 * u64::from(idle.size)).next_multiple_of(4096);
        let reply = place + 4096;
        guest.memory().write(place, &request.readable).unwrap();
        guest.memory().write(reply, &[0xff; 24]).unwrap();
        let buffer = |address, length| Buffer { address, length };
        let (head, data) = (buffer(place, request.readable.len() as u32), buffer(data, length));
        let (readable, writable) = if reading {
            (vec![head], vec![buffer(reply, 16), data])
        } else {
            (vec![head, data], vec![buffer(reply, 24)])
        };
        let queue = &mut guest.queues[1];
        queue.ring().post(&readable, &writable).unwrap();
        queue.kick().unwrap();
        queue.wait().unwrap();
        let mut bytes = [0; 24];
        self.mapping.client.guest.memory().read(reply, &mut bytes).unwrap();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        (-(word(4) as i32), word(if reading { 0 } else { 16 }))
    }

    fn read_to(&mut self, data: u64) -> (i32, u32) {
        let request = self.read();
        self.send(&request, data, DATA, true)
    }

    fn write_from(&mut self, data: u64) -> (i32, u32) {
        let request = self.write();
        self.send(&request, data, DATA, false)
    }
}

#[rstest]
fn a_file_is_read_into_a_mapping_of_another(#[values(false, true)] packed: bool) {
    let mut world = World::mapped(packed);
    assert_eq!(world.read_to(WINDOW + 4096 + 512), (0, 16 + DATA));
    let file = fs::read(world.file()).unwrap();
    let from = 4096 + 512;
    assert_eq!(file[from..][..DATA as usize], fs::read(world.other()).unwrap());
    assert!(
        file[..from]
            .iter()
            .chain(&file[from + DATA as usize..])
            .all(|&byte| byte == 7)
    );
    world.mapping.client.assert_served();
}

#[rstest]
fn a_file_is_written_out_of_a_mapping_of_another(#[values(false, true)] packed: bool) {
    let mut world = World::mapped(packed);
    assert_eq!(world.write_from(WINDOW + UNIT - u64::from(DATA)), (0, DATA));
    assert_eq!(fs::read(world.other()).unwrap(), vec![7; DATA as usize]);
}

#[rstest]
fn where_no_mapping_is_known_the_request_fails_and_the_queue_goes_on(#[values(false, true)] packed: bool) {
    let mut world = World::new(packed);
    let before = fs::read(world.other()).unwrap();
    for address in [WINDOW, 0, u64::MAX - 100, u64::MAX - u64::from(DATA) + 1] {
        assert_eq!(world.read_to(address).0, libc::EFAULT, "{address:#x}");
        assert_eq!(world.write_from(address).0, libc::EFAULT, "{address:#x}");
    }
    assert_eq!(fs::read(world.other()).unwrap(), before);
    world.mapping.client.assert_served();
}

#[rstest]
fn an_unmapped_part_of_the_window_is_unknown_again(#[values(false, true)] packed: bool) {
    let mut world = World::mapped(packed);
    world
        .mapping
        .client
        .guest
        .frontend()
        .remove_memory_region(region(0, UNIT, 0))
        .unwrap();
    assert_eq!(world.read_to(WINDOW).0, libc::EFAULT);
    world.mapping.client.assert_served();
}

#[rstest]
fn a_mapped_file_that_was_shortened_does_not_grow_and_harms_nobody(#[values(false, true)] packed: bool) {
    let mut world = World::mapped(packed);
    File::options()
        .write(true)
        .open(world.file())
        .unwrap()
        .set_len(4096)
        .unwrap();
    assert_eq!(world.read_to(WINDOW + 4096).0, libc::EFAULT);
    assert_eq!(world.write_from(WINDOW + 4096).0, libc::EFAULT);
    // Short, a read would tell of the end of the file; a write is as write(2) has it.
    assert_eq!(world.read_to(WINDOW).0, libc::EFAULT);
    assert_eq!(world.write_from(WINDOW), (0, 4096));
    assert_eq!(fs::metadata(world.file()).unwrap().len(), 4096);
    world.mapping.client.assert_served();
}

/// Another device's share, and a VMM that maps what that has open for reading.
#[rstest]
fn a_file_of_another_share_is_written_only_if_it_may_be(#[values(false, true)] packed: bool) {
    let mut world = World::new(packed);
    let path = world.file();
    for (offset, file) in [
        (0, File::open(&path)),
        (UNIT, File::options().read(true).write(true).open(&path)),
    ] {
        let frontend = world.mapping.client.guest.frontend();
        frontend
            .add_memory_region(region(offset, UNIT, offset), file.unwrap().as_fd())
            .unwrap();
    }
    assert_eq!(world.write_from(WINDOW), (0, DATA));
    assert_eq!(fs::read(world.other()).unwrap(), vec![7; DATA as usize]);
    fs::write(world.other(), vec![9; DATA as usize]).unwrap();
    assert_eq!(world.read_to(WINDOW).0, libc::EFAULT);
    assert_eq!(world.read_to(WINDOW + UNIT), (0, 16 + DATA));
    let file = fs::read(&path).unwrap();
    assert!(file[..UNIT as usize].iter().all(|&byte| byte == 7));
    assert_eq!(file[UNIT as usize..][..DATA as usize], vec![9; DATA as usize]);
}

/// While no queue runs, a file is taken for memory: another share's mapping may come then, and a guest may shorten its file.
#[rstest]
fn a_shortened_file_that_counts_as_memory_costs_requests_only(#[values(false, true)] packed: bool) {
    let mut world = World::new(packed);
    let path = world.file();
    let open = || File::options().read(true).write(true).open(&path).unwrap();
    let guest = &mut world.mapping.client.guest;
    let bases = [0, 1].map(|queue| guest.stop(queue).unwrap());
    guest
        .frontend()
        .add_memory_region(region(0, UNIT, 0), open().as_fd())
        .unwrap();
    for (queue, base) in [0, 1].into_iter().zip(bases) {
        guest.start(queue, base).unwrap();
    }
    assert_eq!(world.read_to(WINDOW + 4096), (0, 16 + DATA));
    let mut unlink = world.mapping.client.requests.unlink(ROOT, b"missing");
    let name = unlink.readable.split_off(40);
    open().write_all_at(&name, 8192).unwrap();
    let length = name.len() as u32;
    assert_eq!(world.send(&unlink, WINDOW + 8192, length, false).0, libc::ENOENT);

    open().set_len(4096).unwrap();
    assert_eq!(world.read_to(WINDOW + 8192).0, libc::EFAULT, "by the kernel");
    assert_eq!(
        world.send(&unlink, WINDOW + 8192, length, false).0,
        libc::EFAULT,
        "by a copy"
    );
    // What is left of the region is refused from then on.
    assert_eq!(world.read_to(WINDOW).0, libc::EFAULT);
    assert_eq!(world.write_from(WINDOW).0, libc::EFAULT);
    world.mapping.client.assert_served();

    // The front end takes the region out and announces the file anew.
    open().set_len(UNIT).unwrap();
    let frontend = world.mapping.client.guest.frontend();
    frontend.remove_memory_region(region(0, UNIT, 0)).unwrap();
    frontend.add_memory_region(region(0, UNIT, 0), open().as_fd()).unwrap();
    assert_eq!(world.read_to(WINDOW + 4096), (0, 16 + DATA));
    world.mapping.client.assert_served();
}

#[test]
fn a_ring_in_the_window_is_refused() -> io::Result<()> {
    let mut world = World::mapped(false);
    let guest = &mut world.mapping.client.guest;
    guest.stop(0).unwrap();
    let address = VringAddress {
        index: 0,
        flags: 0,
        descriptor: USER,
        used: USER + 4096,
        available: USER + 8192,
        log: 0,
    };
    guest.frontend().set_vring_address(address).unwrap();
    let kick = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    assert!(guest.frontend().set_vring_kick(0, Some(kick.as_fd())).is_err());
    world.mapping.client.assert_served();
    Ok(())
}
