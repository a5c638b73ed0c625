//! Which confinement of files and namespaces a process gets.

mod trial;

use std::fmt;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::thread::{CapabilitySet, capabilities};

use crate::declaration::Declaration;
use crate::ids::{Ids, Maps};
use crate::namespace::Owner;
use crate::place::{PROC_SELF_FD, Place, open};
use crate::refusal::Refusal;
use crate::{Error, chroot, landlock, namespace};

/// What the user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// The strongest that works here: namespaces, else a changed root, else Landlock.
    Auto,
    /// Namespaces of the process's own with the shared directory as root.
    Namespace,
    /// The shared directory as root.
    Chroot,
    /// Rules on which files may be opened.
    Landlock,
    /// None.
    None,
}

/// What a process has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Namespaces, made with CAP_SYS_ADMIN.
    Namespace,
    /// Namespaces with a user namespace around them, which has the users and groups of [`Entered::ids`] alone.
    UserNamespace,
    /// A changed root.
    Chroot,
    /// Landlock.
    Landlock,
    /// Nothing.
    None,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Namespace => "namespaces",
            Kind::UserNamespace => "namespaces of a user",
            Kind::Chroot => "a changed root",
            Kind::Landlock => "Landlock",
            Kind::None => "no sandbox",
        })
    }
}

/// A process that is confined.
#[derive(Debug)]
pub struct Entered {
    /// By what.
    pub kind: Kind,
    /// Where the shared directory lies now, if there is one.
    pub shared: Option<PathBuf>,
    /// `/proc/self/fd`, by which descriptors are opened anew. No path leads there any more.
    pub proc_self_fd: OwnedFd,
    /// Whether a file that was opened by its handle can be opened anew. Under Landlock that holds only for one whose directory
    /// the kernel happens to remember: rules are looked up on the way from the file to its root.
    pub opens_handles: bool,
    /// The capabilities that may be kept. In a user namespace all seem to be there, and few are of use.
    pub capabilities: CapabilitySet,
    /// The users and groups of a user namespace. `None`: those of the host.
    pub ids: Option<Ids>,
    /// What was refused and why, and what this kernel lets through.
    pub refused: Vec<Refusal>,
}

/// Confines the process, which has one thread, to the directory that `declaration` shares, or to an empty one.
/// Descriptors of other directories must not be open: they lead out.
///
/// Where that takes a user namespace, it has the users and groups that `maps` asks for. Without maps it has the ids that the system
/// grants the user (subuid(5)) and the user as root, if they can be had and a directory is shared, and else the user alone.
///
/// In a process of several threads Landlock alone works, which confines the calling thread and those that it starts from now on.
///
/// Capabilities stay as they are, since the device is yet to be made. While they do, CAP_SYS_ADMIN and CAP_SYS_CHROOT lead out.
///
/// # Errors
///
/// What was asked for is refused; for [`Sandbox::Auto`], everything.
pub fn enter(sandbox: Sandbox, declaration: &Declaration, maps: &Maps) -> Result<Entered, Error> {
    let place = Place {
        shared: declaration.shared.as_ref(),
        network: declaration.network,
    };
    let powers = capabilities(None)
        .map_err(Error::capabilities("read the capabilities"))?
        .effective;
    match sandbox {
        // Whoever asks for maps is served with them or not at all.
        Sandbox::Auto if maps.is_empty() => strongest(&place, powers),
        Sandbox::Auto | Sandbox::Namespace => in_namespaces(&place, powers, maps),
        _ if !maps.is_empty() => Err(Error::MapsWithoutNamespaces),
        Sandbox::Chroot => in_chroot(&place),
        Sandbox::Landlock => by_landlock(&place),
        Sandbox::None => Ok(Entered {
            kind: Kind::None,
            shared: place.shared.map(|shared| shared.directory.clone()),
            proc_self_fd: open(Path::new(PROC_SELF_FD))?,
            opens_handles: true,
            capabilities: CapabilitySet::all(),
            ids: None,
            refused: Vec::new(),
        }),
    }
}

