//! `innkeeper why` under restrictions: it reports a missing or blocking condition in one sentence, and gives the best
//! remaining answer.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::super::boot::copy_modules;
use super::super::tracefs;
use crate::guest::Lab;
use crate::guest::qemu::Variant;

const SCRIPT: &str = include_str!("../../../../guest/conditions.sh");

/// What is expected under one condition.
struct Expected {
    /// Name of the condition in the script.
    name: &'static str,
    /// Part of the one sentence that is said of it; none if there is nothing to say.
    sentence: Option<&'static str>,
    /// Whether a function of the kernel is named all the same.
    function: bool,
    /// Part of what the doctor says.
    doctor: &'static str,
}

const fn expected(
    name: &'static str,
    sentence: Option<&'static str>,
    function: bool,
    doctor: &'static str,
) -> Expected {
    Expected {
        name,
        sentence,
        function,
        doctor,
    }
}

/// The same on all kernels.
const ALWAYS: &[Expected] = &[
    expected(
        "graph-tracer",
        Some("another tracer is active (current_tracer is function_graph) and is left alone"),
        false,
        "current_tracer is function_graph",
    ),
    expected(
        "no-root",
        Some("only root may trace the kernel's functions"),
        false,
        "only root may use the kernel's tracer",
    ),
    expected(
        "user-namespace",
        Some("this is the root of a container (a user namespace)"),
        false,
        "this is the root of a container",
    ),
    expected(
        "pid-namespace",
        Some("a container with its own process numbers"),
        false,
        "a container with its own process numbers",
    ),
    expected(
        "no-symbols",
        Some("functions go by their addresses"),
        true,
        "functions go by their addresses",
    ),
    expected(
        "no-types",
        Some("no answer is certain without the kernel's type information"),
        true,
        "no answer is certain: /sys/kernel/btf/vmlinux",
    ),
    expected("no-tracefs", None, true, "not mounted, and used without"),
    expected(
        "no-tracefs-and-no-right",
        Some("tracefs is not mounted, and cannot be mounted here"),
        false,
        "tracefs is not mounted, and cannot be mounted here",
    ),
    expected(
        "lockdown",
        Some("the kernel is locked down for confidentiality"),
        false,
        "lockdown=integrity",
    ),
];

/// Where graphs can be traced in an instance, and one probe has all returns.
const ON_6_12: &[Expected] = &[
    expected("nothing", None, true, "takes the back end \"fprobe\""),
    expected("function-tracer", None, true, "takes the back end \"fprobe\""),
    expected("trace-kept", None, true, "takes the back end \"fprobe\""),
];

/// Where there is one tracer for all.
const ON_6_1: &[Expected] = &[
    expected("nothing", None, true, "takes the back end \"graph alone\""),
    expected(
        "function-tracer",
        Some("another tracer is active (current_tracer is function) and is left alone"),
        false,
        "current_tracer is function",
    ),
    expected(
        "trace-kept",
        Some("another tracer is active (a trace is kept in its buffer, which `echo > trace` empties)"),
        false,
        "a trace is kept in its buffer",
    ),
];

pub(in super::super) fn conditions_on_6_12(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let root = tracefs::root(lab, directory, SCRIPT)?;
    tracefs::boot(lab, variant, &root, &lab.parts.boot.kernel)?;
    check(&root, ON_6_12)
}

pub(in super::super) fn conditions_on_6_1(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let root = tracefs::root(lab, directory, SCRIPT)?;
    copy_modules(lab, &root)?;
    let kernel = lab.parts.kernel_with_modules.join("vmlinuz");
    tracefs::boot(lab, variant, &root, &kernel)?;
    check(&root, ON_6_1)
}

fn check(root: &Path, expected: &[Expected]) -> Result<String> {
    let told = |name: &str| fs::read_to_string(root.join("told").join(name)).with_context(|| format!("no told/{name}"));
    for expected in expected.iter().chain(ALWAYS) {
        let name = expected.name;
        let said = told(name)?;
        let sentences: Vec<_> = said
            .lines()
            .filter(|line| line.starts_with("innkeeper: ") && !line.contains("--all"))
            .collect();
        let fits = match expected.sentence {
            None => sentences.is_empty(),
            Some(sentence) => sentences.len() == 1 && sentences[0].contains(sentence),
        };
        ensure!(fits, "not exactly the one sentence for {name}:\n{said}");
        ensure!(
            said.contains("\"/no/such/file\", O_RDONLY) = -1 ENOENT"),
            "the failed call is not reported for {name}:\n{said}"
        );
        ensure!(
            said.contains("  where:  ") == expected.function,
            "a function is named, or none is, for {name}:\n{said}"
        );
        ensure!(
            said.contains("status 7\n"),
            "not the command's status for {name}:\n{said}"
        );
        let doctor = told(&format!("doctor-{name}"))?;
        let status = if expected.function { "status 0\n" } else { "status 1\n" };
        ensure!(
            doctor.contains(expected.doctor) && doctor.ends_with(status),
            "the doctor for {name}, expected to print {:?} and end with {status}:\n{doctor}",
            expected.doctor
        );
    }
    let certain = told("no-types")?
        .lines()
        .any(|line| line.contains("where:") && line.ends_with(" certain"));
    ensure!(!certain, "certain without types:\n{}", told("no-types")?);
    for (name, kept) in [
        ("function-tracer", "\nfunction\n"),
        ("graph-tracer", "\nfunction_graph\n"),
        ("trace-kept", "kept"),
    ] {
        ensure!(
            told(name)?.contains(kept),
            "{name} was not left alone:\n{}",
            told(name)?
        );
    }
    ensure!(
        !told("no-tracefs")?.contains(" tracefs "),
        "tracefs was mounted and still is"
    );
    Ok(format!("{} conditions told", expected.len() + ALWAYS.len()))
}
