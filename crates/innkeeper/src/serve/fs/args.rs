//! The command line of `share`, and the part of it that `boot` takes.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use confinement::IdRange;
use devices::fs::{Deferral, HELPER_THREADS_MAX, REQUEST_QUEUES_MAX, TAG_MAX, WINDOW_UNIT};
use fuse::passthrough::{DaxFiles, MAX_NODES};
use process::arguments::{ACCESS, BASIC, DAX, DIAGNOSIS, LIMITS, PERFORMANCE, bytes};

use super::error::Error;
use crate::serve::args::Serving;

/// Tag of the share that is the root of `boot`'s guest.
pub(crate) const ROOT_TAG: &str = "rootfs";

/// What a guest needs for the directories that it stands in and some files.
const FEWEST_NODES: u64 = 64;

/// Share a directory with a virtual machine over a vhost-user socket
///
/// Prints the QEMU options and the guest's mount command, then serves one virtual machine after another until it receives
/// SIGINT, SIGTERM or SIGHUP.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                    innkeeper share /srv/project --socket-path /run/project.sock\n  \
                    innkeeper share /srv/data --socket-path /run/data.sock --tag data --readonly --num-queues 2\n\n\
                  Exit status: 0 after SIGINT, SIGTERM or SIGHUP; 2 for a wrong command line; 1 for any other failure.")]
pub(crate) struct Share {
    /// Directory to share
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Name by which the guest mounts the share, 1 to 36 bytes
    #[arg(long, default_value = "share", value_parser = parse_tag, help_heading = BASIC)]
    pub(crate) tag: String,
    #[command(flatten)]
    pub(crate) export: Export,
    #[command(flatten)]
    pub(crate) errors: LogErrors,
    #[command(flatten)]
    pub(crate) ids: IdMaps,
    #[command(flatten)]
    pub(crate) serving: Serving,
}

/// Which users and groups a daemon of an ordinary user acts as.
#[derive(Debug, Args)]
pub(crate) struct IdMaps {
    /// Act as users HOST and on for the guest's users GUEST and on, COUNT of them (ordinary user, needs newuidmap)
    ///
    /// Repeat it for more ranges. They must have your own id, and all other ids must be granted in /etc/subuid. A map of your
    /// own id alone needs no newuidmap, and all users of the guest act as you [default: the guest's root is you, and its other
    /// users are the ids that /etc/subuid grants you]
    #[arg(long, value_name = ":GUEST:HOST:COUNT:", help_heading = ACCESS)]
    pub(crate) uid_map: Vec<IdRange>,
    /// The same for groups (/etc/subgid, newgidmap)
    #[arg(long, value_name = ":GUEST:HOST:COUNT:", help_heading = ACCESS)]
    pub(crate) gid_map: Vec<IdRange>,
}

/// The log of errors. In `boot` it holds for the root and for every further share.
#[derive(Debug, Args)]
pub(crate) struct LogErrors {
    /// Write a line for every errno that the guest receives
    ///
    /// A line has the request, its caller, and the system call of the host that failed or the rule that refused the request. A
    /// busy guest causes many lines.
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text",
        help_heading = DIAGNOSIS,
    )]
    pub(crate) log_errors: Option<ErrorFormat>,
    /// Append the lines of --log-errors to FILE instead of standard error
    ///
    /// FILE must be a regular file or not exist, and no component of its path may be a symbolic link.
    #[arg(long, value_name = "FILE", requires = "log_errors", help_heading = DIAGNOSIS)]
    pub(crate) log_errors_to: Option<PathBuf>,
}

