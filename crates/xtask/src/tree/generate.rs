//! Makes the tree: one gigabyte, the same on every run.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, makedev, mknodat, setxattr, utimensat,
};

const MIB: u64 = 1 << 20;
const DIRECTORIES: u64 = 50;
const FILES_A_DIRECTORY: u64 = 400;
const LARGE: u64 = 880 * MIB;
/// Longest name that Linux file systems take.
const NAME_MAX: usize = 255;

/// Fills the directory `tree`, which must be empty; returns the bytes of content.
pub(crate) fn generate(tree: &Path) -> Result<u64> {
    let mut maker = Maker {
        random: Random(0x9e37_79b9_7f4a_7c15),
        bytes: 0,
    };
    maker.many_small(&directory(tree, "small")?)?;
    maker.large(&directory(tree, "large")?)?;
    maker.holes(&directory(tree, "holes")?)?;
    links(&directory(tree, "links")?)?;
    names(&directory(tree, "names")?)?;
    special(&directory(tree, "special")?)?;
    attributes(&directory(tree, "attributes")?)?;
    // Last: entries made later would change directories' times again.
    modes_and_owners(&directory(tree, "modes")?)?;
    times(&directory(tree, "times")?)?;
    Ok(maker.bytes)
}

struct Maker {
    random: Random,
    bytes: u64,
}

impl Maker {
    fn many_small(&mut self, base: &Path) -> Result<()> {
        for outer in 0..DIRECTORIES {
            let inner = directory(base, format!("directory-{outer}"))?;
            for file in 0..FILES_A_DIRECTORY {
                // Most are small, none is a round number of pages, some are empty.
                let size = self.random.next() % 400 * (self.random.next() % 50);
                self.write(&inner.join(format!("file-{file}")), size)?;
            }
        }
        Ok(())
    }

    fn large(&mut self, base: &Path) -> Result<()> {
        // One byte past a page, so that the last request is short.
        self.write(&base.join("one"), LARGE + 1)?;
        for (index, size) in [4095, 4096, 4097, MIB - 1, MIB, MIB + 1, 64 * MIB]
            .into_iter()
            .enumerate()
        {
            self.write(&base.join(format!("edge-{index}")), size)?;
        }
        Ok(())
    }

    /// Data between holes, holes at either end, and nothing but a hole.
    fn holes(&mut self, base: &Path) -> Result<()> {
        let size = 256 * MIB;
        let layouts: [(&str, &[u64]); 4] = [
            ("between", &[0, 64 * MIB, size - MIB]),
            ("leading", &[size - MIB]),
            ("trailing", &[0]),
            ("only", &[]),
        ];
        for (name, data) in layouts {
            let file = File::create(base.join(name)).with_context(|| format!("cannot create {name}"))?;
            file.set_len(size).context("cannot make a hole")?;
            for &offset in data {
                let bytes = self.random.bytes(MIB as usize);
                file.write_all_at(&bytes, offset)
                    .context("cannot write between holes")?;
                self.bytes += MIB;
            }
        }
        Ok(())
    }

    fn write(&mut self, path: &Path, size: u64) -> Result<()> {
        let mut file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut left = size;
        while left > 0 {
            let length = left.min(MIB);
            let bytes = self.random.bytes(length as usize);
            file.write_all(&bytes)
                .with_context(|| format!("cannot write {}", path.display()))?;
            left -= length;
        }
        self.bytes += size;
        Ok(())
    }
}

fn links(base: &Path) -> Result<()> {
    let original = file(base, "original", b"one file under many names")?;
    let elsewhere = directory(base, "elsewhere")?;
    for index in 0..30 {
        let parent = if index % 2 == 0 { base } else { &elsewhere };
        fs::hard_link(&original, parent.join(format!("hard-{index}"))).context("cannot make a hard link")?;
    }
    symlink(&original, base.join("soft-absolute"))?;
    symlink("elsewhere/hard-1", base.join("soft-relative"))?;
    symlink("elsewhere", base.join("soft-directory"))?;
    symlink("no such file", base.join("soft-dangling"))?;
    symlink("soft-loop", base.join("soft-loop"))?;
    symlink("../../../../../../..", base.join("soft-outside"))?;
    symlink("a/".repeat(2000), base.join("soft-long"))?;
    symlink(OsStr::from_bytes(b"\xff\xfe target \x01"), base.join("soft-bytes"))?;
    fs::hard_link(base.join("soft-dangling"), base.join("soft-hard")).context("cannot link a symbolic link")
}

/// Files and directories with odd, long and deep names: names are bytes, any but NUL and the slash.
pub(crate) fn names(base: &Path) -> Result<()> {
    let longest = "n".repeat(NAME_MAX);
    let odd: [&[u8]; 14] = [
        b"\xff\xfe\xfd",
        b"caf\xe9",
        b"\xc3\x28",
        "snowman \u{2603}".as_bytes(),
        b"new\nline",
        b" leading",
        b"trailing ",
        b"-rf",
        b"*",
        b"back\\slash",
        b"...",
        b"\x01\x02\x7f",
        b"'quote\"",
        longest.as_bytes(),
    ];
    for name in odd {
        file(base, OsStr::from_bytes(name), name)?;
        let mut inner = name.to_vec();
        inner.truncate(NAME_MAX - 2);
        inner.extend_from_slice(b".d");
        file(&directory(base, OsStr::from_bytes(&inner))?, "inside", name)?;
    }
    let mut deep = base.to_owned();
    for level in 0..100 {
        deep = directory(&deep, format!("level-{level}"))?;
    }
    file(&deep, "bottom", b"far down").map(drop)
}

