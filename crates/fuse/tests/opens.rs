//! Which modules of the file system open files of the host: one opens files of the share, and few others open
//! anything.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules that may call what opens, below `src/`, and what each opens.
const MAY_OPEN: [(&str, &str); 5] = [
    ("passthrough/opening.rs", "what lies in the share, with its kind proven"),
    ("passthrough/procfs.rs", "/proc/self/fd, O_PATH"),
    ("passthrough/dax/device.rs", "/dev/fuse"),
    ("passthrough/dax/views.rs", "views on a private FUSE mount"),
    ("sys.rs", "file handles, O_PATH"),
];

/// Calls that make a descriptor from a name, a handle or a magic link.
const OPENS: [&str; 15] = [
    "openat(",
    "openat2(",
    "open_by_handle_at",
    "rustix::fs::open(",
    "libc::open",
    "File::open",
    "File::create",
    "OpenOptions",
    "fs::read(",
    "fs::read_to",
    "fs::write(",
    "read_dir(",
    "Dir::read_from",
    "Dir::new",
    "fsopen(",
];

/// A line without its comment and what is in quotation marks: error messages name calls too.
fn code(line: &str) -> String {
    let code = line.split("//").next().unwrap_or_default();
    code.split('"').step_by(2).collect()
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.extension() {
            None if path.is_dir() => sources(&path, found),
            Some(extension) if extension == "rs" => found.push(path),
            _ => {}
        }
    }
}

#[test]
fn one_module_opens_what_lies_in_the_share() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 20, "the sources are where they are looked for");
    let mut opening = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        // Tests stand behind the program, or in files of their own.
        let program = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let mut code = program.lines().map(code);
        let opens = code.any(|line| OPENS.iter().any(|call| line.contains(call)));
        if opens && !name.ends_with("tests.rs") {
            opening.push(name);
        }
    }
    opening.sort();
    let mut may = MAY_OPEN.map(|(name, _)| name);
    may.sort_unstable();
    assert_eq!(opening, may);
}
