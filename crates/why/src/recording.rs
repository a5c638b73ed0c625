//! All that was seen of one command, in one file: it can be explained elsewhere, later, without privilege.

mod kernel;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::explain::Loading;
use crate::explain::alignment::Known;
use crate::explain::instruction::{self, Coverage, Exact, Suspect};
use crate::explain::origin::{self, Answer, Origin};
use crate::kernel::btf::Functions;
use crate::kernel::code;
use crate::kernel::hex::{from_hex, to_hex};
use crate::kernel::ring_buffer::{self, FormatError, Layout};
use crate::kernel::source;
use crate::kernel::symbols::Symbols;
use crate::kernel::tracefs::{self, Method, Probed, Session};
use crate::observe::failure::{Failure, Outcome};
use crate::observe::ptrace::{self, Report};
use crate::trace::Call;
use crate::trace::{Reader, Syscall, Which};

/// Version of the file.
const VERSION: u32 = 4;
/// The types of the kernel's functions.
const TYPES: &str = "/sys/kernel/btf/vmlinux";
/// What to say where the kernel tells no addresses.
const NO_NAMES: &str = "functions go by their addresses: the kernel hides its symbols (/proc/kallsyms), which \
                        `sysctl kernel.kptr_restrict=1` shows to root";
/// Functions that are probed in one run; each has up to 20 probes.
const SUSPECTS_MAX: usize = 128;
/// Functions that are probed at most: each takes the kernel some milliseconds to set up.
const PROBED: usize = 4000;

/// What was seen of a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recording {
    version: u32,
    /// Release of the kernel.
    pub kernel: String,
    /// Its build id, as hexadecimal digits.
    #[serde(default)]
    pub build: Option<String>,
    /// The failed calls, as the command saw them.
    pub failures: Vec<Failure>,
    /// Whether it was seen what functions returned.
    pub has_returns: bool,
    header: [String; 2],
    formats: Vec<String>,
    symbols: Symbols,
    functions: Functions,
    /// Functions that load the errno of a call that they ran in: of those that made it and what ran inside of them, or of all
    /// where it is not seen which those are; none if the kernel's code could not be read.
    loading: Option<Loading>,
    /// Whose returns were probed.
    probed: Probed,
    /// Functions whose instructions were probed, and addresses at which the kernel let none be.
    #[serde(default)]
    suspects: Vec<Suspect>,
    #[serde(default)]
    refused: Vec<u64>,
    /// Not all that the kernel wrote is here.
    cut: bool,
    /// Pages of each processor, as hexadecimal digits.
    pages: BTreeMap<u32, Vec<String>>,
}

/// What is known of a failed call, and the instruction that made its errno.
pub type Found = (Answer, Option<Exact>);

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not one of `record`.
    #[error("this is no recording of `innkeeper why`: {0}")]
    Json(#[from] serde_json::Error),
    /// The file is of another version.
    #[error(
        "the recording has version {0}, and this innkeeper reads version {VERSION}: record the case again, or explain it \
         with the innkeeper that recorded it"
    )]
    Version(u32),
    /// The kernel's descriptions cannot be understood.
    #[error("the kernel's description of its trace cannot be read: {0}")]
    Format(#[from] FormatError),
    /// The kernel's code cannot be read.
    #[error(transparent)]
    Code(#[from] code::Error),
}

/// What came of a command and of tracing it.
#[derive(Debug)]
pub struct Run {
    /// The command's calls and end.
    pub report: Report,
    /// What the kernel's tracer saw, or why it saw nothing.
    pub recording: Result<Recording, Refused>,
    /// What else there is to know, a sentence each.
    pub notes: Vec<String>,
}

/// Why the kernel's part is missing.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Tracing was not possible.
    #[error(transparent)]
    Tracefs(#[from] tracefs::Error),
    /// What was traced cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Error),
}

/// What is to be seen beyond what a kernel shows by itself: an earlier run of the command tells what that should be.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Functions whose returns are wanted, for kernels that show those of some alone: [`Recording::functions_of_failures`].
    pub returns: Vec<String>,
    /// Functions whose instructions are probed: [`Recording::suspects`].
    pub instructions: Vec<Suspect>,
}

/// Whose failures are wanted.
pub enum Subject<'p> {
    /// Those of a command, which is run.
    Command(Vec<OsString>),
    /// Those of a process that runs already.
    Process(ptrace::Process<'p>),
}

