//! A file with a page that can be neither read nor written, behind one that can.
//!
//! It is the memory of this process in procfs, at a mapping whose file was truncated: no disk has to fail for it.

use std::fs::{self, File};

use fuse::fs::NodeId;
use fuse::passthrough::Options;
use guestmem::{Memory, RegionConfig};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::share::{Share, share_of};

pub(crate) const PAGE: u32 = 4096;

pub(crate) struct Broken {
    pub(crate) share: Share,
    pub(crate) node: NodeId,
    /// Where the page lies that the broken one follows.
    pub(crate) good: u64,
    _mapping: Memory,
}

impl Broken {
    pub(crate) fn new() -> Broken {
        const NAME: &str = "cut-in-half";
        let size = 2 * u64::from(PAGE);
        let file = File::from(memfd_create(NAME, MemfdFlags::CLOEXEC).unwrap());
        file.set_len(size).unwrap();
        let region = RegionConfig {
            guest_address: 0,
            size,
            user_address: 0,
            file: file.try_clone().unwrap().into(),
            file_offset: 0,
        };
        let mapping = Memory::map(vec![region]).unwrap();
        file.set_len(u64::from(PAGE)).unwrap();

        let share = share_of(format!("/proc/{}", std::process::id()).as_ref(), Options::default());
        Broken {
            node: share.node(c"mem"),
            share,
            good: address_of(NAME),
            _mapping: mapping,
        }
    }
}

/// Where a file of that name is mapped.
fn address_of(name: &str) -> u64 {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.contains(name)).unwrap();
    let (start, _) = line.split_once('-').unwrap();
    u64::from_str_radix(start, 16).unwrap()
}
