//! `cargo xtask fuzz`: runs one fuzz target for a while, with AddressSanitizer, on the stable compiler.

mod log;
mod targets;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::rand::{GetRandomFlags, getrandom};

use self::log::Log;
use self::targets::{Targets, fuzz_workspace};
use crate::run::{exists, shown};
use crate::setup;

/// Seeds for an empty corpus, and the bytes of the shortest and the longest. Stateful targets need long inputs from the start.
const SEEDS: usize = 16;
const SHORTEST_SEED: usize = 200;
const LONGEST_SEED: usize = 3 << 10;

/// Where targets put their scratch directories if there is such a file system: nothing there reaches a disk.
const SCRATCH: &str = "/dev/shm";

/// Makes everything read-only but the scratch directory and `$1`, and runs the other arguments. A mount that cannot be changed is
/// reported.
const READ_ONLY: &str = r#"set -e
mount --make-rprivate /
while read -r _ point _; do
    point=$(printf %b "$point")
    case $point in
    /dev/shm) ;;
    *) mount -o remount,bind,ro "$point" 2>/dev/null || echo "warning: $point stays writable" >&2 ;;
    esac
done </proc/self/mounts
mount -t tmpfs -o size=1g scratch /dev/shm
mount --bind "$1" "$1"
mount -o remount,bind,rw "$1"
cd "$1"
shift
exec "$@""#;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Target to run, the name of a program in fuzz/src/bin; without one, list the targets
    target: Option<String>,
    /// Stop after this many seconds
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let targets = Targets::find()?;
    match &arguments.target {
        None => print!("{targets}"),
        Some(name) => fuzz(&targets.get(name)?.name, arguments.seconds)?,
    }
    Ok(())
}

fn fuzz(target: &str, seconds: u32) -> Result<()> {
    let program = setup::fuzzer()?;
    let fuzz = fuzz_workspace()?;
    sow(&fuzz.join("corpus").join(target))?;
    // Built before anything becomes read-only.
    let mut build = cargo_fuzz(&program, "build", target);
    println!("$ {}", shown(&build));
    let status = build.current_dir(&fuzz).status().context("cannot start cargo-fuzz")?;
    if !status.success() {
        bail!("cannot build the target {target}: cargo-fuzz ended with {status}");
    }
    let mut fuzzing = cargo_fuzz(&program, "run", target);
    fuzzing.args([
        "--",
        &format!("-max_total_time={seconds}"),
        "-len_control=0",
        "-max_len=4096",
        "-timeout=25",
        "-print_funcs=0",
    ]);
    println!("$ {}", shown(&fuzzing));
    // A target may make files, some of them from bytes that nobody has checked.
    let mut command = if can_isolate() {
        println!("It can write only to {SCRATCH} and {}.", fuzz.display());
        isolated(&fuzzing, &fuzz)
    } else {
        println!("Without root, unshare and {SCRATCH}, it does not run in a separate mount namespace.");
        fuzzing
    };
    let mut child = command
        .current_dir(&fuzz)
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", shown(&command)))?;
    let output = child.stderr.take().context("the fuzzer has no standard error")?;
    let mut log = Log::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what the fuzzer prints")?;
        let line = String::from_utf8_lossy(&line);
        eprintln!("{line}");
        log.read(&line);
    }
    let status = child.wait().context("cannot wait for the fuzzer")?;
    println!("{target}: {log}");
    match log.finding() {
        Some(input) => bail!(
            "the target {target} failed on the input {input}: repeat with `{SETTINGS} {program} fuzz run -O -a {target} {input}`",
            input = input.display(),
            program = program.display(),
        ),
        None if status.success() => Ok(()),
        None => bail!("the target {target} ended with {status} and left no input"),
    }
}

/// What the environment of the fuzzer must hold, for messages.
const SETTINGS: &str = "RUSTC_BOOTSTRAP=1 ASAN_OPTIONS=symbolize=0";

fn cargo_fuzz(program: &Path, job: &str, target: &str) -> Command {
    let mut command = Command::new(program);
    // `-O -a`: optimised, with debug assertions and overflow checks.
    command.args(["fuzz", job, "-O", "-a", target]);
    // The sanitizer is an unstable option. A symbolizer would have descriptors of its own, which targets count.
    command
        .env("RUSTC_BOOTSTRAP", "1")
        .env("ASAN_OPTIONS", "symbolize=0")
        .env_remove("RUSTFLAGS")
        // What is built must lie below `fuzz/`, all that the target can write to.
        .env_remove("CARGO_TARGET_DIR");
    command
}

/// Whether the target can have a mount namespace of its own.
fn can_isolate() -> bool {
    rustix::process::geteuid().is_root() && exists("unshare") && Path::new(SCRATCH).is_dir()
}

/// The command in a mount namespace in which it can change nothing but the scratch directory and `fuzz`.
fn isolated(inner: &Command, fuzz: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", READ_ONLY, "sh"]).arg(fuzz);
    command.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("TMPDIR", SCRATCH);
    command
}

/// Puts seeds into a corpus that has none.
fn sow(corpus: &Path) -> Result<()> {
    fs::create_dir_all(corpus).with_context(|| format!("cannot create {}", corpus.display()))?;
    let mut entries = fs::read_dir(corpus).with_context(|| format!("cannot list {}", corpus.display()))?;
    if entries.next().is_some() {
        return Ok(());
    }
    for seed in 0..SEEDS {
        let length = SHORTEST_SEED + seed * (LONGEST_SEED - SHORTEST_SEED) / (SEEDS - 1);
        let path: PathBuf = corpus.join(format!("seed-{seed:02}"));
        fs::write(&path, random(length)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn random(length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty()).context("cannot get random bytes")?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_corpus_gets_seeds_and_another_one_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let corpus = directory.path().join("corpus");
        let lengths = || {
            let mut lengths: Vec<_> = fs::read_dir(&corpus)
                .unwrap()
                .map(|entry| entry.unwrap().metadata().unwrap().len())
                .collect();
            lengths.sort_unstable();
            lengths
        };
        sow(&corpus).unwrap();
        let sown = lengths();
        assert_eq!((sown.len(), sown[0], sown[SEEDS - 1]), (16, 200, 3072));
        for entry in fs::read_dir(&corpus).unwrap().skip(1) {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        sow(&corpus).unwrap();
        assert_eq!(lengths().len(), 1);
    }
}