/// Runs a command or attaches to a process, tracing the kernel's functions in it where that is possible.
///
/// `guardian` is a command that calls [`tracefs::guardian::run`].
///
/// # Errors
/// The command is none, or it or the process cannot be traced by ptrace. That the command cannot be executed, or the kernel's
/// functions not be traced, is part of the result.
pub fn run(subject: Subject<'_>, guardian: Command, wanted: Wanted) -> Result<Run, ptrace::Error> {
    if let Subject::Process(process) = &subject {
        // To set up the tracer takes a while, and this tells most of what can be wrong.
        ptrace::leader(process.number)?;
    }
    let suspects = || wanted.instructions.iter();
    let mut sites: tracefs::Sites = suspects()
        .flat_map(Suspect::probes)
        .map(|address| (address, Vec::new()))
        .collect();
    sites.extend(suspects().flat_map(Suspect::fetches));
    let mut tracing = Tracing(Session::start(guardian, &wanted.returns, &sites));
    let mut notes = tracing
        .0
        .as_ref()
        .map_or_else(|_| Vec::new(), |session| session.notes().to_vec());
    let report = match subject {
        Subject::Command(command) => ptrace::run_watched(command, &mut tracing)?,
        Subject::Process(process) => ptrace::attach(process, &mut tracing)?,
    };
    notes.extend(report.withheld.iter().cloned());
    let recording = tracing.0.map_err(Refused::from).and_then(|session| {
        let (header, formats) = session.descriptions();
        let (header, formats) = (header.clone(), formats.to_vec());
        let refused = session.refused().to_vec();
        let has_returns = session.method() != Method::None;
        let mut seen = session.finish();
        let failures = seen.failures.drain(..);
        notes.extend(failures.map(|failure| format!("tracefs is not as it was: {failure}")));
        let functions = functions(&mut notes);
        let available = std::mem::take(&mut seen.traceable);
        let recording = Recording::new(
            header,
            formats,
            seen,
            has_returns,
            &report.failures,
            &functions,
            &mut notes,
        )?;
        Ok(Recording {
            loading: recording.loading(&available, &functions)?,
            suspects: wanted.instructions,
            refused,
            ..recording
        })
    });
    Ok(Run {
        report,
        recording,
        notes,
    })
}

/// Tells the session of the command's calls; what comes in between ends it.
struct Tracing(Result<Session, tracefs::Error>);

impl ptrace::Watch for Tracing {
    fn started(&mut self, threads: &[i32]) {
        if let Ok(session) = &mut self.0
            && let Err(error) = session.pin(threads)
        {
            self.0 = Err(error);
        }
    }

    fn entered(&mut self, thread: i32, number: u64) {
        if let Ok(session) = &mut self.0 {
            session.capture().entered(thread, number);
        }
    }

    fn left(&mut self, thread: i32, failed: bool) {
        if let Ok(session) = &mut self.0 {
            session.capture().left(thread, failed);
        }
    }

    fn ended(&mut self, thread: i32) {
        if let Ok(session) = &mut self.0 {
            session.capture().ended(thread);
        }
    }
}

