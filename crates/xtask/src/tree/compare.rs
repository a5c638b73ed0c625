//! Compares a copy with its original: everything visible to a program, except creator and creation time.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsString};
use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{lgetxattr, llistxattr};

/// More are counted and not told.
const TOLD: usize = 20;
/// What `st_blocks` counts in, on every file system.
const BLOCK: u64 = 512;

/// What differs, one sentence each; nothing when the copy is the same.
pub(crate) fn differences(original: &Path, copy: &Path) -> Result<Vec<String>> {
    let mut comparison = Comparison {
        original: original.to_owned(),
        copy: copy.to_owned(),
        found: Vec::new(),
        more: 0,
        first_names: [HashMap::new(), HashMap::new()],
    };
    comparison.directory(Path::new(""))?;
    if comparison.more > 0 {
        comparison.found.push(format!("and {} more", comparison.more));
    }
    Ok(comparison.found)
}

struct Comparison {
    original: PathBuf,
    copy: PathBuf,
    found: Vec<String>,
    more: usize,
    /// The name under which each inode with several was met first, in the original and in the copy.
    first_names: [HashMap<(u64, u64), PathBuf>; 2],
}

impl Comparison {
    fn directory(&mut self, at: &Path) -> Result<()> {
        let names = [list(&self.original.join(at))?, list(&self.copy.join(at))?];
        for name in names[0].iter().filter(|name| !names[1].contains(name)) {
            self.tell(&at.join(name), "is missing from the copy");
        }
        for name in names[1].iter().filter(|name| !names[0].contains(name)) {
            self.tell(&at.join(name), "is in the copy alone");
        }
        for name in names[0].iter().filter(|name| names[1].contains(name)) {
            self.entry(&at.join(name))?;
        }
        Ok(())
    }

    fn entry(&mut self, at: &Path) -> Result<()> {
        let paths = [self.original.join(at), self.copy.join(at)];
        let data = [metadata(&paths[0])?, metadata(&paths[1])?];
        for (what, look) in ATTRIBUTES {
            let [was, is] = [look(&data[0]), look(&data[1])];
            if was != is {
                self.tell(at, &format!("{what} was {was} and is {is}"));
            }
        }
        let attributes = [extended_attributes(&paths[0])?, extended_attributes(&paths[1])?];
        if attributes[0] != attributes[1] {
            let named = attributes.each_ref().map(|all| all.keys().cloned().collect::<Vec<_>>());
            self.tell(
                at,
                &format!(
                    "extended attributes were {:?} and are {:?}, or a value differs",
                    named[0], named[1]
                ),
            );
        }
        self.hard_links(at, &data);
        let kind = data[0].file_type();
        if kind != data[1].file_type() {
            return Ok(());
        }
        if kind.is_dir() {
            self.directory(at)?;
        } else if kind.is_symlink() {
            if fs::read_link(&paths[0])? != fs::read_link(&paths[1])? {
                self.tell(at, "points elsewhere");
            }
        } else if kind.is_file() {
            if let Some(offset) = first_difference(&paths)? {
                self.tell(at, &format!("the content differs at byte {offset}"));
            }
            let sparse = data.each_ref().map(|data| data.blocks() * BLOCK < data.size());
            if sparse[0] && !sparse[1] {
                self.tell(at, "had holes and has none");
            }
        }
        Ok(())
    }

    /// Names of one inode in the original must be names of one inode in the copy, and the other way round.
    fn hard_links(&mut self, at: &Path, data: &[Metadata; 2]) {
        if data[0].is_dir() || data[0].nlink() == 1 && data[1].nlink() == 1 {
            return;
        }
        let first = [0, 1].map(|side| {
            let inode = (data[side].dev(), data[side].ino());
            self.first_names[side]
                .entry(inode)
                .or_insert_with(|| at.to_owned())
                .clone()
        });
        if first[0] != first[1] {
            self.tell(
                at,
                &format!("was a link to {:?} and is one to {:?}", first[0], first[1]),
            );
        }
    }

    fn tell(&mut self, at: &Path, what: &str) {
        if self.found.len() < TOLD {
            self.found.push(format!("{at:?}: {what}"));
        } else {
            self.more += 1;
        }
    }
}

type Look = fn(&Metadata) -> String;

const ATTRIBUTES: [(&str, Look); 8] = [
    ("type", kind),
    ("mode", |data| format!("{:o}", data.mode())),
    ("owner", |data| data.uid().to_string()),
    ("group", |data| data.gid().to_string()),
    // A directory's size and link count are its file system's affair.
    ("size", |data| {
        if data.is_dir() {
            String::new()
        } else {
            data.size().to_string()
        }
    }),
    ("link count", |data| {
        if data.is_dir() {
            String::new()
        } else {
            data.nlink().to_string()
        }
    }),
    ("device", |data| data.rdev().to_string()),
    ("time of change", |data| {
        format!("{}.{:09}", data.mtime(), data.mtime_nsec())
    }),
];

fn kind(data: &Metadata) -> String {
    let kind = data.file_type();
    let name = match () {
        () if kind.is_dir() => "directory",
        () if kind.is_file() => "file",
        () if kind.is_symlink() => "symbolic link",
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () if kind.is_char_device() => "character device",
        () => "block device",
    };
    name.to_owned()
}

