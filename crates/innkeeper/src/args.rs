//! The command line: arguments, their checks and their help.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use devices::fs::{REQUEST_QUEUES_MAX, TAG_MAX, WINDOW_UNIT};
use fuse::passthrough::DaxFiles;
use process::arguments::{ACCESS, BASIC, DAX, DIAGNOSIS, Log, PERFORMANCE, Process};

use crate::bench::Bench;

/// Share host directories with virtual machines over vhost-user
#[derive(Debug, Parser)]
#[command(name = "innkeeper", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) job: Job,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    Share(Share),
    Mount(Mount),
    Boot(Boot),
    Bench(Bench),
    Why(Why),
}

/// Explain which system calls of a command failed, and which kernel function refused them
///
/// Runs COMMAND and prints the report to standard error when it ends. Follows children and threads.
///
/// ptrace finds the failed calls and needs no privilege. The kernel's function tracer finds the functions and needs root;
/// without root, the report ends at the system call. Both slow the command down.
#[derive(Debug, Args)]
#[command(
    override_usage = "innkeeper why [OPTIONS] -- COMMAND...\n       innkeeper why [OPTIONS] -p PID [--for TIME]\n       \
                      innkeeper why [OPTIONS] --explain FILE",
    after_help = "Examples:\n  \
                    innkeeper why -- cat /no/such/file              explain the failed calls of a command\n  \
                    innkeeper why -p 1234 --for 10s --errno EACCES  watch a running process for ten seconds\n\n\
                  Exit status: that of COMMAND (128+N if signal N ended it, 127 if it does not exist, 126 if it cannot be \
                  run); 0 after -p or --explain; 2 for a wrong command line; 125 for any other failure."
)]
pub(crate) struct Why {
    /// Attach to process PID instead of running a command
    ///
    /// Traces all its threads, and those that it starts later, until it ends, --for is over, or Ctrl-C; then prints the report.
    /// The process continues undisturbed, even if innkeeper is killed. The one exception: a few calls that wait, such as
    /// epoll_wait, return EINTR when innkeeper attaches and detaches, as they do after SIGSTOP and SIGCONT.
    #[arg(
        long,
        short = 'p',
        value_name = "PID",
        value_parser = clap::value_parser!(i32).range(1..),
        conflicts_with = "explain",
        help_heading = BASIC,
    )]
    pub(crate) process: Option<i32>,

    /// Detach from the process of -p after this time: 10s, 500ms, 2m, 1h
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time, requires = "process", help_heading = BASIC)]
    pub(crate) time: Option<Duration>,

    /// Also write everything that was seen to FILE, for --explain
    #[arg(long, value_name = "FILE", conflicts_with = "explain", help_heading = BASIC)]
    pub(crate) record: Option<PathBuf>,

    /// Explain a recording of --record instead of running a command; needs no privilege
    #[arg(long, value_name = "FILE", conflicts_with = "command", help_heading = BASIC)]
    pub(crate) explain: Option<PathBuf>,

    /// Report what a run could see on this system, and what it would take to see more
    ///
    /// Runs no command. Exit status 0 if a run would name functions of the kernel, 1 if only the failed calls. With --json
    /// the report is one object.
    #[arg(long, help_heading = DIAGNOSIS, conflicts_with_all = [
        "command", "process", "explain", "record", "kernel", "exact", "deep", "again", "host_log", "output", "syscall", "errno", "all",
    ])]
    pub(crate) doctor: bool,

    /// Show the functions that passed the error on
    #[arg(long, help_heading = DIAGNOSIS)]
    pub(crate) kernel: bool,

    /// Run COMMAND a second time to name the instruction that made each error, and the test before it
    ///
    /// All effects of COMMAND happen twice. The first run finds the functions. The second run, which the report is about,
    /// probes up to 20 instructions of each. Needs root and /proc/kcore.
    #[arg(long, conflicts_with = "explain", help_heading = DIAGNOSIS)]
    pub(crate) exact: bool,

    /// Like --exact, and show which basic blocks of the function that made each error ran (x86-64)
    ///
    /// The second run probes each basic block of up to 8 functions: those of the reported failures, so --syscall and --errno
    /// choose them. The order of the blocks shows how every jump turned out; the report has the jump that decided and the values
    /// that it compared.
    #[arg(long, conflicts_with = "explain", help_heading = DIAGNOSIS)]
    pub(crate) deep: bool,

    /// Run COMMAND a second time if that is needed to learn what functions returned (kernels before 6.5)
    ///
    /// All effects of COMMAND happen twice, or with --exact three times. The report is about the last run.
    #[arg(long, conflicts_with = "explain", help_heading = DIAGNOSIS)]
    pub(crate) again: bool,

    /// Read from FILE which calls failed on the host of a share: the log that `share --log-errors` writes
    ///
    /// FILE may lie in the share; it is read when COMMAND has ended. This also works without root, by thread, name and errno.
    #[arg(long, value_name = "FILE", help_heading = DIAGNOSIS)]
    pub(crate) host_log: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) filter: Filter,

    /// Write the report to FILE instead of standard error
    #[arg(long, short, value_name = "FILE", help_heading = BASIC)]
    pub(crate) output: Option<PathBuf>,

    /// Print the report as one JSON object (version 1)
    #[arg(long, help_heading = BASIC)]
    pub(crate) json: bool,

    /// Restore tracefs from this journal when the process that writes it has ended
    #[arg(long, hide = true, exclusive = true, value_name = "FILE")]
    pub(crate) guardian: Option<PathBuf>,

    /// Command to run
    #[arg(
        last = true,
        required_unless_present_any = ["explain", "guardian", "doctor", "process"],
        value_name = "COMMAND",
    )]
    pub(crate) command: Vec<OsString>,
}