/// See [`LogErrors::log_errors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ErrorFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// How to share directories. In `boot` this holds for the root and for every further share.
#[derive(Clone, Debug, Args)]
pub(crate) struct Export {
    /// Refuse every change
    #[arg(long, help_heading = ACCESS)]
    pub(crate) readonly: bool,
    /// How long the guest may trust what it has cached
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Cache::Auto, help_heading = PERFORMANCE)]
    pub(crate) cache: Cache,
    /// Offer N request queues, each with its own thread (1 to 64)
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(REQUEST_QUEUES_MAX)),
        help_heading = PERFORMANCE,
    )]
    pub(crate) num_queues: u16,
    /// Let the guest gather writes in its cache (needs --cache auto or always)
    #[arg(long, help_heading = PERFORMANCE)]
    pub(crate) writeback: bool,
    /// Refuse extended attributes
    #[arg(long, conflicts_with = "posix_acl", help_heading = ACCESS)]
    pub(crate) no_xattr: bool,
    /// Let the guest keep POSIX access control lists
    #[arg(long, help_heading = ACCESS)]
    pub(crate) posix_acl: bool,
    /// Show the guest one file system even if the host has several mounted
    #[arg(long, help_heading = ACCESS)]
    pub(crate) no_announce_submounts: bool,
    /// Find known files by handle instead of by descriptor or name (needs CAP_DAC_READ_SEARCH)
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = FileHandles::Prefer, help_heading = PERFORMANCE)]
    pub(crate) inode_file_handles: FileHandles,
    /// Allow shared mappings of files with --cache never or metadata
    #[arg(long, help_heading = ACCESS)]
    pub(crate) allow_mmap: bool,
    /// Open files with O_DIRECT if the guest does
    #[arg(long, help_heading = ACCESS)]
    pub(crate) allow_direct_io: bool,
    /// Let the guest make idmapped mounts of the share (Linux 6.12, daemon as root)
    ///
    /// Requests then name a user only if they create something. So --log-errors cannot report who asked, and the guest's root
    /// cannot use the blocks that the host reserves for root.
    #[arg(long, help_heading = ACCESS)]
    pub(crate) allow_idmap: bool,
    /// Let the guest's root change project ids, and so move files out of the host's project quotas
    #[arg(long, help_heading = ACCESS)]
    pub(crate) allow_project_ids: bool,
    /// Let the guest's root keep trusted.* attributes, as overlayfs in the guest wants them (daemon as root)
    #[arg(long, conflicts_with = "no_xattr", help_heading = ACCESS)]
    pub(crate) allow_trusted_xattr: bool,
    /// Let the guest's root keep security labels: security.* attributes besides file capabilities (daemon as root)
    #[arg(long, conflicts_with = "no_xattr", help_heading = ACCESS)]
    pub(crate) allow_security_labels: bool,
    /// Let the guest's root make files immutable or append-only: chattr +i and +a (daemon as root)
    #[arg(long, help_heading = ACCESS)]
    pub(crate) allow_chattr: bool,
    /// Give the guest a window of this size into the host's page cache (needs QEMU 11.1)
    ///
    /// SIZE is a power of two in bytes or with suffix M, at most 512M, or auto for 512M.
    #[arg(long, value_name = "SIZE", help_heading = DAX)]
    pub(crate) dax: Option<WindowSize>,
    /// Files to map if the guest mounts with -o dax=inode: always, never, by size, by name, or fitting
    ///
    /// POLICY is always, never, a least size such as 64K, a pattern for names such as '*.img', or fitting (a multiple of 2 MiB
    /// long) [default: 2M, which needs CAP_SYS_ADMIN and Linux 6.9; fitting without them]
    #[arg(long, value_name = "POLICY", requires = "dax", value_parser = parse_dax_files, help_heading = DAX)]
    pub(crate) dax_files: Option<DaxFiles>,
    #[command(flatten)]
    pub(crate) budgets: Budgets,
}

