//! One tracing session: set up, pinned to a process, ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use super::ability::{self, FUSE_EVENTS};
use super::capture::{Capture, Page};
use super::error::Error;
use super::files::{self, Tracefs};
use super::guardian::Guardian;
use super::journal::{self, Undo};
use super::probes::{GOT, NUMBERED, Probed, SENT};
use crate::kernel::ring_buffer::{Events, Format, FormatError, Layout};

/// Buffer of each processor, in KiB. It is emptied all the time.
const BUFFER_KIB: &str = "16384";
/// Every system call's function, by the kernel's own patterns.
const CALLS: &str = "__x64_sys_*";
const CALLS_OF_32_BITS: &str = "__ia32_*";
/// Of these the functions that never return, and take all memory apart in some ten thousand others.
const ENDINGS: [&str; 2] = ["!__x64_sys_exit*", "!__ia32_sys_exit*"];
/// What a return register holds that is an errno: as a `long`, or as an `int`, which is zero-extended.
const IS_ERRNO: &str = "(value<0 && value>=-4095) || (value>=0xfffff001 && value<=0xffffffff)";
/// A request enters a queue of virtio-fs. Earlier kernels have this alone; since Linux 6.12 it is here that requests have their
/// numbers, which they get after the first of those events. The second argument is a `struct fuse_req`, which has the header
/// of the request (`struct fuse_in_header`) at 56 from Linux 5.4, the first with virtio-fs, to 6.12 at least.
///
/// A return probe on `fuse_get_unique` would need no layout, but beside a graph and an fprobe it hangs Linux 6.12.
const FUSE_QUEUED: &str = "virtio_fs_enqueue_req opcode=+60($arg2):u32 unique=+64($arg2):u64";

/// The driver whose function that is.
const VIRTIO_FS: &str = "/sys/bus/virtio/drivers/virtiofs";

/// Addresses of instructions, with what is to be got there.
pub type Sites = BTreeMap<u64, Vec<String>>;

/// Where return values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The function graph has them itself (`funcgraph-retval`).
    Graph,
    /// One fprobe event on all functions stands beside the graph.
    Probe,
    /// Return probes on some functions stand beside the graph.
    ReturnProbes,
    /// Nowhere: there is the graph alone.
    None,
}

/// What a session saw, and what it takes to read it.
#[derive(Debug)]
pub struct Seen {
    /// All pages, by processor and in their order.
    pub pages: Vec<Page>,
    /// Whether events were lost on the way.
    pub cut: bool,
    /// Whose returns were probed, and seen whenever they were errnos.
    pub probed: Probed,
    /// The functions that the graph can show, as the kernel lists them; nothing if it does not.
    pub traceable: String,
    /// A sentence for each setting of tracefs that could not be put back.
    pub failures: Vec<String>,
}

/// A running session. Its end, by whatever way, puts tracefs back.
#[derive(Debug)]
pub struct Session {
    directory: Tracefs,
    method: Method,
    probes: Probes,
    refused: Vec<u64>,
    header: [String; 2],
    formats: Vec<String>,
    capture: Capture,
    notes: Vec<String>,
    guardian: Guardian,
    pinned: bool,
}

impl Session {
    /// Sets up tracing of all system calls, with nobody to trace yet.
    ///
    /// `guardian` is a command that calls [`super::guardian::run`]. `probed` names the functions whose returns are
    /// wanted on kernels that can only probe some. `sites` are addresses of instructions whose runs are wanted, each with
    /// up to two values to get there, in the words of the kernel (`%ax:u32`).
    ///
    /// # Errors
    /// Tracing is not possible or not allowed here, or somebody else is tracing. Nothing is left behind.
    pub fn start(guardian: Command, probed: &[String], sites: &Sites) -> Result<Self, Error> {
        let top = Tracefs::find()?;
        ability::has_graph(&top)?;
        let healed = journal::heal(&top);
        ability::refuse_to_disturb_graphs(&top)?;
        let mut setup = Setup {
            guardian: Guardian::start(guardian, top.clone())?,
            group: format!("why_{}", process::id()),
            top,
        };
        setup.errors()?;
        let directory = match setup.instance()? {
            Some(instance) => instance,
            None => setup.whole()?,
        };
        setup.buffer(&directory)?;
        let (method, probes) = setup.returns(&directory, probed)?;
        let refused = setup.sites(&directory, sites)?;
        setup.requests(&directory)?;
        let page_size = directory.read("buffer_subbuf_size_kb").ok();
        let page_size = page_size
            .and_then(|kib| kib.parse::<usize>().ok())
            .map_or(4096, |kib| kib << 10);
        let header = [
            setup.top.read("events/header_page")?,
            setup.top.read("events/header_event")?,
        ];
        let formats = setup.formats(&directory)?;
        let layout = Layout::parse(&header[0], &header[1]).map_err(|source| Error::Format {
            path: setup.top.path("events/header_page"),
            source,
        })?;
        Ok(Self {
            capture: Capture::start(&directory, layout, page_size, method == Method::None)?,
            guardian: setup.guardian,
            pinned: false,
            notes: healed.notes(),
            directory,
            method,
            probes,
            refused,
            header,
            formats,
        })
    }

