//! The nodes that a guest may know at a time.

use std::ffi::{CStr, CString};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use fuse::fs::{Errno, FileSystem, NodeId, Result};
use fuse::passthrough::{InodeHandles, Options};

use crate::share::{IDENTITIES, Listing, ROOT, Share, create, name, share};

const LIMIT: u64 = 20;

/// A share with this many files, `f0` and so on, of which the guest may know [`LIMIT`].
fn limited(files: u64, inode_file_handles: InodeHandles) -> Share {
    let share = share(Options {
        inode_file_handles,
        max_nodes: LIMIT,
        ..Options::default()
    });
    for number in 0..files {
        fs::write(share.host(&format!("f{number}")), "").unwrap();
    }
    share
}

fn file(number: u64) -> CString {
    CString::new(format!("f{number}")).unwrap()
}

/// A request that creates `new`, or a file without a name.
type Make = fn(&Share) -> Result<()>;

/// All requests that make a node.
const MAKES: [(&str, Make); 5] = [
    ("CREATE", |Share { fs, .. }| {
        let file = create(0o600, libc::O_RDWR);
        fs.create(&ROOT, NodeId::ROOT, name(c"new"), &file, false).map(drop)
    }),
    ("MKNOD", |Share { fs, .. }| {
        fs.mknod(&ROOT, NodeId::ROOT, name(c"new"), &create(0o600, 0)).map(drop)
    }),
    ("MKDIR", |Share { fs, .. }| {
        fs.mkdir(&ROOT, NodeId::ROOT, name(c"new"), &create(0o700, 0)).map(drop)
    }),
    ("SYMLINK", |Share { fs, .. }| {
        fs.symlink(&ROOT, NodeId::ROOT, name(c"new"), c"to").map(drop)
    }),
    ("TMPFILE", |Share { fs, .. }| {
        fs.tmpfile(&ROOT, NodeId::ROOT, &create(0o600, libc::O_RDWR)).map(drop)
    }),
];

/// Looks up as many files as the guest may know.
fn fill(share: &Share) -> Vec<NodeId> {
    (0..LIMIT).map(|number| share.node(&file(number))).collect()
}

fn assert_full(share: &Share) {
    let one_more = share.lookup(NodeId::ROOT, &file(LIMIT)).err();
    assert_eq!(one_more, Some(Errno::ENFILE));
}

fn names(share: &Share) -> usize {
    fs::read_dir(share.host("")).unwrap().count()
}

#[test]
fn a_guest_that_only_looks_up_gets_its_nodes_and_no_more() {
    for identity in IDENTITIES {
        let share = limited(3 * LIMIT, identity);
        let nodes = fill(&share);
        for number in LIMIT..3 * LIMIT {
            assert_eq!(share.lookup(NodeId::ROOT, &file(number)).err(), Some(Errno::ENFILE));
        }
        for (&node, number) in nodes.iter().zip(0..) {
            share.alive(node).unwrap();
            assert_eq!(share.node(&file(number)), node, "what is known is found");
            share.open(node, libc::O_RDWR).unwrap();
        }
        assert_eq!(share.lookup(NodeId::ROOT, c"absent").err(), Some(Errno::ENOENT));
    }
}

#[test]
fn the_last_forget_of_a_node_makes_room_for_another() {
    for identity in IDENTITIES {
        let share = limited(LIMIT + 1, identity);
        let nodes = fill(&share);
        share.node(&file(0));
        share.fs.forget(nodes[0], 1);
        assert_full(&share);
        share.fs.forget(nodes[0], 1);
        // Once only, however often it is forgotten.
        share.fs.forget(nodes[0], 1);
        share.node(&file(LIMIT));
        assert_eq!(share.lookup(NodeId::ROOT, &file(0)).err(), Some(Errno::ENFILE));
        share.fs.destroy();
        fill(&share);
        assert_full(&share);
    }
}

#[test]
fn nothing_is_made_that_the_guest_could_not_be_given() {
    for identity in IDENTITIES {
        let share = limited(LIMIT + 1, identity);
        fill(&share);
        let before = names(&share);
        for (request, make) in MAKES {
            assert_eq!(make(&share), Err(Errno::ENFILE), "{request}");
            assert_eq!(names(&share), before, "{request}");
        }
    }
}

#[test]
fn what_is_made_takes_the_last_room_and_no_attempt_has_kept_it() {
    for identity in IDENTITIES {
        for (request, make) in MAKES {
            let share = limited(LIMIT + 1, identity);
            let nodes = fill(&share);
            make(&share).unwrap_err();
            share.fs.forget(nodes[0], 1);
            assert_eq!(make(&share), Ok(()), "{request}");
            assert_full(&share);
        }
    }
}

#[test]
fn what_takes_no_node_goes_on_at_the_limit() {
    for identity in IDENTITIES {
        let share = limited(LIMIT + 1, identity);
        let nodes = fill(&share);
        let [link, renamed] = [name(c"link"), name(c"renamed")];
        share.fs.link(&ROOT, nodes[0], NodeId::ROOT, link).unwrap();
        share
            .fs
            .rename(&ROOT, (NodeId::ROOT, link), (NodeId::ROOT, renamed), 0)
            .unwrap();
        share.fs.unlink(&ROOT, NodeId::ROOT, renamed).unwrap();
        assert_full(&share);
    }
}

#[test]
fn requests_that_fail_keep_no_room() {
    for identity in IDENTITIES {
        let share = limited(LIMIT + 1, identity);
        for _ in 0..2 * LIMIT {
            let made = share.fs.mkdir(&ROOT, NodeId::ROOT, name(c"f0"), &create(0o700, 0));
            assert_eq!(made.err(), Some(Errno::EEXIST));
            assert_eq!(share.lookup(NodeId::ROOT, c"absent").err(), Some(Errno::ENOENT));
        }
        fill(&share);
        assert_full(&share);
    }
}

#[test]
fn a_listing_beyond_the_limit_has_all_names() {
    for identity in IDENTITIES {
        let share = limited(3 * LIMIT, identity);
        let handle = share.fs.opendir(&ROOT, NodeId::ROOT, 0).unwrap().handle;
        let mut listing = Listing::with_room(usize::MAX);
        share
            .fs
            .readdir(&ROOT, NodeId::ROOT, handle, 0, true, &mut listing)
            .unwrap();
        assert_eq!(listing.entries.len() as u64, 3 * LIMIT + 2, "with . and ..");
        let nodes: Vec<_> = listing.entries.iter().filter_map(|entry| entry.node).collect();
        assert_eq!(nodes.len() as u64, LIMIT);
        nodes.iter().for_each(|node| share.alive(*node).unwrap());
    }
}

/// Lanes that compete for the last rooms leave no file behind that was not answered.
#[test]
fn of_creates_at_the_same_time_those_that_are_answered_leave_a_file() {
    for identity in IDENTITIES {
        let share = limited(0, identity);
        let answered = AtomicUsize::new(0);
        let make = |name: &CStr| {
            let made = share
                .fs
                .mknod(&ROOT, NodeId::ROOT, crate::share::name(name), &create(0o600, 0));
            match made {
                Ok(_) => answered.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    assert_eq!(error, Errno::ENFILE);
                    0
                }
            };
        };
        thread::scope(|scope| {
            for lane in 0..4 {
                scope.spawn(move || (0..LIMIT).for_each(|turn| make(&CString::new(format!("{lane}-{turn}")).unwrap())));
            }
        });
        assert_eq!(answered.into_inner() as u64, LIMIT);
        assert_eq!(names(&share) as u64, LIMIT);
    }
}
