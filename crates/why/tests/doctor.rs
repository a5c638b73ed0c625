//! The doctor's findings on systems that are directories with a few files in them.

use std::fs;
use std::path::Path;

use why::doctor::{BackEnd, Examination, State, System};
use why::tracefs::{Ability, Error};

fn system(tracer: Result<Ability, Error>, files: &[(&str, &str)]) -> (tempfile::TempDir, System) {
    let base = tempfile::tempdir().unwrap();
    for (file, text) in files {
        let path = base.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let root = base.path().to_owned();
    let system = System {
        root,
        is_root: true,
        tracer,
        left_behind: 0,
    };
    (base, system)
}

/// A kernel of which all can be had but what the functions of the graph return.
fn able() -> Ability {
    Ability {
        place: "/sys/kernel/tracing".to_owned(),
        returns_in_graph: false,
        function_probes: true,
        return_probes: true,
        own_instance: true,
        fuse_events: true,
        busy: None,
    }
}

fn said(examination: &Examination, name: &str) -> (State, String) {
    let all = examination.back_ends.iter().chain(&examination.conditions);
    let found: Vec<_> = all.filter(|finding| finding.name == name).collect();
    assert_eq!(found.len(), 1, "{name}");
    assert_eq!(found[0].text.lines().count(), 1, "one line each");
    (found[0].state, found[0].text.clone())
}

#[test]
fn the_next_run_takes_the_best_back_end_that_the_kernel_has() {
    let next = |ability| system(Ok(ability), &[]).1.examine().next;
    let returns_in_graph = Ability {
        returns_in_graph: true,
        ..able()
    };
    let old = Ability {
        function_probes: false,
        own_instance: false,
        ..able()
    };
    let busy = Ability {
        busy: Some("another tracer".to_owned()),
        ..able()
    };
    assert_eq!(next(returns_in_graph), BackEnd::GraphWithReturns);
    assert_eq!(next(able()), BackEnd::FunctionProbe);
    assert_eq!(next(old), BackEnd::GraphAlone, "probes on some functions take --again");
    assert_eq!(next(busy), BackEnd::PtraceAlone);
    assert_eq!(
        system(Err(Error::NotMounted), &[]).1.examine().next,
        BackEnd::PtraceAlone
    );
}

#[test]
fn each_back_end_is_told_with_what_it_lacks() {
    let old = Ability {
        function_probes: false,
        own_instance: false,
        ..able()
    };
    let (_base, system) = system(Ok(old), &[("proc/sys/kernel/osrelease", "6.1.0-56\n")]);
    let examination = system.examine();
    assert_eq!(examination.kernel, "6.1.0-56");
    let states: Vec<_> = examination.back_ends.iter().map(|finding| finding.state).collect();
    assert_eq!(states, [State::No, State::No, State::Yes, State::Yes, State::Yes]);
    assert!(said(&examination, "fprobe").1.contains("CONFIG_FPROBE_EVENTS"));
    assert!(said(&examination, "kretprobes").1.contains("--again"));
    assert!(said(&examination, "own instance").1.contains("6.11"));
}

#[test]
fn what_stands_in_the_way_is_told_with_the_way_out() {
    let (_base, system) = system(
        Err(Error::Lockdown),
        &[
            ("sys/kernel/security/lockdown", "none integrity [confidentiality]\n"),
            ("sys/kernel/btf/vmlinux", ""),
            ("proc/kallsyms", "0000000000000000 T do_open\n"),
            ("proc/sys/kernel/yama/ptrace_scope", "3\n"),
        ],
    );
    let system = System {
        left_behind: 1,
        ..system
    };
    let examination = system.examine();
    for (name, part) in [
        ("tracefs", "locked down for confidentiality"),
        ("no lockdown", "lockdown=integrity"),
        ("types (BTF)", "CONFIG_DEBUG_INFO_BTF"),
        ("symbols", "kernel.kptr_restrict=1"),
        ("ptrace", "kernel.yama.ptrace_scope"),
        ("left clean", "the next one does"),
        ("code (kcore)", "no instructions"),
    ] {
        let (state, text) = said(&examination, name);
        assert_eq!(state, State::No, "{name}");
        assert!(text.contains(part), "{name}: {text}");
    }
}

#[test]
fn who_is_not_root_is_told_what_root_would_get() {
    let refused = Error::NotAllowed("/sys/kernel/tracing".into());
    let (_base, system) = system(Err(refused), &[("proc/sys/kernel/yama/ptrace_scope", "1\n")]);
    let system = System {
        is_root: false,
        ..system
    };
    let examination = system.examine();
    assert!(said(&examination, "ptrace alone").1.contains("root also gets"));
    assert_eq!(said(&examination, "ptrace").0, State::Yes);
    assert!(said(&examination, "root").1.contains("sudo"));
}

#[test]
fn this_system_is_examined_without_a_change() {
    let examination = System::this().examine();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(examination.kernel, release.trim());
    assert_eq!(examination.back_ends.len(), 5);
    assert!(
        !Path::new("/sys/kernel/tracing/instances")
            .join(format!("why_{}", std::process::id()))
            .exists()
    );
}

#[test]
fn source_lines_take_the_debug_information_of_the_kernel_that_runs() {
    const FILE: &str = "usr/lib/debug/boot/vmlinux-6.12.1";
    // A note: lengths of owner and text, type, owner, text.
    let notes = "\u{4}\0\0\0\u{4}\0\0\0\u{3}\0\0\0GNU\0abcd";
    let with = |files: &[(&str, &str)]| {
        let always = [("proc/sys/kernel/osrelease", "6.12.1\n"), ("sys/kernel/notes", notes)];
        let (base, system) = system(Ok(able()), &[&always, files].concat());
        let (state, text) = said(&system.examine(), "source lines");
        (state, text.replace(base.path().to_str().unwrap(), ""))
    };
    let (state, text) = with(&[]);
    assert_eq!(state, State::No);
    assert!(text.contains("linux-image-6.12.1-dbg"), "{text}");
    let (state, text) = with(&[(FILE, "of another build")]);
    assert_eq!(
        (state, text),
        (State::No, format!("/{FILE} is of another build of this kernel"))
    );
    let (base, system) = system(Ok(able()), &[("proc/sys/kernel/osrelease", "6.12.1\n"), (FILE, "")]);
    let program = std::env::current_exe().unwrap();
    fs::copy(&program, base.path().join(FILE)).unwrap();
    let bytes = fs::read(&program).unwrap();
    let file = object::File::parse(bytes.as_slice()).unwrap();
    let notes = object::Object::section_by_name(&file, ".note.gnu.build-id").unwrap();
    let place = base.path().join("sys/kernel/notes");
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(place, object::ObjectSection::data(&notes).unwrap()).unwrap();
    assert_eq!(said(&system.examine(), "source lines").0, State::Yes);
}
