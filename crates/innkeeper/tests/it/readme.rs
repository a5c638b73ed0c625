use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

use crate::mount::permitted;

const MAX_LINES: usize = 200;

/// Commands that are only parsed, by their first words, and why they are not run.
const ONLY_PARSED: [(&str, &str); 5] = [
    ("cargo build ", "takes minutes"),
    ("cargo xtask ", "installs packages and boots guests"),
    ("innkeeper boot ", "boots a guest"),
    ("echo $?", "prints the status of the guest that was not booted"),
    ("innkeeper why --exact ", "needs root and the kernel's function tracer"),
];

/// Commands that serve until they are stopped, by their first words, with a part of the last line they print at the start.
const SERVING: [(&str, &str); 2] = [
    ("innkeeper share /srv/", "(--rlimit-nofile)"),
    ("innkeeper mount /run/", "Mounted "),
];

/// A command of a console block and the output shown below it.
#[derive(Default)]
struct Step {
    command: String,
    output: Vec<String>,
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(workspace().join(path)).unwrap()
}

/// The parts of `text` between fences or backquotes, which are every other one.
fn quoted<'a>(text: &'a str, quote: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(quote).skip(1).step_by(2)
}

fn console_blocks(text: &str) -> Vec<Vec<Step>> {
    let blocks = quoted(text, "```").filter_map(|block| block.strip_prefix("console\n"));
    blocks.map(steps).collect()
}

fn steps(block: &str) -> Vec<Step> {
    let mut steps = Vec::<Step>::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# ")) {
            steps.push(Step {
                command: command.replace("target/release/", ""),
                output: Vec::new(),
            });
        } else {
            let step = steps.last_mut().expect("a console block starts with a command");
            step.output.push(line.to_owned());
        }
    }
    steps
}

/// Code in the prose that is a command.
fn inline_commands(text: &str) -> Vec<String> {
    let prose: String = text.split("```").step_by(2).collect();
    let code = quoted(&prose, "`").map(|code| code.replace('\n', " "));
    code.filter(|code| code.starts_with("innkeeper ") || code.starts_with("cargo "))
        .collect()
}

fn only_parsed(command: &str) -> bool {
    ONLY_PARSED.iter().any(|(start, _reason)| command.starts_with(start))
}

/// A shell in which `innkeeper` is the binary under test.
fn shell(script: &str) -> Command {
    let directory = Path::new(env!("CARGO_BIN_EXE_innkeeper")).parent().unwrap();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("PATH", path).env("LC_ALL", "C");
    command
}

/// Panics if the program that `command` names does not know its subcommand, options and values.
fn assert_parses(command: &str) {
    let words = command.split(" # ").next().unwrap().trim_end_matches([' ', '&']);
    if words.starts_with("innkeeper ") {
        let script = match words.split_once(" -- ") {
            Some((before, after)) => format!("{before} --help -- {after}"),
            None => format!("{words} --help"),
        };
        let output = shell(&script).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {said}");
    } else if let Some(words) = words.strip_prefix("cargo xtask ") {
        assert_xtask_knows(&words.split_whitespace().collect::<Vec<_>>());
    } else if let Some(words) = words.strip_prefix("cargo build ") {
        let mut words = words.split_whitespace();
        while let Some(word) = words.next() {
            match word {
                "--release" => {}
                "--package" => assert!(
                    workspace().join("crates").join(words.next().unwrap()).is_dir(),
                    "{command}"
                ),
                other => panic!("{command}: {other} is not checked"),
            }
        }
    } else {
        assert!(only_parsed(command), "no way to check {command}");
    }
}

/// Looks words up in the source of xtask, which takes too long to build here.
fn assert_xtask_knows(words: &[&str]) {
    let jobs = read("crates/xtask/src/main.rs");
    let sources = ["bench/mod.rs", "fuzz.rs", "test/mod.rs"].map(|name| read(Path::new("crates/xtask/src").join(name)));
    let sources = sources.concat();
    let mut words = words.iter();
    let job = variant(words.next().unwrap());
    assert!(
        jobs.lines().any(|line| begins_with_word(line, &job)),
        "xtask has no {job}"
    );
    while let Some(word) = words.next() {
        if let Some(option) = word.strip_prefix("--") {
            let field = format!("    {}: ", option.replace('-', "_"));
            assert!(sources.contains(&field), "xtask has no {word}");
            words.next();
        } else {
            // A fuzz target is a program.
            let is_target = job == "Fuzz" && workspace().join(format!("fuzz/src/bin/{word}.rs")).exists();
            let value = variant(word);
            assert!(
                is_target || sources.lines().any(|line| begins_with_word(line, &value)),
                "xtask has no {value}"
            );
        }
    }
}

fn begins_with_word(line: &str, word: &str) -> bool {
    let rest = line.trim_start().strip_prefix(word);
    rest.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
}

