//! The folders of `src` import each other only as the table in ARCHITECTURE.md allows, and therefore without a loop.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn source() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "src"].iter().collect()
}

/// Each folder in the order of the table, and which others it may import.
fn layers() -> Vec<(String, BTreeSet<String>)> {
    let page: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../ARCHITECTURE.md"].iter().collect();
    let page = fs::read_to_string(page).unwrap();
    let (_, table) = page
        .split_once("| folder of `why` |")
        .expect("ARCHITECTURE.md has a table of why's folders");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, _, imports] = cells[..] else {
            panic!("not a row of three cells: {row}")
        };
        let imports = imports.split(',').map(str::trim).filter(|&import| import != "-");
        (name.trim_matches('`').to_owned(), imports.map(str::to_owned).collect())
    })
    .collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

/// The folder, or the file that stands for one, in which a source lies.
fn folder(file: &Path) -> String {
    let top = file.strip_prefix(source()).unwrap().components().next().unwrap();
    Path::new(top.as_os_str())
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

/// The code of a file, without comments.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let lines: Vec<_> = text.lines().map(|line| line.split("//").next().unwrap()).collect();
    lines.join("\n")
}

/// The words that stand behind `crate::`.
fn imports(code: &str) -> BTreeSet<String> {
    let behind = code.match_indices("crate::").map(|(at, word)| &code[at + word.len()..]);
    let is_end = |letter: char| !letter.is_alphanumeric() && letter != '_';
    behind
        .map(|path| path.split(is_end).next().unwrap().to_owned())
        .collect()
}

/// Whether a file can name what is outside of its folder without `crate::`.
fn climbs_out(file: &Path, code: &str) -> bool {
    let relative = file.strip_prefix(source()).unwrap();
    let is_top =
        relative.components().count() == 1 || relative.ends_with("mod.rs") && relative.components().count() == 2;
    code.contains("super::super") || is_top && code.contains("super::")
}

#[test]
fn each_folder_imports_only_what_its_row_names() {
    let layers: BTreeMap<_, _> = layers().into_iter().collect();
    for file in files(&source()) {
        let own = folder(&file);
        if own == "lib" {
            continue;
        }
        let allowed = layers
            .get(&own)
            .unwrap_or_else(|| panic!("{own} is not in the table of ARCHITECTURE.md"));
        let code = code(&file);
        let imports = imports(&code);
        assert!(
            imports.iter().all(|import| *import == own || allowed.contains(import)),
            "{} imports {imports:?}, and the row of {own} names {allowed:?}",
            file.display()
        );
        assert!(
            !climbs_out(&file, &code),
            "{} leaves its folder by super::",
            file.display()
        );
    }
}

#[test]
fn a_row_names_rows_above_it_and_every_row_is_a_folder() {
    let mut above = BTreeSet::new();
    for (name, imports) in layers() {
        assert!(
            imports.is_subset(&above),
            "{name} may import {:?}, not above it",
            imports.difference(&above)
        );
        above.insert(name);
    }
    let folders: BTreeSet<_> = files(&source()).iter().map(|file| folder(file)).collect();
    let folders: BTreeSet<_> = folders.into_iter().filter(|name| name != "lib").collect();
    assert_eq!(above, folders);
}