    /// Where return values come from.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// What there is to say of earlier sessions, a sentence each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Addresses at which the kernel let no probe be set: of code that probes themselves run through, or that it changes.
    #[must_use]
    pub fn refused(&self) -> &[u64] {
        &self.refused
    }

    /// The kernel's descriptions of a page, of a record's header and of the events, as text.
    #[must_use]
    pub fn descriptions(&self) -> (&[String; 2], &[String]) {
        (&self.header, &self.formats)
    }

    /// Traces these threads and what they start, from now on, besides those that were named before.
    ///
    /// # Errors
    /// The kernel refused their numbers.
    pub fn pin(&mut self, threads: &[i32]) -> Result<(), Error> {
        // No numbers would stand for all threads that there are.
        if threads.is_empty() {
            return Ok(());
        }
        let numbers: Vec<_> = threads.iter().map(i32::to_string).collect();
        let append = std::mem::replace(&mut self.pinned, true);
        for file in ["set_ftrace_pid", "set_event_pid"] {
            files::write(&self.directory.path(file), &numbers.join(" "), append)?;
        }
        files::write(&self.directory.path("tracing_on"), "1", false)
    }

    /// Ends the session and puts tracefs back.
    pub fn finish(mut self) -> Seen {
        let off = files::write(&self.directory.path("tracing_on"), "0", false);
        let taken = self.capture.finish();
        let probed = self.probes.seen();
        let traceable = self.directory.top().read("available_filter_functions");
        let mut failures = self.guardian.finish();
        failures.extend(off.err().map(|error| error.to_string()));
        Seen {
            pages: taken.pages,
            cut: taken.cut,
            probed,
            traceable: traceable.unwrap_or_default(),
            failures,
        }
    }

    /// The capture, which is to be told of calls as they come and go.
    pub fn capture(&mut self) -> &mut Capture {
        &mut self.capture
    }
}

/// The probes that were made.
#[derive(Debug)]
enum Probes {
    None,
    All,
    /// Where misses are counted, and the functions by the names of their events.
    Some(PathBuf, BTreeMap<String, String>),
}

impl Probes {
    /// The functions whose every return was seen. A probe that had no room for a return may have missed an errno.
    fn seen(&self) -> Probed {
        let (profile, functions) = match self {
            Self::None => return Probed::None,
            Self::All => return Probed::All,
            Self::Some(profile, functions) => (profile, functions),
        };
        let counts = fs::read_to_string(profile).unwrap_or_default();
        let mut seen = BTreeSet::new();
        for line in counts.lines() {
            let mut words = line.split_ascii_whitespace();
            if let (Some(event), Some(_), Some("0")) = (words.next(), words.next(), words.next())
                && let Some(function) = functions.get(event)
            {
                seen.insert(function.clone());
            }
        }
        Probed::Only(seen)
    }
}

/// The size to put back for what `buffer_size_kb` says: `1408`, or `7 (expanded: 1408)` while nothing was ever traced, which
/// the kernel turns into the larger number for good at the first use; none for `X`, which stands for several.
fn whole_size(text: &str) -> Option<&str> {
    let text = text.split_once("expanded: ").map_or(text, |(_, size)| size);
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| &text[..end])
}

/// Changes tracefs, each change noted before it is made.
struct Setup {
    guardian: Guardian,
    group: String,
    top: Tracefs,
}

impl Setup {
    /// A directory of our own, if graphs may be traced in one (Linux 6.11 and later).
    fn instance(&mut self) -> Result<Option<Tracefs>, Error> {
        let instance = self.top.instance(&self.group);
        let path = instance.path("");
        self.guardian.note(&Undo::Remove(instance.relative("")))?;
        fs::create_dir(&path).map_err(|source| Error::File {
            doing: "create".to_owned(),
            path: path.clone(),
            source,
        })?;
        // Not by trying: a tracer that an earlier kernel refuses here spoils the size of the shared buffer for good.
        if ability::has_graph(&instance).is_ok() {
            self.set(&instance, "tracing_on", "0")?;
            // An instance with a tracer cannot be removed.
            self.set(&instance, "current_tracer", journal::TRACER)?;
            return Ok(Some(instance));
        }
        let gone = fs::remove_dir(&path);
        gone.map(|()| None).map_err(|source| Error::File {
            doing: "remove".to_owned(),
            path,
            source,
        })
    }

