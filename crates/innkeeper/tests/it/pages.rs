use std::fs;

use crate::{assert_refused, innkeeper};

/// What a run prints on standard output.
fn printed(arguments: &[&str]) -> String {
    let output = innkeeper(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_subcommand_has_a_manual_page_with_its_options_and_examples() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    assert_eq!(printed(&["man", "--directory", path]), "");
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    assert!(read("innkeeper.1").contains("innkeeper\\-share(1)"));
    let share = read("innkeeper-share.1");
    for part in ["\\-\\-socket\\-path", "Examples:", "Exit status:"] {
        assert!(share.contains(part), "{part} is missing in: {share}");
    }
    for name in ["boot", "mount", "why", "bench"] {
        assert_eq!(printed(&["man", name]), read(&format!("innkeeper-{name}.1")));
    }
}

#[test]
fn a_page_that_is_not_there_or_cannot_be_written_is_told_in_a_sentence() {
    let output = innkeeper(["man", "nope"]).output().unwrap();
    assert_refused(&output, 1, &["no subcommand nope"]);
    let output = innkeeper(["man", "--directory", "/nonexistent"]).output().unwrap();
    assert_refused(&output, 1, &["/nonexistent/innkeeper.1", "name a directory"]);
}

#[test]
fn shells_complete_subcommands_and_options() {
    for shell in ["bash", "zsh", "fish"] {
        let text = printed(&["completions", shell]);
        assert!(text.contains("socket-path") && text.contains("boot"), "{shell}: {text}");
    }
}
