//! What a device needs of the host once it serves, as data. Filter, rules, capability sets and the table in the manual all come from it.

mod allowed;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;

use rustix::thread::CapabilitySet;

use crate::argument::Argument;
use crate::base::{EVERY_THREAD, STARTS_THREADS};
use crate::permit::{Occasion, Permit};
use crate::system_calls::{IOCTL, SystemCall};

pub use allowed::Allowed;

/// What a thread is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Accepts connections and answers the front end; starts lanes.
    ControlPlane,
    /// Serves queues; starts helpers.
    Lane,
    /// Waits for the host in place of a lane.
    Helper,
    /// Answers for the file system of DAX views. Started before the control plane is confined.
    Views,
    /// Waits for the signals that end the daemon.
    Signals,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 5] = [Role::ControlPlane, Role::Lane, Role::Helper, Role::Views, Role::Signals];

    /// The roles of the threads that a thread of this role starts. These inherit its filter and capabilities, so that it has all
    /// that they need.
    #[must_use]
    pub const fn starts(self) -> &'static [Role] {
        match self {
            Role::ControlPlane => &[Role::Lane, Role::Signals],
            Role::Lane => &[Role::Helper],
            Role::Helper | Role::Views | Role::Signals => &[],
        }
    }

    /// The name in tables and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::ControlPlane => "control plane",
            Role::Lane => "lane",
            Role::Helper => "helper",
            Role::Views => "DAX views",
            Role::Signals => "signals",
        }
    }

    /// Whether a thread of this role is `other`, or starts such threads, or those that do.
    fn includes(self, other: Role) -> bool {
        self == other || self.starts().iter().any(|started| started.includes(other))
    }
}

/// System calls that some threads make for one reason.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// Which threads.
    pub roles: &'static [Role],
    /// Why, for the manual.
    pub why: &'static str,
    /// The calls.
    pub permits: &'static [Permit],
}

/// An ioctl that some threads make.
#[derive(Clone, Copy, Debug)]
pub struct Ioctl {
    /// Its name in the kernel's headers.
    pub name: &'static str,
    /// Its number, the same on both architectures.
    pub number: u32,
    /// Which threads.
    pub roles: &'static [Role],
    /// Why, for the manual.
    pub why: &'static str,
    /// When it is made.
    pub occasion: Occasion,
}

/// Capabilities that some threads need.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// Which capabilities.
    pub set: CapabilitySet,
    /// Which threads.
    pub roles: &'static [Role],
    /// Why, for the manual.
    pub why: &'static str,
}

/// How the files of a directory are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// They are read.
    Read,
    /// They are read, changed, made and removed.
    Write,
}

/// The one directory beneath which a device opens files while it serves.
#[derive(Clone, Debug)]
pub struct Shared {
    /// An absolute path, with no symbolic link left to be exchanged.
    pub directory: PathBuf,
    /// How its files are used.
    pub access: Access,
    /// Why, for the manual.
    pub why: &'static str,
}

/// What a device needs of the host once it serves.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// Its name on the command line.
    pub device: &'static str,
    /// Where it opens files. `None`: it opens none.
    pub shared: Option<Shared>,
    /// Whether it reaches the network.
    pub network: bool,
    /// Its capabilities.
    pub capabilities: Vec<Capabilities>,
    /// Its system calls, besides those of every thread.
    pub calls: Vec<Calls>,
    /// Its ioctls. No other is allowed.
    pub ioctls: Vec<Ioctl>,
}

/// How a system call is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Always,
    When(Vec<Vec<Argument>>),
}

/// An allow-list.
pub(crate) type Rules = BTreeMap<SystemCall, Rule>;

impl Declaration {
    /// The capabilities of a thread of `role`, with those of the threads that it starts.
    #[must_use]
    pub fn capabilities_of(&self, role: Role) -> CapabilitySet {
        let needs = self.capabilities.iter().filter(|need| is_for(need.roles, role));
        needs.fold(CapabilitySet::empty(), |all, need| all | need.set)
    }

    /// The capabilities of all threads together.
    #[must_use]
    pub fn all_capabilities(&self) -> CapabilitySet {
        self.capabilities
            .iter()
            .fold(CapabilitySet::empty(), |all, need| all | need.set)
    }