/// How much a guest can make the daemon hold.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Budgets {
    /// Let the guest know N files and directories at a time (at least 64), each of which takes some 180 bytes of memory
    ///
    /// Linux keeps a file as long as it caches its name or attributes. At the limit, new files fail with ENFILE, and known ones work.
    /// To make the guest forget files: echo 2 > /proc/sys/vm/drop_caches.
    #[arg(
        long,
        value_name = "N",
        default_value_t = MAX_NODES,
        value_parser = clap::value_parser!(u64).range(FEWEST_NODES..),
        help_heading = LIMITS,
    )]
    pub(crate) max_nodes: u64,
    /// Let N reads of a queue wait for data without delaying the requests behind them (1 to 32768)
    ///
    /// At the limit, the thread of the queue waits for the data itself.
    #[arg(
        long,
        value_name = "N",
        default_value_t = Deferral::default().reads_per_queue,
        value_parser = clap::value_parser!(u16).range(1..=32768),
        help_heading = LIMITS,
    )]
    pub(crate) max_deferred_reads: u16,
    /// Start up to N threads for reads that wait for data (0 to 256, 0 leaves them to the threads of the queues)
    #[arg(
        long,
        value_name = "N",
        default_value_t = Deferral::default().threads,
        value_parser = clap::value_parser!(u16).range(0..=i64::from(HELPER_THREADS_MAX)),
        help_heading = LIMITS,
    )]
    pub(crate) helper_threads: u16,
}

impl Budgets {
    /// As `devices` takes them.
    pub(super) fn deferral(self) -> Deferral {
        Deferral {
            threads: self.helper_threads,
            reads_per_queue: self.max_deferred_reads,
        }
    }
}

/// See [`Export::cache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cache {
    /// Cache nothing
    Never,
    /// Names and attributes for a day, no contents
    Metadata,
    /// Names and attributes for a second, contents until the file changes or is opened again
    Auto,
    /// Everything for a day, missing names too; only for what this guest alone changes
    Always,
}

/// See [`Export::inode_file_handles`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileHandles {
    /// Keep descriptors, and open files by name once too many are open
    Never,
    /// Use handles where file system and privileges allow
    Prefer,
    /// Use handles only, and refuse files that have none
    Mandatory,
}

/// What `boot` shares: the root, which needs no option, and more.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Attach {
    /// Share one more directory; the guest mounts it with `mount -t virtiofs TAG DIR`
    #[arg(long = "share", value_name = "DIR:TAG", help_heading = BASIC)]
    pub(crate) shares: Vec<SharedDirectory>,
    #[command(flatten)]
    pub(crate) export: Export,
    #[command(flatten)]
    pub(crate) errors: LogErrors,
}

impl Attach {
    /// The root and what `--share` names, each with a tag of its own.
    pub(super) fn all(&self, root: &Path) -> Result<Vec<SharedDirectory>, Error> {
        let root = SharedDirectory {
            directory: root.into(),
            tag: ROOT_TAG.into(),
        };
        let shares = [&[root], &self.shares[..]].concat();
        let mut tags = HashSet::new();
        match shares.iter().find(|share| !tags.insert(&share.tag)) {
            Some(twice) => Err(Error::TagTaken {
                tag: twice.tag.clone(),
                root: ROOT_TAG,
            }),
            None => Ok(shares),
        }
    }
}

/// A further share of `boot`, written `DIR:TAG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharedDirectory {
    pub(crate) directory: PathBuf,
    pub(crate) tag: String,
}

impl FromStr for SharedDirectory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The last colon divides, since a directory's name may hold one and a tag had better not.
        let (directory, tag) = text
            .rsplit_once(':')
            .filter(|(directory, _)| !directory.is_empty())
            .ok_or("write it as DIR:TAG")?;
        Ok(Self {
            directory: directory.into(),
            tag: parse_tag(tag)?,
        })
    }
}

/// The window in bytes: a power of two, since it becomes a PCI BAR, from 2 MiB to 512 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowSize(pub(crate) u64);

impl WindowSize {
    /// QEMU (11.1) ends itself when there are more than 512 mappings and pieces of guest memory together. Linux maps 2 MiB at a time.
    const MAX: u64 = 512 << 20;
    const AUTO: Self = Self(Self::MAX);
}

