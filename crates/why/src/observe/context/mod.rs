//! The context of a failed call: limits, capabilities, settings, mounts. It is read while the thread is stopped at
//! the end of the call, so that it agrees with the kernel's view.

mod interpreter;
mod mounts;
mod object;
mod process;
mod system;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::words::hints::Fact;

pub use interpreter::{Interpreter, Needed};
pub use mounts::{Mount, Mounts};
pub(crate) use object::Object;
pub use process::{Limit, Process};

/// The state that decided, as far as this errno can have been about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    /// Of the thread and its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Settings of the system by their files below `/proc/sys`, and the control group's by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// The security modules that are at work.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// The mounts that the arguments are on, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// What the program that was to be executed needs to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<Interpreter>,
}

/// What an errno can be about.
#[derive(Clone, Copy, Default)]
struct Wanted {
    process: bool,
    settings: bool,
    mounts: bool,
    interpreter: bool,
}

impl Context {
    /// Reads what a failure of this call with this errno can have been about; nothing if the errno tells all.
    pub(crate) fn of(thread: i32, call: &str, errno: i32, objects: &[Object]) -> Self {
        let wanted = wanted(call, errno);
        let mut context = Self::default();
        if wanted.process {
            context.process = Process::of(thread);
        }
        if wanted.settings {
            context.settings = system::settings();
            context.settings.extend(system::control_group(thread));
            context.modules = system::modules();
        }
        if wanted.mounts
            && let Some(mounts) = Mounts::of(thread)
        {
            for object in objects {
                let found = match object {
                    Object::Descriptor(number) => mounts.of_descriptor(thread, *number),
                    Object::Path(path) => mounts.of_path(path),
                };
                context.mounts.extend(found.cloned());
            }
        }
        if wanted.interpreter {
            context.interpreter = objects.iter().find_map(|object| match object {
                Object::Path(path) => Interpreter::missing(thread, path),
                Object::Descriptor(_) => None,
            });
        }
        context
    }

