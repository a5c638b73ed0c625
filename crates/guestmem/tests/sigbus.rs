//! Files that are shortened while mapped as memory: the region is lost, and the process continues.
#![allow(unsafe_code, reason = "a signal that only a raw system call sends")]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Barrier;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;

use guestmem::{Area, CursorError, LostRegion, Memory, Pieces, Reader, RegionConfig, RwFlags, Writer};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

const PAGE: u64 = 0x1000;
const SIZE: u64 = 8 * PAGE;
const START: u64 = 1 << 30;

/// A memory of one region whose file can be shortened, with 7 in each byte.
fn world() -> (Memory, OwnedFd) {
    let file = memfd_create("ram", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, SIZE).unwrap();
    let memory = Memory::map(vec![region(START, &file)]).unwrap();
    memory.write(START, &[7; SIZE as usize]).unwrap();
    (memory, file)
}

fn region(guest_address: u64, file: &OwnedFd) -> RegionConfig {
    RegionConfig {
        guest_address,
        size: SIZE,
        user_address: guest_address,
        file: file.try_clone().unwrap(),
        file_offset: 0,
    }
}

fn pieces(memory: &Memory, guest_address: u64, length: u64) -> Pieces {
    let mut pieces = Pieces::new(memory);
    pieces.push(guest_address, length).unwrap();
    pieces
}

fn loss(guest_address: u64, lost_at: u64) -> LostRegion {
    LostRegion {
        guest_address,
        size: SIZE,
        lost_at,
    }
}

#[test]
fn a_reader_and_a_writer_fail_where_the_file_was_shortened() {
    let (memory, file) = world();
    assert_eq!(memory.take_loss(), None);
    ftruncate(&file, 2 * PAGE).unwrap();
    let gone = pieces(&memory, START + 2 * PAGE - 8, 16);
    assert_eq!(Reader::new(&gone).read_object::<[u8; 16]>(), Err(CursorError::Fault));
    let later = pieces(&memory, START + 6 * PAGE + 4, 2 * PAGE - 4);
    let mut writer = Writer::new(&later);
    assert_eq!(writer.write_all(&[1; 100]), Err(CursorError::Fault));
    assert_eq!(writer.written(), 0);
    assert_eq!(memory.take_loss(), Some(loss(START, START + 2 * PAGE)));
    assert_eq!(memory.take_loss(), None, "it is reported once");
}

#[test]
fn the_atomics_of_rings_see_zeros() {
    let (memory, file) = world();
    let area = memory.area(START + 3 * PAGE, 16).unwrap();
    let before = memory.area(START, 16).unwrap();
    assert!(!area.is_lost());
    ftruncate(&file, PAGE).unwrap();
    assert_eq!(area.load_u16(2, Acquire), 0);
    assert!(area.is_lost() && before.is_lost());
    area.store_u64(8, 1, Release);
    area.store_u32(4, 2, Relaxed);
    assert_eq!((area.load_u64(8, Relaxed), area.load_u32(4, Relaxed)), (1, 2));
    assert_eq!(before.load_u16(0, Relaxed), 0x0707, "what is there is there");
}

#[test]
fn the_kernel_moves_no_byte_of_a_lost_region() {
    let (memory, file) = world();
    let area = memory.area(START + 3 * PAGE, 16).unwrap();
    ftruncate(&file, PAGE).unwrap();
    area.store_u64(0, 1, Relaxed);
    let target = tempfile::tempfile().unwrap();
    target.write_all_at(&[9; 100], 0).unwrap();
    let buffer = pieces(&memory, START + 3 * PAGE, 100);
    let written = Reader::new(&buffer).write_to(target.as_fd(), 0, 100, RwFlags::empty());
    assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::EFAULT));
    let read = Writer::new(&buffer).read_from(target.as_fd(), 0, 100, RwFlags::empty());
    assert_eq!(read.unwrap_err().raw_os_error(), Some(libc::EFAULT));
    let mut bytes = [0; 100];
    target.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [9; 100]);
}