fn variant(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

/// Runs the commands of one block in a directory that stands for `/`.
struct Session {
    root: TempDir,
    serving: Vec<Child>,
}

impl Session {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for directory in ["srv/project/src", "mnt/project", "run"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        fs::write(root.path().join("srv/project/src/main.rs"), "").unwrap();
        Self {
            root,
            serving: Vec::new(),
        }
    }

    /// Maps the paths in README to this session's directory.
    fn map(&self, text: &str) -> String {
        ["/srv/", "/run/", "/mnt/"]
            .iter()
            .fold(text.to_owned(), |text, directory| {
                text.replace(directory, &format!("{}{directory}", self.root.path().display()))
            })
    }

    fn run(&mut self, step: &Step) {
        let command = self.map(&step.command);
        let serving = SERVING.iter().find(|(start, _)| step.command.starts_with(start));
        let actual = match serving {
            Some((_, last)) => self.serve(command.trim_end_matches([' ', '&']), last),
            None => {
                let output = shell(&format!("exec 2>&1; {command}")).output().unwrap();
                String::from_utf8(output.stdout)
                    .unwrap()
                    .lines()
                    .map(str::to_owned)
                    .collect()
            }
        };
        // A server in the background has its output left out where it is not of interest.
        if serving.is_none() || !step.output.is_empty() {
            let expected: Vec<_> = step.output.iter().map(|line| self.map(line)).collect();
            assert_same(&step.command, &expected, &actual);
        }
    }

    /// Starts a server and reads its output up to the line that has `last`.
    fn serve(&mut self, command: &str, last: &str) -> Vec<String> {
        let mut child = shell(&format!("exec {command}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        self.serving.push(child);
        let mut printed = Vec::new();
        for line in BufReader::new(stdout).lines() {
            printed.push(line.unwrap());
            if printed.last().is_some_and(|line| line.contains(last)) {
                return printed;
            }
        }
        panic!("{command} ended after {printed:?}");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A mount before its daemon, so that nobody waits for a reply.
        for child in self.serving.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = unmount(self.root.path().join("mnt/project"), UnmountFlags::DETACH);
    }
}

/// Compares output with what README shows, in which `...` stands for any lines.
fn assert_same(command: &str, expected: &[String], actual: &[String]) {
    let mut rest = actual;
    let mut skipping = false;
    for line in expected {
        if line == "..." {
            skipping = true;
            continue;
        }
        let found = rest.iter().position(|printed| same_line(line, printed));
        match found {
            Some(at) if at == 0 || skipping => rest = &rest[at + 1..],
            _ => panic!("README shows {line:?} for {command}, which printed {actual:#?}"),
        }
        skipping = false;
    }
    assert!(
        skipping || rest.is_empty(),
        "README does not show {rest:#?} of {command}"
    );
}

/// Whether two lines are equal but for times, process ids, request numbers and limits.
fn same_line(left: &str, right: &str) -> bool {
    without_numbers(left) == without_numbers(right)
}

fn without_numbers(line: &str) -> String {
    let mut line = line.to_owned();
    for before in ["unique=", "pid=", "[", "At most "] {
        let parts = line.split(before).enumerate().map(|(index, part)| match index {
            0 => part,
            _ => part.trim_start_matches(|letter: char| letter.is_ascii_digit()),
        });
        line = parts.collect::<Vec<_>>().join(before);
    }
    match line.split_once(' ') {
        Some((time, rest)) if time.len() == 27 && time.ends_with('Z') => rest.to_owned(),
        _ => line,
    }
}

#[test]
fn readme_has_at_most_200_lines_and_one_picture() {
    let readme = read("README.md");
    let lines = readme.lines().count();
    assert!(lines <= MAX_LINES, "README.md has {lines} lines; move some to docs/");
    assert_eq!(readme.matches("![").count(), 1);
}

#[test]
fn commands_of_readme_print_what_it_shows() {
    let may_mount = permitted();
    for block in console_blocks(&read("README.md")) {
        let mounts = block.iter().any(|step| step.command.starts_with("innkeeper mount "));
        let mut session = Session::new();
        for step in &block {
            if only_parsed(&step.command) {
                assert_parses(&step.command);
            } else if may_mount || !mounts {
                session.run(step);
            }
        }
    }
}

#[test]
fn commands_in_prose_and_docs_parse() {
    let readme = read("README.md");
    let mut commands = inline_commands(&readme);
    assert!(commands.len() > 8, "{commands:?}");
    for entry in fs::read_dir(workspace().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let blocks = console_blocks(&read(&path));
            let steps = blocks.into_iter().flatten().map(|step| step.command);
            commands.extend(steps.filter(|command| command.starts_with("innkeeper ")));
        }
    }
    for command in &commands {
        assert_parses(command);
    }
}

#[test]
fn links_of_readme_and_docs_lead_to_files_and_headings() {
    let docs = fs::read_dir(workspace().join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    let pages = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    for page in pages.chain([workspace().join("README.md")]) {
        let text = fs::read_to_string(&page).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = page.parent().unwrap().join(file);
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            assert!(
                heading.is_empty() || has_heading(&fs::read_to_string(target).unwrap(), heading),
                "{}: {link} has no such heading",
                page.display()
            );
        }
    }
}

/// Whether a page has the heading that a link names after `#`.
fn has_heading(page: &str, wanted: &str) -> bool {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| line.trim_start_matches(['#', ' ']).to_lowercase().replace(' ', "-"))
        .any(|heading| heading == wanted)
}

#[test]
fn help_has_headings_and_two_examples_that_parse() {
    for (job, heading) in [
        ("share", "Access"),
        ("boot", "DAX"),
        ("mount", "Performance"),
        ("bench", "Basic"),
        ("why", "Diagnosis"),
    ] {
        let output = shell(&format!("innkeeper {job} --help")).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains(&format!("\n{heading}:\n")), "{help}");
        let start = format!("  innkeeper {job} ");
        let examples: Vec<_> = help.lines().filter(|line| line.starts_with(&start)).collect();
        assert_eq!(examples.len(), 2, "{help}");
        for example in examples {
            // A remark may follow, two spaces behind.
            assert_parses(example.trim_start().split("  ").next().unwrap());
        }
    }
}