    /// The system calls of a thread of `role`, with those of the threads that it starts.
    pub(crate) fn rules(&self, role: Role) -> Rules {
        let mut rules = Rules::new();
        allow_all(&mut rules, EVERY_THREAD);
        if !role.starts().is_empty() {
            allow_all(&mut rules, STARTS_THREADS);
        }
        for calls in self.calls.iter().filter(|calls| is_for(calls.roles, role)) {
            allow_all(&mut rules, calls.permits);
        }
        for ioctl in self.ioctls.iter().filter(|ioctl| is_for(ioctl.roles, role)) {
            allow(&mut rules, IOCTL, Rule::When(vec![vec![Argument::is(1, ioctl.number)]]));
        }
        rules
    }

    /// The system calls of all threads together.
    pub(crate) fn all_rules(&self) -> Rules {
        let mut all = Rules::new();
        for role in Role::ALL {
            for (call, rule) in self.rules(role) {
                allow(&mut all, call, rule);
            }
        }
        all
    }
}

/// Whether what is declared for threads of `roles` is needed by one of `role`, or a thread that it starts.
fn is_for(roles: &[Role], role: Role) -> bool {
    roles.iter().any(|&declared| role.includes(declared))
}

fn allow_all(rules: &mut Rules, permits: &[Permit]) {
    for permit in permits {
        let rule = match permit.when {
            [] => Rule::Always,
            when => Rule::When(when.iter().map(|checks| checks.to_vec()).collect()),
        };
        allow(rules, permit.call, rule);
    }
}

fn allow(rules: &mut Rules, call: SystemCall, rule: Rule) {
    let have = rules.entry(call).or_insert(Rule::When(Vec::new()));
    match (have, rule) {
        (Rule::When(have), Rule::When(more)) => {
            let new: Vec<_> = more.into_iter().filter(|checks| !have.contains(checks)).collect();
            have.extend(new);
        }
        (have, _) => *have = Rule::Always,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system_calls as call;

    fn declaration() -> Declaration {
        Declaration {
            device: "test",
            shared: None,
            network: false,
            capabilities: vec![
                Capabilities {
                    set: CapabilitySet::CHOWN,
                    roles: &[Role::Lane],
                    why: "owners",
                },
                Capabilities {
                    set: CapabilitySet::SYS_ADMIN,
                    roles: &[Role::Views],
                    why: "views",
                },
            ],
            calls: vec![
                Calls {
                    roles: &[Role::Helper],
                    why: "reads",
                    permits: const { &[call::PREADV2.any()] },
                },
                Calls {
                    roles: &[Role::Lane],
                    why: "messages",
                    permits: const { &[call::WRITE.any()] },
                },
            ],
            ioctls: vec![Ioctl {
                name: "FS_IOC_GETFLAGS",
                number: 0x8008_6601,
                roles: &[Role::Helper],
                why: "lsattr",
                occasion: Occasion::Usual,
            }],
        }
    }

    #[test]
    fn a_thread_may_do_what_the_threads_it_starts_may() {
        let declaration = declaration();
        for role in [Role::Helper, Role::Lane, Role::ControlPlane] {
            assert_eq!(declaration.rules(role)[&call::PREADV2], Rule::Always, "{role:?}");
            assert!(declaration.rules(role).contains_key(&IOCTL), "{role:?}");
        }
        for role in [Role::Views, Role::Signals] {
            assert!(!declaration.rules(role).contains_key(&call::PREADV2), "{role:?}");
        }
        assert_eq!(declaration.capabilities_of(Role::ControlPlane), CapabilitySet::CHOWN);
        assert_eq!(declaration.capabilities_of(Role::Helper), CapabilitySet::empty());
        assert_eq!(declaration.capabilities_of(Role::Views), CapabilitySet::SYS_ADMIN);
    }

    #[test]
    fn any_arguments_win_over_checked_ones() {
        let declaration = declaration();
        assert_eq!(declaration.rules(Role::Lane)[&call::WRITE], Rule::Always);
        assert_ne!(declaration.rules(Role::Helper)[&call::WRITE], Rule::Always);
        assert_eq!(declaration.all_rules()[&call::WRITE], Rule::Always);
    }

    #[test]
    fn only_threads_that_start_others_may_start_them() {
        let declaration = declaration();
        for role in Role::ALL {
            let starts = !role.starts().is_empty();
            assert_eq!(declaration.rules(role).contains_key(&call::CLONE), starts, "{role:?}");
        }
    }
}
