//! The system calls of a daemon, compared with what its device declares.

use std::collections::{BTreeMap, BTreeSet};

use confinement::system_calls::Architecture;
use confinement::{Allowed, Declaration, Occasion, SystemCall, answered};
use serde::Serialize;
use why::ptrace::Call;

/// `SECCOMP_FILTER_FLAG_TSYNC`: only the filter of the whole process comes with it, and is the last step before a daemon serves.
const ALL_THREADS: u64 = libc::SECCOMP_FILTER_FLAG_TSYNC;

/// What the daemons of a device did.
pub(super) struct Calls {
    allowed: Vec<Allowed>,
    architecture: Architecture,
    used: BTreeSet<usize>,
    killed: BTreeMap<String, Killed>,
    /// Whether the daemon of now is confined.
    confined: bool,
    process: u32,
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
            architecture: Architecture::native()?,
            used: BTreeSet::new(),
            killed: BTreeMap::new(),
            confined: false,
            process: 0,
        })
    }

    /// Another daemon starts.
    pub(super) fn daemon(&mut self, process: u32) {
        self.process = process;
        self.confined = false;
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
            self.confined = known == Some(confinement::system_calls::SECCOMP) && call.arguments[1] & ALL_THREADS != 0;
            return;
        }
        let Some(of) = known else {
            return self.kill(format!("system call {number}"), String::new());
        };
        if answered(of).is_some() {
            return;
        }
        let (process, before) = (self.process, self.used.len());
        let fitting = self.allowed.iter().enumerate();
        let fitting = fitting.filter(|(_, allowed)| allowed.includes(of, &call.arguments, process));
        let mut allowed = false;
        for (index, _) in fitting {
            self.used.insert(index);
            allowed = true;
        }
        if self.used.len() > before || allowed {
            return;
        }
        let arguments = call.arguments.map(|argument| format!("{argument:#x}"));
        self.kill(of.name().to_owned(), format!("({})", arguments.join(", ")));
    }

    fn kill(&mut self, name: String, arguments: String) {
        let call = format!("{name}{arguments}");
        self.killed.entry(name).or_insert(Killed { call, times: 0 }).times += 1;
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
                Occasion::Rarely(why) => comparison.rare.entry(why.to_owned()).or_default().push(name),
            }
        }
        comparison
    }
}
