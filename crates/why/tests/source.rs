//! Source lines by debug information: that of this test, which is a program like any other.

use std::fs;
use std::hint::black_box;
use std::path::Path;

use object::{Object, ObjectSection};
use why::source::{Installed, Source, Unreadable, build_in, installed};

const KERNEL: &str = "6.12.0-test";

/// A function whose place in the source is known.
#[expect(unsafe_code, reason = "the linker has no other function of this name")]
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn innkeeper_of_known_line() -> u32 {
    line!()
}

#[inline(always)]
fn innkeeper_inlined(number: u32) -> u32 {
    black_box(number) * 3
}

#[expect(unsafe_code, reason = "the linker has no other function of this name")]
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn innkeeper_around(number: u32) -> u32 {
    let first = black_box(number);
    innkeeper_inlined(first) + black_box(first)
}

/// The build id of this program, as its linker wrote it.
fn own_build(program: &Path) -> String {
    let bytes = fs::read(program).unwrap();
    let file = object::File::parse(bytes.as_slice()).unwrap();
    let notes = file
        .section_by_name(".note.gnu.build-id")
        .expect("the linker wrote one");
    build_in(notes.data().unwrap()).unwrap()
}

#[test]
fn an_instruction_is_told_by_file_and_line() {
    let source = Source::open(&std::env::current_exe().unwrap()).unwrap();
    let line = source.line("innkeeper_of_known_line+0x0").unwrap();
    assert!(line.file.ends_with("crates/why/tests/source.rs"), "{line}");
    // The function's first instruction may belong to its head or to its end.
    let body = black_box(innkeeper_of_known_line as extern "C" fn() -> u32)();
    assert!(
        (body - 1..=body + 1).contains(&line.line),
        "{line}, and the body is line {body}"
    );
    assert_eq!(
        source.line("innkeeper_of_known_line+0xffffff"),
        None,
        "far behind its end"
    );
    assert_eq!(source.line("innkeeper_of_no_line+0x0"), None);
    assert_eq!(source.line("innkeeper_of_known_line+0xnone"), None);
}

#[test]
fn an_inlined_function_is_named_with_its_line() {
    black_box(innkeeper_around as extern "C" fn(u32) -> u32)(1);
    let source = Source::open(&std::env::current_exe().unwrap()).unwrap();
    let places = (0..64).map(|offset| format!("innkeeper_around+{offset:#x}"));
    let lines: Vec<_> = places.filter_map(|place| source.line(&place)).collect();
    let is_of = |inlined: &Option<String>| inlined.as_ref().is_some_and(|name| name.contains("innkeeper_inlined"));
    let inlined = lines.iter().find(|line| is_of(&line.inlined)).unwrap();
    let shown = inlined.to_string();
    assert!(
        shown.contains("source.rs:") && shown.contains(" in ") && shown.ends_with("()"),
        "{shown}"
    );
    let own = lines.iter().find(|line| line.inlined.is_none()).unwrap();
    assert!(!own.to_string().contains(" in "), "{own}");
    assert_ne!(own.line, inlined.line);
}

#[test]
fn debug_information_is_that_of_the_very_build() {
    let program = std::env::current_exe().unwrap();
    let build = own_build(&program);
    let root = tempfile::tempdir().unwrap();
    assert_eq!(installed(root.path(), KERNEL, &build), Installed::None);
    let file = root.path().join(format!("usr/lib/debug/boot/vmlinux-{KERNEL}"));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::copy(&program, &file).unwrap();
    assert_eq!(installed(root.path(), KERNEL, &build), Installed::Own(file.clone()));
    assert_eq!(
        installed(root.path(), KERNEL, "00ff00ff"),
        Installed::Other(file.clone())
    );
    assert_eq!(installed(root.path(), "6.1", &build), Installed::None);
    let by_build = root
        .path()
        .join(format!("usr/lib/debug/.build-id/{}/{}.debug", &build[..2], &build[2..]));
    fs::create_dir_all(by_build.parent().unwrap()).unwrap();
    fs::copy(&program, &by_build).unwrap();
    assert_eq!(installed(root.path(), "6.1", &build), Installed::Own(by_build));
}

#[test]
fn a_recording_cannot_have_any_other_file_looked_at() {
    let root = tempfile::tempdir().unwrap();
    for kernel in ["", ".", ".."] {
        let file = root
            .path()
            .join("usr/lib/debug/lib/modules")
            .join(kernel)
            .join("vmlinux");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
        assert_eq!(installed(root.path(), kernel, "00ff"), Installed::None, "{kernel:?}");
    }
    for (kernel, build) in [
        ("../../../etc/passwd", "00ff"),
        (KERNEL, "../../x"),
        (KERNEL, ""),
        (KERNEL, "äöü"),
    ] {
        assert_eq!(installed(root.path(), kernel, build), Installed::None);
    }
}

#[test]
fn what_is_no_debug_information_is_refused_with_its_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "no ELF").unwrap();
    let Err(error @ Unreadable { .. }) = Source::open(file.path()) else {
        panic!("it was read")
    };
    let sentence = error.to_string();
    assert!(
        sentence.starts_with(&format!("cannot read {}", file.path().display())),
        "{sentence}"
    );
}