#[test]
fn other_regions_and_those_that_come_later_are_whole() {
    let (memory, file) = world();
    let whole = memfd_create("more", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&whole, SIZE).unwrap();
    let memory = memory.with_region(region(0, &whole)).unwrap();
    ftruncate(&file, 0).unwrap();
    assert!(memory.write(START, &[1]).is_err());
    memory.write(0, &[1; SIZE as usize]).unwrap();
    let area = memory.area(0, 16).unwrap();
    assert_eq!(area.load_u16(0, Relaxed), 0x0101);
    assert!(!area.is_lost());
    let rest = memory.without_region(START, SIZE, START).unwrap();
    drop(memory);
    ftruncate(&file, SIZE).unwrap();
    let memory = rest.with_region(region(START, &file)).unwrap();
    memory.write(START, &[2; SIZE as usize]).unwrap();
    let mut byte = [0];
    file_of(&file).read_exact_at(&mut byte, SIZE - 1).unwrap();
    assert_eq!(byte, [2], "the file itself is mapped");
    assert_eq!(memory.take_loss(), None);
}

fn file_of(file: &OwnedFd) -> File {
    file.try_clone().unwrap().into()
}

#[test]
fn a_region_that_starts_inside_of_a_page_reports_its_own_addresses() {
    let file = memfd_create("ram", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 2 * SIZE).unwrap();
    let region = RegionConfig {
        file_offset: PAGE + 0x10,
        ..region(START + 0x10, &file)
    };
    let memory = Memory::map(vec![region]).unwrap();
    ftruncate(&file, 3 * PAGE).unwrap();
    let area = memory.area(START + 2 * PAGE + 0x20, 16).unwrap();
    assert_eq!(area.load_u16(0, Relaxed), 0);
    assert_eq!(memory.take_loss(), Some(loss(START + 0x10, START + 2 * PAGE + 0x20)));
}

/// Many threads fault on the same pages while regions come and go.
#[test]
fn threads_fault_together_while_others_map_and_unmap() {
    const THREADS: usize = 4;
    let (memory, file) = world();
    let areas: Vec<Area> = (0..8)
        .map(|page| memory.area(START + page * PAGE, 16).unwrap())
        .collect();
    ftruncate(&file, PAGE).unwrap();
    let barrier = Barrier::new(2 * THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                let read: Vec<u16> = areas.iter().map(|area| area.load_u16(0, Relaxed)).collect();
                assert_eq!(read, [0x0707, 0, 0, 0, 0, 0, 0, 0]);
            });
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..50 {
                    let (memory, file) = world();
                    ftruncate(&file, 0).unwrap();
                    assert!(memory.write(START, &[1]).is_err());
                    assert_eq!(memory.take_loss(), Some(loss(START, START)));
                }
            });
        }
    });
    assert!(areas.iter().all(Area::is_lost));
}

/// Whoever finds a page that another thread's fault has replaced must know it.
#[test]
fn no_thread_takes_the_zero_page_for_memory() {
    const THREADS: usize = 4;
    for _ in 0..500 {
        let (memory, file) = world();
        let gone = pieces(&memory, START + PAGE, 8);
        ftruncate(&file, PAGE).unwrap();
        let barrier = Barrier::new(THREADS);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    let read = Reader::new(&gone).read_object::<u64>();
                    assert_eq!(read, Err(CursorError::Fault));
                });
            }
        });
    }
}

/// No other page size may be mapped into the middle of a huge page. Where no huge page is free, a touch is SIGBUS.
#[test]
fn a_missing_huge_page_is_lost_as_a_whole() {
    const HUGE: u64 = 2 << 20;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let Ok(file) = memfd_create("huge", flags) else {
        eprintln!("skipped: no huge pages of 2 MiB on this system");
        return;
    };
    ftruncate(&file, 2 * HUGE).unwrap();
    let memory = Memory::map(vec![RegionConfig {
        size: 2 * HUGE,
        ..region(START, &file)
    }])
    .unwrap();
    ftruncate(&file, HUGE).unwrap();
    let area = memory.area(START + HUGE + PAGE, 16).unwrap();
    assert_eq!(area.load_u16(0, Relaxed), 0);
    assert!(area.is_lost());
}

