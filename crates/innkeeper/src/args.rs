//! The command line: what may be said, and what `--help` tells about it.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use devices::fs::{REQUEST_QUEUES_MAX, TAG_MAX, WINDOW_UNIT};
use fuse::passthrough::DaxFiles;

use crate::bench::Bench;

/// Shares host directories with virtual machines over vhost-user.
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

/// Tell which system calls of a command failed and which function of the kernel refused them, once it ended.
///
/// The calls are seen by ptrace, which needs no privilege. The kernel's functions are seen by its function tracer, which
/// needs root; without, the answer ends at the system call and says so. Children and threads are followed. Both slow the
/// command down. The report goes to standard error.
#[derive(Debug, Args)]
#[command(
    override_usage = "innkeeper why [OPTIONS] -- COMMAND...\n       innkeeper why [OPTIONS] -p PID [--for TIME]\n       \
                      innkeeper why [OPTIONS] --explain FILE",
    after_help = "Exit status: that of COMMAND (128+N if signal N ended it, 127 if there is no such command, 126 if it \
                  cannot be run); 0 once a process of -p ended or was let go, or a recording was explained; 2 for a wrong \
                  command line; 125 for any other failure."
)]
pub(crate) struct Why {
    /// Attach to the process PID, in place of running a command, until it ends, --for is over, or Ctrl-C
    ///
    /// All its threads are traced, and what they start from then on; the report is printed at the end. The process goes on
    /// undisturbed, also if innkeeper is killed, but for this: a few calls that wait (epoll_wait among them) return EINTR
    /// when innkeeper comes and goes, as they do after SIGSTOP and SIGCONT.
    #[arg(long, short = 'p', value_name = "PID", value_parser = clap::value_parser!(i32).range(1..), conflicts_with = "explain")]
    pub(crate) process: Option<i32>,

    /// Let the process of -p go after this time: 10s, 500ms, 2m, 1h
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time, requires = "process")]
    pub(crate) time: Option<Duration>,

    /// Also write all that was seen to FILE, to be explained elsewhere
    #[arg(long, value_name = "FILE", conflicts_with = "explain")]
    pub(crate) record: Option<PathBuf>,

    /// Explain what `--record` wrote, in place of running a command; needs no privilege
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    pub(crate) explain: Option<PathBuf>,

    /// Say what a run could see on this system and what keeps it from seeing more, in place of running a command
    ///
    /// Exit status 0 if a run would name functions of the kernel, 1 if only the failed calls. With --json as one object.
    #[arg(long, conflicts_with_all = [
        "command", "process", "explain", "record", "kernel", "exact", "deep", "again", "host_log", "output", "syscall", "errno", "all",
    ])]
    pub(crate) doctor: bool,

    /// Show the functions that handed the error on
    #[arg(long)]
    pub(crate) kernel: bool,

    /// Run COMMAND a second time, to name the instruction that made each error and the test before it
    ///
    /// Whatever COMMAND does is done twice. The first run names the functions; in the second, which the report is of, up
    /// to 20 instructions of each are probed. Needs root and /proc/kcore.
    #[arg(long, conflicts_with = "explain")]
    pub(crate) exact: bool,

    /// As --exact, and show which basic blocks of the function that made each error were run (x86-64)
    ///
    /// Each basic block of up to 8 of these functions is probed in the second run: those of the failures that are told, so
    /// that --syscall and --errno choose. From the order of the blocks follows how every jump turned out; of the one that
    /// decided it is told which values it compared.
    #[arg(long, conflicts_with = "explain")]
    pub(crate) deep: bool,

    /// Run COMMAND a second time where that is what it takes to learn what functions returned (kernels before 6.5)
    ///
    /// Whatever COMMAND does is done twice, or with --exact three times. The report is of the last run.
    #[arg(long, conflicts_with = "explain")]
    pub(crate) again: bool,

    /// Take from FILE what the host of a share says of each request that it refused: what `share --log-errors` writes there
    ///
    /// FILE may lie in the share, and is read once COMMAND ended. Without root this tells the host's part all the same,
    /// by thread, name and errno.
    #[arg(long, value_name = "FILE")]
    pub(crate) host_log: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) filter: Filter,

    /// Write the report to FILE in place of standard error
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Print the report as one JSON object (version 1)
    #[arg(long)]
    pub(crate) json: bool,

    /// Put tracefs back as this journal says, once the process that writes it is gone
    #[arg(long, hide = true, exclusive = true, value_name = "FILE")]
    pub(crate) guardian: Option<PathBuf>,

    /// Command to run
    #[arg(last = true, required_unless_present_any = ["explain", "guardian", "doctor", "process"], value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

