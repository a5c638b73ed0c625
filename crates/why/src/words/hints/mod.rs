//! Hints for newcomers on kernel functions that refuse something: what was wrong, what to do, and which values
//! decide.
//!
//! The tables are keyed by function and errno, not by system call, because many calls run through the same check.
//! Where the same check has a different meaning for each caller, a row may name a function that must be on the path
//! to it.

mod by_call;
mod fact;
mod files;
mod memory;
mod mounts;
mod network;
mod processes;
mod row;
mod security;
mod waiting;

use row::{Row, base};

pub use by_call::facts as facts_of_call;
pub use fact::Fact;
pub use row::Hint;

/// What the hint is for this function and errno, at the end of this chain of functions.
#[must_use]
pub fn hint(function: &str, errno: &str, chain: &[String]) -> Option<Hint> {
    let function = base(function);
    let fitting = || rows().filter(|row| row.fits(function, errno, chain));
    let found = fitting().find(|row| row.way.is_some()).or_else(|| fitting().next());
    found.or_else(|| module(function)).map(|row| row.hint)
}

/// Every function that a hint is known of.
pub fn functions() -> impl Iterator<Item = &'static str> {
    rows().flat_map(|row| [Some(row.function), row.way]).flatten()
}

fn rows() -> impl Iterator<Item = &'static Row> {
    let tables = [
        files::ROWS,
        memory::ROWS,
        network::ROWS,
        processes::ROWS,
        waiting::ROWS,
        mounts::ROWS,
        security::ROWS,
    ];
    tables.into_iter().flatten()
}

/// Security modules have a beginning of their names in common.
fn module(function: &str) -> Option<&'static Row> {
    security::MODULES.iter().find(|row| function.starts_with(row.function))
}

/// The values that the tables name.
#[cfg(test)]
pub(crate) fn facts() -> impl Iterator<Item = &'static Fact> {
    rows().flat_map(|row| row.hint.facts).chain(by_call::all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_hidden_by_one_before_it() {
        let rows: Vec<_> = rows().collect();
        for (at, row) in rows.iter().enumerate() {
            let hidden = rows[..at].iter().any(|before| {
                before.function == row.function
                    && before.way == row.way
                    && (before.errnos.is_empty() || before.errnos.iter().any(|errno| row.errnos.contains(errno)))
            });
            assert!(!hidden, "{} {:?}", row.function, row.errnos);
        }
    }

    #[test]
    fn every_row_is_of_an_identifier_and_of_errnos_that_exist() {
        let errnos: Vec<_> = (1..4096).filter_map(crate::words::errno_name).collect();
        for row in rows().chain(security::MODULES) {
            assert!(
                row.function
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            );
            assert!(
                row.errnos.iter().all(|errno| errnos.contains(errno)),
                "{:?}",
                row.errnos
            );
            assert!(!row.hint.reason.is_empty());
        }
    }

    #[test]
    fn copies_of_the_compiler_and_security_modules_have_hints() {
        assert!(hint("getname_flags.part.0", "ENAMETOOLONG", &[]).is_some());
        assert!(
            hint("apparmor_file_open", "EACCES", &[])
                .unwrap()
                .reason
                .contains("AppArmor")
        );
        assert_eq!(hint("getname_flags", "EIO", &[]), None);
    }

    #[test]
    fn what_is_on_the_way_tells_more() {
        let reason = |chain: &[&str]| {
            let chain: Vec<_> = chain.iter().map(|&name| name.to_owned()).collect();
            hint("step_into", "ENOENT", &chain).unwrap().reason
        };
        assert!(reason(&["do_sys_openat2", "path_openat", "step_into"]).contains("the file that the path names"));
        assert!(reason(&["bprm_execve", "load_script.part.0", "step_into"]).contains("interpreter"));
        assert!(reason(&["load_elf_binary", "step_into"]).contains("loader"));
        assert!(reason(&["unix_find_other", "step_into"]).contains("socket"));
    }
}