/// Runs one of the tests below in a process of its own.
fn alone(test: &str) -> ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
}

#[test]
fn a_fault_elsewhere_is_as_deadly_as_ever() {
    assert_eq!(
        alone("faults_outside_of_registered_memory").signal(),
        Some(libc::SIGBUS)
    );
}

#[test]
#[ignore = "dies; a_fault_elsewhere_is_as_deadly_as_ever runs it"]
fn faults_outside_of_registered_memory() {
    let (memory, registered) = world();
    let file = memfd_create("other", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, SIZE).unwrap();
    let range = (GuestAddress(0), SIZE as usize, Some(FileOffset::new(file_of(&file), 0)));
    let other = GuestMemoryMmap::<()>::from_ranges_with_files([range]).unwrap();
    ftruncate(&file, 0).unwrap();
    // What is registered is still saved.
    ftruncate(&registered, 0).unwrap();
    assert!(memory.write(START, &[1]).is_err());
    let _byte: u8 = other.read_obj(GuestAddress(0)).unwrap();
}

#[test]
fn without_a_lost_mapping_nothing_is_looked_up() {
    assert!(alone("the_last_lost_mapping_goes").success());
}

#[test]
#[ignore = "looks at the whole process; without_a_lost_mapping_nothing_is_looked_up runs it"]
fn the_last_lost_mapping_goes() {
    let (memory, file) = world();
    let other = memory.clone();
    ftruncate(&file, 0).unwrap();
    assert!(!guestmem::is_any_memory_lost());
    assert!(memory.write(START, &[1]).is_err());
    drop(memory);
    assert!(guestmem::is_any_memory_lost());
    drop(other);
    assert!(!guestmem::is_any_memory_lost());
}

#[test]
fn a_signal_that_was_sent_goes_where_it_went_before() {
    assert_eq!(alone("is_sent_the_signal").signal(), Some(libc::SIGBUS));
}

#[test]
#[ignore = "dies; a_signal_that_was_sent_goes_where_it_went_before runs it"]
fn is_sent_the_signal() {
    let _world = world();
    // The handler of Rust's runtime takes the first for a fault, and leaves the rest to the default. To this thread: one sent
    // to the process may wait in another thread, where the second joins it or comes after the end.
    for _ in 0..2 {
        // SAFETY: sends this thread a signal.
        assert_eq!(unsafe { libc::raise(libc::SIGBUS) }, 0);
    }
}

/// `BUS_MCEERR_AO` says that a page of the process went bad which nobody uses yet (vm.memory_failure_early_kill,
/// PR_MCE_KILL_EARLY).
#[test]
fn an_advice_about_bad_memory_leaves_the_protection_in_place() {
    assert!(alone("is_advised_of_bad_memory").success());
}

#[test]
#[ignore = "sends its process a signal; an_advice_about_bad_memory_leaves_the_protection_in_place runs it"]
fn is_advised_of_bad_memory() {
    let (memory, file) = world();
    // SAFETY: a structure of numbers.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    info.si_signo = libc::SIGBUS;
    info.si_code = libc::BUS_MCEERR_AO;
    let process = rustix::process::getpid().as_raw_nonzero().get();
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    // SAFETY: sends this thread a signal, as the kernel would.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_rt_tgsigqueueinfo,
            process,
            thread,
            libc::SIGBUS,
            &raw const info,
        )
    };
    assert_eq!(sent, 0);
    ftruncate(&file, 0).unwrap();
    assert!(memory.write(START, &[1]).is_err());
}
