//! The installed manual pages' text about an errno of a call.
//!
//! No text of a page is part of this program: the pages have their own licences. A page can be anybody's file, so
//! that reading it is bounded, and only text of it reaches a terminal.

mod entry;
mod identifiers;
mod page;
mod rank;
mod roff;

use std::env;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use identifiers::{last_name, names};
use page::Page;

pub use entry::Entry;
pub use rank::rank;

/// Where pages are if MANPATH does not say otherwise, in the order of man(1).
const ROOTS: [&str; 2] = ["/usr/local/share/man", "/usr/share/man"];
/// A page's bytes that are read, packed and unpacked alike; the largest page of Linux has 300 KiB.
const LARGEST: u64 = 4 << 20;
/// Pages that only name another one, one after the other.
const HOPS: usize = 4;
/// Other pages that are looked at where a page refers to them for its errors.
const REFERENCES: usize = 4;
/// Errnos of one number, as pages have them and as this crate has them.
const SAME: [(&str, &str); 3] = [
    ("EWOULDBLOCK", "EAGAIN"),
    ("EDEADLOCK", "EDEADLK"),
    ("ENOTSUP", "EOPNOTSUPP"),
];

/// What the installed page of a system call says about an errno (`EACCES`); nothing at all if there is no such page.
///
/// A page that says nothing about it gives no entries, unless it refers to other pages for its errors: then theirs. The
/// order is the page's, but for entries that say to be about other calls, which come last.
#[must_use]
pub fn entries(call: &str, errno: &str) -> Option<Vec<Entry>> {
    entries_in(&roots(env::var_os("MANPATH").as_deref()), call, errno)
}

/// As [`entries`], of the pages in these directories: of the first one that has a page.
#[must_use]
pub fn entries_in(roots: &[PathBuf], call: &str, errno: &str) -> Option<Vec<Entry>> {
    let page = find(roots, call)?;
    let mut found = of_page(&page, call, errno);
    if found.is_empty() {
        let others = references(&page.besides).filter(|name| *name != call);
        found = others
            .take(REFERENCES)
            .filter_map(|name| find(roots, name))
            .flat_map(|page| of_page(&page, call, errno))
            .collect();
    }
    found.sort_by_key(|entry| entry.elsewhere);
    Some(found)
}

fn of_page(page: &Page, call: &str, errno: &str) -> Vec<Entry> {
    let also = SAME.iter().find(|(_, own)| *own == errno).map(|(also, _)| *also);
    page.blocks
        .iter()
        .filter(|block| block.is_about(errno) || also.is_some_and(|also| block.is_about(also)))
        .map(|block| Entry {
            page: page.name.clone(),
            heading: block.heading.clone(),
            text: block.text.clone(),
            elsewhere: is_elsewhere(&block.heading, call) || is_elsewhere(leading(&block.text), call),
        })
        .collect()
}

/// What stands in parentheses at the beginning, where pages of several calls say which ones they speak of.
fn leading(text: &str) -> &str {
    let mut depth = 0_usize;
    for (index, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return &text[..index];
        }
    }
    ""
}

/// Whether functions are named, `clone3()`, and none of them is this call.
fn is_elsewhere(text: &str, call: &str) -> bool {
    let own = library(call);
    let functions: Vec<_> = text
        .match_indices("()")
        .map(|(end, _)| last_name(&text[..end]))
        .filter(|name| !name.is_empty())
        .collect();
    !functions.is_empty() && !functions.iter().any(|name| library(name) == own)
}

/// The call's name in the C library, which pages use: `fstatat` of `newfstatat`, `pread` of `pread64`.
fn library(call: &str) -> &str {
    let name = call
        .strip_prefix("new")
        .or_else(|| call.strip_prefix("rt_"))
        .unwrap_or(call);
    name.strip_suffix("64").unwrap_or(name)
}

/// The pages of system calls that a text refers to: `read` of `read(2)`.
fn references(text: &str) -> impl Iterator<Item = &str> {
    let mut before = Vec::new();
    text.match_indices("(2)").filter_map(move |(end, _)| {
        let name = last_name(&text[..end]);
        if name.is_empty() || before.contains(&name) {
            return None;
        }
        before.push(name);
        Some(name)
    })
}

fn roots(manpath: Option<&OsStr>) -> Vec<PathBuf> {
    let defaults = || ROOTS.map(PathBuf::from).to_vec();
    let Some(given) = manpath.filter(|given| !given.is_empty()) else {
        return defaults();
    };
    // An empty part stands for what is searched without the variable, manpath(1).
    env::split_paths(given)
        .flat_map(|part| {
            if part.as_os_str().is_empty() {
                defaults()
            } else {
                vec![part]
            }
        })
        .collect()
}

/// The first page of this name that can be read.
fn find(roots: &[PathBuf], call: &str) -> Option<Page> {
    if !is_name(call) {
        return None;
    }
    roots.iter().find_map(|root| {
        let mut source = read(root, "man2", &format!("{call}.2"))?;
        for _ in 0..HOPS {
            let Some(path) = referred(&source) else {
                let mut page = Page::of(&source);
                if page.name.is_empty() {
                    page.name = format!("{call}(2)");
                }
                return Some(page);
            };
            let (directory, file) = inside(path)?;
            source = read(root, directory, file)?;
        }
        None
    })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && names(name).next() == Some(name)
}

/// The page that stands for this one: `man2/open.2` of `.so man2/open.2`.
fn referred(source: &str) -> Option<&str> {
    let mut lines = source.lines();
    let line = lines.find(|line| !line.starts_with(".\\\"") && !line.is_empty())?;
    Some(line.strip_prefix(".so ")?.trim())
}

/// Folder and file of a page, which can be nowhere else than in a folder of the manual.
fn inside(path: &str) -> Option<(&str, &str)> {
    let (directory, file) = path.split_once('/').unwrap_or(("man2", path));
    let (name, section) = file.split_once('.')?;
    (is_name(directory) && is_name(name) && is_name(section)).then_some((directory, file))
}

/// A page's source, packed or not. A page that is broken is none.
fn read(root: &Path, directory: &str, file: &str) -> Option<String> {
    let folder = root.join(directory);
    let packed = || unpacked(open(&folder.join(format!("{file}.gz"))).ok()?);
    let bytes = packed().or_else(|| bounded(open(&folder.join(file)).ok()?))?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn unpacked(file: impl Read) -> Option<Vec<u8>> {
    bounded(GzDecoder::new(file))
}

fn bounded(source: impl Read) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(LARGEST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Opens a file, and neither waits for a pipe nor reads a device without an end.
fn open(path: &Path) -> io::Result<impl Read + use<>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(file.take(LARGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn searched(manpath: Option<&str>) -> Vec<String> {
        let roots = roots(manpath.map(OsStr::new));
        roots.iter().map(|root| root.display().to_string()).collect()
    }

    #[test]
    fn manpath_replaces_the_usual_directories_and_an_empty_part_stands_for_them() {
        let usual = ["/usr/local/share/man", "/usr/share/man"];
        assert_eq!(searched(None), usual);
        assert_eq!(searched(Some("")), usual);
        assert_eq!(searched(Some("/opt/man:/srv/man")), ["/opt/man", "/srv/man"]);
        assert_eq!(searched(Some("/opt/man:")), ["/opt/man", usual[0], usual[1]]);
    }
}
