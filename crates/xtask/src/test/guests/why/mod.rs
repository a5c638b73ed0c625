//! `innkeeper why` in a guest: a hundred refused calls, and whether the function that it names agrees with the
//! kernel's source.

mod conditions;
pub(super) mod context;
mod origins;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use why::Certainty;
use why::instruction::Exact;
use why::ptrace::Outcome;
use why::recording::Recording;

use super::boot::{self, copy_modules};
use crate::guest::Lab;
use crate::guest::qemu::Variant;
use crate::setup::copy_root;
pub(super) use conditions::{conditions_on_6_1, conditions_on_6_12};
use origins::{Known, ORIGINS};

/// Three runs of a hundred processes with thousands of probes, under TCG on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);

/// One run of `why`: what is asked of it, and what of a hundred answers must be right.
struct Run {
    option: &'static str,
    /// Every how manieth case is tried.
    step: usize,
    /// Right origins, of a hundred.
    right: usize,
    /// Exact instructions, of a hundred answers.
    exact: usize,
}

const ALL: Run = Run {
    option: "",
    step: 1,
    right: 96,
    exact: 0,
};
/// Each probe takes the kernel a while to set, under TCG a good while, so that a third of the cases must do.
const EXACT: Run = Run {
    option: "--exact",
    step: 3,
    right: 96,
    exact: 80,
};
const AGAIN: Run = Run {
    option: "--again",
    step: 1,
    right: 80,
    exact: 0,
};
/// One run of a kernel that does not tell what functions returned.
const COMPARED: Run = Run {
    option: "",
    step: 1,
    right: 80,
    exact: 0,
};

impl Run {
    fn cases(&self) -> impl Iterator<Item = &'static Known> {
        ORIGINS.iter().step_by(self.step)
    }
}

pub(super) fn on_6_12(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    refused_calls(lab, variant, directory, &lab.parts.boot.kernel, (0, &[ALL, EXACT]))
}

pub(super) fn on_6_1(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    copy_modules(lab, &directory.join("root"))?;
    let image = lab.parts.kernel_with_modules.join("vmlinuz");
    refused_calls(lab, variant, directory, &image, (1, &[COMPARED, AGAIN]))
}

/// Boots a kernel with innkeeper and `exercise` in its root, runs a script there, and answers the root, with what was left in it.
fn run_in_guest(lab: &Lab, variant: Variant, directory: &Path, image: &Path, script: &str) -> Result<PathBuf> {
    let root = directory.join("root");
    fs::create_dir_all(root.join("shared"))?;
    copy_root(&lab.parts.boot.root, &root)?;
    for (program, name) in [
        (&lab.programs.innkeeper, "innkeeper"),
        (&lab.programs.exercise, "exercise"),
    ] {
        fs::copy(program, root.join("bin").join(name)).with_context(|| format!("cannot put {name} into the root"))?;
    }
    let mut command = boot::command(lab, variant, &root, image, LIMIT)?;
    command.args(["--", "/bin/sh", "-c", script]);
    boot::finish(command, 0).with_context(|| {
        let told = fs::read_to_string(root.join("told")).unwrap_or_default();
        format!("why reported:\n{told}")
    })?;
    Ok(root)
}

/// Boots a kernel, whose place in [`Known::functions`] is `column`, and has `why` run all cases as often as there are `runs`.
fn refused_calls(
    lab: &Lab,
    variant: Variant,
    directory: &Path,
    image: &Path,
    (column, runs): (usize, &[Run]),
) -> Result<String> {
    let mut script = "mount -t tmpfs none /tmp && mkdir -m 1777 /tmp/local && ip link set lo up \
                      && mount -t tracefs none /sys/kernel/tracing && chmod 755 /"
        .to_owned();
    for (number, run) in runs.iter().enumerate() {
        let names: Vec<_> = run.cases().map(|known| known.case).collect();
        // What a run leaves behind would be in the next one's way.
        script += &format!(
            " && innkeeper why --record /recording{number} {} -- sh -c 'rm -rf /tmp/local/* /shared/*; \
             exec exercise refuse --local /tmp/local --shared /shared {} > /cases{number}' 2> /told",
            run.option,
            names.join(" ")
        );
    }
    let root = run_in_guest(lab, variant, directory, image, &script)?;
    let read = |name: &str| fs::read_to_string(root.join(name)).with_context(|| format!("no /{name} of the guest"));
    let mut seen = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        let recording = Recording::from_json(&read(&format!("recording{number}"))?)?;
        seen.push(judge(&recording, &read(&format!("cases{number}"))?, column, run)?);
    }
    Ok(seen.join("; "))
}

/// Compares the answers with what is known, and says how many are what.
fn judge(recording: &Recording, cases: &str, column: usize, run: &Run) -> Result<String> {
    let answers = recording.explain_exactly()?;
    let (mut right, mut certain, mut exact) = (0, 0, 0);
    let mut wrong = Vec::new();
    for known in run.cases() {
        let wanted = known.functions[column];
        let (process, number, errno) = made(cases, known)?;
        let call = recording.failures.iter().zip(&answers).rev().find(|(failure, _)| {
            failure.thread == process && failure.number == number && failure.outcome == Outcome::Errno(errno)
        });
        let Some((_, Some((answer, site)))) = call else {
            wrong.push(format!("{}: no answer, and it is {wanted}", known.case));
            continue;
        };
        // Copies that the compiler made of a function go by its name.
        let named = answer.origin.function().split('.').next().unwrap_or_default();
        if named == wanted {
            right += 1;
            certain += usize::from(answer.certainty == Certainty::Certain);
            exact += usize::from(matches!(site, Some(Exact::Loaded(_))));
        } else {
            let told = format!("{}: {named}, and it is {wanted} ({})", known.case, known.check);
            ensure!(answer.certainty != Certainty::Certain, "certain and wrong: {told}");
            if known.shown {
                wrong.push(told);
            }
        }
    }
    let all = run.cases().filter(|known| known.shown).count();
    let seen = format!(
        "{}: {right} of {all} origins right, {certain} of them certain, {exact} with the instruction; not right: {}",
        recording.kernel,
        if wrong.is_empty() {
            "none".to_owned()
        } else {
            wrong.join("; ")
        }
    );
    ensure!(right * 100 >= run.right * all, "too few are right: {seen}");
    ensure!(exact * 100 >= run.exact * all, "too few instructions are named: {seen}");
    Ok(seen)
}

/// Process, number and errno of a case's call, as `exercise` printed them.
fn made(cases: &str, known: &Known) -> Result<(i32, u64, i32)> {
    let line = cases
        .lines()
        .find_map(|line| line.strip_prefix(known.case)?.strip_prefix(' '));
    let line = line.with_context(|| format!("the guest did not make the call of {}", known.case))?;
    let mut words = line.split(' ');
    let mut word = || words.next().with_context(|| format!("half a line of {}", known.case));
    Ok((word()?.parse()?, word()?.parse()?, word()?.parse()?))
}
