//! Which users and groups a user namespace has, and which ids of the host they are.
//!
//! A process may map its own user and group without help, one of each. More ids take ranges that the administrator grants (subuid(5),
//! subgid(5)), and set-user-id programs that map them from outside of the namespace.

mod helper;
mod range;
mod subordinate;

use std::fmt;
use std::fs;
use std::io;

use rustix::process::{getegid, geteuid};
use rustix::thread::CapabilitySet;

use self::helper::Helper;
pub use self::range::IdRange;
use crate::Error;

/// What works within the maps of a user namespace, and is of use: the kernel looks for the others in the host's namespace.
const WITHIN_MAPS: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    // With which the bounding set is reduced.
    .union(CapabilitySet::SETPCAP);

/// The maps that are asked for. Without ranges, what the system grants decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maps {
    /// Of users.
    pub users: Vec<IdRange>,
    /// Of groups.
    pub groups: Vec<IdRange>,
}

impl Maps {
    /// Whether none is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }
}

/// The users and groups of a user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ids {
    /// The process's own, under one id each. It acts as nobody else.
    Itself {
        /// The user.
        user: IdRange,
        /// The group.
        group: IdRange,
    },
    /// Several, the process's own among them. It acts as any of them.
    Ranges {
        /// Users, without overlap.
        users: Vec<IdRange>,
        /// Groups, without overlap.
        groups: Vec<IdRange>,
    },
}

impl Ids {
    /// The process's own ids under the same numbers.
    pub(crate) fn itself() -> Ids {
        Ids::Itself {
            user: IdRange::same(own_user()),
            group: IdRange::same(own_group()),
        }
    }

    /// The process's own ids as root's, and all subordinate ids from 1 on, if both users and groups are granted.
    pub(crate) fn subordinate() -> Option<Ids> {
        Some(Ids::Ranges {
            users: with_own(own_user(), subordinate::users(own_user()))?,
            groups: with_own(own_group(), subordinate::groups(own_user()))?,
        })
    }

    /// What `maps`, which are not empty, come to. If only users or only groups are mapped, the system's grant is what the others get.
    pub(crate) fn asked(maps: &Maps) -> Result<Ids, Error> {
        let users = checked("--uid-map", &maps.users, own_user())?;
        let groups = checked("--gid-map", &maps.groups, own_group())?;
        match (users, groups) {
            (Some(Side::Itself(user)), Some(Side::Itself(group))) => Ok(Ids::Itself { user, group }),
            (Some(Side::Itself(user)), None) => Ok(Ids::Itself {
                user,
                group: IdRange::same(own_group()),
            }),
            (None, Some(Side::Itself(group))) => Ok(Ids::Itself {
                user: IdRange::same(own_user()),
                group,
            }),
            (Some(Side::Ranges(users)), Some(Side::Ranges(groups))) => Ok(Ids::Ranges { users, groups }),
            (Some(Side::Ranges(users)), None) => Ok(Ids::Ranges {
                users,
                groups: with_own(own_group(), subordinate::groups(own_user())).ok_or(ALONE_USERS)?,
            }),
            (None, Some(Side::Ranges(groups))) => Ok(Ids::Ranges {
                users: with_own(own_user(), subordinate::users(own_user())).ok_or(ALONE_GROUPS)?,
                groups,
            }),
            (Some(Side::Ranges(_)), Some(Side::Itself(_))) => Err(ALONE_USERS),
            (Some(Side::Itself(_)), Some(Side::Ranges(_))) => Err(ALONE_GROUPS),
            (None, None) => Ok(Ids::itself()),
        }
    }

    /// The capabilities that may be kept within the namespace.
    pub(crate) fn capabilities(&self) -> CapabilitySet {
        match self {
            // All seem to be there, and none would be of use.
            Ids::Itself { .. } => CapabilitySet::empty(),
            Ids::Ranges { .. } => WITHIN_MAPS,
        }
    }

    /// To be called before the process, which has one thread, makes the namespace: whoever maps ranges must be outside.
    pub(crate) fn prepare(&self) -> Result<Prepared, Error> {
        Ok(match self {
            Ids::Itself { user, group } => Prepared::Itself(*user, *group),
            Ids::Ranges { users, groups } => Prepared::Ranges(Helper::start(users, groups)?),
        })
    }
}

const ALONE_USERS: Error = Error::MapAlone {
    several: "users",
    one: "group",
    option: "--gid-map",
    file: "/etc/subgid",
};
const ALONE_GROUPS: Error = Error::MapAlone {
    several: "groups",
    one: "user",
    option: "--uid-map",
    file: "/etc/subuid",
};

/// The maps of a namespace that is about to be made.
pub(crate) enum Prepared {
    Itself(IdRange, IdRange),
    Ranges(Helper),
}

impl Prepared {
    /// Maps the ids of the namespace that the process has just made.
    pub(crate) fn map(self) -> Result<(), Error> {
        match self {
            Prepared::Itself(user, group) => {
                map_itself(user, group).map_err(Error::namespace("map user and group of the namespace"))
            }
            Prepared::Ranges(helper) => helper.map(),
        }
    }
}

fn map_itself(user: IdRange, group: IdRange) -> io::Result<()> {
    let line = |range: IdRange| format!("{} {} {}", range.inside, range.outside, range.count);
    fs::write("/proc/self/uid_map", line(user))?;
    // Without it no group can be mapped (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", line(group))
}

enum Side {
    Itself(IdRange),
    Ranges(Vec<IdRange>),
}

/// What the ranges of `option` come to. `None`: there are none.
fn checked(option: &'static str, ranges: &[IdRange], own: u32) -> Result<Option<Side>, Error> {
    match ranges {
        [] => return Ok(None),
        [only] if only.count == 1 && only.outside == own => return Ok(Some(Side::Itself(*only))),
        _ => {}
    }
    range::check(ranges).map_err(|why| Error::Map { option, why })?;
    if !ranges.iter().any(|range| range.has_outside(own)) {
        let why = format!("it leaves out your own id, {own}: add one such as :0:{own}:1:");
        return Err(Error::Map { option, why });
    }
    Ok(Some(Side::Ranges(ranges.to_vec())))
}

/// `own` as 0, and what was granted after it. `None`: nothing was granted.
fn with_own(own: u32, granted: Vec<(u32, u32)>) -> Option<Vec<IdRange>> {
    let mut ranges = vec![IdRange {
        inside: 0,
        outside: own,
        count: 1,
    }];
    let mut inside = 1_u32;
    for (outside, count) in granted {
        let count = count.min(u32::MAX - inside);
        if count > 0 {
            ranges.push(IdRange { inside, outside, count });
            inside += count;
        }
    }
    (ranges.len() > 1).then_some(ranges)
}

fn own_user() -> u32 {
    geteuid().as_raw()
}

fn own_group() -> u32 {
    getegid().as_raw()
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ids::Itself { user, group } => {
                let (user, group) = (user.outside, group.outside);
                write!(f, "all the guest's users act as user {user} and group {group}")
            }
            Ids::Ranges { users, groups } => {
                let (users, groups) = (range::list(users), range::list(groups));
                write!(f, "the guest has users {users} and groups {groups}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