impl Why {
    /// What does not go together, for reasons that a list of options does not tell.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.process.is_none() {
            return Ok(());
        }
        if !self.command.is_empty() {
            return Err("-p attaches to a process that runs already, and COMMAND starts one: give one of them");
        }
        if self.exact || self.deep || self.again {
            return Err(
                "--exact, --deep and --again run a command a second time, which cannot be done with a process of -p",
            );
        }
        Ok(())
    }
}

/// Which failures are told.
#[derive(Debug, Default, Args)]
pub(crate) struct Filter {
    /// Tell only failures of this system call; may be given more than once
    #[arg(long, value_name = "NAME", value_parser = parse_syscall)]
    pub(crate) syscall: Vec<String>,

    /// Tell only failures with this errno (EACCES); may be given more than once
    #[arg(long, value_name = "NAME", value_parser = parse_errno)]
    pub(crate) errno: Vec<String>,

    /// Tell everyday failures too: what the dynamic loader looks for, where a program was looked for in vain, "not now",
    /// questions such as isatty()
    #[arg(long)]
    pub(crate) all: bool,
}

impl Filter {
    /// Whether the options ask for this failure.
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
    // So are calls told that have no name here: those of 32-bit programs, and of newer kernels.
    if text.starts_with("system call ") {
        return Ok(text.to_owned());
    }
    let name = text.to_lowercase();
    if (0..1024).any(|number| why::syscall_name(number) == Some(&name)) {
        Ok(name)
    } else {
        Err("there is no such system call; write it as a report does (openat)".to_owned())
    }
}

fn parse_errno(text: &str) -> Result<String, String> {
    let name = text.to_uppercase();
    if (1..4096).any(|number| why::errno_name(number) == Some(&name)) {
        Ok(name)
    } else {
        Err("there is no such errno; write it as in EACCES".to_owned())
    }
}

/// Serve a directory to a virtual machine through a vhost-user socket.
///
/// Prints the QEMU options and the guest's mount command to use once it listens, and serves one virtual machine after
/// another until it gets SIGINT, SIGTERM or SIGHUP.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 after SIGINT, SIGTERM or SIGHUP; 2 for a wrong command line; 1 for any other failure."
)]
pub(crate) struct Share {
    /// Directory to share
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    #[command(flatten)]
    pub(crate) endpoint: Endpoint,
    /// Name by which the guest mounts the share, 1 to 36 bytes
    #[arg(long, default_value = "share", value_parser = parse_tag)]
    pub(crate) tag: String,
    /// Let this group connect to the socket too (a name or a number)
    #[arg(long, value_name = "GROUP", requires = "socket_path")]
    pub(crate) socket_group: Option<String>,
    #[command(flatten)]
    pub(crate) export: Export,
    #[command(flatten)]
    pub(crate) errors: LogErrors,
    #[command(flatten)]
    pub(crate) process: Process,
}

/// What is told of errors that the guest gets; in `boot` of those of the root and of every further share.
#[derive(Debug, Args)]
pub(crate) struct LogErrors {
    /// Write a line for every errno that the guest is given: who asked for what, and which system call of the host failed
    /// or which rule refused it. A busy guest is given many
    #[arg(long, value_name = "FORMAT", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub(crate) log_errors: Option<ErrorFormat>,
    /// Append those lines to FILE in place of standard error; no symbolic link may lie on the way to it
    #[arg(long, value_name = "FILE", requires = "log_errors")]
    pub(crate) log_errors_to: Option<PathBuf>,
}

/// See [`LogErrors::log_errors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ErrorFormat {
    /// For people
    Text,
    /// An object a line
    Json,
}

/// Where the virtual machine monitor connects.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Endpoint {
    /// Create this UNIX socket and listen on it; it is removed at the end
    #[arg(long, value_name = "SOCKET")]
    pub(crate) socket_path: Option<PathBuf>,
    /// Listen on this inherited descriptor of a listening UNIX socket
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(RawFd).range(3..))]
    pub(crate) fd: Option<RawFd>,
}