impl Recording {
    fn new(
        header: [String; 2],
        formats: Vec<String>,
        seen: tracefs::Seen,
        has_returns: bool,
        failures: &[Failure],
        functions: &Functions,
        notes: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let (layout, events) = tracefs::understand(&header, &formats)?;
        let symbols = Symbols::parse(&fs::read_to_string("/proc/kallsyms").unwrap_or_default());
        if symbols.is_empty() {
            notes.push(NO_NAMES.to_owned());
        }
        let reader = Reader {
            layout: &layout,
            events: &events,
            symbols: &symbols,
            functions,
            probed: &seen.probed,
        };
        let mut pages = seen.pages;
        keep_calls(&layout, &reader, which(has_returns), &mut pages);
        let symbols = symbols.only(reader.addresses(pages.iter().map(|page| page.bytes.as_slice())));
        let functions = functions.only(symbols.names());
        let mut written: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for page in &pages {
            let used = ring_buffer::Page::parse(&layout, &page.bytes).map_or(page.bytes.len(), |page| page.extent());
            let bytes = page.bytes.get(..used).unwrap_or(&page.bytes);
            written.entry(page.processor).or_default().push(to_hex(bytes));
        }
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Self {
            version: VERSION,
            kernel: kernel.trim().to_owned(),
            build: source::build(),
            failures: failures.to_vec(),
            header,
            formats,
            symbols,
            functions,
            probed: seen.probed,
            loading: None,
            suspects: Vec::new(),
            refused: Vec::new(),
            has_returns,
            cut: seen.cut,
            pages: written,
        })
    }

    /// Reads a file that [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// It is no such file, or one of another version.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_str(text)?;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        Ok(serde_json::from_str(text)?)
    }

    /// The recording as text.
    ///
    /// # Errors
    /// None that is known.
    pub fn to_json(&self) -> Result<String, Error> {
        Ok(serde_json::to_string(self)?)
    }

    /// The system calls that were recorded, with their functions, in the order of their returns.
    ///
    /// # Errors
    /// The kernel's descriptions cannot be understood.
    pub fn syscalls(&self) -> Result<Vec<Syscall>, Error> {
        let (layout, events) = tracefs::understand(&self.header, &self.formats)?;
        let reader = Reader {
            layout: &layout,
            events: &events,
            symbols: &self.symbols,
            functions: &self.functions,
            probed: &self.probed,
        };
        let pages: Vec<Vec<u8>> = self.pages.values().flatten().map(|page| from_hex(page)).collect();
        let mut syscalls = reader.syscalls(pages.iter().map(Vec::as_slice), which(self.has_returns));
        for syscall in &mut syscalls {
            syscall.lost |= self.cut;
        }
        Ok(syscalls)
    }

    /// The functions that failed calls ran through and that may have returned an errno.
    ///
    /// # Errors
    /// The kernel's descriptions cannot be understood.
    pub fn functions_of_failures(&self) -> Result<Vec<String>, Error> {
        fn add(call: &Call, functions: &Functions, names: &mut BTreeSet<String>) {
            if functions.may_fail(&call.function) {
                names.insert(call.function.clone());
            }
            call.children.iter().for_each(|call| add(call, functions, names));
        }
        let mut names = BTreeSet::new();
        for syscall in self.syscalls()?.iter().filter(|syscall| syscall.failed()) {
            syscall
                .tree
                .roots
                .iter()
                .for_each(|call| add(call, &self.functions, &mut names));
        }
        Ok(names.into_iter().take(PROBED).collect())
    }

    /// For each failure where the errno came from, where that is known.
    ///
    /// # Errors
    /// The kernel's descriptions cannot be understood.
    pub fn explain(&self) -> Result<Vec<Option<Answer>>, Error> {
        Ok(self
            .explain_exactly()?
            .into_iter()
            .map(|found| Some(found?.0))
            .collect())
    }

    /// As [`Self::explain`], with the instruction that made the errno, where instructions were probed and it was hit.
    ///
    /// # Errors
    /// The kernel's descriptions cannot be understood.
    pub fn explain_exactly(&self) -> Result<Vec<Option<Found>>, Error> {
        let syscalls = self.syscalls()?;
        let exact = self.answers(&syscalls).map(|found| {
            let (mut answer, syscall) = found?;
            let exact = instruction::exact(&self.suspects, &self.refused, syscall, &answer);
            if matches!(exact, Some(Exact::NotLoaded(_))) {
                // It may be the one that computed the errno, or it was told it by what was not seen.
                answer.certainty = answer.certainty.unproved();
            }
            Some((answer, exact))
        });
        Ok(exact.collect())
    }

    /// The answers, with the doubts that the kernel's code raises.
    fn answers<'s>(&'s self, syscalls: &'s [Syscall]) -> impl Iterator<Item = Option<(Answer, &'s Syscall)>> {
        let known = Known {
            functions: &self.functions,
            loading: self.loading.as_ref(),
        };
        let answers = origin::answers(&self.failures, syscalls, known, self.has_returns).into_iter();
        answers.map(|found| {
            let (mut answer, syscall) = found?;
            self.doubt(&mut answer, syscall);
            Some((answer, syscall))
        })
    }

    /// For each failure, explained by [`Self::explain_exactly`], which blocks of the function that made the errno were run,
    /// where they were all probed.
    ///
    /// # Errors
    /// The kernel's descriptions cannot be understood.
    pub fn coverage(&self) -> Result<Vec<Option<Coverage>>, Error> {
        let syscalls = self.syscalls()?;
        let coverage = self.answers(&syscalls).map(|found| {
            let (answer, syscall) = found?;
            instruction::coverage(&self.suspects, &self.refused, syscall, &answer)
        });
        Ok(coverage.collect())
    }

    /// A function that has no instruction to load its errno has it from elsewhere: from a field where another one put it
    /// (an error of a socket), or from a function that is not in the trace. Nor is it the one for certain if it has one, and
    /// calls a function that cannot be in the trace and has one too.
    fn doubt(&self, answer: &mut Answer, syscall: &Syscall) {
        let Origin::Function(function) = &answer.origin else {
            return;
        };
        let errno = i32::try_from(-syscall.returned).unwrap_or(0);
        let pair = (function.clone(), errno);
        let made = |loading: &Loading| loading.plainly.contains(&pair) && !loading.elsewhere.contains(&pair);
        if !self.loading.as_ref().is_some_and(made) {
            answer.certainty = answer.certainty.unproved();
        }
    }

    /// Which functions load errnos of this recording, by the code of the kernel that runs here; none if that cannot be read.
    fn loading(&self, available: &str, functions: &Functions) -> Result<Option<Loading>, Error> {
        if self.symbols.is_empty() {
            // Code is found by names.
            return Ok(None);
        }
        let ran = if self.has_returns {
            // What an origin called may have made the errno unseen.
            let origins = self.origins()?;
            self.ran_in_failures(|function, errno| origins.contains(&(function.to_owned(), errno)))?
        } else {
            self.ran_in_failures(|_, _| true)?
        };
        Ok(kernel::loading(ran, available, functions))
    }

    /// Every function that a failed call ran through, with the call's errno, from functions on of which `wanted` is true.
    fn ran_in_failures(&self, wanted: impl Fn(&str, i32) -> bool) -> Result<BTreeSet<(String, i32)>, Error> {
        fn add(
            call: &Call,
            errno: i32,
            inside: bool,
            wanted: &dyn Fn(&str, i32) -> bool,
            ran: &mut BTreeSet<(String, i32)>,
        ) {
            let inside = inside || wanted(&call.function, errno);
            if inside {
                ran.insert((call.function.clone(), errno));
            }
            let children = call.children.iter();
            children.for_each(|call| add(call, errno, inside, wanted, ran));
        }
        let mut ran = BTreeSet::new();
        for syscall in self.syscalls()?.iter().filter(|syscall| syscall.failed()) {
            let errno = i32::try_from(-syscall.returned).unwrap_or(0);
            let roots = syscall.tree.roots.iter();
            roots.for_each(|call| add(call, errno, false, &wanted, &mut ran));
        }
        Ok(ran)
    }

    /// The functions that made errnos in this recording, each with its errno.
    fn origins(&self) -> Result<BTreeSet<(String, i32)>, Error> {
        let mut origins = BTreeSet::new();
        for (failure, answer) in self.failures.iter().zip(self.explain()?) {
            if let (Outcome::Errno(errno), Some(Origin::Function(function))) =
                (failure.outcome, answer.map(|answer| answer.origin))
            {
                origins.insert((function, errno));
            }
        }
        Ok(origins)
    }

    /// The functions that made errnos in this recording, as the code of the kernel that runs here has them.
    ///
    /// # Errors
    /// The kernel's descriptions cannot be understood, or its code cannot be read.
    pub fn suspects(&self) -> Result<Vec<Suspect>, Error> {
        kernel::suspects(self.origins()?.into_iter().take(SUSPECTS_MAX))
    }
}