    /// Probes that the kernel refuses leave a line in its log of errors, which then is emptied, if it was empty before.
    fn errors(&mut self) -> Result<(), Error> {
        if self.top.read("error_log").is_ok_and(|log| log.is_empty()) {
            self.guardian.note(&Undo::Write("error_log".into(), String::new()))?;
        }
        Ok(())
    }

    fn note_probe(&mut self, name: &str) -> Result<(), Error> {
        let removal = format!("-:{}/{name}", self.group);
        self.guardian.note(&Undo::Append("dynamic_events".into(), removal))
    }

    /// Notes the sizes of the top level's buffers.
    fn sizes(&mut self) -> Result<(), Error> {
        let size = self.top.read("buffer_size_kb")?;
        if let Some(size) = whole_size(&size) {
            return self
                .guardian
                .note(&Undo::Write("buffer_size_kb".into(), size.to_owned()));
        }
        // Each processor's buffer has its own.
        for entry in fs::read_dir(self.top.path("per_cpu")).into_iter().flatten().flatten() {
            let file = Path::new("per_cpu").join(entry.file_name()).join("buffer_size_kb");
            let size = fs::read_to_string(self.top.path(&file)).unwrap_or_default();
            if let Some(size) = whole_size(size.trim()) {
                self.guardian.note(&Undo::Write(file, size.to_owned()))?;
            }
        }
        Ok(())
    }

    /// The top level, which all share: only if nobody uses it.
    fn whole(&mut self) -> Result<Tracefs, Error> {
        let top = self.top.clone();
        ability::refuse_to_disturb_all(&top)?;
        self.sizes()?;
        self.set(&top, "tracing_on", "0")?;
        for file in ["set_ftrace_pid", "set_event_pid"] {
            self.guardian.note(&Undo::Write(file.into(), " ".to_owned()))?;
        }
        self.set(&top, "current_tracer", journal::TRACER)?;
        Ok(top)
    }

    fn buffer(&mut self, directory: &Tracefs) -> Result<(), Error> {
        self.put(&directory.path("buffer_size_kb"), BUFFER_KIB)?;
        for file in ["options/function-fork", "options/event-fork"] {
            if directory.has(file) {
                self.set(directory, file, "1")?;
            }
        }
        // One clock for all processors, or threads that move from one to the other could not be followed.
        let clock = directory.read("trace_clock")?;
        let clock = clock.split(['[', ']']).nth(1).unwrap_or("local").to_owned();
        self.guardian
            .note(&Undo::Write(directory.relative("trace_clock"), clock))?;
        self.put(&directory.path("trace_clock"), "global")?;
        let functions = self.top.path("set_graph_function");
        self.guardian
            .note(&Undo::Write("set_graph_function".into(), " ".to_owned()))?;
        self.put(&functions, CALLS)?;
        // Those of 32-bit programs, for which a kernel may be built without.
        let _has_none = files::write(&functions, CALLS_OF_32_BITS, true);
        for endings in ENDINGS {
            files::write(&functions, endings, true)?;
        }
        for event in ["sys_enter", "sys_exit"] {
            self.set(directory, &format!("events/raw_syscalls/{event}/enable"), "1")?;
        }
        Ok(())
    }

    /// Has return values recorded, by the best way that the kernel has.
    fn returns(&mut self, directory: &Tracefs, probed: &[String]) -> Result<(Method, Probes), Error> {
        if ability::has_returns_in_graph(directory) {
            self.set(directory, "options/funcgraph-retval", "1")?;
            return Ok((Method::Graph, Probes::None));
        }
        // Registered after the graph: its values then come from the true return (facts: order matters).
        let probes = self.top.path("dynamic_events");
        let group = self.group.clone();
        self.note_probe("returned")?;
        let all = format!("f:{group}/returned *%return value=$retval:s64");
        if ability::has_function_probes(&self.top)? && files::write(&probes, &all, true).is_ok() {
            self.enable(directory, "returned", Some(IS_ERRNO))?;
            return Ok((Method::Probe, Probes::All));
        }
        let mut made = BTreeMap::new();
        for (index, function) in probed.iter().enumerate() {
            let name = format!("returned{index}");
            self.note_probe(&name)?;
            // Some functions refuse probes; what they return stays unknown.
            let probe = format!("r32:{group}/{name} {function} value=$retval:s64");
            if files::write(&probes, &probe, true).is_ok() {
                made.insert(name, function.clone());
            }
        }
        if made.is_empty() {
            return Ok((Method::None, Probes::None));
        }
        self.enable(directory, "", Some(IS_ERRNO))?;
        Ok((
            Method::ReturnProbes,
            Probes::Some(self.top.path("kprobe_profile"), made),
        ))
    }