/// Mount what a vhost-user-fs daemon shares, on this host, without a virtual machine.
///
/// Needs root (CAP_SYS_ADMIN) and /dev/fuse. Serves in the foreground until it is unmounted, gets SIGINT, SIGTERM or SIGHUP, or the
/// daemon ends; in the last case whoever uses the mount gets errors.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 after it was unmounted, by umount or by a signal; 2 for a wrong command line; 1 for any other \
                  failure, the end of the daemon included."
)]
pub(crate) struct Mount {
    /// Socket of the daemon: `innkeeper share`, virtiofsd or another
    #[arg(value_name = "SOCKET")]
    pub(crate) socket: PathBuf,
    /// Directory to mount on
    #[arg(value_name = "MOUNTPOINT")]
    pub(crate) mountpoint: PathBuf,
    /// Use packed rings
    #[arg(long)]
    pub(crate) packed: bool,
    /// Request queues, each with its own thread (1 to 64)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(REQUEST_QUEUES_MAX)))]
    pub(crate) queues: u16,
    /// Descriptors of a queue, of which a request takes two: a power of two from 4 to 1024
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = parse_queue_size)]
    pub(crate) queue_size: u16,
    /// Look for the next reply or request for up to N microseconds before sleeping, while they come that soon (0: never, 1000 at most)
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) poll_us: u32,
    /// What to log on standard error
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Warn)]
    pub(crate) log_level: LogLevel,
}

/// Boot a Linux guest in QEMU from a directory, without a disk image.
///
/// Without COMMAND the guest runs ROOTFS's own /sbin/init or /init on the terminal; Ctrl-a x ends it. With COMMAND the
/// guest runs that alone, as root, with standard input, output and error wired to innkeeper's own, and innkeeper ends
/// with its exit status.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: that of COMMAND (128+N if signal N ended it, 127 if there is no such command, 126 if it \
                  cannot be run); without COMMAND 0 once the guest powers off or reboots; 128+N after innkeeper itself got signal N; \
                  2 for a wrong command line; 125 for any other failure, a guest's panic included."
)]
pub(crate) struct Boot {
    /// Directory that becomes the guest's root file system
    #[arg(value_name = "ROOTFS")]
    pub(crate) root: PathBuf,
    /// Linux kernel (bzImage) to boot [default: the newest vmlinuz-* in ROOTFS/boot]
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Initramfs to boot with, in place of the one innkeeper builds where it needs one
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    pub(crate) initrd: Option<PathBuf>,
    /// Guest memory: bytes, or with suffix M or G
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub(crate) memory: MemorySize,
    /// Virtual processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=255))]
    pub(crate) cpus: u16,
    /// Share one more directory; the guest mounts it with `mount -t virtiofs TAG DIR`
    #[arg(long = "share", value_name = "DIR:TAG")]
    pub(crate) shares: Vec<SharedDirectory>,
    /// Add words to the kernel's command line
    #[arg(long, value_name = "WORDS")]
    pub(crate) append: Vec<String>,
    /// QEMU to run [default: qemu-system-x86_64 in PATH]
    #[arg(long, value_name = "FILE")]
    pub(crate) qemu: Option<PathBuf>,
    /// With COMMAND: show the guest's kernel messages on standard error
    #[arg(long, short)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) export: Export,
    #[command(flatten)]
    pub(crate) errors: LogErrors,
    #[command(flatten)]
    pub(crate) process: Process,
    /// Command to run in the guest
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// How directories are shared. In `boot` this holds for the root and for every further share.
#[derive(Clone, Debug, Args)]
pub(crate) struct Export {
    /// How long the guest may trust what it knows: not at all, names and attributes for a day, all for a second, all
    /// for a day and also that a name is not there (always: for what this guest alone changes)
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Cache::Auto)]
    pub(crate) cache: Cache,
    /// Refuse every change
    #[arg(long)]
    pub(crate) readonly: bool,
    /// Request queues, each served by its own thread (1 to 64)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(REQUEST_QUEUES_MAX)))]
    pub(crate) num_queues: u16,
    /// Ring format to offer: split only, or packed too, which QEMU asks for with packed=on
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Ring::Auto)]
    pub(crate) ring: Ring,
    /// Let the guest gather writes in its cache, where --cache gives it one of contents: auto, always
    #[arg(long)]
    pub(crate) writeback: bool,
    /// Look for the next request for up to N microseconds before sleeping, while requests come that soon: spares both sides a wake-up,
    /// for the processor time of a queue's thread that nobody else wants; an idle queue sleeps (0: never, 1000 at most)
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) poll_us: u32,
    /// Refuse extended attributes
    #[arg(long, conflicts_with = "posix_acl")]
    pub(crate) no_xattr: bool,
    /// Let the guest keep POSIX access control lists
    #[arg(long)]
    pub(crate) posix_acl: bool,
    /// Show the guest one file system where the host has several mounted
    #[arg(long)]
    pub(crate) no_announce_submounts: bool,
    /// Remember files by handle rather than by open descriptor (needs CAP_DAC_READ_SEARCH)
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = FileHandles::Prefer)]
    pub(crate) inode_file_handles: FileHandles,
    /// Let the guest map files shared although cache mode never or metadata bypasses its cache
    #[arg(long)]
    pub(crate) allow_mmap: bool,
    /// Open files with O_DIRECT where the guest does
    #[arg(long)]
    pub(crate) allow_direct_io: bool,
    /// Let the guest make idmapped mounts of the share (Linux 6.12, daemon as root); requests then name no user unless they create
    /// something, so that --log-errors cannot say who asked, and the guest's root is refused the host's reserved blocks
    #[arg(long)]
    pub(crate) allow_idmap: bool,
    /// Let the guest's root change project ids, and so move files out of the host's project quotas
    #[arg(long)]
    pub(crate) allow_project_ids: bool,
    /// Give the guest a window of this size into the host's page cache (DAX; bytes, or with suffix M, 512M at most; auto: 512M); needs
    /// QEMU 11.1
    #[arg(long, value_name = "SIZE")]
    pub(crate) dax: Option<WindowSize>,
    /// Files to use DAX for where the guest leaves it to us (-o dax=inode): always, never, a size such as 64K from which on
    /// files are mapped, a pattern for their names such as '*.img', or fitting (a multiple of 2 MiB long) [default: 2M;
    /// fitting where QEMU cannot be given more than the files: that takes CAP_SYS_ADMIN and Linux 6.9]
    #[arg(long, value_name = "POLICY", requires = "dax", value_parser = parse_dax_files)]
    pub(crate) dax_files: Option<DaxFiles>,
}