    /// These values in words, as far as they are known.
    #[must_use]
    pub fn tell(&self, facts: &[Fact]) -> Option<String> {
        // A capability is told with the user.
        let capability = facts.iter().any(|fact| matches!(fact, Fact::Capability(_)));
        let wanted = facts.iter().filter(|fact| !(capability && **fact == Fact::User));
        let told: Vec<_> = wanted.filter_map(|fact| self.tell_one(*fact)).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    fn tell_one(&self, fact: Fact) -> Option<String> {
        let process = self.process.as_ref();
        match fact {
            Fact::Limit(name) => process?.tell_limit(name),
            Fact::Capability(name) => process?.tell_capability(name),
            Fact::User => Some(format!("it acts as user {}", process?.user?)),
            Fact::Seccomp => process?.seccomp.and_then(|mode| match mode {
                1 => Some("seccomp allows read, write and exit alone".to_owned()),
                2 => Some("a seccomp filter is on this thread".to_owned()),
                _ => None,
            }),
            Fact::Setting(path) => {
                let value = self.settings.get(path)?;
                let name = path.replace('/', ".");
                Some(format!("{name} is {}", if value.is_empty() { "empty" } else { value }))
            }
            Fact::Mount => {
                let mut told: Vec<_> = self.mounts.iter().map(Mount::tell).collect();
                told.dedup();
                (!told.is_empty()).then(|| told.join("; "))
            }
            Fact::Modules => {
                let modules =
                    (!self.modules.is_empty()).then(|| format!("security modules: {}", self.modules.join(", ")));
                let label = process.and_then(|process| process.label.as_ref());
                let label = label.map(|label| format!("the thread's label is {label}"));
                let told: Vec<_> = [modules, label].into_iter().flatten().collect();
                (!told.is_empty()).then(|| told.join("; "))
            }
        }
    }
}

fn wanted(call: &str, errno: i32) -> Wanted {
    let starts = matches!(call, "execve" | "execveat");
    match errno {
        libc::EPERM | libc::EACCES => Wanted {
            process: true,
            settings: true,
            mounts: true,
            interpreter: starts,
        },
        libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::EFBIG | libc::E2BIG => Wanted {
            process: true,
            settings: true,
            ..Wanted::default()
        },
        // Reads and writes that would have to wait say so all the time.
        libc::EAGAIN if has_a_limit(call) => Wanted {
            process: true,
            settings: true,
            ..Wanted::default()
        },
        libc::ENOSPC | libc::EDQUOT | libc::EUSERS => Wanted {
            process: true,
            settings: true,
            mounts: true,
            ..Wanted::default()
        },
        libc::EROFS | libc::EXDEV | libc::EBUSY | libc::EOPNOTSUPP | libc::ESTALE | libc::EIO | libc::EINVAL => {
            Wanted {
                mounts: true,
                ..Wanted::default()
            }
        }
        libc::ENOSYS => Wanted {
            process: true,
            ..Wanted::default()
        },
        libc::ENOENT | libc::ENOEXEC | libc::ELIBBAD | libc::ENOTDIR => Wanted {
            interpreter: starts,
            ..Wanted::default()
        },
        _ => Wanted::default(),
    }
}

/// Whether EAGAIN of this call says that a limit is reached, and not that it would have to wait.
#[must_use]
pub fn has_a_limit(call: &str) -> bool {
    [
        "clone",
        "fork",
        "vfork",
        "mlock",
        "mmap",
        "mremap",
        "set",
        "io_",
        "timer_create",
        "rt_sigqueueinfo",
        "execve",
        "unshare",
    ]
    .iter()
    .any(|beginning| call.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_as_they_were_and_what_is_not_known_is_not_told() {
        let mut context = Context::default();
        assert_eq!(
            context.tell(&[Fact::Limit("RLIMIT_NOFILE"), Fact::Mount, Fact::Modules, Fact::User]),
            None
        );
        context.process = Some(Process {
            capabilities: Some(0),
            user: Some(1000),
            seccomp: Some(2),
            ..Process::default()
        });
        context
            .settings
            .insert("net/ipv4/ip_unprivileged_port_start".to_owned(), "1024".to_owned());
        context.modules = vec!["yama".to_owned(), "apparmor".to_owned()];
        let told = |facts| context.tell(facts).unwrap();
        assert_eq!(
            told(&[Fact::User, Fact::Capability("CAP_CHOWN")]),
            "it has no CAP_CHOWN (user 1000)"
        );
        assert_eq!(told(&[Fact::User]), "it acts as user 1000");
        assert_eq!(told(&[Fact::Seccomp]), "a seccomp filter is on this thread");
        assert_eq!(told(&[Fact::Modules]), "security modules: yama, apparmor");
        let port = Fact::Setting("net/ipv4/ip_unprivileged_port_start");
        assert_eq!(told(&[port]), "net.ipv4.ip_unprivileged_port_start is 1024");
    }

    #[test]
    fn what_is_told_elsewhere_is_what_was_recorded() {
        let own = std::process::id().cast_signed();
        let path = Object::Path("/proc/self/status".into());
        let context = Context::of(own, "openat", libc::EACCES, &[path]);
        assert_eq!(context.mounts.last().unwrap().kind, "proc");
        let text = serde_json::to_string(&context).unwrap();
        assert_eq!(serde_json::from_str::<Context>(&text).unwrap(), context);
    }

    #[test]
    fn a_read_that_would_have_to_wait_reads_nothing() {
        let own = std::process::id().cast_signed();
        assert_eq!(
            Context::of(own, "recvfrom", libc::EAGAIN, &[Object::Descriptor(0)]),
            Context::default()
        );
        assert!(Context::of(own, "clone", libc::EAGAIN, &[]).process.is_some());
        assert_eq!(Context::of(own, "openat", libc::ENOENT, &[]), Context::default());
    }
}
