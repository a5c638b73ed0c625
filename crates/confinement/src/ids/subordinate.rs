//! The ids that the administrator grants a user (subuid(5), subgid(5)).
//!
//! Read by ourselves: a statically linked binary cannot load the C library's name services.

use std::fs;

/// First id and number of ids of each range of users.
pub(super) fn users(of: u32) -> Vec<(u32, u32)> {
    in_file("/etc/subuid", of)
}

/// First id and number of ids of each range of groups, which are granted to users too.
pub(super) fn groups(of: u32) -> Vec<(u32, u32)> {
    in_file("/etc/subgid", of)
}

fn in_file(path: &str, user: u32) -> Vec<(u32, u32)> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let grants = read(path);
    if grants.is_empty() {
        return Vec::new();
    }
    granted(&grants, user, name(&read("/etc/passwd"), user))
}

/// The name of `user` in a table of passwd(5).
pub(super) fn name(table: &str, user: u32) -> Option<&str> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user)).then_some(name)
    })
}

/// The ranges that a table of subuid(5) has for a user, who stands there by name or by number.
pub(super) fn granted(table: &str, user: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let number = user.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let whose = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (whose == number || Some(whose) == name).then_some((first, count))
    };
    table.lines().filter_map(range).collect()
}
