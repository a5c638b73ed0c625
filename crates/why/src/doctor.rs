//! What a run could observe of this system's kernel, and what prevents more: nothing is run and nothing is changed.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::kernel::btf::Functions;
use crate::kernel::code::Memory;
use crate::kernel::source::{self, Installed};
use crate::kernel::symbols::Symbols;
use crate::kernel::tracefs::{self, Ability};
use crate::words::manual;

/// A way to see what happens in the kernel, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackEnd {
    /// The function graph with what each function returned (`funcgraph-retval`).
    GraphWithReturns,
    /// The graph, and one probe on the returns of all functions beside it.
    FunctionProbe,
    /// The graph, and in a second run probes on the returns of the functions that the first one showed.
    ReturnProbes,
    /// The graph alone: what a failing call did is compared with what succeeding ones do.
    GraphAlone,
    /// The failing calls alone, as the command sees them.
    PtraceAlone,
}

impl BackEnd {
    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GraphWithReturns => "funcgraph-retval",
            Self::FunctionProbe => "fprobe",
            Self::ReturnProbes => "kretprobes",
            Self::GraphAlone => "graph alone",
            Self::PtraceAlone => "ptrace alone",
        }
    }
}

/// Whether something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// That cannot be seen from here.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub name: &'static str,
    /// Whether it is there.
    pub state: State,
    /// What that means, and the way out where there is one.
    pub text: String,
}

/// All that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Examination {
    /// Release of the kernel.
    pub kernel: String,
    /// The back end that the next run takes.
    pub next: BackEnd,
    /// All of them, the best first.
    pub back_ends: Vec<Finding>,
    /// What they rest on.
    pub conditions: Vec<Finding>,
}

/// What is looked at.
#[derive(Debug)]
pub struct System {
    /// Where `/proc`, `/sys` and `/usr` are.
    pub root: PathBuf,
    /// Whether the user is root.
    pub is_root: bool,
    /// What the tracer can do, or why it cannot be used.
    pub tracer: Result<Ability, tracefs::Error>,
    /// Sessions that left something behind.
    pub left_behind: usize,
}

