//! Filters that the kernel runs: what they end, and what goes on.

use std::thread;

use confinement::{Action, Filters, Maps, Role, Sandbox, sandbox};

use crate::attacks::ATTACKS;
use crate::child::{End, User, alone, fork};
use crate::declared::{share, without_files};
use crate::world::World;

/// How the process ends that makes an attack with the filters of `action` and no sandbox.
fn ends(world: &World, action: Action) -> Vec<(&'static str, End)> {
    let ends = ATTACKS.iter().map(|(name, attack)| {
        let child = fork(User::Ordinary, |_| {
            let declaration = share(&world.share);
            let entered = sandbox::enter(Sandbox::None, &declaration, &Maps::default()).unwrap();
            Filters::new(&declaration, action)
                .unwrap()
                .narrow(Role::ControlPlane)
                .unwrap();
            let _succeeds_or_not = attack(world, &entered);
        });
        (*name, child.end().0)
    });
    ends.collect()
}

#[test]
fn an_attack_by_another_call_ends_the_process() {
    alone("seccomp::attacks");
}

#[test]
#[ignore = "an_attack_by_another_call_ends_the_process runs it"]
fn attacks() {
    /// What the calls of a share can do. The sandbox is there for these.
    const THROUGH: [&str; 8] = [
        "open by absolute path",
        "write by absolute path",
        "open by ..",
        "open through an absolute link",
        "open by .. of /proc/self/fd",
        "open through /proc/PID/root",
        "chmod by .. of /proc/self/fd",
        "open a device node",
    ];
    let world = World::new(User::Ordinary);
    for (name, end) in ends(&world, Action::Kill).into_iter().chain(ends(&world, Action::Trap)) {
        let expected = if THROUGH.contains(&name) {
            End::Exit(0)
        } else {
            End::Signal(libc::SIGSYS)
        };
        assert_eq!(end, expected, "{name}");
    }
    for (name, end) in ends(&world, Action::Log).into_iter().chain(ends(&world, Action::None)) {
        assert_ne!(end, End::Signal(libc::SIGSYS), "{name}");
    }
    world.end();
}

/// What a thread does once its filter is narrowed to `role`, Answers the end of the process.
fn narrowed(role: Role, act: fn()) -> End {
    let child = fork(User::Ordinary, |_| {
        let filters = Filters::new(&share("/".as_ref()), Action::Kill).unwrap();
        let thread = thread::spawn(move || {
            filters.narrow(role).unwrap();
            act();
        });
        thread.join().unwrap();
    });
    child.end().0
}

fn socket(family: i32) {
    // SAFETY: makes a descriptor, which the end of the process closes.
    unsafe { libc::socket(family, libc::SOCK_STREAM, 0) };
}

#[test]
fn a_thread_makes_the_calls_of_its_role_alone() {
    alone("seccomp::narrows");
}

#[test]
#[ignore = "a_thread_makes_the_calls_of_its_role_alone runs it"]
fn narrows() {
    let killed = End::Signal(libc::SIGSYS);
    assert_eq!(narrowed(Role::ControlPlane, || socket(libc::AF_UNIX)), End::Exit(0));
    assert_eq!(narrowed(Role::ControlPlane, || socket(libc::AF_INET)), killed);
    assert_eq!(narrowed(Role::Lane, || socket(libc::AF_UNIX)), killed);
    let open = || drop(std::fs::File::open("/"));
    assert_eq!(narrowed(Role::Lane, open), End::Exit(0));
    assert_eq!(narrowed(Role::Signals, open), killed);
    let start = || {
        thread::Builder::new()
            .name("new".into())
            .spawn(|| {})
            .unwrap()
            .join()
            .unwrap();
    };
    assert_eq!(narrowed(Role::Lane, start), End::Exit(0));
    assert_eq!(narrowed(Role::Helper, start), killed);
}

#[test]
fn any_number_of_threads_can_allocate() {
    alone("seccomp::allocates");
}

#[test]
#[ignore = "any_number_of_threads_can_allocate runs it"]
fn allocates() {
    let threads = || {
        let all: Vec<_> = (0..40)
            .map(|_| {
                thread::Builder::new()
                    .spawn(|| std::hint::black_box(vec![1_u8; 1000]).len())
                    .unwrap()
            })
            .collect();
        all.into_iter()
            .for_each(|thread| assert_eq!(thread.join().unwrap(), 1000));
    };
    // That of the tests' share may open files; this one may not.
    let child = fork(User::Ordinary, |_| {
        let filters = Filters::new(&without_files(), Action::Kill).unwrap();
        let thread = thread::spawn(move || {
            filters.narrow(Role::ControlPlane).unwrap();
            threads();
        });
        thread.join().unwrap();
    });
    assert_eq!(child.end().0, End::Exit(0));
}

#[test]
fn every_thread_can_allocate_panic_and_end() {
    alone("seccomp::lives");
}

#[test]
#[ignore = "every_thread_can_allocate_panic_and_end runs it"]
fn lives() {
    for role in Role::ALL {
        let life = || {
            let large = vec![1_u8; 64 << 20];
            let sum: u64 = large.iter().map(|&byte| u64::from(byte)).sum();
            assert_eq!(sum, 64 << 20);
            let mut grown = Vec::new();
            (0..1 << 20).for_each(|number| grown.push(number));
            let panicked = std::panic::catch_unwind(|| panic!("a panic that is caught"));
            assert!(panicked.is_err());
            let _map = std::collections::HashMap::from([(1, 2)]);
            let _now = std::time::SystemTime::now();
        };
        assert_eq!(narrowed(role, life), End::Exit(0), "{role:?}");
        // musl's abort(3) signals a thread without its process, which is refused, and then makes a fault.
        let signal = if cfg!(target_env = "musl") {
            libc::SIGSEGV
        } else {
            libc::SIGABRT
        };
        let end = narrowed(role, || std::process::abort());
        assert_eq!(end, End::Signal(signal), "{role:?}");
    }
}
