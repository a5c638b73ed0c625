//! The system calls of a daemon, compared with what its device declares.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;

use confinement::system_calls::{self as call, Architecture};
use confinement::{Allowed, Declaration, Occasion, Role, SystemCall, answered};
use serde::Serialize;
use why::ptrace::{Call, Event};

/// What the daemons of a device did.
pub(super) struct Calls {
    allowed: Vec<Allowed>,
    of_roles: BTreeMap<Role, Vec<Allowed>>,
    architecture: Architecture,
    used: BTreeSet<usize>,
    killed: BTreeMap<String, Killed>,
    /// The daemon of now, and the threads of it that have a filter: whose list that is.
    process: i32,
    confined: HashMap<i32, Role>,
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
    /// Those that were made, and are not in the list of the thread with their arguments.
    pub(super) killed: Vec<Killed>,
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
            process: 0,
            confined: HashMap::new(),
        })
    }

    /// Another daemon starts.
    pub(super) fn daemon(&mut self, process: i32) {
        self.process = process;
        self.confined.clear();
    }

    /// Whether the daemon reached the point from which on it is confined: its first thread is so after those that it has started.
    pub(super) fn confined(&self) -> bool {
        self.confined.contains_key(&self.process)
    }

    /// A thread of the daemon does something.
    pub(super) fn seen(&mut self, event: Event) {
        match event {
            Event::Starts { thread, started } => {
                // It inherits the filter.
                let role = self.confined.get(&thread).copied();
                self.confined.extend(role.map(|role| (started, role)));
            }
            Event::Enters(call) => self.made(&call),
        }
    }

    fn made(&mut self, call: &Call) {
        let number = u32::try_from(call.number).unwrap_or(u32::MAX);
        let known = SystemCall::of_number(number, self.architecture);
        if let Some(&role) = self.confined.get(&call.thread) {
            self.compare_with_list(role, known, call);
        }
        if known == Some(call::SECCOMP) {
            let role = role_of(call.thread, self.process);
            self.confined.extend(role.map(|role| (call.thread, role)));
        }
    }

    fn compare_with_list(&mut self, role: Role, known: Option<SystemCall>, call: &Call) {
        let Some(of) = known else {
            note(&mut self.killed, format!("system call {}", call.number), call);
            return;
        };
        if answered(of).is_some() {
            return;
        }
        let process = self.process.unsigned_abs();
        let includes = |allowed: &Allowed| allowed.includes(of, &call.arguments, process);
        let fitting = (0..self.allowed.len()).filter(|&index| includes(&self.allowed[index]));
        self.used.extend(fitting);
        if !self.of_roles[&role].iter().any(includes) {
            note(&mut self.killed, format!("{} of {}", of.name(), role.name()), call);
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

/// What a thread of the daemon is there for, by its name. `None`: it has none of these, and stays what its starter is.
fn role_of(thread: i32, process: i32) -> Option<Role> {
    if thread == process {
        return Some(Role::ControlPlane);
    }
    let name = fs::read_to_string(format!("/proc/{process}/task/{thread}/comm")).ok()?;
    let names = [
        ("lane-", Role::Lane),
        ("helper-", Role::Helper),
        ("views", Role::Views),
        ("signals", Role::Signals),
    ];
    let found = names.into_iter().find(|(start, _)| name.starts_with(start));
    found.map(|(_, role)| role)
}

fn note(list: &mut BTreeMap<String, Killed>, name: String, call: &Call) {
    let arguments = call.arguments.map(|argument| format!("{argument:#x}"));
    let shown = format!("{name} ({})", arguments.join(", "));
    list.entry(name).or_insert(Killed { call: shown, times: 0 }).times += 1;
}