impl Why {
    /// Refuses options that conflict for a reason that clap cannot explain.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.process.is_none() {
            return Ok(());
        }
        if !self.command.is_empty() {
            return Err("-p attaches to a running process, and COMMAND starts one: give one of them");
        }
        if self.exact || self.deep || self.again {
            return Err("--exact, --deep and --again run a command a second time, which -p cannot do");
        }
        Ok(())
    }
}

/// Selects the failures to report.
#[derive(Debug, Default, Args)]
pub(crate) struct Filter {
    /// Report only failures of this system call; may be repeated
    #[arg(long, value_name = "NAME", value_parser = parse_syscall, help_heading = BASIC)]
    pub(crate) syscall: Vec<String>,

    /// Report only failures with this errno, such as EACCES; may be repeated
    #[arg(long, value_name = "NAME", value_parser = parse_errno, help_heading = BASIC)]
    pub(crate) errno: Vec<String>,

    /// Report everyday failures too
    ///
    /// These are: names that the dynamic loader looks for, places in which a program was not found, "not now" (EAGAIN), and
    /// questions such as isatty().
    #[arg(long, help_heading = BASIC)]
    pub(crate) all: bool,
}

impl Filter {
    /// Whether the options select this failure.
    pub(crate) fn wants(&self, failure: &why::ptrace::Failure) -> bool {
        let named = |names: &[String], name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
        named(&self.syscall, &failure.call) && named(&self.errno, &failure.outcome.name())
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || "write it as in 10s, 500ms, 2m or 1h".to_owned();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let time = number.checked_mul(milliseconds).map(Duration::from_millis);
    time.filter(|time| !time.is_zero()).ok_or_else(wrong)
}

fn parse_syscall(text: &str) -> Result<String, String> {
    // Reports name calls without a known name this way: those of 32-bit programs and of newer kernels.
    if text.starts_with("system call ") {
        return Ok(text.to_owned());
    }
    let name = text.to_lowercase();
    if (0..1024).any(|number| why::syscall_name(number) == Some(&name)) {
        Ok(name)
    } else {
        Err("no such system call; write it as in openat".to_owned())
    }
}

fn parse_errno(text: &str) -> Result<String, String> {
    let name = text.to_uppercase();
    if (1..4096).any(|number| why::errno_name(number) == Some(&name)) {
        Ok(name)
    } else {
        Err("no such errno; write it as in EACCES".to_owned())
    }
}

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
    #[command(flatten)]
    pub(crate) endpoint: Endpoint,
    /// Name by which the guest mounts the share, 1 to 36 bytes
    #[arg(long, default_value = "share", value_parser = parse_tag, help_heading = BASIC)]
    pub(crate) tag: String,
    /// Let this group (a name or a number) connect to the socket too
    #[arg(long, value_name = "GROUP", requires = "socket_path", help_heading = ACCESS)]
    pub(crate) socket_group: Option<String>,
    #[command(flatten)]
    pub(crate) export: Export,
    #[command(flatten)]
    pub(crate) errors: LogErrors,
    #[command(flatten)]
    pub(crate) process: Process,
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

/// The socket to which the virtual machine monitor connects.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Endpoint {
    /// Create this UNIX socket and listen on it; it is removed at the end
    #[arg(long, value_name = "SOCKET", help_heading = BASIC)]
    pub(crate) socket_path: Option<PathBuf>,
    /// Listen on this inherited descriptor of a listening UNIX socket
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(RawFd).range(3..), help_heading = BASIC)]
    pub(crate) fd: Option<RawFd>,
}

/// Mount the share of a vhost-user-fs daemon on this host, without a virtual machine
///
/// Needs root (CAP_SYS_ADMIN) and /dev/fuse. Runs in the foreground until the share is unmounted, a signal arrives (SIGINT,
/// SIGTERM, SIGHUP), or the daemon ends. If the daemon ends, accesses fail.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                    innkeeper mount /run/project.sock /mnt/project\n  \
                    innkeeper mount /run/project.sock /mnt/project --packed --queues 2\n\n\
                  Exit status: 0 after umount or a signal; 2 for a wrong command line; 1 for any other failure, the end of \
                  the daemon included.")]
