//! The documents say what the program does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::mailbox::{MUTE_THREAD, run};

fn help(arguments: &[&str]) -> String {
    let output = Command::new(MUTE_THREAD)
        .args(arguments)
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn commands() -> Vec<String> {
    let help = help(&[]);
    let commands = help
        .split("Commands:")
        .nth(1)
        .unwrap()
        .split("Options:")
        .next()
        .unwrap();
    commands
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

fn options(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.starts_with("--") && word.len() > 2).collect()
}

fn manual() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("mute-thread.1");
    fs::read_to_string(path).unwrap().replace("\\-", "-")
}

/// First block of the README in this language, verbatim.
pub(crate) fn readme_block(language: &str) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let block = readme.split(&format!("```{language}\n")).nth(1).unwrap();
    block.split("```").next().unwrap().to_owned()
}

#[test]
fn the_manual_names_every_command_and_option_and_no_other() {
    let manual = manual();
    let commands = commands();
    assert!(commands.len() >= 6, "{commands:?}");
    let mut all = help(&[]);
    for command in &commands {
        let named = [format!(".B {command}\n"), format!(".BI {command} ")];
        assert!(named.iter().any(|named| manual.contains(named)), "{command}");
        if command != "help" {
            all += &help(&[command]);
        }
    }
    assert_eq!(options(&manual), options(&all));
}

#[test]
fn the_manual_is_well_formed() {
    for line in manual().lines().filter(|line| line.starts_with('.')) {
        let request = line.split_whitespace().next().unwrap();
        let known = [
            ".TH", ".SH", ".TP", ".PP", ".B", ".I", ".BI", ".BR", ".RB", ".IR", ".nf", ".fi",
        ];
        assert!(known.contains(&request), "{line}");
    }
}

#[test]
fn the_completions_are_valid_shell_and_name_the_commands() {
    let script = Command::new(MUTE_THREAD)
        .args(["completions", "bash"])
        .output()
        .unwrap()
        .stdout;
    let checked = run(Command::new("bash").arg("-n"), &script);
    assert!(checked.status.success() && checked.stderr.is_empty());
    let script = String::from_utf8(script).unwrap();
    for command in commands() {
        assert!(script.contains(&format!(",{command})\n")), "{command}");
    }
}
