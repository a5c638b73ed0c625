//! The system calls of a daemon, compared with what its device declares.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;

use confinement::system_calls::{self as call, Architecture};
use confinement::{Allowed, Declaration, Occasion, Role, SystemCall, answered};
use serde::Serialize;
use why::ptrace::Call;

/// `SECCOMP_FILTER_FLAG_TSYNC`: only the filter of the whole process comes with it, and is the last step before a daemon serves.
const ALL_THREADS: u64 = libc::SECCOMP_FILTER_FLAG_TSYNC;

/// What the daemons of a device did.
pub(super) struct Calls {
    allowed: Vec<Allowed>,
    of_roles: BTreeMap<Role, Vec<Allowed>>,
    architecture: Architecture,
    used: BTreeSet<usize>,
    killed: BTreeMap<String, Killed>,
    others: BTreeMap<String, Killed>,
    /// Whether the daemon of now is confined.
    confined: bool,
    /// Whether threads take filters of their own.
    narrows: bool,
    process: u32,
    roles: HashMap<i32, Option<Role>>,
}

/// A call that is not in the list.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Killed {
    /// The call, with the arguments of the first time.
    pub(super) call: String,
    /// How often it was made.
    pub(super) times: u64,
}

/// What was compared.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    /// System calls in the list.
    pub(super) declared: usize,
    /// Those of them that were made.
    pub(super) made: usize,
    /// Those that were made, and are not in the list with their arguments.
    pub(super) killed: Vec<Killed>,
    /// Those that were made by a thread for which they are not declared. It would be killed if it had a filter of its own.
    pub(super) other_threads: Vec<Killed>,
    /// Those in the list that were not made, without a reason.
    pub(super) unused: Vec<String>,
    /// Those that a daemon with capabilities makes, in the list of one without.
    pub(super) privileged: Vec<String>,
    /// Those that were not made, with the reason.
    pub(super) rare: BTreeMap<String, Vec<String>>,
}

impl Calls {
    pub(super) fn new(declaration: &Declaration) -> Result<Self, confinement::Error> {
        Ok(Self {
            allowed: declaration.allowed(),
            of_roles: Role::ALL.map(|role| (role, declaration.allowed_of(role))).into(),
            architecture: Architecture::native()?,
            used: BTreeSet::new(),
            killed: BTreeMap::new(),
            others: BTreeMap::new(),
            confined: false,
            narrows: false,
            process: 0,
            roles: HashMap::new(),
        })
    }

    /// Another daemon starts.
    pub(super) fn daemon(&mut self, process: u32) {
        self.process = process;
        self.confined = false;
        self.narrows = false;
        self.roles.clear();
    }

    /// Whether the daemon reached the point from which on it is confined.
    pub(super) fn confined(&self) -> bool {
        self.confined
    }

    /// A thread of the daemon makes a call.
    pub(super) fn made(&mut self, call: Call) {
        let number = u32::try_from(call.number).unwrap_or(u32::MAX);
        let known = SystemCall::of_number(number, self.architecture);
        if !self.confined {
            self.confined = known == Some(call::SECCOMP) && call.arguments[1] & ALL_THREADS != 0;
            return;
        }
        let Some(of) = known else {
            note(&mut self.killed, format!("system call {number}"), &call);
            return;
        };
        self.narrows |= of == call::SECCOMP;
        if answered(of).is_some() {
            return;
        }
        let includes = |allowed: &Allowed| allowed.includes(of, &call.arguments, self.process);
        let fitting: Vec<_> = (0..self.allowed.len())
            .filter(|&index| includes(&self.allowed[index]))
            .collect();
        let role = self.roles.get(&call.thread).copied();
        let role = role.unwrap_or_else(|| role_of(call.thread, self.process));
        let of_role = role.is_none_or(|role| self.of_roles[&role].iter().any(includes));
        if fitting.is_empty() {
            note(&mut self.killed, of.name().to_owned(), &call);
        } else if let (false, Some(role)) = (of_role, role) {
            let list = if self.narrows {
                &mut self.killed
            } else {
                &mut self.others
            };
            note(list, format!("{} of {}", of.name(), role.name()), &call);
        }
        self.used.extend(fitting);
        self.roles.insert(call.thread, role);
        if of == call::PRCTL && call.arguments[0] == libc::PR_SET_NAME as u64 {
            // Until now it had the name of the thread that started it.
            self.roles.remove(&call.thread);
        }
    }

    /// `privileged`: the daemon has the capabilities that a device declares.
    pub(super) fn compare(&self, privileged: bool) -> Comparison {
        let names = |of: &mut dyn Iterator<Item = &Allowed>| {
            let names: BTreeSet<_> = of.map(|allowed| allowed.call().name()).collect();
            names.len()
        };
        let mut comparison = Comparison {
            declared: names(&mut self.allowed.iter()),
            made: names(&mut self.used.iter().map(|&index| &self.allowed[index])),
            killed: self.killed.values().cloned().collect(),
            other_threads: self.others.values().cloned().collect(),
            unused: Vec::new(),
            privileged: Vec::new(),
            rare: BTreeMap::new(),
        };
        for (index, allowed) in self.allowed.iter().enumerate() {
            if self.used.contains(&index) {
                continue;
            }
            let name = allowed.to_string();
            match allowed.occasion() {
                Occasion::Privileged if !privileged => comparison.privileged.push(name),
                Occasion::Usual | Occasion::Privileged => comparison.unused.push(name),
                Occasion::Rarely(why) => comparison.rare.entry(why.to_owned()).or_default().push(allowed.name()),
            }
        }
        comparison
    }
}

/// What a thread of the daemon is there for, by its name.
fn role_of(thread: i32, process: u32) -> Option<Role> {
    if u32::try_from(thread) == Ok(process) {
        return Some(Role::ControlPlane);
    }
    let name = fs::read_to_string(format!("/proc/{process}/task/{thread}/comm")).ok()?;
    let starts = |start| name.starts_with(start);
    match () {
        () if starts("lane-") => Some(Role::Lane),
        () if starts("helper-") => Some(Role::Helper),
        () if starts("views") => Some(Role::Views),
        () if starts("signals") => Some(Role::Signals),
        () => None,
    }
}

fn note(list: &mut BTreeMap<String, Killed>, name: String, call: &Call) {
    let arguments = call.arguments.map(|argument| format!("{argument:#x}"));
    let shown = format!("{name} ({})", arguments.join(", "));
    list.entry(name).or_insert(Killed { call: shown, times: 0 }).times += 1;
}
