//! Abilities of a tracer, and whether it is free.

use std::fs;
use std::process;

use super::error::Error;
use super::files::Tracefs;
use super::journal::{Journal, Undo};

/// A request leaves for a FUSE server, and is answered (Linux 6.10 and later).
pub(super) const FUSE_EVENTS: [&str; 2] = ["fuse/fuse_request_send", "fuse/fuse_request_end"];
/// What `set_graph_function` says when there is none.
const NO_FUNCTIONS: &str = "#### all functions enabled ####";
/// What the files of functions that are left out say when there is none.
const NONE_LEFT_OUT: &str = "#### no functions disabled ####";

/// What the tracer of this kernel can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ability {
    /// Where tracefs is.
    pub place: String,
    /// The graph can have what functions returned (`funcgraph-retval`).
    pub returns_in_graph: bool,
    /// One event can be made of the returns of all functions.
    pub function_probes: bool,
    /// Events can be made of the returns of single functions.
    pub return_probes: bool,
    /// Graphs can be traced in an instance (Linux 6.11 and later).
    pub own_instance: bool,
    /// Requests to FUSE servers are events.
    pub fuse_events: bool,
    /// Somebody else uses what a run would change.
    pub busy: Option<String>,
}

impl Ability {
    /// Looks at a tracefs. An instance is made for a moment, to see what it can do.
    ///
    /// # Errors
    /// The kernel has no function graph, or its files cannot be read.
    pub fn of(top: &Tracefs) -> Result<Self, Error> {
        has_graph(top)?;
        let own_instance = instances_have_graphs(top)?;
        let free = refuse_to_disturb_graphs(top).and_then(|()| {
            if own_instance {
                Ok(())
            } else {
                refuse_to_disturb_all(top)
            }
        });
        let busy = match free {
            Ok(()) => None,
            Err(busy @ Error::Busy(_)) => Some(busy.to_string()),
            Err(other) => return Err(other),
        };
        Ok(Self {
            place: top.to_string(),
            returns_in_graph: has_returns_in_graph(top),
            function_probes: has_function_probes(top)?,
            return_probes: top.has("kprobe_events"),
            own_instance,
            fuse_events: has_fuse_events(top),
            busy,
        })
    }
}

/// Fails unless the kernel can trace function graphs.
pub(super) fn has_graph(top: &Tracefs) -> Result<(), Error> {
    let tracers = top.read("available_tracers")?;
    if tracers.split(' ').any(|name| name == "function_graph") {
        Ok(())
    } else {
        Err(Error::NoGraph)
    }
}

pub(super) fn has_returns_in_graph(top: &Tracefs) -> bool {
    top.has("options/funcgraph-retval")
}

pub(super) fn has_fuse_events(top: &Tracefs) -> bool {
    FUSE_EVENTS.iter().all(|event| top.has(&format!("events/{event}")))
}

fn instances_have_graphs(top: &Tracefs) -> Result<bool, Error> {
    let mut journal = Journal::create()?;
    let instance = top.instance(&format!("why_{}", process::id()));
    journal
        .note(&Undo::Remove(instance.relative("")))
        .map_err(Error::Journal)?;
    let able = fs::create_dir(instance.path("")).is_ok() && has_graph(&instance).is_ok();
    match journal.take_back(top).map_err(Error::Journal)?.pop() {
        None => Ok(able),
        Some(failure) => Err(Error::Journal(std::io::Error::other(failure))),
    }
}

/// What an instance cannot keep apart: these choose what every graph shows.
pub(super) fn refuse_to_disturb_graphs(top: &Tracefs) -> Result<(), Error> {
    let instances = fs::read_dir(top.path("instances")).into_iter().flatten().flatten();
    let instances = instances.filter_map(|entry| Some(top.instance(entry.file_name().to_str()?)));
    for directory in std::iter::once(top.clone()).chain(instances) {
        let tracer = directory.read("current_tracer").unwrap_or_default();
        if tracer.starts_with("function_graph") {
            let file = directory.relative("current_tracer");
            return Err(Error::Busy(format!("{} is {tracer}", file.display())));
        }
    }
    unused(
        top,
        &[
            ("set_graph_function", NO_FUNCTIONS),
            ("set_graph_notrace", NONE_LEFT_OUT),
            ("max_graph_depth", "0"),
        ],
    )
}

