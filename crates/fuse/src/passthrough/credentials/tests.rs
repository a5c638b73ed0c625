//! A thread's identity while a guard lives, and its return afterwards.

use std::os::fd::AsFd;

use rustix::process::{Gid, Uid, getegid, geteuid, getgroups};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, set_capabilities,
    set_capabilities_secure_bits, set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::Credentials;
use super::caller::KEPT;
use super::killpriv::{Kill, keeps_set_group_id};
use super::writer::NOBODY;
use crate::fs::{Caller, Errno};

fn caller(uid: u32, gid: u32, supplementary_group: Option<u32>) -> Caller {
    Caller {
        uid,
        gid,
        pid: 1,
        supplementary_group,
    }
}

/// `None` where the test cannot run: only root changes identity.
fn root() -> Option<Credentials> {
    let credentials = Credentials::detect().unwrap();
    if !credentials.switches() {
        eprintln!("skipped: needs CAP_SETUID and CAP_SETGID");
        return None;
    }
    set_thread_groups(&[]).unwrap();
    Some(credentials)
}

fn state() -> (Uid, Gid, Vec<Gid>, CapabilitySet) {
    (
        geteuid(),
        getegid(),
        getgroups().unwrap(),
        capabilities(None).unwrap().effective,
    )
}

#[test]
fn a_caller_lasts_as_long_as_its_guard() {
    let Some(credentials) = root() else { return };
    let before = state();
    let guard = credentials.become_caller(&caller(1000, 1001, Some(1002))).unwrap();
    let (uid, gid, groups, effective) = state();
    assert_eq!((uid.as_raw(), gid.as_raw()), (1000, 1001));
    assert_eq!(groups, [Gid::from_raw(1002)]);
    assert_eq!(effective, KEPT & before.3);
    drop(guard);
    assert_eq!(state(), before);
}

#[test]
fn the_root_of_the_guest_keeps_its_powers() {
    let Some(credentials) = root() else { return };
    let before = state();
    let _guard = credentials.become_caller(&caller(0, 5, None)).unwrap();
    assert_eq!(state(), (before.0, Gid::from_raw(5), vec![], before.3));
}

#[test]
fn an_unmapped_caller_is_refused_and_changes_nothing() {
    let Some(credentials) = root() else { return };
    let before = state();
    assert_eq!(
        credentials.become_caller(&caller(u32::MAX, 0, None)).err(),
        Some(Errno::EOVERFLOW)
    );
    assert_eq!(
        credentials.become_caller(&caller(0, u32::MAX, Some(3))).err(),
        Some(Errno::EOVERFLOW)
    );
    assert_eq!(state(), before);
}

#[test]
fn a_daemon_that_is_not_root_comes_back_from_acting_for_root() {
    if root().is_none() {
        return;
    }
    let file = tempfile::tempfile().unwrap();
    let marked = std::os::unix::fs::PermissionsExt::from_mode(0o2644);
    file.set_permissions(marked).unwrap();
    let run = || {
        let set = CapabilitySet::SETUID | CapabilitySet::SETGID;
        set_keep_capabilities(true).unwrap();
        set_thread_res_gid(Gid::from_raw(2000), Gid::from_raw(2000), Gid::from_raw(2000)).unwrap();
        set_thread_res_uid(Uid::from_raw(2000), Uid::from_raw(2000), Uid::from_raw(2000)).unwrap();
        let sets = CapabilitySets {
            effective: set,
            permitted: set,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, sets).unwrap();
        set_keep_capabilities(false).unwrap();

        let credentials = Credentials::detect().unwrap();
        let proc = crate::passthrough::procfs::ProcSelfFd::open().unwrap();
        credentials.prepare_thread(proc.directory()).unwrap();
        let before = state();
        assert!(
            credentials.kill(file.as_fd()).group.is_none(),
            "a group's members are not for it to be"
        );
        for uid in [0, 1000] {
            let guard = credentials.become_caller(&caller(uid, uid, Some(3))).unwrap();
            assert_eq!(geteuid().as_raw(), uid);
            drop(guard);
            assert_eq!(state(), before, "after acting for {uid}");
        }
    };
    // A thread has an identity of its own.
    std::thread::scope(|scope| scope.spawn(run).join().unwrap());
}

