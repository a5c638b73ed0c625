use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use driver::fs::{ROOT, Requests, field_u32, field_u64};
use rustix::thread::CapabilitySet;
use tempfile::TempDir;

use crate::assert_refused;
use crate::confined::assert_confined;
use crate::session::{Daemon, Session};

/// The ids of an ordinary user.
pub(crate) const USER: u32 = 1234;
/// The first of the subordinate ids, and their number.
const GRANTED: (u32, u32) = (100_000, 65536);
/// What is kept in a user namespace with several users.
const WITHIN_MAPS: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP);

/// A directory of [`USER`], with `data` to share and a copy of the program, since whoever builds may keep others out of the original's
/// directory. `None`: the tests cannot become that user here.
pub(crate) fn home() -> Option<TempDir> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become another user");
        return None;
    }
    let home = TempDir::new().unwrap();
    let data = home.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_innkeeper"), home.path().join("innkeeper")).unwrap();
    for path in [home.path(), &data] {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    Some(home)
}

/// A share of `data` by the user of `home`, on a host that has this user and grants them `granted`, a line of subuid(5) and of
/// subgid(5), or nothing.
fn share(home: &Path, granted: &str, options: &[&str]) -> Command {
    share_with(home, granted, "", options)
}

/// The same with further options of setpriv(1).
fn share_with(home: &Path, granted: &str, privileges: &str, options: &[&str]) -> Command {
    let passwd = fs::read_to_string("/etc/passwd").unwrap() + &format!("keeper:x:{USER}:{USER}::/:/bin/sh\n");
    for (name, content) in [("passwd", &*passwd), ("subuid", granted), ("subgid", granted)] {
        let path = home.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let script = format!(
        "set -e; for name in passwd subuid subgid; do [ ! -e /etc/$name ] || mount --bind $name /etc/$name; done
         exec setpriv --reuid {USER} --regid {USER} --clear-groups {privileges} ./innkeeper \"$@\""
    );
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"])
        .args(["share", "data", "--socket-path", "socket", "--log-level", "debug"])
        .args(options)
        .current_dir(home)
        .stderr(Stdio::piped());
    command
}

fn granted() -> String {
    format!("keeper:{}:{}\n", GRANTED.0, GRANTED.1)
}

/// Whether the host has the tables that a test can put its own in place of.
fn has_tables() -> bool {
    let has = ["/etc/subuid", "/etc/subgid"]
        .iter()
        .all(|path| Path::new(path).exists());
    if !has {
        eprintln!("SKIPPED: needs the files /etc/subuid and /etc/subgid, which may be empty");
    }
    has
}

fn has_newuidmap() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = |program| std::env::split_paths(&path).any(|directory| directory.join(program).exists());
    let has = in_path("newuidmap") && in_path("newgidmap");
    if !has {
        eprintln!("SKIPPED: needs newuidmap and newgidmap (Debian package uidmap)");
    }
    has
}

/// Owner and group of a file on the host.
fn owners(daemon: &Path, name: &str) -> (u32, u32) {
    let metadata = fs::metadata(daemon.join("data").join(name)).unwrap();
    (metadata.uid(), metadata.gid())
}

#[test]
fn subordinate_ids_are_the_other_users_of_the_guest() {
    let Some(home) = home().filter(|_| has_tables() && has_newuidmap()) else {
        return;
    };
    let daemon = Daemon::run(&mut share(home.path(), &granted(), &["--log-errors"]), home);
    let (process, home) = (daemon.child.id(), daemon.directory.path().to_path_buf());
    let mut session = Session::of(daemon, Requests::new(0, 0));

    let made = session
        .ask(|requests| requests.create(ROOT, b"of-root", 2, 0o644))
        .unwrap();
    assert_eq!(owners(&home, "of-root"), (USER, USER), "the guest's root is the user");
    session
        .ask(|requests| requests.chown(field_u64(&made, 0), 33, 34))
        .unwrap();
    let first = GRANTED.0 - 1;
    assert_eq!(
        owners(&home, "of-root"),
        (first + 33, first + 34),
        "the guest's root gives files away"
    );
    let found = session.ask(|requests| requests.lookup(ROOT, b"of-root")).unwrap();
    assert_eq!((field_u32(&found, 108), field_u32(&found, 112)), (33, 34));

    let made = session.ask(|requests| {
        (requests.uid, requests.gid) = (1000, 1001);
        requests.create(ROOT, b"of-user", 2, 0o644)
    });
    let made = made.unwrap();
    assert_eq!(owners(&home, "of-user"), (first + 1000, first + 1001));
    let (node, handle) = (field_u64(&made, 0), field_u64(&made, 128));
    session
        .ask(|requests| requests.write(node, handle, 0, b"user"))
        .unwrap();

    // The last id that is mapped is 65536.
    let beyond = 70000;
    assert_eq!(
        session.ask(|requests| requests.chown(node, beyond, 0)),
        Err(libc::EINVAL)
    );
    let refused = session.ask(|requests| {
        requests.uid = beyond;
        requests.create(ROOT, b"beyond", 2, 0o644)
    });
    assert_eq!(refused, Err(libc::EOVERFLOW));
    assert!(!home.join("data/beyond").exists());
    session
        .ask(|requests| requests.write(node, handle, 4, b" file"))
        .expect("who was let open a file writes to it");
    assert_eq!(fs::read(home.join("data/of-user")).unwrap(), b"user file");

    assert_confined(process, WITHIN_MAPS, true);
    let (said, _home) = session.end();
    assert!(
        said.contains("the guest has users 0-65536 and groups 0-65536"),
        "{said}"
    );
    assert_eq!(said.matches("(--uid-map, --gid-map)").count(), 2, "{said}");
}

