use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

/// Crates that can be trusted with hostile rings and messages because the compiler checks every access of theirs.
const SAFE: [&str; 4] = ["virtqueue", "vhost-user", "backend", "devices"];

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

fn page(name: &str) -> String {
    fs::read_to_string(crates().join("..").join(name)).unwrap()
}

/// The table of crates in ARCHITECTURE.md: each crate, and which of ours it may import.
fn layers() -> BTreeMap<String, BTreeSet<String>> {
    let page = page("ARCHITECTURE.md");
    let table = page
        .split("| crate |")
        .nth(1)
        .expect("ARCHITECTURE.md has a table of crates");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        // The middle column may have anything in it but a bar.
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, _, imports] = cells[..] else {
            panic!("not a row of three cells: {row}")
        };
        let imports = imports.split(',').map(|import| import.trim().trim_matches('`'));
        let imports = imports.filter(|&import| import != "-").map(str::to_owned);
        (name.trim_matches('`').to_owned(), imports.collect())
    })
    .collect()
}

/// Which of our crates may be imported by one.
fn allowed(name: &str) -> BTreeSet<String> {
    let layers = layers();
    let found = layers.get(name);
    found
        .unwrap_or_else(|| panic!("{name} is not in the table of ARCHITECTURE.md"))
        .clone()
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
fn the_table_has_all_crates_and_what_each_imports() {
    assert_eq!(layers().into_keys().collect::<BTreeSet<_>>(), names());
    for name in names() {
        let manifest = manifest(&name);
        let sections = ["dependencies", "build-dependencies"].map(|section| ours(&manifest, section));
        let imports: BTreeSet<_> = sections.into_iter().flatten().collect();
        assert_eq!(
            imports,
            allowed(&name),
            "what {name} imports by its manifest and may by the table"
        );
    }
}

#[test]
fn in_the_program_only_mounts_and_exercises_drive_daemons() {
    let source = crates().join("innkeeper/src");
    for file in sources(&source) {
        let of_mount = file.starts_with(source.join("commands/mount"));
        // A device's is a file or a folder, as is what all have in common.
        let of_exercise = file.iter().any(|part| part == "exercise" || part == "exercise.rs");
        assert!(
            of_mount || of_exercise || !paths_of(&code(&file)).contains("driver"),
            "{} names driver",
            file.display()
        );
    }
}

#[test]
fn only_xtask_knows_where_set_up_keeps_its_downloads() {
    for name in names().into_iter().filter(|name| name != "xtask") {
        for file in sources(&crates().join(&name).join("src")) {
            let text = fs::read_to_string(&file).unwrap();
            for word in ["INNKEEPER_CACHE", ".cache/innkeeper", "xtask setup"] {
                assert!(!text.contains(word), "{} names {word}", file.display());
            }
        }
    }
}

/// A path may leave out `crates/`, `src/`, and what comes before them.
#[test]
fn every_file_that_the_pages_name_exists() {
    let mut there: Vec<String> = Vec::new();
    for name in names() {
        let files = sources(&crates().join(&name)).into_iter().map(|file| {
            let relative = file.strip_prefix(crates()).unwrap().to_str().unwrap();
            format!("/crates/{relative}")
        });
        there.extend(files);
    }
    let fuzz = crates().join("../fuzz");
    there.extend(
        sources(&fuzz.join("src"))
            .iter()
            .map(|file| format!("/fuzz/{}", file.strip_prefix(&fuzz).unwrap().to_str().unwrap())),
    );
    there.extend(there.clone().iter().map(|path| path.replace("/src/", "/")));
    for page_name in ["ARCHITECTURE.md", "SECURITY.md", "CONTRIBUTING.md"] {
        let page = page(page_name);
        let words = page.split('`').skip(1).step_by(2);
        // Names in capitals stand for any.
        let is_file =
            |word: &&str| word.ends_with(".rs") && !word.contains([' ']) && !word.contains(char::is_uppercase);
        for word in words.filter(is_file) {
            let end = format!("/{word}");
            assert!(
                there.iter().any(|path| path.ends_with(&end)),
                "{page_name} names {word}"
            );
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
                    !ours || local || allowed(&name).contains(&import),
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
        // What devices share is none.
        .filter(|module| module != "lib" && module != "deferral")
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
