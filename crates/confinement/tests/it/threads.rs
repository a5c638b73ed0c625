//! What /proc says of every thread of a confined process.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

use confinement::{Action, Filters, Kind, Maps, Role, Sandbox, capabilities, sandbox};
use rustix::thread::CapabilitySet;

use crate::child::{Child, End, User, alone, fork};
use crate::declared::{KEPT, share};
use crate::modes::unavailable;
use crate::world::World;

/// Confines the process as a daemon does, with threads of several roles, and keeps it so until the parent has looked.
fn daemon(world: &World, user: User, wanted: Sandbox) -> Child {
    fork(user, |talk| {
        let declaration = share(&world.share);
        let start = Instant::now();
        let entered = sandbox::enter(wanted, &declaration, &Maps::default()).unwrap();
        let filters = Filters::new(&declaration, Action::Kill).unwrap();
        capabilities::keep(declaration.capabilities_of(Role::ControlPlane) & entered.capabilities).unwrap();
        filters.narrow(Role::ControlPlane).unwrap();
        let took = start.elapsed();
        let filters = std::sync::Arc::new(filters);
        let (here, arrived) = channel();
        let lane = {
            let (filters, here) = (filters.clone(), here.clone());
            move || {
                filters.narrow(Role::Lane).unwrap();
                let helper = thread::Builder::new().name("helper".into());
                let arrives = here.clone();
                helper.spawn(move || rest(&filters, Role::Helper, &arrives)).unwrap();
                here.send(()).unwrap();
                thread::park();
            }
        };
        thread::Builder::new().name("lane".into()).spawn(lane).unwrap();
        let signals = filters.clone();
        let thread = thread::Builder::new().name("signals".into());
        thread.spawn(move || rest(&signals, Role::Signals, &here)).unwrap();
        (0..3).for_each(|_| arrived.recv().unwrap());
        talk.say(&format!("ready after {took:?}"));
        talk.wait();
    })
}

fn rest(filters: &Filters, role: Role, here: &Sender<()>) {
    filters.narrow(role).unwrap();
    here.send(()).unwrap();
    loop {
        thread::park();
    }
}

/// The fields of a `status` file.
fn status(text: &str) -> BTreeMap<&str, &str> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name, value.trim())).collect()
}

fn looks_confined(user: User, wanted: Sandbox, kind: Kind) {
    if unavailable(user, kind).is_some() {
        return;
    }
    let world = World::new(user);
    let mut child = daemon(&world, user, wanted);
    let ready = child.line().expect("it lives");
    println!("{user:?} in {kind}: {ready}");
    let process = format!("/proc/{}", child.pid.as_raw_nonzero());

    let kept = if user == User::Root {
        KEPT
    } else {
        CapabilitySet::empty()
    };
    let mut threads = 0;
    for task in fs::read_dir(format!("{process}/task")).unwrap() {
        let text = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let status = status(&text);
        let set = |name| CapabilitySet::from_bits_retain(u64::from_str_radix(status[name], 16).unwrap());
        assert_eq!((status["Seccomp"], status["Seccomp_filters"]), ("2", filters(&status)));
        assert_eq!(status["NoNewPrivs"], "1");
        assert_eq!((set("CapEff"), set("CapPrm")), (kept, kept));
        assert_eq!(
            (set("CapInh"), set("CapAmb")),
            (CapabilitySet::empty(), CapabilitySet::empty())
        );
        if user == User::Root || kind == Kind::UserNamespace {
            assert_eq!(set("CapBnd"), kept);
        }
        threads += 1;
    }
    assert_eq!(threads, 4);

    let is_apart = |name: &str| {
        let link = |of: &str| fs::read_link(format!("{of}/ns/{name}")).unwrap();
        link(&process) != link("/proc/self")
    };
    let in_namespaces = matches!(kind, Kind::Namespace | Kind::UserNamespace);
    for name in ["mnt", "net", "ipc", "uts", "cgroup"] {
        assert_eq!(is_apart(name), in_namespaces, "{name}");
    }
    assert_eq!(is_apart("user"), kind == Kind::UserNamespace);
    assert!(!is_apart("pid"));
    let inode = |path: &str| fs::metadata(path).unwrap().ino();
    let root = inode(&format!("{process}/root/"));
    if kind == Kind::Landlock {
        assert_eq!(root, inode("/"));
    } else {
        assert_eq!(root, inode(world.share.to_str().unwrap()));
    }
    if in_namespaces {
        let mounts = fs::read_to_string(format!("{process}/mountinfo")).unwrap();
        let [mount] = &mounts.lines().collect::<Vec<_>>()[..] else {
            panic!("{mounts}")
        };
        let options = mount.split(' ').nth(5).unwrap();
        for option in ["nosuid", "nodev", "noexec"] {
            assert!(options.split(',').any(|found| found == option), "{mount}");
        }
        let network = fs::read_to_string(format!("{process}/net/dev")).unwrap();
        let interfaces: Vec<_> = network
            .lines()
            .skip(2)
            .map(|line| line.split(':').next().unwrap().trim())
            .collect();
        assert_eq!(interfaces, ["lo"]);
    }
    let (end, rest) = child.end();
    world.end();
    assert_eq!(end, End::Exit(0), "{rest}");
}

/// How many filters a thread has: its own and those of the threads that it descends from.
fn filters(status: &BTreeMap<&str, &str>) -> &'static str {
    match status["Name"] {
        "helper" => "3",
        "lane" | "signals" => "2",
        _ => "1",
    }
}

#[test]
fn every_thread_of_root_is_confined() {
    alone("threads::of_root");
}

#[test]
#[ignore = "every_thread_of_root_is_confined runs it"]
fn of_root() {
    looks_confined(User::Root, Sandbox::Auto, Kind::Namespace);
    looks_confined(User::Root, Sandbox::Chroot, Kind::Chroot);
    looks_confined(User::Root, Sandbox::Landlock, Kind::Landlock);
}

#[test]
fn every_thread_of_an_ordinary_user_is_confined() {
    alone("threads::of_a_user");
}

#[test]
#[ignore = "every_thread_of_an_ordinary_user_is_confined runs it"]
fn of_a_user() {
    looks_confined(User::Ordinary, Sandbox::Auto, Kind::UserNamespace);
    looks_confined(User::Ordinary, Sandbox::Landlock, Kind::Landlock);
}
