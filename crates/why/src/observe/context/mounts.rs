//! The mounts of a thread (`/proc/PID/mountinfo`), and which of them a file is on.

use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Options by which calls fail.
const TELLING: [&str; 5] = ["ro", "noexec", "nosuid", "nodev", "nosymfollow"];

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Its number.
    number: u64,
    /// Where it is.
    pub place: PathBuf,
    /// The type of its file system.
    pub kind: String,
    /// Its options, those of the file system last.
    pub options: Vec<String>,
}

impl Mount {
    /// Where it is, of what type, and which of its options forbid something.
    #[must_use]
    pub fn tell(&self) -> String {
        let telling: Vec<_> = TELLING
            .iter()
            .copied()
            .filter(|telling| self.options.iter().any(|option| option == telling))
            .collect();
        let options = if telling.is_empty() {
            "without ro, noexec, nosuid or nodev".to_owned()
        } else {
            format!("with {}", telling.join(", "))
        };
        format!("{} is mounted {options} ({})", self.place.display(), self.kind)
    }

    /// Whether it has this option.
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|own| own == option)
    }
}

/// All mounts that a thread sees.
#[derive(Debug, Default)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    pub(crate) fn of(thread: i32) -> Option<Self> {
        Some(Self::parse(
            &fs::read_to_string(format!("/proc/{thread}/mountinfo")).ok()?,
        ))
    }

    /// Lines of `mountinfo`: number, parent, device, root, place, options, optional fields, a dash, type, source, options.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mount = |line: &str| {
            let (before, behind) = line.split_once(" - ")?;
            let mut before = before.split(' ');
            let number = before.next()?.parse().ok()?;
            let place = before.nth(3)?;
            let own = before.next()?;
            let mut behind = behind.split(' ');
            let kind = behind.next()?.to_owned();
            let of_system = behind.nth(1).unwrap_or_default();
            let options = own.split(',').chain(of_system.split(','));
            Some(Mount {
                number,
                place: PathBuf::from(unescaped(place)),
                kind,
                options: options.map(str::to_owned).collect(),
            })
        };
        Self(text.lines().filter_map(mount).collect())
    }

    /// The mount of an open file.
    pub(super) fn of_descriptor(&self, thread: i32, number: i32) -> Option<&Mount> {
        let info = fs::read_to_string(format!("/proc/{thread}/fdinfo/{number}")).ok()?;
        let number: u64 = info
            .lines()
            .find_map(|line| line.strip_prefix("mnt_id:"))?
            .trim()
            .parse()
            .ok()?;
        self.0.iter().find(|mount| mount.number == number)
    }

    /// The mount that an absolute path is on by its names: no link is followed.
    #[must_use]
    pub fn of_path(&self, path: &Path) -> Option<&Mount> {
        let path = normal(path);
        let around = self.0.iter().filter(|mount| path.starts_with(&mount.place));
        // Of several in one place the last one is on top.
        around.max_by_key(|mount| mount.place.components().count())
    }
}

/// Without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// A space is written `\040`, and so are a tab, a newline and a backslash.
fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = behind.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => plain.push(char::from(code)),
            None => plain.push('\\'),
        }
        rest = if code.is_some() { &behind[3..] } else { behind };
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                        22 21 0:20 / /tmp rw,nosuid,noexec - tmpfs tmpfs rw,size=1g\n\
                        23 21 0:21 / /mnt/my\\040disk ro,relatime - vfat /dev/sdb1 ro,fmask=22\n\
                        24 21 0:22 / /tmp rw - tmpfs other rw\n";

    fn place(path: &str) -> String {
        Mounts::parse(TEXT).of_path(Path::new(path)).unwrap().tell()
    }

    #[test]
    fn a_path_is_on_the_innermost_mount_and_of_two_in_one_place_on_the_last() {
        assert_eq!(
            place("/etc/x"),
            "/ is mounted without ro, noexec, nosuid or nodev (ext4)"
        );
        assert_eq!(
            place("/tmp/x"),
            "/tmp is mounted without ro, noexec, nosuid or nodev (tmpfs)"
        );
        assert_eq!(place("/mnt/my disk/a/b"), "/mnt/my disk is mounted with ro (vfat)");
        assert_eq!(
            place("/mnt/my disk/../x"),
            "/ is mounted without ro, noexec, nosuid or nodev (ext4)"
        );
        assert_eq!(
            place("/tmpx"),
            "/ is mounted without ro, noexec, nosuid or nodev (ext4)"
        );
    }

    #[test]
    fn an_open_file_tells_its_mount() {
        let own = std::process::id().cast_signed();
        let file = fs::File::open("/proc/self/status").unwrap();
        let mounts = Mounts::of(own).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        assert_eq!(mounts.of_descriptor(own, number).unwrap().kind, "proc");
        assert_eq!(mounts.of_descriptor(own, 1 << 20), None);
    }

    #[test]
    fn half_a_line_is_no_mount() {
        assert_eq!(Mounts::parse("21 1 8:1 /\n - \nx\n\\").of_path(Path::new("/")), None);
        assert_eq!(unescaped("a\\040b\\"), "a b\\");
        assert_eq!(unescaped("\\9x\\1"), "\\9x\\1");
    }
}
