//! A declaration as a list, to compare the system calls of a daemon with.

use std::fmt;

use super::{Declaration, Role, Rule, Rules};
use crate::argument::Argument;
use crate::base::{EVERY_THREAD, STARTS_THREADS};
use crate::permit::{Occasion, Permit};
use crate::system_calls::{IOCTL, SystemCall};

/// A system call with arguments that some thread may give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    call: SystemCall,
    /// All must hold. Empty: any arguments.
    checks: Vec<Argument>,
    /// The name of an ioctl.
    ioctl: Option<&'static str>,
    occasion: Occasion,
}

impl Allowed {
    /// The call.
    #[must_use]
    pub fn call(&self) -> SystemCall {
        self.call
    }

    /// The name of the call, or of the ioctl, without its checks.
    #[must_use]
    pub fn name(&self) -> String {
        match self.ioctl {
            Some(ioctl) => format!("{} {ioctl}", self.call.name()),
            None => self.call.name().to_owned(),
        }
    }

    /// When it is made.
    #[must_use]
    pub fn occasion(&self) -> Occasion {
        self.occasion
    }

    /// Whether this is the call, and it may have these arguments in the process of number `process`.
    #[must_use]
    pub fn includes(&self, call: SystemCall, arguments: &[u64; 6], process: u32) -> bool {
        self.call == call && self.checks.iter().all(|check| check.holds(arguments, process))
    }
}

impl fmt::Display for Allowed {
    /// Its name with its checks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if self.ioctl.is_some() {
            return Ok(());
        }
        for (number, check) in self.checks.iter().enumerate() {
            write!(f, "{}{check}", if number == 0 { " with " } else { " and " })?;
        }
        Ok(())
    }
}

impl Declaration {
    /// What the filter of all threads together lets through, in the order of names. A call that is declared several times is made on
    /// the most usual of the occasions.
    #[must_use]
    pub fn allowed(&self) -> Vec<Allowed> {
        self.list(self.all_rules())
    }

    /// The same for the filter of a thread of `role`.
    #[must_use]
    pub fn allowed_of(&self, role: Role) -> Vec<Allowed> {
        self.list(self.rules(role))
    }

    fn list(&self, rules: Rules) -> Vec<Allowed> {
        let mut all = Vec::new();
        for (call, rule) in rules {
            let lists = match rule {
                Rule::Always => vec![Vec::new()],
                Rule::When(lists) => lists,
            };
            all.extend(lists.into_iter().map(|checks| self.one(call, checks)));
        }
        all
    }

    fn one(&self, call: SystemCall, checks: Vec<Argument>) -> Allowed {
        let any = checks.is_empty();
        let ioctl = self
            .ioctls
            .iter()
            .find(|ioctl| call == IOCTL && checks == [Argument::is(1, ioctl.number)]);
        let own = self.calls.iter().flat_map(|calls| calls.permits);
        let permits = EVERY_THREAD.iter().chain(STARTS_THREADS).chain(own);
        let of_permits = permits.filter(|permit| permit.call == call && (any || has(permit, &checks)));
        let occasions = of_permits.map(|permit| permit.occasion);
        let occasion = occasions.chain(ioctl.map(|ioctl| ioctl.occasion)).min();
        Allowed {
            call,
            ioctl: ioctl.map(|ioctl| ioctl.name),
            occasion: occasion.unwrap_or(Occasion::Usual),
            checks,
        }
    }
}

fn has(permit: &Permit, checks: &[Argument]) -> bool {
    permit.when.contains(&checks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declaration::{Calls, Ioctl};
    use crate::system_calls as call;

    const COMMAND: u32 = 0x5421;
    const WORKING_DIRECTORY: &[&[Argument]] = &[&[Argument::is(0, 0x200)]];
    const ACCIDENT: &[Permit] = &[
        call::POLL.any().rarely("by accident"),
        call::CAPSET.any().privileged(),
        call::UNSHARE.when(WORKING_DIRECTORY).rarely("by accident"),
    ];
    const USUAL: &[Permit] = &[call::POLL.any()];

    fn declaration() -> Declaration {
        let calls = |roles, permits| Calls {
            roles,
            why: "tests",
            permits,
        };
        Declaration {
            device: "test",
            shared: None,
            network: false,
            capabilities: Vec::new(),
            calls: vec![calls(&[Role::Lane], ACCIDENT), calls(&[Role::Views], USUAL)],
            ioctls: vec![Ioctl {
                name: "FIONBIO",
                number: COMMAND,
                roles: &[Role::Lane],
                why: "tests",
                occasion: Occasion::Rarely("by accident"),
            }],
        }
    }

    fn of(list: &[Allowed], of: SystemCall) -> Allowed {
        list.iter().find(|allowed| allowed.call() == of).unwrap().clone()
    }

    #[test]
    fn a_call_is_as_usual_as_the_most_usual_of_its_declarations() {
        let all = declaration().allowed();
        assert_eq!(of(&all, call::POLL).occasion(), Occasion::Usual);
        assert_eq!(of(&all, call::CAPSET).occasion(), Occasion::Privileged);
        assert_eq!(of(&all, call::UNSHARE).occasion(), Occasion::Rarely("by accident"));
    }

    #[test]
    fn a_thread_has_the_list_of_its_role() {
        let of_views = declaration().allowed_of(Role::Views);
        assert!(of_views.iter().any(|allowed| allowed.call() == call::POLL));
        assert!(of_views.iter().all(|allowed| allowed.call() != call::CAPSET));
    }

    #[test]
    fn arguments_and_ioctls_are_named() {
        let all = declaration().allowed();
        let unshare = of(&all, call::UNSHARE);
        assert_eq!(unshare.to_string(), "unshare with argument 1 = 0x200");
        assert_eq!(unshare.name(), "unshare");
        assert!(unshare.includes(call::UNSHARE, &[0x200, 0, 0, 0, 0, 0], 1));
        assert!(!unshare.includes(call::UNSHARE, &[0x201, 0, 0, 0, 0, 0], 1));
        assert_eq!(of(&all, IOCTL).to_string(), "ioctl FIONBIO");
    }
}
