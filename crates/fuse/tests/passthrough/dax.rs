//! Which files of the share the guest may map, and how.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use fuse::fs::{Errno, FileSystem, NodeId};
use fuse::passthrough::{DaxFiles, Options, Passthrough};
use fuse::wire::ATTR_DAX;
use rustix::fs::SeekFrom;

use crate::share::{ROOT, Share, USER, create, is_root, name, refused, share};

fn with(dax_files: DaxFiles) -> Share {
    share(Options {
        dax_files: Some(dax_files),
        ..Options::default()
    })
}

fn is_mapped(share: &Share, entry: &std::ffi::CStr) -> bool {
    share.lookup(NodeId::ROOT, entry).unwrap().attr.flags & ATTR_DAX != 0
}

#[test]
fn policies_choose_by_length_and_by_name() {
    let named = || DaxFiles::Named(glob::Pattern::new("*.im[ag]").unwrap());
    let range = 2 << 20;
    for (policy, chosen) in [
        (DaxFiles::Always, [true, true, true, true]),
        (DaxFiles::Never, [false; 4]),
        (DaxFiles::Fitting, [false, false, true, false]),
        (DaxFiles::AtLeast(range), [false, false, true, true]),
        (named(), [false, true, false, true]),
    ] {
        let share = with(policy.clone());
        let entries = [(c"a", 0), (c"b.ima", 1), (c"c", range), (c"d.img", range + 1)];
        for ((entry, length), chosen) in entries.into_iter().zip(chosen) {
            let file = fs::File::create(share.host(entry.to_str().unwrap())).unwrap();
            file.set_len(length).unwrap();
            assert_eq!(is_mapped(&share, entry), chosen, "{policy:?} {entry:?}");
        }
        fs::create_dir(share.host("e.img")).unwrap();
        assert!(!is_mapped(&share, c"e.img"), "only files are mapped");
    }
}

#[test]
fn programs_are_mapped_if_all_files_are_or_by_name() {
    let named = DaxFiles::Named(glob::Pattern::new("prog*").unwrap());
    for (policy, chosen) in [(DaxFiles::Always, true), (named, true), (DaxFiles::AtLeast(0), false)] {
        let share = with(policy.clone());
        fs::write(share.host("program"), "text").unwrap();
        fs::set_permissions(share.host("program"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(is_mapped(&share, c"program"), chosen, "{policy:?}");
    }
}

#[test]
fn the_name_counts_by_which_a_file_was_made_or_first_met() {
    let share = with(DaxFiles::Named(glob::Pattern::new("*.img").unwrap()));
    let new = create(libc::S_IFREG | 0o600, libc::O_RDWR);
    let (entry, _) = share
        .fs
        .create(&USER, NodeId::ROOT, name(c"new.img"), &new, false)
        .unwrap();
    assert_ne!(entry.attr.flags & ATTR_DAX, 0);
    fs::rename(share.host("new.img"), share.host("new")).unwrap();
    assert!(is_mapped(&share, c"new"), "the guest knows it");
    share.fs.forget(entry.node, 2);
    assert!(!is_mapped(&share, c"new"), "it was forgotten");
}

#[test]
fn files_are_opened_for_writing_where_that_may_be() {
    let share = with(DaxFiles::Always);
    fs::write(share.host("data"), "text").unwrap();
    fs::write(share.host("program"), "text").unwrap();
    fs::set_permissions(share.host("program"), fs::Permissions::from_mode(0o755)).unwrap();
    let (data, program) = (share.node(c"data"), share.node(c"program"));
    let writable = |node, write| share.fs.open_for_mapping(node, write).unwrap().writable;
    assert!(writable(data, false));
    assert!(!writable(program, false), "the host could not run it");
    assert!(writable(program, true));
    let options = Options {
        readonly: true,
        dax_files: Some(DaxFiles::Always),
        ..Options::default()
    };
    let readonly = self::share(options);
    fs::write(readonly.host("data"), "text").unwrap();
    let data = readonly.node(c"data");
    assert!(!is_mapped(&readonly, c"data"), "QEMU maps for writing alone");
    assert!(!readonly.fs.open_for_mapping(data, false).unwrap().writable);
    assert_eq!(refused(readonly.fs.open_for_mapping(data, true)), Errno::EROFS);
}

/// mmap(2): ENODEV where a file system has no mappings, and for what is no regular file.
#[test]
fn what_cannot_be_mapped_is_refused_as_mmap_would() {
    let share = with(DaxFiles::Always);
    fs::create_dir(share.host("directory")).unwrap();
    let directory = share.node(c"directory");
    assert_eq!(refused(share.fs.open_for_mapping(directory, false)), Errno::ENODEV);
    for views in [false, true] {
        let options = Options {
            views,
            ..Options::default()
        };
        let proc = Passthrough::new("/proc/self".as_ref(), options).unwrap();
        let status = proc.lookup(&ROOT, NodeId::ROOT, name(c"status")).unwrap();
        // A file of procfs that may be mapped as far as its mode goes.
        assert_eq!(refused(proc.open_for_mapping(status.node, false)), Errno::ENODEV);
    }
}

#[test]
fn with_views_files_of_any_length_look_long_enough_to_map() {
    if !is_root() {
        return;
    }
    let share = share(Options {
        views: true,
        ..Options::default()
    });
    fs::write(share.host("a"), "text").unwrap();
    fs::write(share.host("b"), "").unwrap();
    let view = |entry, write| share.fs.open_for_mapping(share.node(entry), write).unwrap().file;
    let (a, b) = (view(c"a", false), view(c"b", false));
    let identity = |file: &std::os::fd::OwnedFd| {
        let metadata = fs::File::from(file.try_clone().unwrap()).metadata().unwrap();
        (metadata.dev(), metadata.ino())
    };
    if identity(&a)
        == (
            fs::metadata(share.host("a")).unwrap().dev(),
            fs::metadata(share.host("a")).unwrap().ino(),
        )
    {
        eprintln!("skipped: no views here, as the warning says");
        return;
    }
    assert_ne!(identity(&a), identity(&b));
    assert_eq!(
        identity(&a),
        identity(&view(c"a", true)),
        "all mappings of a file share one view"
    );
    for file in [&a, &b] {
        assert!(rustix::fs::seek(file, SeekFrom::End(0)).unwrap() > 1 << 62);
    }
    let large = fs::File::create(share.host("large")).unwrap();
    large.set_len((2 << 20) + 1).unwrap();
    assert!(is_mapped(&share, c"large"), "with views length does not matter");
    assert!(!is_mapped(&share, c"a"), "small files are not worth it");
}
