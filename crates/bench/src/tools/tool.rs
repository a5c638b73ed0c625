//! The tools, how each is run, and how its work is verified.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::tree::{MARK, Tree};

/// A tool, named as users type it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    Untar,
    GitStatus,
    GitClone,
    Rm,
    Grep,
    Compile,
}

pub(crate) const TOOLS: [(&str, Tool); 6] = [
    ("untar", Tool::Untar),
    ("git-status", Tool::GitStatus),
    ("git-clone", Tool::GitClone),
    ("rm", Tool::Rm),
    ("grep", Tool::Grep),
    ("compile", Tool::Compile),
];

/// Inside of what is shared: the tree alone, and with a repository made of it.
pub(super) const TREE: &str = "tree";
pub(super) const REPOSITORY: &str = "repository";
/// Made anew for every run, in the directory of each contender.
pub(super) const OUTPUT: &str = "output";
/// What the compiler is to make.
const PROGRAM: &str = "program";

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = TOOLS.iter().find(|(_, tool)| tool == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl Tool {
    /// The program, and the Debian package that has it.
    fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Untar => ("tar", "tar"),
            Self::GitStatus | Self::GitClone => ("git", "git"),
            Self::Rm => ("rm", "coreutils"),
            Self::Grep => ("grep", "grep"),
            Self::Compile => ("cc", "gcc"),
        }
    }

    /// One sentence where the program is not installed.
    pub(super) fn missing(self) -> Option<String> {
        let (program, package) = self.program();
        let mut command = Command::new(program);
        command.arg("--version").stdin(Stdio::null());
        let tried = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let missing = tried.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        missing.then(|| format!("there is no {program}; install it (Debian: apt-get install {package})"))
    }

    /// What is run, one after another. `share` is the mount or the directory itself, `own` the contender's part of it.
    pub(super) fn commands(self, share: &Path, own: &Path, archive: &Path, tree: Tree) -> Vec<Command> {
        let output = own.join(OUTPUT);
        let mut command = match self {
            Self::GitStatus | Self::GitClone => git(),
            _ => Command::new(self.program().0),
        };
        // Words and their order as everywhere.
        command.env("LC_ALL", "C");
        match self {
            Self::Untar => command.arg("-xf").arg(archive).arg("-C").arg(output),
            Self::GitStatus => command
                .arg("-C")
                .arg(share.join(REPOSITORY))
                .args(["status", "--porcelain"]),
            Self::GitClone => command
                .args(["clone", "--quiet"])
                .arg(share.join(REPOSITORY))
                .arg(output.join(REPOSITORY)),
            Self::Rm => command.arg("-rf").arg(output.join(TREE)),
            Self::Grep => command.arg("-r").arg(MARK).arg(share.join(TREE)),
            Self::Compile => {
                let sources = tree.sources();
                command
                    .args(["-O1", "-c"])
                    .args(sources.iter().map(|source| share.join(TREE).join(source)))
                    .current_dir(&output);
                let mut link = Command::new(self.program().0);
                let objects = sources.iter().map(|source| source.with_extension("o"));
                link.args(["-o", PROGRAM])
                    .args(objects.filter_map(|object| object.file_name().map(ToOwned::to_owned)))
                    .current_dir(&output);
                return vec![command, link];
            }
        };
        vec![command]
    }

    /// Whether the work was done, by what the tool said and what is to be found in the contender's part of the host's directory.
    pub(super) fn did_its_work(self, said: &str, own: &Path, tree: Tree) -> bool {
        let output = own.join(OUTPUT);
        match self {
            Self::Untar => tree.is_in(&output),
            Self::GitStatus => said.is_empty(),
            Self::GitClone => tree.is_in(&output.join(REPOSITORY)),
            Self::Rm => output.is_dir() && !output.join(TREE).exists(),
            Self::Grep => said.lines().count() == tree.marks(),
            Self::Compile => output.join(PROGRAM).is_file(),
        }
    }
}

/// Git with no settings but its own.
pub(super) fn git() -> Command {
    let mut git = Command::new("git");
    git.env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        for (what, value) in [
            ("NAME", "innkeeper"),
            ("EMAIL", "bench@example.org"),
            ("DATE", "1700000000 +0000"),
        ] {
            git.env(format!("GIT_{who}_{what}"), value);
        }
    }
    // Nothing goes on in the background while others are measured.
    git.args(["-c", "gc.auto=0", "-c", "maintenance.auto=false"]);
    git
}