/// What is one for all at the top level.
pub(super) fn refuse_to_disturb_all(top: &Tracefs) -> Result<(), Error> {
    let tracer = top.read("current_tracer")?;
    if tracer != "nop" {
        return Err(Error::Busy(format!("current_tracer is {tracer}")));
    }
    let unset = [
        ("set_event", ""),
        ("set_event_pid", "no pid"),
        ("set_event_notrace_pid", "no pid"),
        ("set_ftrace_pid", "no pid"),
        ("set_ftrace_notrace_pid", "no pid"),
        ("set_ftrace_filter", NO_FUNCTIONS),
        ("set_ftrace_notrace", NONE_LEFT_OUT),
    ];
    unused(top, &unset)?;
    // Changing the tracer empties the buffer.
    if top.read("trace")?.lines().any(|line| !line.starts_with('#')) {
        let held = "a trace is kept in its buffer, which `echo > trace` empties";
        return Err(Error::Busy(held.to_owned()));
    }
    Ok(())
}

/// Fails unless each of these files says what it says when nobody uses it.
fn unused(top: &Tracefs, files: &[(&str, &str)]) -> Result<(), Error> {
    for (file, unused) in files {
        let text = if top.has(file) { top.read(file)? } else { String::new() };
        if !text.is_empty() && text != *unused {
            return Err(Error::Busy(format!("{file} is set")));
        }
    }
    Ok(())
}

/// Whether events can be made of the returns of all functions at once, by what the kernel says of its syntax.
pub(super) fn has_function_probes(top: &Tracefs) -> Result<bool, Error> {
    let syntax = top.read("README")?;
    Ok(syntax
        .lines()
        .any(|line| line.trim_start().starts_with("f[:[<group>/]")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that looks like the tracefs of a kernel.
    fn tracefs(files: &[(&str, &str)]) -> (tempfile::TempDir, Tracefs) {
        let base = tempfile::tempdir().unwrap();
        let usual = [
            ("available_tracers", "function_graph function nop"),
            ("current_tracer", "nop"),
            ("set_graph_function", NO_FUNCTIONS),
            ("max_graph_depth", "0"),
            ("set_event", ""),
            ("trace", "# tracer: nop\n#\n"),
            ("README", "\t           [-:[<group>/][<event>]]\n"),
        ];
        for (file, text) in usual.iter().chain(files) {
            let path = base.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let top = Tracefs::at(base.path());
        (base, top)
    }

    fn busy(top: &Tracefs) -> (Option<String>, Option<String>) {
        let word = |free: Result<(), Error>| free.err().map(|error| error.to_string());
        (word(refuse_to_disturb_graphs(top)), word(refuse_to_disturb_all(top)))
    }

    #[test]
    fn a_tracer_that_nobody_uses_is_free() {
        let (_base, top) = tracefs(&[]);
        assert_eq!(busy(&top), (None, None));
    }

    #[test]
    fn another_tracer_is_in_the_way_only_where_it_would_be_disturbed() {
        let (_base, top) = tracefs(&[("current_tracer", "function")]);
        let (graphs, all) = busy(&top);
        assert_eq!(graphs, None, "an instance of our own leaves it alone");
        assert!(all.unwrap().contains("(current_tracer is function) and is left alone"));

        let (_base, top) = tracefs(&[("instances/theirs/current_tracer", "function_graph")]);
        let (graphs, _) = busy(&top);
        assert!(
            graphs
                .unwrap()
                .contains("(instances/theirs/current_tracer is function_graph)")
        );
    }

    #[test]
    fn what_chooses_functions_for_all_graphs_is_not_changed_under_its_user() {
        for (file, text) in [("set_graph_function", "vfs_read"), ("max_graph_depth", "3")] {
            let (_base, top) = tracefs(&[(file, text)]);
            assert!(busy(&top).0.unwrap().contains(&format!("({file} is set)")));
        }
    }

    #[test]
    fn a_trace_that_somebody_keeps_is_not_thrown_away() {
        let (_base, top) = tracefs(&[("trace", "# tracer: nop\n sh-1 [000] d... 1.0: bprint: hello\n")]);
        let (graphs, all) = busy(&top);
        assert_eq!(graphs, None);
        assert!(all.unwrap().contains("`echo > trace` empties"));
    }

    #[test]
    fn the_kernels_own_words_say_what_it_can_probe() {
        let (_base, top) = tracefs(&[]);
        assert!(!has_function_probes(&top).unwrap());
        let syntax = "\t           f[:[<group>/][<event>]] <func-name>[%return] [<args>]\n";
        let (_base, top) = tracefs(&[("README", syntax), ("options/funcgraph-retval", "0")]);
        assert!(has_function_probes(&top).unwrap());
        assert!(has_returns_in_graph(&top));
    }

    #[test]
    fn a_kernel_without_graphs_says_so() {
        let (_base, top) = tracefs(&[("available_tracers", "blk nop")]);
        assert!(matches!(Ability::of(&top), Err(Error::NoGraph)));
    }
}
