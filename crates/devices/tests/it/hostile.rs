//! A guest that breaks the rules loses only the queue or the request concerned.

use driver::fs::{ROOT, Request, opcode};
use driver::{Options, Queue};
use guestmem::Memory;
use rstest::rstest;
use virtqueue::QueueConfig;

use crate::daemon::{Client, Daemon, options};

const NEXT: u16 = 1;
const INDIRECT: u16 = 4;

/// Writes descriptor 0 and makes it available, as nobody could through the driver half.
fn make_available(queue: &QueueConfig, memory: &Memory, address: u64, length: u32, flags: u16, next: u16) {
    // Packed: both flags of an available descriptor in the first lap; `next` is the buffer id.
    let (last, flags) = if queue.packed {
        (flags | 1 << 7, next)
    } else {
        (next, flags)
    };
    memory.write(queue.descriptor, &address.to_le_bytes()).unwrap();
    memory.write(queue.descriptor + 8, &length.to_le_bytes()).unwrap();
    memory.write(queue.descriptor + 12, &flags.to_le_bytes()).unwrap();
    memory.write(queue.descriptor + 14, &last.to_le_bytes()).unwrap();
    if !queue.packed {
        memory.write(queue.driver + 4, &0_u16.to_le_bytes()).unwrap();
        memory.write(queue.driver + 2, &1_u16.to_le_bytes()).unwrap();
    }
}

/// Breaks queue 2 in some way.
type Attack = fn(&QueueConfig, &Memory, &mut Queue);

fn table_outside_of_memory(config: &QueueConfig, memory: &Memory, _: &mut Queue) {
    make_available(config, memory, 1 << 50, 16, INDIRECT, 0);
}

fn table_at_the_end_of_address_space(config: &QueueConfig, memory: &Memory, _: &mut Queue) {
    make_available(config, memory, u64::MAX - 8, 1 << 20, INDIRECT, 0);
}

fn endless_chain(config: &QueueConfig, memory: &Memory, _: &mut Queue) {
    if config.packed {
        // Every slot of the ring continues.
        for slot in (0..u64::from(config.size)).rev() {
            let member = QueueConfig {
                descriptor: config.descriptor + 16 * slot,
                ..config.clone()
            };
            make_available(&member, memory, config.descriptor, 16, NEXT, 0);
        }
    } else {
        make_available(config, memory, config.descriptor, 16, NEXT, 0);
    }
}

fn table_in_table(config: &QueueConfig, memory: &Memory, _: &mut Queue) {
    // The table is the descriptor table itself, whose first entry says "indirect".
    make_available(config, memory, config.descriptor, 16, INDIRECT, 0);
    if config.packed {
        // Flags of entries in a table do not count in a packed ring; INDIRECT with NEXT is what is forbidden there.
        make_available(config, memory, config.descriptor, 16, INDIRECT | NEXT, 0);
    }
}

fn table_of_odd_length(config: &QueueConfig, memory: &Memory, _: &mut Queue) {
    make_available(config, memory, config.descriptor, 17, INDIRECT, 0);
}

#[rstest]
fn a_broken_ring_is_the_end_of_its_queue_only(
    #[values(false, true)] packed: bool,
    #[values(
        table_outside_of_memory,
        table_at_the_end_of_address_space,
        endless_chain,
        table_in_table,
        table_of_odd_length
    )]
    attack: Attack,
) {
    let daemon = Daemon::sharing(2);
    let mut client = daemon.connect(&Options {
        indirect: false,
        ..options(packed, 2)
    });
    client.init();
    let memory = client.guest.memory().clone();
    let queue = &mut client.guest.queues[2];
    let config = queue.config().clone();
    attack(&config, &memory, queue);
    queue.kick().unwrap();
    assert!(queue.wait_for_error().unwrap(), "the error descriptor tells of it");
    client.assert_served();

    // The broken queue is quiet, can be stopped, and comes back with a reset.
    let queue = &mut client.guest.queues[2];
    queue.kick().unwrap();
    assert_eq!(queue.poll().unwrap(), None);
    client.guest.stop(2).unwrap();
    drop(client);
    let mut next = daemon.connect(&options(packed, 2));
    next.init();
    next.assert_served();
}

#[rstest]
fn an_available_index_that_jumps_is_no_endless_loop(#[values(9, 0x7fff, 0xffff)] index: u16) {
    let daemon = Daemon::sharing(2);
    let mut client = daemon.connect(&Options {
        queue_size: 8,
        ..options(false, 2)
    });
    client.init();
    let queue = &client.guest.queues[2];
    client
        .guest
        .memory()
        .write(queue.config().driver + 2, &index.to_le_bytes())
        .unwrap();
    queue.kick().unwrap();
    assert!(queue.wait_for_error().unwrap());
    client.assert_served();
}

/// An errno, or a chain that comes back empty.
fn refused(client: &mut Client, request: &Request) -> Option<i32> {
    let (written, bytes) = client.guest.queues[1]
        .call(&request.readable, request.reply_space)
        .unwrap();
    if written == 0 {
        return None;
    }
    Some(driver::fs::reply(request, written, &bytes).unwrap().unwrap_err())
}

#[rstest]
fn a_bad_request_costs_an_error_reply(#[values(false, true)] packed: bool) {
    let daemon = Daemon::sharing(1);
    std::fs::write(daemon.share().parent().unwrap().join("secret"), "").unwrap();
    let mut client = daemon.connect(&options(packed, 1));
    client.init();

    let unknown = client.requests.raw(9999, ROOT, &[], 16);
    assert_eq!(refused(&mut client, &unknown), Some(libc::ENOSYS));
    for name in [&b".."[..], b".", b"../secret", b"a/b", b""] {
        let lookup = client.requests.lookup(ROOT, name);
        assert_eq!(refused(&mut client, &lookup), Some(libc::EINVAL), "{name:?}");
    }
    let unterminated = client.requests.raw(opcode::LOOKUP, ROOT, &[b"name"], 200);
    assert_eq!(refused(&mut client, &unterminated), Some(libc::EINVAL));
    let cut = client.requests.raw(opcode::READ, ROOT, &[&[0; 39]], 4096);
    assert_eq!(refused(&mut client, &cut), Some(libc::EINVAL));
    let mut lying = client.requests.getattr(ROOT);
    lying.readable[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(refused(&mut client, &lying), Some(libc::EINVAL));
    let stranger = client.requests.getattr(0xdead_beef);
    assert!(refused(&mut client, &stranger).is_some());
    let handle = client.requests.read(ROOT, u64::MAX, 0, 100);
    assert!(refused(&mut client, &handle).is_some());

    let mut headless = client.requests.getattr(ROOT);
    headless.readable.truncate(39);
    assert_eq!(refused(&mut client, &headless), None);
    let mut speechless = client.requests.getattr(ROOT);
    speechless.reply_space = 15;
    assert_eq!(refused(&mut client, &speechless), None);
    client.assert_served();
}