fn special(base: &Path) -> Result<()> {
    let node = |name: &str, kind: FileType, mode: u32, device: u64| {
        let made = mknodat(CWD, base.join(name), kind, Mode::from_raw_mode(mode), device);
        made.with_context(|| format!("cannot make the node {name} (is this root?)"))
    };
    node("fifo", FileType::Fifo, 0o640, 0)?;
    node("socket", FileType::Socket, 0o755, 0)?;
    node("character", FileType::CharacterDevice, 0o666, makedev(1, 3))?;
    node("block", FileType::BlockDevice, 0o600, makedev(259, 0x1_2345))
}

fn attributes(base: &Path) -> Result<()> {
    let set = |path: &Path, name: &str, value: &[u8]| {
        let set = setxattr(path, name, value, XattrFlags::empty());
        set.with_context(|| format!("cannot set {name} on {}", path.display()))
    };
    let plain = file(base, "plain", b"with attributes")?;
    set(&plain, "user.text", b"value")?;
    set(&plain, "user.empty", b"")?;
    set(&plain, "user.bytes", &[0, 255, 1, 254, b'\n'])?;
    set(
        &plain,
        &format!("user.{}", "n".repeat(NAME_MAX - "user.".len())),
        b"longest name",
    )?;
    let big = file(base, "big", b"with a big attribute")?;
    set(&big, "user.big", &[b'x'; 3000])?;
    let many = file(base, "many", b"with many attributes")?;
    for index in 0..60 {
        set(&many, &format!("user.number-{index}"), index.to_string().as_bytes())?;
    }
    set(
        &directory(base, "directory")?,
        "user.directory",
        b"directories have them too",
    )?;
    let listed = file(base, "listed", b"with an access control list")?;
    set(&listed, "system.posix_acl_access", &access_list())
}

/// `user::rw-,user:1000:r--,group::r--,mask::r--,other::---` in the kernel's form: version 2, then tag, permission and
/// id of each entry, little-endian.
fn access_list() -> Vec<u8> {
    const NO_ID: u32 = u32::MAX;
    let entries: [(u16, u16, u32); 5] = [
        (0x01, 6, NO_ID),
        (0x02, 4, 1000),
        (0x04, 4, NO_ID),
        (0x10, 4, NO_ID),
        (0x20, 0, NO_ID),
    ];
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, permission, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permission.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

fn modes_and_owners(base: &Path) -> Result<()> {
    for (index, mode) in [
        0o000, 0o001, 0o400, 0o644, 0o777, 0o1777, 0o2711, 0o4755, 0o6777, 0o7777,
    ]
    .into_iter()
    .enumerate()
    {
        let owned = file(base, format!("file-{mode:04o}"), b"mode")?;
        let inner = directory(base, format!("directory-{mode:04o}"))?;
        file(&inner, "inside", b"mode")?;
        for (path, owner) in [(owned, index as u32 * 1000), (inner, u32::MAX - 1 - index as u32)] {
            lchown(&path, Some(owner), Some(owner ^ 5)).with_context(|| format!("cannot own {}", path.display()))?;
            // After the owner, since a change of owner clears the set-id bits.
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
    }
    symlink("file-0644", base.join("soft"))?;
    lchown(base.join("soft"), Some(12), Some(34)).context("cannot own a symbolic link")
}

fn times(base: &Path) -> Result<()> {
    let moments: [(&str, i64, i64); 6] = [
        ("epoch", 0, 0),
        ("nanosecond", 1, 1),
        ("before-the-epoch", -1, 999_999_999),
        ("past-2038", 1 << 31, 123_456_789),
        ("past-2106", 1 << 32, 0),
        ("now-ish", 1_700_000_000, 987_654_321),
    ];
    for (name, seconds, nanoseconds) in moments {
        file(base, name, b"time")?;
        symlink("epoch", base.join(format!("{name}-soft")))?;
        directory(base, format!("{name}-directory"))?;
        for path in [name.to_owned(), format!("{name}-soft"), format!("{name}-directory")] {
            let moment = Timespec {
                tv_sec: seconds,
                tv_nsec: nanoseconds,
            };
            let both = Timestamps {
                last_access: moment,
                last_modification: moment,
            };
            let set = utimensat(CWD, base.join(&path), &both, AtFlags::SYMLINK_NOFOLLOW);
            set.with_context(|| format!("cannot set the time of {path}"))?;
        }
    }
    Ok(())
}

fn directory(parent: &Path, name: impl AsRef<OsStr>) -> Result<PathBuf> {
    let path = parent.join(name.as_ref());
    fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}

fn file(parent: &Path, name: impl AsRef<OsStr>, body: &[u8]) -> Result<PathBuf> {
    let path = parent.join(name.as_ref());
    fs::write(&path, body).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Marsaglia's xorshift: no two blocks of the tree are alike, and the same tree comes out every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
