//! Listing directories.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs;

use fuse::fs::{DirectorySink, Entry, Errno, FileSystem, Handle, NodeId};
use fuse::passthrough::Options;

use crate::share::{IDENTITIES, Listed, Listing, ROOT, Share, by, refused, share};

/// Reads on from `offset` with room for `room` entries at a time.
fn list(share: &Share, handle: Handle, mut offset: u64, room: usize, plus: bool) -> Vec<Listed> {
    let mut all = Vec::new();
    loop {
        let mut listing = Listing::with_room(room);
        share
            .fs
            .readdir(&ROOT, NodeId::ROOT, handle, offset, plus, &mut listing)
            .unwrap();
        let Some(last) = listing.entries.last() else { return all };
        offset = last.offset;
        all.extend(listing.entries);
    }
}

fn fill(share: &Share, count: usize) -> BTreeSet<CString> {
    let mut names: BTreeSet<_> = [c".".to_owned(), c"..".to_owned()].into();
    for number in 0..count {
        fs::write(share.host(&format!("entry-{number}")), "").unwrap();
        names.insert(CString::new(format!("entry-{number}")).unwrap());
    }
    names
}

fn opened(share: &Share) -> Handle {
    share.fs.opendir(&ROOT, NodeId::ROOT, 0).unwrap().handle
}

#[test]
fn ten_thousand_entries_come_once_each_and_from_anywhere() {
    let share = share(Options::default());
    let names = fill(&share, 10_000);
    let handle = opened(&share);
    let all = list(&share, handle, 0, 97, false);
    assert_eq!(all.len(), names.len());
    assert_eq!(
        all.iter().map(|entry| entry.name.clone()).collect::<BTreeSet<_>>(),
        names
    );
    // seekdir(3) to any offset met before, in any order.
    for at in [9_990, 5_000, 0, 7_777, 1] {
        let rest = list(&share, handle, all[at].offset, 1_000, false);
        assert_eq!(rest, all[at + 1..], "from entry {at}");
    }
    assert_eq!(list(&share, handle, 0, 97, false), all, "and from the start again");
}

#[test]
fn two_readers_of_one_handle_do_not_confuse_it() {
    let share = share(Options::default());
    fill(&share, 2_000);
    let handle = opened(&share);
    let all = list(&share, handle, 0, 50, false);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut offsets = (0, all[999].offset);
    for _ in 0..10 {
        for (offset, read) in [(&mut offsets.0, &mut first), (&mut offsets.1, &mut second)] {
            let mut listing = Listing::with_room(10);
            share
                .fs
                .readdir(&ROOT, NodeId::ROOT, handle, *offset, false, &mut listing)
                .unwrap();
            *offset = listing.entries.last().unwrap().offset;
            read.extend(listing.entries);
        }
    }
    assert_eq!(first, all[..100]);
    assert_eq!(second, all[1000..1100]);
}

#[test]
fn rewinding_shows_what_is_new() {
    let share = share(Options::default());
    fill(&share, 10);
    let handle = opened(&share);
    assert_eq!(list(&share, handle, 0, 4, false).len(), 12);
    fs::write(share.host("new"), "").unwrap();
    fs::remove_file(share.host("entry-3")).unwrap();
    let mut listing = Listing::with_room(99);
    share
        .fs
        .readdir(&ROOT, NodeId::ROOT, handle, 0, false, &mut listing)
        .unwrap();
    assert!(listing.names().contains(&c"new".to_owned()));
    assert!(!listing.names().contains(&c"entry-3".to_owned()));
}

#[test]
fn only_entries_that_fit_are_looked_up() {
    for identity in IDENTITIES {
        let share = share(by(identity));
        fill(&share, 30);
        let handle = opened(&share);
        let all = list(&share, handle, 0, 7, true);
        assert_eq!(all.len(), 32);
        for entry in all {
            let dots = entry.name.as_c_str() == c"." || entry.name.as_c_str() == c"..";
            assert_eq!(entry.node.is_none(), dots);
            let Some(node) = entry.node else { continue };
            share.alive(node).unwrap();
            share.fs.forget(node, 1);
            assert_eq!(refused(share.alive(node)), Errno::ESTALE, "counted exactly once");
        }
    }
}

/// Says that an entry fits, and refuses it then.
struct Fickle(Vec<NodeId>);