/// How the innkeeper process itself behaves.
#[derive(Clone, Debug, Args)]
pub(crate) struct Process {
    /// Limit of open files, 0 to leave it alone [default: 1000000, or the hard limit if it cannot be raised]
    #[arg(long, value_name = "N", value_parser = parse_open_files)]
    pub(crate) rlimit_nofile: Option<u64>,
    /// What to log on standard error
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Warn)]
    pub(crate) log_level: LogLevel,
}

/// See [`Export::cache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cache {
    Never,
    Metadata,
    Auto,
    Always,
}

/// See [`Export::ring`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ring {
    /// Offer both and let the virtual machine choose
    Auto,
    /// Offer split rings alone
    Split,
    /// Offer both and have QEMU ask for packed rings
    Packed,
}

/// See [`Export::inode_file_handles`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileHandles {
    Never,
    Prefer,
    Mandatory,
}

/// See [`Process::log_level`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogLevel> for tracing::level_filters::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::OFF,
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
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

/// What one share and one machine take, with something for the guest. A machine with more queues or memory takes more, but then
/// is refused what it asks for, and not the start.
const FEWEST_OPEN_FILES: u64 = 64;

fn parse_open_files(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(count) if count == 0 || count >= FEWEST_OPEN_FILES => Ok(count),
        _ => Err(format!("give at least {FEWEST_OPEN_FILES}, or 0 to leave it alone")),
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
            Some(_) => Err("give a power of two from 2M to 512M, which is as much as QEMU copes with".into()),
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
            Ok(_) if pattern.contains('/') => {
                Err("a pattern is for the last component of a path, which has no `/`".into())
            }
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
        0 => Err("a tag needs 1 to 36 bytes; the guest mounts the share by it".into()),
        1..=TAG_MAX => Ok(tag.into()),
        length => Err(format!(
            "it has {length} bytes, and the device has room for {TAG_MAX}; choose a shorter one"
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
