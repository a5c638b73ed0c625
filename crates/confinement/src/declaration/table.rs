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