impl DirectorySink for Fickle {
    fn add(&mut self, _: &CStr, _: u64, _: u32, _: u64) -> bool {
        true
    }
    fn fits(&self, _: &CStr) -> bool {
        true
    }
    fn add_plus(&mut self, _: &CStr, _: u64, _: u32, _: u64, entry: Option<&Entry>) -> bool {
        self.0.extend(entry.map(|entry| entry.node));
        entry.is_none()
    }
}

#[test]
fn a_lookup_that_does_not_reach_the_guest_is_taken_back() {
    let share = share(Options::default());
    fill(&share, 3);
    let handle = opened(&share);
    let mut sink = Fickle(Vec::new());
    // Some file systems list `.` and `..` later than the entry, and then there is nothing before the refusal.
    let _ = share.fs.readdir(&ROOT, NodeId::ROOT, handle, 0, true, &mut sink);
    assert_eq!(sink.0.len(), 1);
    assert_eq!(refused(share.alive(sink.0[0])), Errno::ESTALE);
}

#[test]
fn an_entry_removed_while_listing_is_left_out() {
    let share = share(Options::default());
    fill(&share, 10);
    let handle = opened(&share);
    let mut listing = Listing::with_room(2);
    share
        .fs
        .readdir(&ROOT, NodeId::ROOT, handle, 0, true, &mut listing)
        .unwrap();
    for number in 0..10 {
        fs::remove_file(share.host(&format!("entry-{number}"))).unwrap();
    }
    let dots = |entry: &&Listed| entry.node.is_none();
    let before = listing.entries.iter().filter(dots).count();
    let rest = list(&share, handle, listing.entries[1].offset, 99, true);
    assert_eq!(rest.iter().filter(dots).count() + before, 2);
    assert_eq!(rest.iter().filter(|entry| entry.node.is_some()).count(), 0);
}

#[test]
fn no_room_for_the_first_entry_is_an_error_and_not_the_end() {
    let share = share(Options::default());
    let handle = opened(&share);
    for plus in [false, true] {
        let listed = share
            .fs
            .readdir(&ROOT, NodeId::ROOT, handle, 0, plus, &mut Listing::with_room(0));
        assert_eq!(refused(listed), Errno::EINVAL);
    }
}

#[test]
fn an_offset_the_host_never_gave_harms_nobody() {
    let share = share(Options::default());
    fill(&share, 10);
    let handle = opened(&share);
    for offset in [u64::MAX, 1 << 63] {
        for _ in 0..2 {
            let mut listing = Listing::with_room(99);
            let listed = share
                .fs
                .readdir(&ROOT, NodeId::ROOT, handle, offset, false, &mut listing);
            assert_eq!(
                (refused(listed), listing.names()),
                (Errno::EINVAL, vec![]),
                "every time"
            );
        }
    }
    // An error or some entries, as the host's file system likes.
    let _ = share
        .fs
        .readdir(&ROOT, NodeId::ROOT, handle, 12345, false, &mut Listing::with_room(99));
    assert_eq!(list(&share, handle, 0, 5, false).len(), 12);
    share.fs.fsyncdir(NodeId::ROOT, handle, false).unwrap();
    share.fs.releasedir(NodeId::ROOT, handle).unwrap();
    assert_eq!(refused(share.fs.releasedir(NodeId::ROOT, handle)), Errno::EBADF);
}

/// More than is kept for directories between requests, all in the middle of their entries.
#[test]
fn directories_that_are_read_a_little_at_a_time_cost_little_memory() {
    let share = share(Options::default());
    fill(&share, 2_000);
    let whole = list(&share, opened(&share), 0, 1_000, false);
    let before = resident();
    let handles: Vec<_> = (0..1_500).map(|_| opened(&share)).collect();
    let mut offsets = vec![0; handles.len()];
    for round in 0..3 {
        for (&handle, offset) in handles.iter().zip(&mut offsets) {
            let mut listing = Listing::with_room(10);
            share
                .fs
                .readdir(&ROOT, NodeId::ROOT, handle, *offset, false, &mut listing)
                .unwrap();
            assert_eq!(listing.entries, whole[round * 10..][..10]);
            *offset = listing.entries[9].offset;
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes, and 48 MiB were read ahead");
    for handle in handles {
        share.fs.releasedir(NodeId::ROOT, handle).unwrap();
    }
}

/// Bytes of memory that this process has.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}
