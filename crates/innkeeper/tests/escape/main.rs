//! The escape suite: what the confinement of a share holds alone.
//!
//! The program is built with the feature `unchecked`, so that each check of the file system can be switched off. A
//! malicious guest then asks for what the check refuses, in each sandbox, with the list of system calls in force. Each
//! attack also runs twice without a sandbox: with the check switched off it must succeed, and with all checks it must
//! fail. SECURITY.md has the results as a table.
//!
//! Attacks that no request can express are those of `crates/confinement/tests/it/attacks.rs`.

/// The attacks and what each sandbox lets through.
mod attacks;
#[allow(dead_code, reason = "other tests read what the daemon announces")]
#[path = "../it/session.rs"]
mod session;
/// A shared directory and what lies beside it.
mod world;

use rstest::rstest;

use attacks::{ATTACKS, Attack};
use world::World;

/// The names of the attacks that succeed in `sandbox`; with the checks that each attack needs switched off, or with
/// all in force.
fn successes(sandbox: &str, unchecked: bool) -> Vec<&'static str> {
    let succeeds = |attack: &&Attack| {
        let without = if unchecked { attack.without } else { "" };
        let mut world = World::new(sandbox, without);
        let succeeded = (attack.act)(&mut world).is_some();
        world.assert_serving(attack.name);
        succeeded
    };
    ATTACKS.iter().filter(succeeds).map(|attack| attack.name).collect()
}

#[rstest]
#[case("namespace")]
#[case("chroot")]
#[case("landlock")]
#[case("none")]
fn a_sandbox_holds_what_the_switched_off_check_would(#[case] sandbox: &str) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: root alone makes devices and changes its root");
        return;
    }
    let through = ATTACKS.iter().filter(|attack| attack.passes(sandbox));
    let through: Vec<_> = through.map(|attack| attack.name).collect();
    assert_eq!(successes(sandbox, true), through);
}

#[test]
fn the_checks_hold_all_of_it_without_a_sandbox() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: root alone makes devices");
        return;
    }
    assert_eq!(successes("none", false), [""; 0]);
}