    /// Has runs of single instructions recorded, and gives those that cannot be.
    fn sites(&mut self, directory: &Tracefs, sites: &Sites) -> Result<Vec<u64>, Error> {
        let probes = self.top.path("dynamic_events");
        let group = self.group.clone();
        let mut refused = Vec::new();
        for (index, (address, values)) in sites.iter().enumerate() {
            let name = format!("site{index}");
            self.note_probe(&name)?;
            // By address, since a name may be of several functions.
            let probe = format!("p:{group}/{name} {address:#x}");
            let getting = values.iter().zip(GOT).map(|(value, name)| format!(" {name}={value}"));
            let getting: String = getting.collect();
            // What the kernel does not know how to get must not cost what it does.
            let made = files::write(&probes, &(probe.clone() + &getting), true)
                .or_else(|_| files::write(&probes, &probe, true));
            if made.and_then(|()| self.enable(directory, &name, None)).is_err() {
                refused.push(*address);
            }
        }
        Ok(refused)
    }

    /// Has requests to FUSE servers recorded, as far as the kernel lets it.
    fn requests(&mut self, directory: &Tracefs) -> Result<(), Error> {
        let mut name = SENT;
        if ability::has_fuse_events(&self.top) {
            for event in FUSE_EVENTS {
                self.set(directory, &format!("events/{event}/enable"), "1")?;
            }
            name = NUMBERED;
        }
        // Without its driver there is no virtio-fs here, and nothing to probe.
        if !Path::new(VIRTIO_FS).exists() {
            return Ok(());
        }
        let definition = format!("p:{}/{name} {FUSE_QUEUED}", self.group);
        let probes = self.top.path("dynamic_events");
        self.note_probe(name)?;
        // The function may go by another name in this kernel.
        if files::write(&probes, &definition, true).is_ok() {
            self.enable(directory, name, None)?;
        }
        Ok(())
    }

    /// Records one of our events, or all for the empty name, where the filter lets it.
    fn enable(&mut self, directory: &Tracefs, event: &str, filter: Option<&str>) -> Result<(), Error> {
        let file = PathBuf::from(format!("events/{}", self.group))
            .join(event)
            .join("enable");
        self.guardian
            .note(&Undo::Write(directory.relative(&file), "0".to_owned()))?;
        if let Some(filter) = filter {
            files::write(&directory.path(file.with_file_name("filter")), filter, false)?;
        }
        files::write(&directory.path(file), "1", false)
    }

    /// The descriptions of all events that the session records, the probes' by the names in [`super::probes`].
    fn formats(&self, directory: &Tracefs) -> Result<Vec<String>, Error> {
        let mut names = vec![
            "ftrace/funcgraph_entry".to_owned(),
            "ftrace/funcgraph_exit".to_owned(),
            "raw_syscalls/sys_enter".to_owned(),
            "raw_syscalls/sys_exit".to_owned(),
        ];
        let fuse = FUSE_EVENTS.iter().map(|&event| event.to_owned());
        names.extend(fuse.filter(|event| self.top.has(&format!("events/{event}"))));
        let group = self.top.path(format!("events/{}", self.group));
        for entry in fs::read_dir(&group).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let own = name.starts_with("returned") || name.starts_with("site");
            if own || [NUMBERED, SENT].contains(&name.as_str()) {
                names.push(format!("{}/{name}", self.group));
            }
        }
        let mut formats = Vec::new();
        for name in names {
            let in_top = format!("events/{name}/format");
            let of = if self.top.has(&in_top) { &self.top } else { directory };
            formats.push(of.read(&in_top)?);
        }
        Ok(formats)
    }

    /// Writes a value whose old one is put back.
    fn set(&mut self, directory: &Tracefs, file: &str, value: &str) -> Result<(), Error> {
        let before = directory.read(file)?;
        self.guardian.note(&Undo::Write(directory.relative(file), before))?;
        files::write(&directory.path(file), value, false)
    }

    #[expect(clippy::unused_self, reason = "a change that needs no note reads like the others")]
    fn put(&self, path: &std::path::Path, value: &str) -> Result<(), Error> {
        files::write(path, value, false)
    }
}

/// Understands the kernel's descriptions.
///
/// # Errors
/// They are not what any known kernel writes.
pub fn understand(header: &[String; 2], formats: &[String]) -> Result<(Layout, Events), FormatError> {
    let layout = Layout::parse(&header[0], &header[1])?;
    let mut events = Events::default();
    for format in formats {
        events.add(Format::parse(format)?);
    }
    Ok((layout, events))
}
