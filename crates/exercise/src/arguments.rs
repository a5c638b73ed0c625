//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Exercises a file: operation sequences, random access, coherence of mappings
#[derive(Debug, Parser)]
#[command(name = "exercise", version, arg_required_else_help = false)]
struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    /// Do a random sequence of operations and compare the file with a model (FILE is overwritten)
    Sequence(Sequence),
    /// Read and write at random, by system calls and by a mapping, and compare
    Random(Random),
    /// Move parts of FILE into a mapping of MAPPED and back by direct I/O, and compare (both are overwritten)
    Direct(Direct),
    /// Map FILE and store TEXT at OFFSET; keep the mapping until standard input ends
    Store(Spot),
    /// Map FILE and wait until TEXT is at OFFSET
    Await(Wait),
    /// Make system calls that the kernel refuses, one a process, and print `case process number errno` for each
    Refuse(Refuse),
    /// Connect to ADDRESS, send random bytes and compare what comes back
    Echo(Echo),
    /// Listen on ADDRESS and send back what comes, for one connection
    Reflect(Reflect),
}

#[derive(Debug, Args)]
pub(crate) struct Sequence {
    /// The file, made anew
    pub(crate) file: PathBuf,
    /// How many operations
    #[arg(long, default_value_t = 20_000)]
    pub(crate) operations: u64,
    /// Seed of the sequence
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The file's greatest length (bytes, or with KiB, MiB, GiB)
    #[arg(long, default_value = "4MiB", value_parser = size, value_name = "SIZE")]
    pub(crate) length: u64,
    /// The file's length is a multiple of this at all times
    #[arg(long, default_value = "1", value_parser = size, value_name = "SIZE")]
    pub(crate) granule: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Random {
    /// The file, made if missing; otherwise one that this command made
    pub(crate) file: PathBuf,
    /// How many reads and writes
    #[arg(long, default_value_t = 4000)]
    pub(crate) accesses: u64,
    /// Seed of the accesses
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The file's length, a multiple of 4 KiB (bytes, or with KiB, MiB, GiB)
    #[arg(long, default_value = "64MiB", value_parser = size, value_name = "SIZE")]
    pub(crate) file_size: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Direct {
    /// The file that is read and written, made anew
    pub(crate) file: PathBuf,
    /// The file that is mapped, made anew
    pub(crate) mapped: PathBuf,
    /// How many reads and writes
    #[arg(long, default_value_t = 400)]
    pub(crate) transfers: u64,
    /// Seed of the contents and the transfers
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The length of both files, a multiple of 512 (bytes, or with KiB, MiB, GiB)
    #[arg(long, default_value = "8MiB", value_parser = size, value_name = "SIZE")]
    pub(crate) length: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Spot {
    /// The file, which must reach as far
    pub(crate) file: PathBuf,
    /// Where in it (bytes, or with KiB, MiB, GiB)
    #[arg(value_parser = size)]
    pub(crate) offset: u64,
    /// What is stored or awaited there
    pub(crate) text: String,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    #[command(flatten)]
    pub(crate) spot: Spot,
    /// How long to wait at most
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(crate) limit: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Refuse {
    /// An empty directory on a file system of this machine's own, where everybody may write
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) local: PathBuf,
    /// An empty directory on a share
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) shared: PathBuf,
    /// The cases; all if none is named
    pub(crate) cases: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Echo {
    #[command(flatten)]
    pub(crate) peer: Reflect,
    /// How much (bytes, or with KiB, MiB, GiB)
    #[arg(long, default_value = "16MiB", value_parser = size, value_name = "SIZE")]
    pub(crate) length: u64,
    /// Seed of the bytes
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Reflect {
    /// A UNIX socket's path, or vsock:CID:PORT
    pub(crate) address: String,
    /// Messages (SOCK_SEQPACKET) in place of a stream
    #[arg(long)]
    pub(crate) messages: bool,
}

/// What the words ask for, or how the program ends without doing anything.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Job, ExitCode> {
    Arguments::try_parse_from(words)
        .map(|arguments| arguments.job)
        .map_err(|error| {
            if !error.use_stderr() {
                // Help and version; a reader that went away is told by the status.
                return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
            }
            eprintln!("exercise: {}", sentence(&error.to_string()));
            ExitCode::from(2)
        })
}

/// The first paragraph of clap's message on one line; usage and tips follow after it.
fn sentence(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let lines = message.lines().map(str::trim).take_while(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

/// A number of bytes: `4096`, `4K`, `4KiB`, `2M`, `1GiB`.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return Err(format!("{unit:?} is no unit of bytes: use KiB, MiB or GiB")),
    };
    let number: u64 = number.parse().map_err(|error| format!("{error}"))?;
    let bytes = number
        .checked_mul(1 << shift)
        .filter(|&bytes| i64::try_from(bytes).is_ok());
    bytes.ok_or_else(|| "no file is that long".to_owned())
}