#[test]
fn a_map_of_ones_own_takes_the_place_of_the_default() {
    let Some(home) = home().filter(|_| has_tables() && has_newuidmap()) else {
        return;
    };
    let ids = [
        format!("--uid-map=:1000:{USER}:1:"),
        format!("--uid-map=/0/{}/1000/", GRANTED.0),
        format!("--gid-map=:1000:{USER}:1:"),
        format!("--gid-map=:0:{}:1000:", GRANTED.0),
    ];
    let options: Vec<_> = ids.iter().map(String::as_str).collect();
    let daemon = Daemon::run(&mut share(home.path(), &granted(), &options), home);
    let home = daemon.directory.path().to_path_buf();
    let mut session = Session::of(daemon, Requests::new(1000, 1000));
    session.ask(|requests| requests.create(ROOT, b"own", 2, 0o644)).unwrap();
    assert_eq!(owners(&home, "own"), (USER, USER));
    let made = session.ask(|requests| {
        (requests.uid, requests.gid) = (0, 0);
        requests.create(ROOT, b"of-root", 2, 0o644)
    });
    assert_eq!(owners(&home, "of-root"), (GRANTED.0, GRANTED.0));
    // And it comes back from being root.
    let node = field_u64(&made.unwrap(), 0);
    session.ask(|requests| requests.chown(node, 1000, 1000)).unwrap();
    assert_eq!(owners(&home, "of-root"), (USER, USER));
    session
        .ask(|requests| requests.mkdir(ROOT, b"directory", 0o755))
        .unwrap();
    assert_eq!(owners(&home, "directory"), (GRANTED.0, GRANTED.0));
}

/// Nobody but newuidmap maps other ids, and nobody's leave is needed for one's own.
#[test]
fn all_users_of_the_guest_act_as_the_user_where_nothing_is_granted() {
    let own = format!(":0:{USER}:1:");
    let maps = ["--uid-map", &own, "--gid-map", &own];
    for (shown, options) in [(USER, &[][..]), (0, &maps)] {
        let Some(home) = home() else { return };
        let daemon = Daemon::run(&mut share(home.path(), "", options), home);
        let (process, home) = (daemon.child.id(), daemon.directory.path().to_path_buf());
        let mut session = Session::of(daemon, Requests::new(1000, 1000));
        let made = session
            .ask(|requests| requests.create(ROOT, b"file", 2, 0o644))
            .unwrap();
        assert_eq!(owners(&home, "file"), (USER, USER));
        assert_eq!(field_u32(&made, 108), shown);
        assert_confined(process, CapabilitySet::empty(), true);
        let (said, _home) = session.end();
        assert!(
            said.contains(&format!("all the guest's users act as user {USER} and group {USER}")),
            "{said}"
        );
    }
}

/// As in a container, or under a service manager that sets no-new-privs.
#[test]
fn where_newuidmap_may_do_nothing_the_reason_is_logged() {
    let Some(home) = home().filter(|_| has_tables()) else {
        return;
    };
    let daemon = Daemon::run(&mut share_with(home.path(), &granted(), "--no-new-privs", &[]), home);
    let session = Session::of(daemon, Requests::new(0, 0));
    let (said, _home) = session.end();
    assert!(said.contains("all the guest's users act as user"), "{said}");
    assert!(
        said.contains("not confined by namespaces with subordinate ids: cannot map users"),
        "{said}"
    );
}

#[test]
fn maps_that_cannot_be_had_are_refused_with_what_to_do() {
    let Some(home) = home().filter(|_| has_tables()) else {
        return;
    };
    let own = format!(":0:{USER}:1:");
    let foreign = [&*own, ":1:500000:10:"];
    for (granted, options, parts) in [
        (
            granted(),
            vec!["--uid-map", ":0:100000:5:"],
            vec!["leaves out your own id", "1234"],
        ),
        (
            granted(),
            vec!["--uid-map", &own, "--uid-map", ":0:100000:5:"],
            vec!["two ranges have id 0 of the guest"],
        ),
        (
            String::new(),
            vec!["--uid-map", foreign[0], "--uid-map", foreign[1]],
            vec!["--gid-map", "/etc/subgid"],
        ),
        (
            granted(),
            vec!["--uid-map", foreign[0], "--uid-map", foreign[1]],
            vec!["newuidmap", "/etc/subuid"],
        ),
        (
            granted(),
            vec!["--uid-map", &own, "--sandbox", "landlock"],
            vec!["--sandbox namespace"],
        ),
    ] {
        let output = share(home.path(), &granted, &options).output().unwrap();
        assert!(!home.path().join("socket").exists(), "the socket is gone");
        assert_refused(&output, 1, &parts);
    }
    let root = Command::new(env!("CARGO_BIN_EXE_innkeeper"))
        .args(["share", "data", "--socket-path", "socket", "--uid-map", ":0:0:1:"])
        .current_dir(home.path())
        .output()
        .unwrap();
    assert_refused(&root, 1, &["--uid-map", "ordinary user", "leave them out"]);
}
