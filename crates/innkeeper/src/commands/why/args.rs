//! The command line of `why`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use process::arguments::{BASIC, DIAGNOSIS};

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
    pub(crate) fn wants(&self, failure: &::why::ptrace::Failure) -> bool {
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
    if (0..1024).any(|number| ::why::syscall_name(number) == Some(&name)) {
        Ok(name)
    } else {
        Err("no such system call; write it as in openat".to_owned())
    }
}

fn parse_errno(text: &str) -> Result<String, String> {
    let name = text.to_uppercase();
    if (1..4096).any(|number| ::why::errno_name(number) == Some(&name)) {
        Ok(name)
    } else {
        Err("no such errno; write it as in EACCES".to_owned())
    }
}

#[cfg(test)]
mod tests {
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
}