pub(crate) struct Mount {
    /// Socket of the daemon: innkeeper share, virtiofsd or another
    #[arg(value_name = "SOCKET")]
    pub(crate) socket: PathBuf,
    /// Directory to mount on
    #[arg(value_name = "MOUNTPOINT")]
    pub(crate) mountpoint: PathBuf,
    /// Use packed rings
    #[arg(long, help_heading = PERFORMANCE)]
    pub(crate) packed: bool,
    /// Use N request queues, each with its own thread (1 to 64)
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(REQUEST_QUEUES_MAX)),
        help_heading = PERFORMANCE,
    )]
    pub(crate) queues: u16,
    /// Descriptors of a queue, a power of two from 4 to 1024; a request takes two
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = parse_queue_size, help_heading = PERFORMANCE)]
    pub(crate) queue_size: u16,
    /// Under load, poll for up to N microseconds before sleeping (0 to 1000, 0 turns polling off)
    #[arg(
        long,
        value_name = "N",
        default_value_t = 50,
        value_parser = clap::value_parser!(u32).range(0..=1000),
        help_heading = PERFORMANCE,
    )]
    pub(crate) poll_us: u32,
    #[command(flatten)]
    pub(crate) log: Log,
}

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
    /// Share one more directory; the guest mounts it with `mount -t virtiofs TAG DIR`
    #[arg(long = "share", value_name = "DIR:TAG", help_heading = BASIC)]
    pub(crate) shares: Vec<SharedDirectory>,
    /// Add words to the kernel's command line
    #[arg(long, value_name = "WORDS", help_heading = BASIC)]
    pub(crate) append: Vec<String>,
    /// Run this QEMU [default: qemu-system-x86_64 in PATH]
    #[arg(long, value_name = "FILE", help_heading = BASIC)]
    pub(crate) qemu: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) export: Export,
    #[command(flatten)]
    pub(crate) errors: LogErrors,
    #[command(flatten)]
    pub(crate) process: Process,
    /// With COMMAND, show the guest's kernel messages on standard error
    #[arg(long, short, help_heading = DIAGNOSIS)]
    pub(crate) verbose: bool,
    /// Command to run in the guest
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
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
    /// Ring formats to offer
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Ring::Auto, help_heading = PERFORMANCE)]
    pub(crate) ring: Ring,
    /// Let the guest gather writes in its cache (needs --cache auto or always)
    #[arg(long, help_heading = PERFORMANCE)]
    pub(crate) writeback: bool,
    /// Under load, poll for up to N microseconds before sleeping (0 to 1000, 0 turns polling off)
    ///
    /// Polling saves both sides a wake-up, and takes processor time that no other thread wants. An idle queue sleeps.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 50,
        value_parser = clap::value_parser!(u32).range(0..=1000),
        help_heading = PERFORMANCE,
    )]
    pub(crate) poll_us: u32,
    /// Refuse extended attributes
    #[arg(long, conflicts_with = "posix_acl", help_heading = ACCESS)]
    pub(crate) no_xattr: bool,
    /// Let the guest keep POSIX access control lists
    #[arg(long, help_heading = ACCESS)]
    pub(crate) posix_acl: bool,
    /// Show the guest one file system even if the host has several mounted
    #[arg(long, help_heading = ACCESS)]
    pub(crate) no_announce_submounts: bool,
    /// Remember files by handle instead of by open descriptor (needs CAP_DAC_READ_SEARCH)
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

/// See [`Export::ring`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ring {
    /// Offer both and let the virtual machine choose
    Auto,
    /// Offer split rings only
    Split,
    /// Offer both and print QEMU options that use packed rings
    Packed,
}

/// See [`Export::inode_file_handles`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileHandles {
    /// Keep a descriptor for each file
    Never,
    /// Use handles where file system and privileges allow
    Prefer,
    /// Use handles only, and refuse files that have none
    Mandatory,
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

/// Bytes, as a number alone or with suffix K, M or G.
fn bytes(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 1 << 10),
        b'M' | b'm' => (&text[..text.len() - 1], 1 << 20),
        b'G' | b'g' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit))
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

fn parse_queue_size(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|size: &u16| size.is_power_of_two() && (4..=1024).contains(size))
        .ok_or_else(|| "give a power of two from 4 to 1024".into())
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
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(parse_time("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_time("3"), Ok(Duration::from_secs(3)));
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "0s", "-1s", "1.5s", "10 s", "1d", "99999999999999999h"] {
            assert!(parse_time(wrong).is_err(), "{wrong:?} is no time");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_command_after_two_dashes_keeps_its_own_options() {
        let line = [
            "innkeeper",
            "boot",
            "/root",
            "--cpus",
            "2",
            "--",
            "sh",
            "-c",
            "exit 3",
            "--readonly",
        ];
        let Job::Boot(boot) = Arguments::parse_from(line).job else {
            panic!("boot was asked for")
        };
        assert_eq!(boot.command, ["sh", "-c", "exit 3", "--readonly"]);
        assert!(!boot.export.readonly);
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
}
