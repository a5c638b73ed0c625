//! seccomp(2): allow-lists of system calls, from a declaration.
//!
//! Each thread takes on the list of its role ([`Filters::narrow`]), the one that starts the others too, once it has started those that
//! need more than it does. A new thread inherits its starter's filters; the kernel takes the strictest answer of all.
//!
//! `seccompiler` makes one choice of two for each call. What needs a third goes ahead of its program: calls that are answered with an
//! errno, and calls of other architectures and of x32, which end the process even where others are only logged.

#[cfg(test)]
mod evaluator;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch, apply_filter, sock_filter};

use crate::base::ANSWERED;
use crate::declaration::{Declaration, Role, Rule, Rules};
use crate::system_calls::Architecture;
use crate::{Error, allocator};

/// What becomes of a thread that makes a system call which is not in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The process ends with SIGSYS.
    Kill,
    /// The thread gets SIGSYS, which a debugger or a handler can catch.
    Trap,
    /// The kernel logs it, and does it.
    Log,
    /// There is no filter.
    None,
}

impl Action {
    fn of_the_kernel(self) -> Option<SeccompAction> {
        match self {
            Action::Kill => Some(SeccompAction::KillProcess),
            Action::Trap => Some(SeccompAction::Trap),
            Action::Log => Some(SeccompAction::Log),
            Action::None => None,
        }
    }
}

/// The filters of a process's threads.
#[derive(Debug)]
pub struct Filters {
    /// Empty: there are to be none.
    roles: BTreeMap<Role, BpfProgram>,
}

impl Filters {
    /// Builds the filters for what `declaration` has, and has the allocator do without calls that are in no list.
    ///
    /// # Errors
    ///
    /// The architecture has no table of system calls.
    pub fn new(declaration: &Declaration, action: Action) -> Result<Filters, Error> {
        let Some(action) = action.of_the_kernel() else {
            return Ok(Filters { roles: BTreeMap::new() });
        };
        allocator::stay_away_from_files();
        let architecture = Architecture::native()?;
        let program = |role| compile(&declaration.rules(role), &action, architecture, std::process::id());
        let roles = Role::ALL.into_iter().map(|role| Ok((role, program(role)?)));
        Ok(Filters {
            roles: roles.collect::<Result<_, Error>>()?,
        })
    }

    /// Gives the calling thread, and those that it starts from now on, the list of `role` alone, and no-new-privs. Those that run
    /// already stay as they are.
    ///
    /// # Errors
    ///
    /// The system refuses the filter.
    pub fn narrow(&self, role: Role) -> Result<(), Error> {
        let Some(program) = self.roles.get(&role) else {
            return Ok(());
        };
        apply_filter(program).map_err(Error::Seccomp)
    }
}

/// x32 marks its calls so; no call of either architecture has a number beyond.
const X32: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// The value of `AUDIT_ARCH_*`.
const fn audit(architecture: Architecture) -> u32 {
    match architecture {
        Architecture::X86_64 => 0xc000_003e,
        Architecture::Aarch64 => 0xc000_00b7,
    }
}

fn compile(
    rules: &Rules,
    action: &SeccompAction,
    architecture: Architecture,
    process: u32,
) -> Result<BpfProgram, Error> {
    let allowed = rules.iter().filter_map(|(call, rule)| {
        let number = call.number(architecture)?;
        Some(chain(rule, process).map(|chain| (number.into(), chain)))
    });
    let filter = SeccompFilter::new(
        allowed.collect::<Result<_, _>>().map_err(Error::Filter)?,
        action.clone(),
        SeccompAction::Allow,
        match architecture {
            Architecture::X86_64 => TargetArch::x86_64,
            Architecture::Aarch64 => TargetArch::aarch64,
        },
    );
    let allowed: BpfProgram = filter.and_then(TryInto::try_into).map_err(Error::Filter)?;
    let mut program = ahead(architecture);
    program.extend(allowed);
    Ok(program)
}

fn chain(rule: &Rule, process: u32) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let Rule::When(lists) = rule else {
        return Ok(Vec::new());
    };
    let rule = |checks: &Vec<crate::argument::Argument>| {
        let conditions = checks.iter().map(|check| check.condition(process));
        SeccompRule::new(conditions.collect::<Result<_, _>>()?)
    };
    lists.iter().map(rule).collect()
}

/// What is decided before the allow-list.
fn ahead(architecture: Architecture) -> BpfProgram {
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let answer = |action: SeccompAction| statement(libc::BPF_RET | libc::BPF_K, action.into());
    let mut program = vec![
        load(ARCHITECTURE),
        // Past the end of the process.
        jump(libc::BPF_JEQ, audit(architecture), 1, 0),
        answer(SeccompAction::KillProcess),
        load(NUMBER),
        jump(libc::BPF_JGE, X32, 0, 1),
        answer(SeccompAction::KillProcess),
    ];
    for (call, errno) in ANSWERED {
        if let Some(number) = call.number(architecture) {
            program.push(jump(libc::BPF_JEQ, number, 0, 1));
            program.push(answer(SeccompAction::Errno(errno.unsigned_abs())));
        }
    }
    program
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump(comparison: u32, k: u32, if_true: u8, if_false: u8) -> sock_filter {
    sock_filter {
        jt: if_true,
        jf: if_false,
        ..statement(libc::BPF_JMP | comparison | libc::BPF_K, k)
    }
}
