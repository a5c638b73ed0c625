//! `innkeeper man`: manual pages, generated from the text of help.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;
use process::say::announce;

/// Print a manual page, or write all of them to a directory
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                    innkeeper man share | man -l -                              read a page\n  \
                    innkeeper man --directory /usr/local/share/man/man1         install all pages\n\n\
                  Exit status: 0; 2 for a wrong command line or subcommand; 1 if a page cannot be written.")]
pub(crate) struct Pages {
    /// Subcommand whose page is printed [default: that of innkeeper]
    #[arg(value_name = "SUBCOMMAND", conflicts_with = "directory")]
    subcommand: Option<String>,
    /// Write innkeeper.1 and a page for each subcommand to this directory
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("innkeeper has no subcommand {name}; see `innkeeper help`")]
    NoSubcommand { name: String },
    #[error("cannot write {path}: {source}; name a directory that exists and that you may write to", path = .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot make a page: {source}")]
    Make {
        #[from]
        source: io::Error,
    },
}

/// Prints or writes them. Answers the exit status.
pub(super) fn run(args: &Pages, mut whole: Command) -> Result<u8, Error> {
    whole = whole.disable_help_subcommand(true);
    whole.build();
    match (&args.directory, &args.subcommand) {
        (Some(directory), _) => write_all(&whole, directory)?,
        (None, None) => announce(&page(&whole)?),
        (None, Some(name)) => {
            let found = whole.find_subcommand(name);
            let command = found.ok_or_else(|| Error::NoSubcommand { name: name.clone() })?;
            announce(&page(command)?);
        }
    }
    Ok(0)
}

fn write_all(whole: &Command, directory: &Path) -> Result<(), Error> {
    for command in std::iter::once(whole).chain(whole.get_subcommands()) {
        let path = directory.join(format!("{}.1", name(command)));
        let text = page(command)?;
        fs::write(&path, text).map_err(|source| Error::Write { path, source })?;
    }
    Ok(())
}

/// How its page is called: `innkeeper-share`.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

fn page(command: &Command) -> io::Result<String> {
    let mut text = Vec::new();
    Man::new(command.clone())
        .title(name(command))
        .source(concat!("innkeeper ", env!("CARGO_PKG_VERSION")))
        .manual("innkeeper")
        .render(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
