//! A declaration as Markdown, for the manual.

use std::fmt;

use super::{Access, Declaration, Role, Rule};

impl fmt::Display for Declaration {
    /// Tables of files, capabilities, ioctls and system calls, with the reason for each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| files | access | why |\n|---|---|---|")?;
        match &self.shared {
            Some(shared) => {
                let access = match shared.access {
                    Access::Read => "read",
                    Access::Write => "read and write",
                };
                writeln!(
                    f,
                    "| beneath {} | {access} | {} |",
                    shared.directory.display(),
                    shared.why
                )?;
            }
            None => writeln!(f, "| none | - | all are open before it serves |")?,
        }
        writeln!(f, "\nNetwork: {}.\n", if self.network { "yes" } else { "no" })?;
        writeln!(f, "| capability | threads | why |\n|---|---|---|")?;
        for need in &self.capabilities {
            for (name, _) in need.set.iter_names() {
                writeln!(f, "| CAP_{name} | {} | {} |", names(need.roles), need.why)?;
            }
        }
        writeln!(f, "\n| ioctl | threads | why |\n|---|---|---|")?;
        for ioctl in &self.ioctls {
            writeln!(f, "| {} | {} | {} |", ioctl.name, names(ioctl.roles), ioctl.why)?;
        }
        writeln!(f, "\n| system calls | threads | why |\n|---|---|---|")?;
        for calls in &self.calls {
            let of: Vec<_> = calls.permits.iter().map(|permit| permit.call.name()).collect();
            writeln!(f, "| {} | {} | {} |", of.join(", "), names(calls.roles), calls.why)?;
        }
        writeln!(f, "\n| system call | arguments |\n|---|---|")?;
        for (call, rule) in self.all_rules() {
            writeln!(f, "| {} | {} |", call.name(), arguments(&rule))?;
        }
        Ok(())
    }
}

fn names(roles: &[Role]) -> String {
    roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(", ")
}

fn arguments(rule: &Rule) -> String {
    let Rule::When(lists) = rule else {
        return "any".into();
    };
    let all = lists.iter().map(|checks| {
        let checks: Vec<_> = checks.iter().map(ToString::to_string).collect();
        checks.join(" and ")
    });
    all.collect::<Vec<_>>().join("; or ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustix::thread::CapabilitySet;

    use crate::declaration::{Access, Calls, Capabilities, Declaration, Ioctl, Role, Shared};
    use crate::system_calls as call;
    use crate::{Argument, Occasion, Permit};

    const REQUESTS: &[Permit] = &[
        call::PREADV2.any(),
        call::FCNTL.when(&[&[Argument::is(1, 3)], &[Argument::is(1, 4), Argument::only(2, 0o6000)]]),
    ];

    #[test]
    fn the_manual_has_every_need_with_its_reason() {
        let declaration = Declaration {
            device: "share",
            shared: Some(Shared {
                directory: Path::new("DIR").into(),
                access: Access::Write,
                why: "it is shared",
            }),
            network: false,
            capabilities: vec![Capabilities {
                set: CapabilitySet::CHOWN | CapabilitySet::FOWNER,
                roles: &[Role::Lane, Role::Helper],
                why: "SETATTR",
            }],
            calls: vec![Calls {
                roles: &[Role::Lane],
                why: "READ",
                permits: REQUESTS,
            }],
            ioctls: vec![Ioctl {
                name: "FS_IOC_GETFLAGS",
                number: 0x8008_6601,
                roles: &[Role::Lane],
                why: "lsattr",
                occasion: Occasion::Usual,
            }],
        };
        let table = declaration.to_string();
        for line in [
            "| beneath DIR | read and write | it is shared |",
            "Network: no.",
            "| CAP_CHOWN | lane, helper | SETATTR |",
            "| CAP_FOWNER | lane, helper | SETATTR |",
            "| FS_IOC_GETFLAGS | lane | lsattr |",
            "| preadv2, fcntl | lane | READ |",
            "| preadv2 | any |",
            "| fcntl | argument 2 = 0x1; or argument 2 = 0x3; or argument 2 = 0x4 and argument 3 without 0xfffff3ff |",
            "| ioctl | argument 2 = 0x80086601 |",
        ] {
            assert!(table.lines().any(|found| found == line), "{line} is not in\n{table}");
        }
    }
}