impl FromStr for WindowSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::AUTO);
        }
        match bytes(text) {
            Some(bytes) if bytes.is_power_of_two() && (WINDOW_UNIT..=Self::MAX).contains(&bytes) => Ok(Self(bytes)),
            Some(_) => Err("give a power of two from 2M to 512M, the most that QEMU can map".into()),
            None => Err("write it as 512M, or auto".into()),
        }
    }
}

fn parse_dax_files(text: &str) -> Result<DaxFiles, String> {
    match text {
        "fitting" => Ok(DaxFiles::Fitting),
        "always" => Ok(DaxFiles::Always),
        "never" => Ok(DaxFiles::Never),
        // A name without any of these is more likely a policy misspelt.
        pattern if pattern.contains(['*', '?', '[']) => match glob::Pattern::new(pattern) {
            Ok(_) if pattern.contains('/') => Err("a pattern matches names, which have no `/`".into()),
            Ok(pattern) => Ok(DaxFiles::Named(pattern)),
            Err(error) => Err(format!(
                "the pattern is wrong from byte {} on: {}",
                error.pos, error.msg
            )),
        },
        size => bytes(size).map(DaxFiles::AtLeast).ok_or_else(|| {
            "write always, never, fitting, a size such as 64K, or a pattern with *, ? or [...] such as '*.img'".into()
        }),
    }
}

fn parse_tag(tag: &str) -> Result<String, String> {
    match tag.len() {
        0 => Err("give 1 to 36 bytes; the guest mounts the share by this name".into()),
        1..=TAG_MAX => Ok(tag.into()),
        length => Err(format!(
            "it has {length} bytes, and {TAG_MAX} fit; choose a shorter one"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_directory_and_a_tag() {
        let share = SharedDirectory {
            directory: "/srv/a:b".into(),
            tag: "data".into(),
        };
        assert_eq!("/srv/a:b:data".parse(), Ok(share));
        for wrong in ["/srv", "/srv:", ":data", ""] {
            assert!(wrong.parse::<SharedDirectory>().is_err(), "{wrong} is no share");
        }
    }

    #[test]
    fn files_to_map_are_chosen_by_word_size_or_name() {
        assert_eq!(parse_dax_files("always"), Ok(DaxFiles::Always));
        assert_eq!(parse_dax_files("64K"), Ok(DaxFiles::AtLeast(64 << 10)));
        for pattern in ["*.img", "disk?", "[a-c]*"] {
            let named = DaxFiles::Named(glob::Pattern::new(pattern).unwrap());
            assert_eq!(parse_dax_files(pattern), Ok(named));
        }
        for wrong in ["", "alway", "64X", "a/*", "[a", "a***"] {
            assert!(parse_dax_files(wrong).is_err(), "{wrong} is no policy");
        }
    }

    #[test]
    fn a_tag_fills_the_configuration_space_and_no_more() {
        assert!(parse_tag(&"t".repeat(36)).is_ok());
        assert!(parse_tag(&"t".repeat(37)).is_err());
        assert!(parse_tag("").is_err());
    }

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        attach: Attach,
    }

    #[test]
    fn no_two_shares_have_one_tag() {
        let tags = |options: &[&str]| {
            let line: Line = clap::Parser::parse_from(["boot"].iter().chain(options));
            let all = line.attach.all(Path::new("/srv"));
            all.map(|shares| shares.into_iter().map(|share| share.tag).collect::<Vec<_>>())
        };
        assert_eq!(
            tags(&["--share", "/a:x", "--share", "/b:y"]).unwrap(),
            ["rootfs", "x", "y"]
        );
        assert!(matches!(
            tags(&["--share", "/a:x", "--share", "/b:x"]),
            Err(Error::TagTaken { .. })
        ));
        assert!(matches!(tags(&["--share", "/a:rootfs"]), Err(Error::TagTaken { .. })));
    }
}
