//! Capabilities of a thread.

use confinement::capabilities::{Bounding, keep};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, configure_capability_in_ambient_set,
    no_new_privs, set_capabilities,
};

use crate::child::{End, User, alone, fork};

/// What remains of a thread that keeps CAP_CHOWN, after `prepare`.
fn keeps(user: User, prepare: fn()) -> String {
    let child = fork(user, |talk| {
        prepare();
        let bounding = keep(CapabilitySet::CHOWN).unwrap();
        let CapabilitySets {
            effective,
            permitted,
            inheritable,
        } = capabilities(None).unwrap();
        assert_eq!((effective, inheritable), (permitted, CapabilitySet::empty()));
        assert!(no_new_privs().unwrap());
        let bound = capability_is_in_bounding_set(CapabilitySet::KILL).unwrap();
        assert_eq!(bound, bounding == Bounding::Left);
        let ambient = rustix::thread::capability_is_in_ambient_set(CapabilitySet::CHOWN).unwrap();
        assert!(!ambient);
        let again = set_capabilities(
            None,
            CapabilitySets {
                effective: CapabilitySet::KILL,
                permitted: CapabilitySet::KILL,
                inheritable,
            },
        );
        again.unwrap_err();
        talk.say(&format!("{permitted:?} {bounding:?}"));
    });
    let (end, said) = child.end();
    assert_eq!(end, End::Exit(0), "{said}");
    said
}

#[test]
fn what_was_kept_is_all_that_remains_for_ever() {
    alone("powers::remain");
}

#[test]
#[ignore = "what_was_kept_is_all_that_remains_for_ever runs it"]
fn remain() {
    let chown = format!("{:?} Reduced\n", CapabilitySet::CHOWN);
    let ambient = || {
        let sets = capabilities(None).unwrap();
        let inheritable = CapabilitySet::CHOWN | CapabilitySet::KILL;
        set_capabilities(None, CapabilitySets { inheritable, ..sets }).unwrap();
        configure_capability_in_ambient_set(CapabilitySet::CHOWN, true).unwrap();
    };
    assert_eq!(keeps(User::Root, || {}), chown);
    assert_eq!(keeps(User::Root, ambient), chown);
    // Without CAP_SETPCAP the bounding set stays, and gives nothing back.
    assert_eq!(
        keeps(User::Ordinary, || {}),
        format!("{:?} Left\n", CapabilitySet::empty())
    );
}
