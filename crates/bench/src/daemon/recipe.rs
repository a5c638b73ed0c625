//! Recipes: how a daemon is started.

use std::path::Path;
use std::process::Command;

use crate::error::Error;

/// How to start a daemon.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// For tables: the program's name.
    pub(crate) name: String,
    /// A shell's command with `{socket}` and `{directory}`; none: this very program.
    pub(crate) command: Option<String>,
}

impl Recipe {
    /// What is run, as a user would type it.
    pub(crate) fn describe(&self, queues: u16) -> String {
        let own = || format!("innkeeper share {{directory}} --socket-path {{socket}} --num-queues {queues}");
        self.command.clone().unwrap_or_else(own)
    }

    /// The command that starts it.
    pub(crate) fn command(&self, directory: &Path, socket: &Path, queues: u16) -> Result<Command, Error> {
        let (socket, directory) = (quoted(socket), quoted(directory));
        let line = match &self.command {
            Some(template) => template.replace("{socket}", &socket).replace("{directory}", &directory),
            None => {
                let own = std::env::current_exe().map_err(Error::system("find this program"))?;
                let own = quoted(&own);
                format!("{own} share {directory} --socket-path {socket} --num-queues {queues}")
            }
        };
        // Ours as well, so that all are charged for the shell.
        let mut command = Command::new("/bin/sh");
        // The daemon takes the shell's place, so that the process we know is the one that we measure.
        command.arg("-c").arg(format!("exec {line}"));
        Ok(command)
    }
}

/// A path as one word of a shell's command.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