impl System {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        Self {
            root: "/".into(),
            is_root: rustix::process::geteuid().is_root(),
            tracer: tracefs::ability(),
            left_behind: tracefs::left_behind(),
        }
    }

    /// Looks at everything.
    #[must_use]
    pub fn examine(&self) -> Examination {
        let kernel = self.read("proc/sys/kernel/osrelease").unwrap_or_default();
        let kernel = kernel.trim().to_owned();
        Examination {
            next: self.next(),
            back_ends: self.back_ends(),
            conditions: self.conditions(&kernel),
            kernel,
        }
    }

    fn next(&self) -> BackEnd {
        match &self.tracer {
            Err(_) => BackEnd::PtraceAlone,
            Ok(Ability { busy: Some(_), .. }) => BackEnd::PtraceAlone,
            Ok(ability) if ability.returns_in_graph => BackEnd::GraphWithReturns,
            Ok(ability) if ability.function_probes => BackEnd::FunctionProbe,
            Ok(_) => BackEnd::GraphAlone,
        }
    }

    fn back_ends(&self) -> Vec<Finding> {
        let with = |name: BackEnd, has: fn(&Ability) -> bool, yes: &str, no: &str| match &self.tracer {
            Ok(ability) if has(ability) => finding(name.name(), State::Yes, yes),
            Ok(_) => finding(name.name(), State::No, no),
            Err(_) => finding(
                name.name(),
                State::Unknown,
                "not to be seen while the tracer cannot be used, see below",
            ),
        };
        let more = match self.next() {
            BackEnd::PtraceAlone if !self.is_root => {
                "the calls, their arguments and the manual; root also gets the function of the kernel"
            }
            BackEnd::PtraceAlone => {
                "the calls, their arguments and the manual; why no function of the kernel: see below"
            }
            _ => "the calls, their arguments and the manual, where nothing better can be had",
        };
        vec![
            with(
                BackEnd::GraphWithReturns,
                |ability| ability.returns_in_graph,
                "the graph has what each function returned: one run",
                "this kernel was built without CONFIG_FUNCTION_GRAPH_RETVAL (Linux 6.5 and later can have it)",
            ),
            with(
                BackEnd::FunctionProbe,
                |ability| ability.function_probes,
                "one probe has the errno that any function returned: one run",
                "this kernel has no CONFIG_FPROBE_EVENTS (Linux 6.5 and later can have it)",
            ),
            with(
                BackEnd::ReturnProbes,
                |ability| ability.return_probes,
                "--again runs the command twice: the second run has what the functions of the first one returned",
                "this kernel has no CONFIG_KPROBE_EVENTS",
            ),
            with(
                BackEnd::GraphAlone,
                |_| true,
                "without what functions returned an answer is likely at best: calls that failed are compared with calls that did not",
                "",
            ),
            finding(BackEnd::PtraceAlone.name(), self.ptrace(), more),
        ]
    }

    /// Whether a command may be traced by who starts it.
    fn ptrace(&self) -> State {
        let scope = self.read("proc/sys/kernel/yama/ptrace_scope");
        match scope.as_deref().map(str::trim) {
            Some("3") => State::No,
            Some("2") if !self.is_root => State::No,
            _ => State::Yes,
        }
    }

    fn conditions(&self, kernel: &str) -> Vec<Finding> {
        let mut found = vec![match self.ptrace() {
            State::No => finding(
                "ptrace",
                State::No,
                "kernel.yama.ptrace_scope forbids it: set it to 1 (3 stays until the next boot)",
            ),
            state => finding("ptrace", state, "a command may be traced by who starts it"),
        }];
        found.push(if self.is_root {
            finding("root", State::Yes, "the kernel's tracer may be used")
        } else {
            finding(
                "root",
                State::No,
                "only root may use the kernel's tracer; sudo makes you that",
            )
        });
        found.push(match &self.tracer {
            Ok(ability) => finding("tracefs", State::Yes, &ability.place),
            Err(error) => finding("tracefs", State::No, &error.to_string()),
        });
        if let Ok(ability) = &self.tracer {
            found.push(match &ability.busy {
                Some(busy) => finding("tracer free", State::No, busy),
                None => finding("tracer free", State::Yes, "nobody else uses what a run would change"),
            });
            found.push(if ability.own_instance {
                finding(
                    "own instance",
                    State::Yes,
                    "a run leaves the tracer that all share alone",
                )
            } else {
                let text = "a run takes the tracer that all share, if nobody else does (Linux 6.11 and later need not)";
                finding("own instance", State::No, text)
            });
            found.push(if ability.fuse_events {
                finding(
                    "FUSE events",
                    State::Yes,
                    "a FUSE server's refusal is told with the request's number",
                )
            } else {
                let text = "no number of a refused FUSE request, but for virtio-fs (Linux 6.10 and later have them)";
                finding("FUSE events", State::No, text)
            });
        }
        if self.left_behind > 0 {
            let text = "an earlier run did not put tracefs back; the next one does";
            found.push(finding("left clean", State::No, text));
        }
        found.push(self.lockdown());
        found.push(self.types());
        found.push(self.symbols());
        found.push(self.code());
        found.push(self.source_lines(kernel));
        found.push(if manual::entries("open", "ENOENT").is_some() {
            finding("manual pages", State::Yes, "an answer has the page's entry")
        } else {
            finding(
                "manual pages",
                State::No,
                "no page of open(2) here; Debian has them in manpages-dev",
            )
        });
        found
    }

    fn lockdown(&self) -> Finding {
        let modes = self.read("sys/kernel/security/lockdown").unwrap_or_default();
        let mode = modes.split(['[', ']']).nth(1);
        match mode {
            Some("confidentiality") => finding(
                "no lockdown",
                State::No,
                "the kernel is locked down for confidentiality, which forbids tracing; boot with lockdown=integrity to allow it",
            ),
            Some(mode) => finding(
                "no lockdown",
                State::Yes,
                &format!("the mode is {mode}, which lets a run see all"),
            ),
            None => finding(
                "no lockdown",
                State::Unknown,
                "/sys/kernel/security/lockdown is not there",
            ),
        }
    }

    fn types(&self) -> Finding {
        let file = self.path("sys/kernel/btf/vmlinux");
        let types = fs::read(file).map_err(|error| error.to_string());
        match types.and_then(|bytes| Functions::parse(&bytes, &[]).map_err(|error| error.to_string())) {
            Ok(_) => finding("types (BTF)", State::Yes, "it is known which functions return an errno"),
            Err(error) => {
                let text = format!(
                    "no answer is certain: /sys/kernel/btf/vmlinux: {error}; a kernel with CONFIG_DEBUG_INFO_BTF has it"
                );
                finding("types (BTF)", State::No, &text)
            }
        }
    }

    fn symbols(&self) -> Finding {
        let text = self.read("proc/kallsyms").unwrap_or_default();
        if !Symbols::parse(&text).is_empty() {
            return finding("symbols", State::Yes, "functions go by their names");
        }
        let text = if self.is_root {
            "functions go by their addresses: the kernel hides its symbols; `sysctl kernel.kptr_restrict=1` shows them to root"
        } else {
            "/proc/kallsyms shows them to root alone"
        };
        finding("symbols", State::No, text)
    }

    fn code(&self) -> Finding {
        match Memory::open_at(&self.path("proc/kcore")) {
            Ok(_) => finding(
                "code (kcore)",
                State::Yes,
                "--exact can name instructions, and an answer can be certain",
            ),
            Err(error) => finding(
                "code (kcore)",
                State::No,
                &format!("no instructions, and no answer is certain: {error}"),
            ),
        }
    }

    fn source_lines(&self, kernel: &str) -> Finding {
        let notes = fs::read(self.path("sys/kernel/notes")).unwrap_or_default();
        let build = source::build_in(&notes).unwrap_or_default();
        let (state, text) = match source::installed(&self.root, kernel, &build) {
            Installed::Own(path) => (State::Yes, format!("--exact names them, by {}", path.display())),
            Installed::Other(path) => (
                State::No,
                format!("{} is of another build of this kernel", path.display()),
            ),
            Installed::None => (
                State::No,
                format!(
                    "not needed; with the kernel's debug information (linux-image-{kernel}-dbg) --exact names them"
                ),
            ),
        };
        finding("source lines", state, &text)
    }

    fn path(&self, file: &str) -> PathBuf {
        Path::new(&self.root).join(file)
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.path(file)).ok()
    }
}

fn finding(name: &'static str, state: State, text: &str) -> Finding {
    Finding {
        name,
        state,
        text: text.to_owned(),
    }
}
