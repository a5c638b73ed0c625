//! What a device does with its files goes on in every sandbox.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;

use confinement::{Access, Declaration, Entered, Kind, Maps, Sandbox, Shared, capabilities, sandbox};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::child::{End, Talk, User, alone, fork};
use crate::declared::{KEPT, fileless, share};
use crate::modes::unavailable;
use crate::world::{Handle, World};

const MODES: [(User, Sandbox, Kind); 8] = [
    (User::Root, Sandbox::None, Kind::None),
    (User::Root, Sandbox::Namespace, Kind::Namespace),
    (User::Root, Sandbox::Chroot, Kind::Chroot),
    (User::Root, Sandbox::Landlock, Kind::Landlock),
    (User::Ordinary, Sandbox::None, Kind::None),
    (User::Ordinary, Sandbox::Namespace, Kind::UserNamespace),
    (User::Granted, Sandbox::Namespace, Kind::UserNamespace),
    (User::Ordinary, Sandbox::Landlock, Kind::Landlock),
];

/// Runs `body` in a process of each mode that is to be had here.
fn in_each_mode(declare: fn(&World) -> Declaration, body: fn(&World, &Entered, &mut Talk)) {
    for (user, wanted, kind) in MODES {
        if unavailable(user, kind).is_some() {
            continue;
        }
        let world = World::new(user);
        let child = fork(user, |talk| {
            let entered = sandbox::enter(wanted, &declare(&world), &Maps::default()).unwrap();
            assert_eq!(entered.kind, kind);
            capabilities::keep(KEPT & entered.capabilities).unwrap();
            body(&world, &entered, talk);
        });
        let end = child.end();
        world.end();
        assert_eq!(end, (End::Exit(0), String::new()), "{user:?} in {kind}");
    }
}

fn shares(world: &World) -> Declaration {
    share(&world.share)
}

#[test]
fn files_are_made_changed_moved_and_removed() {
    alone("files::uses_its_files");
}

#[test]
#[ignore = "files_are_made_changed_moved_and_removed runs it"]
fn uses_its_files() {
    in_each_mode(shares, |_, entered, _| {
        let root = entered.shared.as_ref().unwrap();
        assert_eq!(fs::read(root.join("file")).unwrap(), b"shared");
        fs::create_dir(root.join("new")).unwrap();
        fs::write(root.join("new/file"), "content").unwrap();
        fs::rename(root.join("new/file"), root.join("sub/moved")).unwrap();
        fs::hard_link(root.join("sub/moved"), root.join("new/other")).unwrap();
        let file = File::options().write(true).open(root.join("new/other")).unwrap();
        file.set_len(3).unwrap();
        assert_eq!(fs::read(root.join("sub/moved")).unwrap(), b"con");
        let names = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<OsString> = names.collect();
        names.sort();
        assert_eq!(names, ["file", "link", "new", "null", "sub"]);
        fs::remove_dir_all(root.join("new")).unwrap();
    });
}

#[test]
fn descriptors_are_opened_anew_by_proc() {
    alone("files::opens_anew");
}

#[test]
#[ignore = "descriptors_are_opened_anew_by_proc runs it"]
fn opens_anew() {
    in_each_mode(shares, |_, entered, _| {
        let root = entered.shared.as_ref().unwrap();
        let place = open(root.join("file"), OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).unwrap();
        let name = place.as_raw_fd().to_string();
        let file = openat(&entered.proc_self_fd, &name, OFlags::RDWR, Mode::empty()).unwrap();
        let mut file = File::from(file);
        file.write_all(b"S").unwrap();
        let mut rest = String::new();
        file.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "hared");
        // As the working directory of a thread, by which calls that know paths alone find a descriptor.
        rustix::process::fchdir(&entered.proc_self_fd).unwrap();
        assert_eq!(fs::metadata(&name).unwrap().ino(), file.metadata().unwrap().ino());
    });
}

#[test]
fn handles_open_files_where_the_sandbox_says_so() {
    alone("files::opens_handles");
}

#[test]
#[ignore = "handles_open_files_where_the_sandbox_says_so runs it"]
fn opens_handles() {
    in_each_mode(shares, |_, entered, _| {
        assert_eq!(
            entered.opens_handles,
            !matches!(entered.kind, Kind::Landlock | Kind::Chroot)
        );
        let root = entered.shared.as_ref().unwrap();
        let handle = Handle::of(&root.join("file")).unwrap();
        let mount = open(root, OFlags::RDONLY, Mode::empty()).unwrap();
        match handle.open(mount.as_fd()) {
            Ok(place) => {
                let name = place.as_raw_fd().to_string();
                openat(&entered.proc_self_fd, name, OFlags::RDWR, Mode::empty()).unwrap();
            }
            Err(_) => {
                let powers = rustix::thread::capabilities(None).unwrap().effective;
                assert!(!powers.contains(CapabilitySet::DAC_READ_SEARCH));
            }
        }
    });
}

#[test]
fn what_is_read_only_cannot_be_changed() {
    alone("files::reads");
}

#[test]
#[ignore = "what_is_read_only_cannot_be_changed runs it"]
fn reads() {
    let declare = |world: &World| Declaration {
        shared: Some(Shared {
            directory: world.share.clone(),
            access: Access::Read,
            why: "it is read",
        }),
        ..share(&world.share)
    };
    in_each_mode(declare, |_, entered, _| {
        let file = entered.shared.as_ref().unwrap().join("file");
        assert_eq!(fs::read(&file).unwrap(), b"shared");
        let written = open(file, OFlags::WRONLY, Mode::empty());
        match entered.kind {
            Kind::Namespace | Kind::UserNamespace => assert_eq!(written.unwrap_err(), Errno::ROFS),
            Kind::Chroot | Kind::Landlock => assert_eq!(written.unwrap_err(), Errno::ACCESS),
            Kind::None => drop(written.unwrap()),
        }
    });
}

#[test]
fn a_device_without_files_has_an_empty_root() {
    alone("files::has_an_empty_root");
}

#[test]
#[ignore = "a_device_without_files_has_an_empty_root runs it"]
fn has_an_empty_root() {
    in_each_mode(
        |_| fileless(),
        |world, entered, _| {
            assert_eq!(entered.shared, None);
            match entered.kind {
                Kind::Namespace | Kind::UserNamespace => {
                    assert_eq!(fs::read_dir("/").unwrap().count(), 0);
                    assert!(fs::write("/new", "").is_err());
                }
                Kind::Chroot => {
                    assert!(fs::metadata("/etc").is_err());
                    assert!(fs::write("/new", "").is_err());
                }
                Kind::Landlock => assert!(File::open(&world.secret).is_err()),
                Kind::None => {}
            }
        },
    );
}