fn strongest(place: &Place<'_>, powers: CapabilitySet) -> Result<Entered, Error> {
    type Way = fn(&Place<'_>, CapabilitySet) -> Result<Entered, Error>;
    let ways: [(_, Way); 3] = [
        ("namespaces", namespaces_if_they_work),
        ("a changed root", |place, _| in_chroot(place)),
        ("Landlock", |place, _| by_landlock(place)),
    ];
    let mut refused = Vec::new();
    for (what, way) in ways {
        match way(place, powers) {
            Ok(mut entered) => {
                refused.append(&mut entered.refused);
                return Ok(Entered { refused, ..entered });
            }
            Err(error) => refused.push(refusal(what, &error)),
        }
    }
    Err(Error::NothingWorks(refused))
}

fn refusal(what: &'static str, error: &Error) -> Refusal {
    let why = error.to_string();
    // The advice is for those who asked for it by name.
    let why = why.split("; use --").next().unwrap_or(&why).to_owned();
    Refusal { what, why }
}

fn namespaces_if_they_work(place: &Place<'_>, powers: CapabilitySet) -> Result<Entered, Error> {
    check_single_thread()?;
    if is_ordinary(powers)? {
        trial::namespaces(place, &Ids::itself())?;
    }
    in_namespaces(place, powers, &Maps::default())
}

/// Whether a process with these effective capabilities needs a user namespace for others.
fn is_ordinary(powers: CapabilitySet) -> Result<bool, Error> {
    if powers.contains(CapabilitySet::SYS_ADMIN) {
        return Ok(false);
    }
    if powers.is_empty() {
        return Ok(true);
    }
    // In a user namespace it would lose what it has, such as to act for all users of the guest.
    Err(Error::NoSysAdmin)
}

fn in_namespaces(place: &Place<'_>, powers: CapabilitySet, maps: &Maps) -> Result<Entered, Error> {
    check_single_thread()?;
    let mut refused = Vec::new();
    let ids = match (is_ordinary(powers), maps.is_empty()) {
        (Err(_) | Ok(false), false) => return Err(Error::MapsOfRoot),
        (ordinary, true) => ordinary?.then(|| granted_or_itself(place, &mut refused)),
        (Ok(true), false) => Some(Ids::asked(maps)?),
    };
    let owner = ids.as_ref().map_or(Owner::Same, Owner::Own);
    let proc_self_fd = namespace::enter(place, owner).map_err(|error| match error {
        Error::Namespace { .. } if !maps.is_empty() => Error::MapsRefused(refusal("maps", &error).why),
        error => error,
    })?;
    let (kind, capabilities) = match &ids {
        None => (Kind::Namespace, CapabilitySet::all()),
        Some(ids) => (Kind::UserNamespace, ids.capabilities()),
    };
    refused.extend(landlock::enter_scope(place.network).unwrap_or_else(without_landlock));
    Ok(Entered {
        kind,
        shared: place.shared.map(|_| PathBuf::from("/")),
        proc_self_fd,
        opens_handles: true,
        capabilities,
        ids,
        refused,
    })
}

/// The ids that the system grants, for the files of a shared directory, or what keeps them from being had.
fn granted_or_itself(place: &Place<'_>, refused: &mut Vec<Refusal>) -> Ids {
    if let Some(granted) = place.shared.and_then(|_| Ids::subordinate()) {
        match trial::namespaces(place, &granted) {
            Ok(()) => return granted,
            Err(error) => refused.push(refusal("namespaces with subordinate ids", &error)),
        }
    }
    Ids::itself()
}

fn in_chroot(place: &Place<'_>) -> Result<Entered, Error> {
    check_single_thread()?;
    let proc_self_fd = open(Path::new(PROC_SELF_FD))?;
    chroot::enter(place.shared.map(|shared| &*shared.directory))?;
    let reach = landlock::Reach {
        shared: place.shared.map(|shared| (Path::new("/"), shared.access)),
        network: place.network,
    };
    let landlocked = landlock::enter(&reach);
    Ok(Entered {
        kind: Kind::Chroot,
        shared: place.shared.map(|_| PathBuf::from("/")),
        proc_self_fd,
        opens_handles: landlocked.is_err(),
        capabilities: CapabilitySet::all(),
        ids: None,
        refused: landlocked.unwrap_or_else(without_landlock),
    })
}

fn by_landlock(place: &Place<'_>) -> Result<Entered, Error> {
    let proc_self_fd = open(Path::new(PROC_SELF_FD))?;
    let reach = landlock::Reach {
        shared: place.shared.map(|shared| (&*shared.directory, shared.access)),
        network: place.network,
    };
    let refused = landlock::enter(&reach)?;
    Ok(Entered {
        kind: Kind::Landlock,
        shared: place.shared.map(|shared| shared.directory.clone()),
        proc_self_fd,
        opens_handles: false,
        capabilities: CapabilitySet::all(),
        ids: None,
        refused,
    })
}

/// Refuses a process of several threads: the others would stay outside, or be taken along.
fn check_single_thread() -> Result<(), Error> {
    match fs::read_dir("/proc/self/task").map_err(Error::CountThreads)?.count() {
        1 => Ok(()),
        more => Err(Error::Threads(more)),
    }
}

/// Where Landlock only adds to what confines already.
fn without_landlock(error: Error) -> Vec<Refusal> {
    vec![Refusal {
        what: "Landlock",
        why: error.to_string(),
    }]
}