#[test]
fn a_panic_ends_the_guise_of_the_caller() {
    let Some(credentials) = root() else { return };
    let before = state();
    let panicked = std::panic::catch_unwind(|| {
        let _caller = credentials.become_caller(&caller(1000, 1001, Some(1002))).unwrap();
        panic!("within a request");
    });
    assert!(panicked.is_err());
    assert_eq!(state(), before);
}

#[test]
fn a_writer_is_not_root_for_as_long_as_its_guard() {
    let Some(credentials) = root() else { return };
    let before = state();
    for (by, is, kill, kept) in [
        (Some(1000), 1000, true, CapabilitySet::empty()),
        (Some(1000), 1000, false, CapabilitySet::FSETID & before.3),
        (None, NOBODY, false, CapabilitySet::FSETID & before.3),
        (Some(u32::MAX), NOBODY, true, CapabilitySet::empty()),
        (Some(0), 0, false, before.3),
        (Some(0), 0, true, before.3.difference(CapabilitySet::FSETID)),
    ] {
        for group in [None, Some(5)] {
            let case = format!("{by:?} {kill} {group:?}");
            let kill = kill.then_some(Kill {
                group: group.map(Gid::from_raw),
            });
            let member = kill.and_then(|kill| kill.group).unwrap_or(before.1);
            let guard = credentials.become_writer(by, kill).unwrap();
            assert_eq!(state(), (Uid::from_raw(is), member, vec![], kept), "{case}");
            drop(guard);
            assert_eq!(state(), before, "{case}");
        }
    }
}

#[test]
fn set_group_id_stays_where_group_execute_is_missing() {
    for (mode, keeps) in [
        (0o2644, true),
        (0o6745, true),
        (0o2654, false),
        (0o4644, false),
        (0o644, false),
    ] {
        assert_eq!(keeps_set_group_id(0o100_000 | mode), keeps, "{mode:o}");
    }
}

#[test]
fn fsetid_comes_back() {
    let Some(credentials) = root() else { return };
    let before = state();
    for group in [before.1, Gid::from_raw(5)] {
        let guard = credentials.without_fsetid(Kill { group: Some(group) }).unwrap();
        assert!(!state().3.contains(CapabilitySet::FSETID));
        assert_eq!(state().1, group);
        drop(guard);
        assert_eq!(state(), before);
    }
}

/// systemd: SecureBits=no-setuid-fixup.
#[test]
fn a_writer_has_no_capabilities_whatever_the_securebits() {
    if root().is_none() {
        return;
    }
    let run = || {
        set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP).unwrap();
        let credentials = Credentials::detect().unwrap();
        let proc = crate::passthrough::procfs::ProcSelfFd::open().unwrap();
        credentials.prepare_thread(proc.directory()).unwrap();
        let before = state();
        let writer = credentials.become_writer(Some(1000), Some(Kill { group: None }));
        assert_eq!((state().0.as_raw(), state().3), (1000, CapabilitySet::empty()));
        drop(writer.unwrap());
        assert_eq!(state(), before);
    };
    // A thread has securebits of its own.
    std::thread::spawn(run).join().unwrap();
}

#[test]
fn who_names_a_file_is_not_root_but_keeps_its_powers() {
    let Some(credentials) = root() else { return };
    let before = state();
    for (uid, is) in [(1000, 1000), (Caller::UNNAMED, NOBODY), (0, 0)] {
        let guard = credentials.become_namer(&caller(uid, uid, None)).unwrap();
        let kept = if is == 0 {
            before.3
        } else {
            before.3.difference(CapabilitySet::SYS_RESOURCE)
        };
        assert_eq!((state().0.as_raw(), state().3), (is, kept));
        drop(guard);
        assert_eq!(state(), before);
    }
}
