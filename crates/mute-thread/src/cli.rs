//! The command line, and what each subcommand does.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::error::Error;
use crate::header;
use crate::message_id::MessageId;
use crate::mute::Mute;
use crate::notmuch::Notmuch;
use crate::tag::Tag;

/// Silence a mail thread in notmuch, now and for what is still to come
#[derive(Debug, Parser)]
#[command(name = "mute-thread", version)]
pub struct Arguments {
    #[command(subcommand)]
    job: Job,
    /// The notmuch database, in place of the one that notmuch is configured for
    #[arg(long, global = true, value_name = "DIRECTORY")]
    database: Option<PathBuf>,
    /// The tag that marks the messages of muted threads
    #[arg(long, global = true, value_name = "NAME", default_value = "muted")]
    tag: Tag,
}

#[derive(Debug, Subcommand)]
enum Job {
    /// Mute the threads of these messages and mark them read
    Add {
        #[command(flatten)]
        messages: Messages,
        #[command(flatten)]
        change: Change,
    },
    /// Unmute the threads of these messages; what was marked read stays read
    Remove {
        #[command(flatten)]
        messages: Messages,
        #[command(flatten)]
        change: Change,
    },
    /// Mark every message in a muted thread read, after new mail was indexed
    Apply {
        #[command(flatten)]
        change: Change,
    },
    /// List muted threads: thread id, date, number of messages, subject
    List,
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
struct Messages {
    /// Message-IDs, with or without angle brackets; none: a message is read from standard input
    #[arg(value_name = "MESSAGE-ID")]
    ids: Vec<MessageId>,
}

#[derive(Debug, Args)]
struct Change {
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// How long to wait while another program writes to the database
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    wait: u32,
}

impl Messages {
    fn ids(self) -> Result<Vec<MessageId>, Error> {
        if self.ids.is_empty() {
            Ok(vec![message_on_standard_input()?])
        } else {
            Ok(self.ids)
        }
    }
}

impl Change {
    fn wait(&self) -> Duration {
        Duration::from_secs(self.wait.into())
    }
}

impl Arguments {
    /// Does what the command line says.
    ///
    /// # Errors
    /// When the input is wrong, or notmuch cannot do its part; the database is then as it was.
    pub fn run(self) -> Result<(), Error> {
        let mute = Mute::new(Notmuch::new(self.database), self.tag);
        match self.job {
            Job::Add { messages, change } => {
                let ids = messages.ids()?;
                mute.check_known(&ids)?;
                if change.dry_run {
                    return print(&format!("would {}\n", mute.plan_add(&ids)?));
                }
                mute.add(&ids, change.wait())
            }
            Job::Remove { messages, change } => {
                let ids = messages.ids()?;
                mute.check_known(&ids)?;
                if change.dry_run {
                    return print(&format!("would {}\n", mute.plan_remove(&ids)?));
                }
                mute.remove(&ids, change.wait())
            }
            Job::Apply { change } => {
                if change.dry_run {
                    return print(&format!("would {}\n", mute.plan_apply()?));
                }
                mute.apply(change.wait())
            }
            Job::List => {
                let threads = mute.list()?;
                print(&threads.iter().map(|thread| format!("{thread}\n")).collect::<String>())
            }
            Job::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "mute-thread", &mut script);
                print(&String::from_utf8_lossy(&script))
            }
        }
    }
}

fn message_on_standard_input() -> Result<MessageId, Error> {
    let mut input = io::stdin().lock();
    if input.is_terminal() {
        return Err(Error::NothingGiven);
    }
    let value = header::message_id(&mut input)?;
    // The sender, mutt for one, would see a broken pipe if the rest of its message found no reader.
    io::copy(&mut input, &mut io::sink()).map_err(Error::Read)?;
    Ok(MessageId::from_header(&value.ok_or(Error::NoMessageId)?)?)
}

fn print(text: &str) -> Result<(), Error> {
    let mut output = io::stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .map_err(Error::Write)
}
