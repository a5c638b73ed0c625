//! The command line of `boot`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use process::arguments::{BASIC, DIAGNOSIS, Process, bytes};

use crate::serve::Attachments;
use crate::serve::args::{Rings, SystemCalls};

/// Boot a Linux guest in QEMU from a directory, without a disk image
///
/// With COMMAND, the guest runs only that, as root, on innkeeper's standard input, output and error, and innkeeper exits
/// with its status. Without COMMAND, the guest runs /sbin/init or /init of ROOTFS on the terminal; Ctrl-a x ends it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                    innkeeper boot /srv/rootfs -- uname -r\n  \
                    innkeeper boot /srv/rootfs --memory 2G --cpus 2 --share /srv/data:data\n\n\
                  Exit status: that of COMMAND (128+N if signal N ended it, 127 if it does not exist, 126 if it cannot be \
                  run); without COMMAND 0 when the guest powers off or reboots; 128+N after signal N to innkeeper; 2 for a \
                  wrong command line; 125 for any other failure, a guest's panic included.")]
pub(crate) struct Boot {
    /// Directory that becomes the guest's root file system
    #[arg(value_name = "ROOTFS")]
    pub(crate) root: PathBuf,
    /// Boot this Linux kernel (bzImage) [default: the newest vmlinuz-* in ROOTFS/boot]
    #[arg(long, value_name = "FILE", help_heading = BASIC)]
    pub(crate) kernel: Option<PathBuf>,
    /// Boot with this initramfs [default: one that innkeeper builds if the kernel needs it]
    #[arg(long, value_name = "FILE", conflicts_with = "command", help_heading = BASIC)]
    pub(crate) initrd: Option<PathBuf>,
    /// Guest memory, in bytes or with suffix M or G
    #[arg(long, value_name = "SIZE", default_value = "1G", help_heading = BASIC)]
    pub(crate) memory: MemorySize,
    /// Virtual processors
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=255),
        help_heading = BASIC,
    )]
    pub(crate) cpus: u16,
    /// Add words to the kernel's command line
    #[arg(long, value_name = "WORDS", help_heading = BASIC)]
    pub(crate) append: Vec<String>,
    /// Run this QEMU [default: qemu-system-x86_64 in PATH]
    #[arg(long, value_name = "FILE", help_heading = BASIC)]
    pub(crate) qemu: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) devices: Attachments,
    #[command(flatten)]
    pub(crate) rings: Rings,
    #[command(flatten)]
    pub(crate) system_calls: SystemCalls,
    #[command(flatten)]
    pub(crate) process: Process,
    /// With COMMAND, show the guest's kernel messages on standard error
    #[arg(long, short, help_heading = DIAGNOSIS)]
    pub(crate) verbose: bool,
    /// Command to run in the guest
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Guest memory in bytes: a multiple of 1 MiB, at least 64 MiB, below 16 TiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemorySize(pub(crate) u64);

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match bytes(text) {
            Some(bytes) if bytes % (1 << 20) == 0 && (64 << 20..16 << 40).contains(&bytes) => Ok(Self(bytes)),
            Some(_) => Err("give a multiple of 1M from 64M up, such as 512M or 2G".into()),
            None => Err("write it as 512M or 2G".into()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        boot: Boot,
    }

    /// What the command line gives whose words behind `boot` are these.
    pub(in crate::commands::boot) fn parsed(words: &[&str]) -> Boot {
        Line::parse_from([&["boot"], words].concat()).boot
    }

    #[test]
    fn a_command_after_two_dashes_keeps_its_own_options() {
        let line = ["/root", "--cpus", "2", "--", "sh", "-c", "exit 3", "--readonly"];
        let boot = parsed(&line);
        assert_eq!(boot.command, ["sh", "-c", "exit 3", "--readonly"]);
        assert!(!boot.devices.fs.export.readonly);
    }

    #[test]
    fn memory_sizes_are_read_with_their_suffix() {
        assert_eq!("512M".parse(), Ok(MemorySize(512 << 20)));
        assert_eq!("2g".parse(), Ok(MemorySize(2 << 30)));
        assert_eq!("1073741824".parse(), Ok(MemorySize(1 << 30)));
        for wrong in ["", "G", "1T", "63M", "100000001", "-1G", "18446744073709551615G"] {
            assert!(wrong.parse::<MemorySize>().is_err(), "{wrong} is no memory size");
        }
    }
}