/// What the functions of the kernel that runs here return.
fn functions(notes: &mut Vec<String>) -> Functions {
    let types = fs::read(TYPES).map_err(|error| error.to_string());
    let functions = types.and_then(|bytes| Functions::parse(&bytes, &modules()).map_err(|error| error.to_string()));
    // Without type information a return is an errno if it looks like one, and no answer is certain.
    functions.unwrap_or_else(|error| {
        notes.push(format!(
            "no answer is certain without the kernel's type information ({TYPES}: {error}), which a kernel with \
             CONFIG_DEBUG_INFO_BTF has"
        ));
        Functions::default()
    })
}

/// The type information of the modules that are loaded.
fn modules() -> Vec<Vec<u8>> {
    let files = fs::read_dir("/sys/kernel/btf").into_iter().flatten().flatten();
    let files = files.filter(|file| file.file_name() != "vmlinux");
    files.filter_map(|file| fs::read(file.path()).ok()).collect()
}

/// The calls that an answer takes: where nobody knows what functions returned, also some that succeeded.
fn which(has_returns: bool) -> Which {
    if has_returns { Which::Failed } else { Which::All }
}

/// Drops the pages that hold nothing of these calls: a recording is to be sent around.
fn keep_calls(layout: &Layout, reader: &Reader<'_>, which: Which, pages: &mut Vec<tracefs::Page>) {
    let calls = reader.syscalls(pages.iter().map(|page| page.bytes.as_slice()), which);
    let windows: Vec<_> = calls
        .iter()
        .map(|call| (call.time.0.unwrap_or(0), call.time.1))
        .collect();
    pages.retain(|page| {
        let Ok(page) = ring_buffer::Page::parse(layout, &page.bytes) else {
            return true;
        };
        let times = || page.records().flatten().map(|record| record.time);
        let (Some(first), Some(last)) = (times().min(), times().max()) else {
            return page.missed() != ring_buffer::Missed::Nothing;
        };
        windows.iter().any(|(from, to)| first <= *to && *from <= last)
    });
}
