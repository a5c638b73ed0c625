//! Which sandbox is taken where some are refused.

use std::collections::BTreeMap;
use std::fs::File;
use std::thread;

use confinement::system_calls::{Architecture, CHROOT, LANDLOCK_CREATE_RULESET, SystemCall, UNSHARE};
use confinement::{Error, IdRange, Kind, Maps, Sandbox, capabilities, sandbox};
use rustix::process::{getegid, geteuid};
use rustix::thread::CapabilitySet;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::child::{End, Talk, User, alone, fork};
use crate::declared::{KEPT, share};
use crate::modes::unavailable;
use crate::world::World;

/// Has the kernel refuse some calls, as the filter of a container does.
fn refuse(calls: &[SystemCall]) {
    let native = Architecture::native().unwrap();
    let rules: BTreeMap<_, _> = calls
        .iter()
        .map(|call| (call.number(native).unwrap().into(), Vec::new()))
        .collect();
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let architecture = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture).unwrap();
    apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// What a process of `user` says in which `prepare` has been called.
fn said(user: User, prepare: fn(), then: fn(&World, &mut Talk)) -> Vec<String> {
    let world = World::new(user);
    let child = fork(user, |talk| {
        prepare();
        then(&world, talk);
    });
    let (end, said) = child.end();
    world.end();
    assert_eq!(end, End::Exit(0), "{said}");
    said.lines().map(str::to_owned).collect()
}

fn automatic(world: &World, talk: &mut Talk) {
    let outcome = sandbox::enter(Sandbox::Auto, &share(&world.share), &Maps::default());
    match outcome {
        Ok(entered) => {
            talk.say(&format!("{:?}", entered.kind));
            entered
                .refused
                .iter()
                .for_each(|refusal| talk.say(&refusal.to_string()));
            assert!(entered.kind == Kind::Landlock || File::open("/etc/passwd").is_err());
        }
        Err(error) => talk.say(&error.to_string()),
    }
}

#[test]
fn root_without_mounts_gets_a_changed_root() {
    alone("choice::without_mounts");
}

#[test]
#[ignore = "root_without_mounts_gets_a_changed_root runs it"]
fn without_mounts() {
    let prepare = || {
        capabilities::keep(KEPT | CapabilitySet::SYS_CHROOT).unwrap();
    };
    let reason = "namespaces: cannot make namespaces: the process has capabilities but not CAP_SYS_ADMIN";
    assert_eq!(said(User::Root, prepare, automatic), ["Chroot", reason]);
    let prepare = || refuse(&[UNSHARE]);
    let reason = "namespaces: cannot make namespaces: Operation not permitted (os error 1)";
    assert_eq!(said(User::Root, prepare, automatic), ["Chroot", reason]);
}

#[test]
fn who_may_change_no_root_gets_landlock() {
    alone("choice::without_roots");
}

#[test]
#[ignore = "who_may_change_no_root_gets_landlock runs it"]
fn without_roots() {
    let prepare = || refuse(&[UNSHARE, CHROOT]);
    for user in [User::Root, User::Ordinary] {
        let said = said(user, prepare, automatic);
        assert_eq!(said[0], "Landlock", "{said:?}");
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(
            said[2].starts_with("a changed root: cannot change the root to"),
            "{said:?}"
        );
    }
}

#[test]
fn maps_are_had_or_refused() {
    alone("choice::with_maps");
}

/// Another sandbox would have other users than those that were asked for.
#[test]
#[ignore = "maps_are_had_or_refused runs it"]
fn with_maps() {
    let then = |world: &World, talk: &mut Talk| {
        let own = |outside| IdRange {
            inside: 0,
            outside,
            count: 1,
        };
        let maps = Maps {
            users: vec![own(geteuid().as_raw())],
            groups: vec![own(getegid().as_raw())],
        };
        match sandbox::enter(Sandbox::Auto, &share(&world.share), &maps) {
            Ok(entered) => talk.say(&format!(
                "{:?} {} {}",
                entered.kind,
                geteuid().as_raw(),
                getegid().as_raw()
            )),
            Err(error) => talk.say(&error.to_string()),
        }
    };
    if unavailable(User::Ordinary, Kind::UserNamespace).is_none() {
        assert_eq!(said(User::Ordinary, || {}, then), ["UserNamespace 0 0"]);
    }
    let refused = said(User::Ordinary, || refuse(&[UNSHARE]), then);
    let reason = "cannot use --uid-map and --gid-map: cannot make namespaces: Operation not permitted (os error 1); leave them out";
    assert!(refused[0].starts_with(reason), "{refused:?}");
    let refused = said(User::Root, || {}, then);
    assert!(refused[0].contains("they are for an ordinary user"), "{refused:?}");
}

#[test]
fn where_nothing_works_the_message_says_what_to_switch_off() {
    alone("choice::without_all");
}

#[test]
#[ignore = "where_nothing_works_the_message_says_what_to_switch_off runs it"]
fn without_all() {
    let prepare = || refuse(&[UNSHARE, CHROOT, LANDLOCK_CREATE_RULESET]);
    let said = said(User::Ordinary, prepare, automatic);
    let [message] = &said[..] else { panic!("{said:?}") };
    assert!(message.starts_with("no sandbox works here (namespaces: "), "{message}");
    assert!(message.ends_with("); use --sandbox none"), "{message}");
}

#[test]
fn a_failed_trial_leaves_the_process_as_it_was() {
    alone("choice::tries");
}

/// A user namespace can be made here, and mounts in it cannot, as AppArmor has it on some hosts.
#[test]
#[ignore = "a_failed_trial_leaves_the_process_as_it_was runs it"]
fn tries() {
    let prepare = || refuse(&[confinement::system_calls::MOUNT]);
    let then = |world: &World, talk: &mut Talk| {
        let before = std::fs::read_link("/proc/self/ns/user").unwrap();
        automatic(world, talk);
        assert_eq!(std::fs::read_link("/proc/self/ns/user").unwrap(), before);
    };
    let said = said(User::Ordinary, prepare, then);
    assert_eq!(said[0], "Landlock", "{said:?}");
    assert!(said[1].contains("keep mounts apart"), "{said:?}");
}

#[test]
fn beside_other_threads_landlock_confines_the_caller_alone() {
    alone("choice::beside_threads");
}

#[test]
#[ignore = "beside_other_threads_landlock_confines_the_caller_alone runs it"]
fn beside_threads() {
    let then = |world: &World, talk: &mut Talk| {
        let declaration = share(&world.share);
        thread::scope(|scope| {
            let confined = || {
                let entered = sandbox::enter(Sandbox::Auto, &declaration, &Maps::default()).unwrap();
                assert!(File::open("/etc/passwd").is_err());
                entered.kind
            };
            assert_eq!(scope.spawn(confined).join().unwrap(), Kind::Landlock);
            for wanted in [Sandbox::Namespace, Sandbox::Chroot] {
                let declaration = &declaration;
                let refused = move || sandbox::enter(wanted, declaration, &Maps::default());
                let refused = scope.spawn(refused).join().unwrap();
                assert!(matches!(refused, Err(Error::Threads(2))), "{refused:?}");
            }
        });
        File::open("/etc/passwd").unwrap();
        talk.say("free");
    };
    assert_eq!(said(User::Root, || {}, then), ["free"]);
}
