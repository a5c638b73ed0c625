//! Text of failed system calls: names quoted, flags by name.

use std::ffi::CStr;
use std::fmt::{self, Display, Formatter};

use rustix::fs::{AtFlags, OFlags, RenameFlags};

use crate::escape::Escaped;

/// How much of a name is shown: all of what file systems take, unless it has to be escaped.
const NAME_MAX: usize = 400;

/// A name in quotation marks.
pub(super) struct Quoted<'a>(pub(super) &'a CStr);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", Escaped::start(self.0.to_bytes(), NAME_MAX))
    }
}

/// Flags by their names in C, then what has no name.
pub(super) struct Flags {
    names: &'static [(i32, &'static str)],
    bits: i32,
}

impl Display for Flags {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut rest = self.bits;
        let mut separator = "";
        for &(bits, name) in self.names {
            if rest & bits == bits && (bits != 0 || self.bits & libc::O_ACCMODE == 0) {
                write!(f, "{separator}{name}")?;
                separator = "|";
                rest &= !bits;
            }
        }
        match rest {
            0 if separator.is_empty() => f.write_str("0"),
            0 => Ok(()),
            rest => write!(f, "{separator}{rest:#x}"),
        }
    }
}

/// Flags of open(2). What holds other flags comes first.
pub(super) fn open(flags: OFlags) -> Flags {
    const PATH: &[(i32, &str)] = &[
        (libc::O_PATH, "O_PATH"),
        (libc::O_DIRECTORY, "O_DIRECTORY"),
        (libc::O_NOFOLLOW, "O_NOFOLLOW"),
        (libc::O_CLOEXEC, "O_CLOEXEC"),
    ];
    const REAL: &[(i32, &str)] = &[
        (libc::O_RDWR, "O_RDWR"),
        (libc::O_WRONLY, "O_WRONLY"),
        (libc::O_RDONLY, "O_RDONLY"), // 0
        (libc::O_CREAT, "O_CREAT"),
        (libc::O_EXCL, "O_EXCL"),
        (libc::O_TRUNC, "O_TRUNC"),
        (libc::O_APPEND, "O_APPEND"),
        (libc::O_TMPFILE, "O_TMPFILE"),
        (libc::O_DIRECTORY, "O_DIRECTORY"),
        (libc::O_DIRECT, "O_DIRECT"),
        (libc::O_NOFOLLOW, "O_NOFOLLOW"),
        (libc::O_CLOEXEC, "O_CLOEXEC"),
    ];
    Flags {
        names: if flags.contains(OFlags::PATH) { PATH } else { REAL },
        bits: flags.bits().cast_signed(),
    }
}

/// Those of statx(2). Of other calls the same bits mean something else.
pub(super) fn statx(flags: AtFlags) -> Flags {
    const NAMES: &[(i32, &str)] = &[
        (libc::AT_EMPTY_PATH, "AT_EMPTY_PATH"),
        (libc::AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"),
        (libc::AT_NO_AUTOMOUNT, "AT_NO_AUTOMOUNT"),
        (libc::AT_STATX_FORCE_SYNC, "AT_STATX_FORCE_SYNC"),
        (libc::AT_STATX_DONT_SYNC, "AT_STATX_DONT_SYNC"),
    ];
    Flags {
        names: NAMES,
        bits: flags.bits().cast_signed(),
    }
}

pub(super) fn rename(flags: RenameFlags) -> Flags {
    const NAMES: &[(i32, &str)] = &[
        (libc::RENAME_NOREPLACE.cast_signed(), "RENAME_NOREPLACE"),
        (libc::RENAME_EXCHANGE.cast_signed(), "RENAME_EXCHANGE"),
        (libc::RENAME_WHITEOUT.cast_signed(), "RENAME_WHITEOUT"),
    ];
    Flags {
        names: NAMES,
        bits: flags.bits().cast_signed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_named_as_in_c() {
        assert_eq!(open(OFlags::empty()).to_string(), "O_RDONLY");
        assert_eq!(open(OFlags::RDWR | OFlags::TRUNC).to_string(), "O_RDWR|O_TRUNC");
        let made = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        assert_eq!(open(made).to_string(), "O_WRONLY|O_CREAT|O_EXCL");
        assert_eq!(open(OFlags::RDWR | OFlags::TMPFILE).to_string(), "O_RDWR|O_TMPFILE");
        assert_eq!(open(OFlags::PATH | OFlags::NOFOLLOW).to_string(), "O_PATH|O_NOFOLLOW");
        let unnamed = OFlags::CLOEXEC | OFlags::from_bits_retain(1 << 30);
        assert_eq!(open(unnamed).to_string(), "O_RDONLY|O_CLOEXEC|0x40000000");
        assert_eq!(statx(AtFlags::EMPTY_PATH).to_string(), "AT_EMPTY_PATH");
        assert_eq!(rename(RenameFlags::empty()).to_string(), "0");
        assert_eq!(rename(RenameFlags::EXCHANGE).to_string(), "RENAME_EXCHANGE");
    }

    #[test]
    fn a_name_cannot_end_its_quotation() {
        assert_eq!(
            Quoted(c"a\", O_RDONLY) = EIO\n").to_string(),
            r#""a\", O_RDONLY) = EIO\x0a""#
        );
    }
}