fn list(directory: &Path) -> Result<Vec<OsString>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut names = entries
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn metadata(path: &Path) -> Result<Metadata> {
    fs::symlink_metadata(path).with_context(|| format!("cannot stat {}", path.display()))
}

fn extended_attributes(path: &Path) -> Result<BTreeMap<OsString, Vec<u8>>> {
    let mut names = vec![0; 1 << 16];
    let length =
        llistxattr(path, &mut names).with_context(|| format!("cannot list attributes of {}", path.display()))?;
    let mut attributes = BTreeMap::new();
    for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 1 << 16];
        let length = lgetxattr(path, CString::new(name)?.as_c_str(), &mut value)
            .with_context(|| format!("cannot read an attribute of {}", path.display()))?;
        value.truncate(length);
        attributes.insert(OsString::from_vec(name.to_vec()), value);
    }
    Ok(attributes)
}

/// Where the contents part, if they do.
fn first_difference(paths: &[PathBuf; 2]) -> Result<Option<u64>> {
    let open = |path: &PathBuf| File::open(path).with_context(|| format!("cannot open {}", path.display()));
    let mut files = [open(&paths[0])?, open(&paths[1])?];
    let mut buffers = [vec![0; 1 << 18], vec![0; 1 << 18]];
    let mut offset = 0;
    loop {
        let lengths = [
            fill(&mut files[0], &mut buffers[0])?,
            fill(&mut files[1], &mut buffers[1])?,
        ];
        let [was, is] = [&buffers[0][..lengths[0]], &buffers[1][..lengths[1]]];
        if was != is {
            let same = was.iter().zip(is).take_while(|(was, is)| was == is).count();
            return Ok(Some(offset + same as u64));
        }
        if was.is_empty() {
            return Ok(None);
        }
        offset += was.len() as u64;
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file
            .read(&mut buffer[length..])
            .context("cannot read a file to compare")?
        {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    /// Two equal small trees, `change` done to the second, and what the comparison says.
    fn after(change: impl FnOnce(&Path)) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let trees = ["original", "copy"].map(|name| directory.path().join(name));
        for tree in &trees {
            fs::create_dir(tree).unwrap();
            fs::write(tree.join("a"), "same").unwrap();
            fs::write(tree.join("c"), "other").unwrap();
            fs::hard_link(tree.join("a"), tree.join("b")).unwrap();
            symlink("a", tree.join("soft")).unwrap();
            File::create(tree.join("hole")).unwrap().set_len(1 << 20).unwrap();
            for name in ["a", "c", "hole"] {
                let file = File::open(tree.join(name)).unwrap();
                file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            }
        }
        copy_link_time(&trees);
        change(&trees[1]);
        differences(&trees[0], &trees[1]).unwrap()
    }

    fn copy_link_time(trees: &[PathBuf; 2]) {
        use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
        let epoch = Timespec { tv_sec: 0, tv_nsec: 0 };
        let both = Timestamps {
            last_access: epoch,
            last_modification: epoch,
        };
        for tree in trees {
            utimensat(CWD, tree.join("soft"), &both, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
    }

    #[test]
    fn equal_trees_have_no_differences() {
        assert_eq!(after(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn each_kind_of_change_is_told() {
        type Change = fn(&Path);
        let keep_time = |path: &Path| {
            File::options()
                .append(true)
                .open(path)
                .unwrap()
                .set_modified(std::time::SystemTime::UNIX_EPOCH)
                .unwrap();
        };
        let cases: [(Change, &str); 8] = [
            (|tree| fs::remove_file(tree.join("c")).unwrap(), "is missing"),
            (
                |tree| fs::write(tree.join("extra"), "").unwrap(),
                "is in the copy alone",
            ),
            (
                |tree| fs::set_permissions(tree.join("c"), fs::Permissions::from_mode(0o4644)).unwrap(),
                "mode was",
            ),
            (
                |tree| fs::write(tree.join("c"), "othes").unwrap(),
                "content differs at byte 4",
            ),
            (
                |tree| fs::write(tree.join("c"), "others").unwrap(),
                "size was 5 and is 6",
            ),
            (
                |tree| {
                    fs::remove_file(tree.join("b")).unwrap();
                    fs::copy(tree.join("a"), tree.join("b")).unwrap();
                },
                "was a link to",
            ),
            (
                |tree| {
                    fs::remove_file(tree.join("soft")).unwrap();
                    symlink("c", tree.join("soft")).unwrap();
                },
                "points elsewhere",
            ),
            (
                |tree| fs::write(tree.join("hole"), vec![0; 1 << 20]).unwrap(),
                "had holes",
            ),
        ];
        for (change, expected) in cases {
            let found = after(change);
            assert!(
                found.iter().any(|sentence| sentence.contains(expected)),
                "{expected}: {found:?}"
            );
        }
        let found = after(|tree| {
            fs::write(tree.join("c"), "OTHER").unwrap();
            keep_time(&tree.join("c"));
        });
        assert_eq!(found.len(), 1, "only the content: {found:?}");
    }
}
