//! `cargo xtask test`: every check of the project, from the fastest to a real Linux guest.

pub(crate) mod guests;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::pins::{CARGO_DENY, CARGO_NEXTEST};
use crate::run::{exists, shown};
use crate::setup::{self, TARGET};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Run this step alone (may be given several times)
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Run only the guests whose name contains this text, or every guest with the word `all`; implies `--only guests`
    #[arg(long, value_name = "TEXT")]
    guest: Option<String>,
    /// Run the guests against another daemon, for a baseline: its command line with {dir}, {socket}, {tag} and {queues}
    /// in place of those, or `virtiofsd` for the peer as set-up builds it; implies `--only guests`
    #[arg(long, value_name = "COMMAND")]
    daemon: Option<String>,
    /// List the steps and the guests, and run nothing
    #[arg(long)]
    list: bool,
}

struct Step {
    name: &'static str,
    headline: &'static str,
    work: Work,
}

enum Work {
    /// A command that speaks for itself.
    Run(Box<dyn Fn() -> Result<Command>>),
    /// The guests that the tests of innkeeper boot by themselves.
    Boot,
    Guests,
}

const GUESTS: &str = "guests";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut steps = steps();
    if arguments.list {
        steps
            .iter()
            .for_each(|step| println!("{:10} {}", step.name, step.headline));
        guests::list(arguments.daemon.is_none())?
            .iter()
            .for_each(|line| println!("{:10} {line}", ""));
        return Ok(());
    }
    let mut only = arguments.only.clone();
    if arguments.guest.is_some() || arguments.daemon.is_some() {
        only.push(GUESTS.to_owned());
    }
    if let Some(unknown) = only
        .iter()
        .find(|name| steps.iter().all(|step| step.name != name.as_str()))
    {
        bail!("there is no step {unknown}: see `cargo xtask test --list`");
    }
    steps.retain(|step| only.is_empty() || only.iter().any(|name| name == step.name));

    let started = Instant::now();
    let parts = setup::all()?;
    let mut failed = Vec::new();
    for step in &steps {
        println!("\n== {} ({})", step.headline, step.name);
        let step_started = Instant::now();
        let result = match &step.work {
            Work::Run(command) => command().and_then(succeed),
            Work::Boot => boots(&parts).and_then(succeed),
            Work::Guests => guests::run(&parts, arguments.guest.as_deref(), arguments.daemon.as_deref()),
        };
        let seconds = step_started.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("== {}: passed in {seconds:.0} s", step.name),
            Err(error) => {
                println!("== {}: FAILED in {seconds:.0} s: {error:#}", step.name);
                println!("   repeat with `cargo xtask test --only {}`", step.name);
                failed.push(step.name);
            }
        }
    }
    println!(
        "\nAll of it took {:.1} minutes.",
        started.elapsed().as_secs_f64() / 60.0
    );
    println!("steps: {} passed, {} failed", steps.len() - failed.len(), failed.len());
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("failed: {}", failed.join(", "))
    }
}

fn steps() -> Vec<Step> {
    let step = |name, headline, command: fn() -> Result<Command>| Step {
        name,
        headline,
        work: Work::Run(Box::new(command)),
    };
    vec![
        step("format", "Formatting", || Ok(cargo(&["fmt", "--all", "--check"]))),
        step("lints", "Lints", || {
            Ok(cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--",
                "-D",
                "warnings",
            ]))
        }),
        step("licences", "Licences, bans and sources of the dependencies", || {
            // The graph that is checked has the crates of every platform; a build fetches those of this one.
            succeed(cargo(&["fetch", "--locked"]))?;
            let mut command = Command::new(setup::tool(&CARGO_DENY)?);
            command.args([
                "--offline",
                "--log-level",
                "error",
                "check",
                "licenses",
                "bans",
                "sources",
            ]);
            Ok(command)
        }),
        // Before the rest, so that the program which stays in the target directory is the ordinary one.
        step("escape", "Confinement of a share whose own checks are off", || {
            let mut command = nextest()?;
            command.args(["--features", "innkeeper/unchecked", "--test", "escape"]);
            Ok(command)
        }),
        step("tests", "Unit, property, in-process and interoperation tests", nextest),
        step("doctests", "Examples in the documentation", || {
            Ok(cargo(&["test", "--doc", "--workspace", "--locked"]))
        }),
        step("docs", "Documentation", || {
            let mut command = cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
            command.env("RUSTDOCFLAGS", "-D warnings");
            Ok(command)
        }),
        Step {
            name: "boot",
            headline: "`innkeeper boot` with real guests",
            work: Work::Boot,
        },
        Step {
            name: GUESTS,
            headline: "Real Linux guests",
            work: Work::Guests,
        },
    ]
}

fn nextest() -> Result<Command> {
    let program = if exists(CARGO_NEXTEST.name) {
        CARGO_NEXTEST.name.into()
    } else {
        setup::tool(&CARGO_NEXTEST)?
    };
    let mut command = Command::new(program);
    command.args(["nextest", "run", "--locked", "--no-fail-fast"]);
    Ok(command)
}

/// The tests of innkeeper that need a kernel, which `cargo nextest run` alone leaves out.
fn boots(parts: &setup::Parts) -> Result<Command> {
    let mut command = nextest()?;
    command.args(["--package", "innkeeper", "--run-ignored", "only"]);
    command.env("INNKEEPER_TEST_ROOT", &parts.boot.root);
    command.env("INNKEEPER_TEST_KERNEL", &parts.boot.kernel);
    command.env(
        "INNKEEPER_TEST_KERNEL_WITH_MODULES",
        parts.kernel_with_modules.join("vmlinuz"),
    );
    Ok(command)
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments);
    command
}

/// Runs in the workspace, with its output on ours.
pub(crate) fn succeed(mut command: Command) -> Result<()> {
    println!("$ {}", shown(&command));
    let status = command
        .current_dir(workspace()?)
        .status()
        .with_context(|| format!("cannot start `{}`", shown(&command)))?;
    if status.success() {
        Ok(())
    } else {
        bail!("`{}` ended with {status}", shown(&command))
    }
}

pub(crate) fn workspace() -> Result<PathBuf> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    above
        .map(Path::to_owned)
        .context("xtask lies in crates/ of the workspace")
}

/// Builds the release binary of innkeeper and returns where it is.
pub(crate) fn build_innkeeper() -> Result<PathBuf> {
    succeed(cargo(&["build", "--release", "--locked", "--package", "innkeeper"]))?;
    Ok(target()?.join("release/innkeeper"))
}

/// Programs that run in guests, which have no C library for them.
pub(crate) struct GuestPrograms {
    /// Of the crate `exercise`: uses files in every way that the tests ask about.
    pub(crate) exercise: PathBuf,
    pub(crate) innkeeper: PathBuf,
}

/// Builds the programs for guests.
pub(crate) fn build_guest_programs() -> Result<GuestPrograms> {
    // Apart from the rest, which other flags would have rebuilt.
    let directory = target()?.join("guest-programs");
    let mut command = cargo(&["build", "--release", "--locked", "--target", TARGET]);
    command
        .args(["--package", "exercise", "--package", "innkeeper"])
        .arg("--target-dir")
        .arg(&directory)
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    succeed(command)?;
    let built = directory.join(TARGET).join("release");
    Ok(GuestPrograms {
        exercise: built.join("exercise"),
        innkeeper: built.join("innkeeper"),
    })
}

/// The target directory: this very program lies in its `debug`.
pub(crate) fn target() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find xtask's own path")?;
    program
        .ancestors()
        .nth(2)
        .map(Path::to_owned)
        .context("xtask lies in a target directory")
}
