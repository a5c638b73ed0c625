//! `innkeeper completions`: command-line completions for a shell.

use clap::{Args, Command};
use clap_complete::Shell;
use process::say::announce;

/// Print the completions of a shell
///
/// For bash, put them into a file named innkeeper in /usr/share/bash-completion/completions; for other shells, where their manual
/// says.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Shell that completes
    shell: Shell,
}

/// Prints them.
pub(super) fn run(args: &Completions, mut whole: Command) {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut whole, "innkeeper", &mut text);
    announce(&String::from_utf8_lossy(&text));
}
