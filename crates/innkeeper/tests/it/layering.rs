use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

/// Each crate, and which of ours it may import. A crate that stands alone imports nothing.
const LAYERS: [(&str, &[&str]); 13] = [
    ("guestmem", &[]),
    ("virtqueue", &["guestmem"]),
    ("vhost-user", &[]),
    ("fuse", &["guestmem"]),
    ("backend", &["guestmem", "virtqueue", "vhost-user"]),
    ("devices", &["guestmem", "virtqueue", "fuse", "backend"]),
    ("driver", &["guestmem", "virtqueue", "vhost-user"]),
    ("process", &[]),
    ("why", &[]),
    ("mute-thread", &[]),
    (
        "innkeeper",
        &[
            "guestmem",
            "virtqueue",
            "vhost-user",
            "fuse",
            "backend",
            "devices",
            "driver",
            "process",
            "why",
        ],
    ),
    ("xtask", &["why"]),
    ("exercise", &[]),
];

/// Crates that can be trusted with hostile rings because the compiler checks every access of theirs.
const SAFE: [&str; 3] = ["virtqueue", "backend", "devices"];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn names() -> BTreeSet<String> {
    let entries = fs::read_dir(crates()).unwrap().map(Result::unwrap);
    entries
        .filter(|entry| entry.path().join("Cargo.toml").exists())
        .map(|e| e.file_name().into_string().unwrap())
        .collect()
}

fn allowed(name: &str) -> &'static [&'static str] {
    LAYERS
        .iter()
        .find(|(layer, _)| *layer == name)
        .unwrap_or_else(|| panic!("{name} has no place in the layers"))
        .1
}

fn manifest(name: &str) -> Table {
    fs::read_to_string(crates().join(name).join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap()
}

/// Which of our crates a section of a manifest names.
fn ours(manifest: &Table, section: &str) -> Vec<String> {
    let table = manifest.get(section).and_then(|value| value.as_table());
    let names = names();
    table
        .into_iter()
        .flat_map(Table::keys)
        .filter(|name| names.contains(*name))
        .cloned()
        .collect()
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The code of a file, without comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| line.split("//").next().unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The words of some code that stand right before `::`.
fn paths_of(code: &str) -> BTreeSet<&str> {
    code.match_indices("::")
        .map(|(at, _)| {
            let before = &code[..at];
            let start = before
                .rfind(|c: char| !c.is_alphanumeric() && c != '_')
                .map_or(0, |i| i + 1);
            &before[start..]
        })
        .collect()
}

#[test]
fn every_crate_imports_only_what_its_layer_may() {
    for name in names() {
        let manifest = manifest(&name);
        for section in ["dependencies", "build-dependencies"] {
            for import in ours(&manifest, section) {
                assert!(
                    allowed(&name).contains(&import.as_str()),
                    "{name} must not import {import}"
                );
            }
        }
    }
}

#[test]
fn the_driver_knows_no_device_even_in_its_tests() {
    for section in ["dependencies", "dev-dependencies"] {
        let imports = ours(&manifest("driver"), section);
        assert!(
            !imports.iter().any(|import| import == "backend" || import == "devices"),
            "driver imports {imports:?}"
        );
    }
    for file in sources(&crates().join("driver")) {
        let code = code(&file);
        let paths = paths_of(&code);
        assert!(
            !paths.contains("backend") && !paths.contains("devices"),
            "{} names a device crate",
            file.display()
        );
    }
}

#[test]
fn no_source_names_a_crate_above_its_layer() {
    for name in names() {
        for file in sources(&crates().join(&name).join("src")) {
            // Tests within a module may use what the manifest gives them; that is checked above.
            let code = code(&file);
            let code = code.split("#[cfg(test)]").next().unwrap_or_default();
            for line in code
                .lines()
                .map(str::trim)
                .filter(|line| line.starts_with("use ") || line.starts_with("pub use "))
            {
                let first = line
                    .trim_start_matches("pub ")
                    .trim_start_matches("use ")
                    .split("::")
                    .next()
                    .unwrap_or_default();
                let import = first.replace('_', "-");
                let ours = import != name && names().contains(&import);
                // A module of the crate itself may have a crate's name.
                let places = [file.with_file_name(""), file.with_extension("")];
                let local = places
                    .iter()
                    .any(|place| place.join(format!("{first}.rs")).exists() || place.join(first).is_dir());
                assert!(
                    !ours || local || allowed(&name).contains(&import.as_str()),
                    "{}: {line}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn no_device_imports_its_sibling() {
    let directory = crates().join("devices/src");
    let modules: BTreeSet<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|module| module != "lib")
        .collect();
    assert!(modules.contains("fs"));
    for file in sources(&directory) {
        let relative = file.strip_prefix(&directory).unwrap();
        let own = relative
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs");
        for sibling in modules.iter().filter(|&module| own != "lib" && module != own) {
            let code = code(&file);
            for way in [format!("crate::{sibling}"), format!("super::{sibling}")] {
                assert!(!code.contains(&way), "{} imports its sibling {sibling}", file.display());
            }
        }
    }
}

#[test]
fn rings_lanes_and_devices_have_no_unsafe_code() {
    for name in SAFE {
        let source = crates().join(name).join("src");
        assert!(
            code(&source.join("lib.rs")).contains("#![forbid(unsafe_code)]"),
            "{name} does not forbid unsafe code"
        );
    }
}
