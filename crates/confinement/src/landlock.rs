//! Landlock: which files may be opened and changed, and whom the process may reach. Any user can have it.
//!
//! It judges opens by where the file lies, whatever way leads there: an O_PATH descriptor opened anew, a file handle. It does not judge
//! what needs no open: attributes (chmod(2), chown(2), setxattr(2), stat(2)), links read, directories entered.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};

use crate::Error;
use crate::declaration::Access;
use crate::place;
use crate::refusal::Refusal;

/// All that can be handled is.
const NEWEST: ABI = ABI::V10;
/// Before it, files could not be moved between directories (Linux 5.19).
const OLDEST: ABI = ABI::V2;

/// What the process may reach.
pub(crate) struct Reach<'r> {
    pub(crate) shared: Option<(&'r Path, Access)>,
    pub(crate) network: bool,
}

/// Confines the calling thread, and all that it starts, to `reach`. Answers what the kernel is too old for.
pub(crate) fn enter(reach: &Reach<'_>) -> Result<Vec<Refusal>, Error> {
    let shared = match reach.shared {
        Some((directory, access)) => Some((place::open(directory)?, access)),
        None => None,
    };
    let shared = shared.as_ref().map(|(directory, access)| (directory, rights(*access)));
    let rules = shared.into_iter();
    let rules = rules.map(|(directory, rights)| Ok::<_, RulesetError>(PathBeneath::new(directory, rights)));
    let restrict = || -> Result<RestrictionStatus, RulesetError> {
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(OLDEST))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?;
        let ruleset = inside(ruleset, reach.network)?.create()?;
        ruleset.add_rules(rules)?.restrict_self()
    };
    let status = restrict().map_err(|error| Error::Landlock(error.to_string()))?;
    Ok(lacks(&status, true))
}

/// Keeps signals, abstract sockets and TCP of the calling thread, and all that it starts, inside, and leaves files alone. Answers what the
/// kernel is too old for.
pub(crate) fn enter_scope(network: bool) -> Result<Vec<Refusal>, Error> {
    let restrict = || inside(Ruleset::default(), network)?.create()?.restrict_self();
    let status = restrict().map_err(|error| Error::Landlock(error.to_string()))?;
    Ok(lacks(&status, false))
}

fn inside(ruleset: Ruleset, network: bool) -> Result<Ruleset, RulesetError> {
    let ruleset = ruleset.set_compatibility(CompatLevel::BestEffort);
    let ruleset = ruleset.scope(Scope::from_all(NEWEST))?;
    if network {
        return Ok(ruleset);
    }
    ruleset.handle_access(AccessNet::from_all(NEWEST))
}

/// What may be done beneath the shared directory. Nothing there is executed, and no device or socket used.
fn rights(access: Access) -> BitFlags<AccessFs> {
    match access {
        Access::Read => AccessFs::ReadFile | AccessFs::ReadDir,
        Access::Write => AccessFs::from_all(ABI::V3) & !AccessFs::Execute,
    }
}

/// What the kernel lets through because it is too old.
fn lacks(status: &RestrictionStatus, files: bool) -> Vec<Refusal> {
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi,
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => ABI::Unsupported,
    };
    let newer = [
        (ABI::V3, files, "truncate(2) of files outside (Linux 6.2)"),
        (ABI::V4, true, "TCP (Linux 6.7)"),
        (ABI::V5, files, "ioctls of devices (Linux 6.10)"),
        (ABI::V6, true, "signals and abstract sockets (Linux 6.12)"),
    ];
    let missing = newer
        .into_iter()
        .filter(|&(since, concerned, _)| concerned && abi < since);
    let missing = missing.map(|(_, _, what)| Refusal {
        what: "Landlock",
        why: format!("this kernel does not confine {what}"),
    });
    missing.collect()
}
