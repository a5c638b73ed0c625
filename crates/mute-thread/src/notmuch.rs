//! Runs notmuch's command line.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::error::{Error, printable};

/// The notmuch program and the database it works on.
#[derive(Debug)]
pub(crate) struct Notmuch {
    database: Option<PathBuf>,
}

impl Notmuch {
    pub(crate) fn new(database: Option<PathBuf>) -> Self {
        Self { database }
    }

    /// How many messages each query matches, messages of `search.exclude_tags` among them.
    pub(crate) fn count(&self, queries: impl IntoIterator<Item = String>) -> Result<Vec<u64>, Error> {
        let queries: Vec<_> = queries.into_iter().collect();
        let answer = self.run("count", &["--exclude=false", "--batch"], &(queries.join("\n") + "\n"))?;
        let answer = String::from_utf8_lossy(&answer);
        let counts: Vec<_> = answer.lines().map_while(|line| line.parse().ok()).collect();
        if counts.len() == queries.len() {
            Ok(counts)
        } else {
            Err(Error::Answer {
                job: "count",
                reason: format!("{} numbers to {} queries", counts.len(), queries.len()),
            })
        }
    }

    /// The threads with a message that matches, as JSON.
    pub(crate) fn search(&self, query: &str) -> Result<Vec<u8>, Error> {
        let options = ["--exclude=false", "--output=summary", "--format=json", "--", query];
        self.run("search", &options, "")
    }

    /// Does what these lines say, in the format of notmuch-tag(1), `--batch`.
    pub(crate) fn tag(&self, lines: &str, wait: Duration) -> Result<(), Error> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::Run)?;
        let input = theirs.try_clone().map_err(Error::Run)?;
        let child = self.spawn("tag", &["--batch"], OwnedFd::from(input).into())?;
        let child = wait_for_lock(child, &ours, theirs, wait)?;
        finish("tag", child, ours, lines).map(drop)
    }

    fn run(&self, job: &'static str, options: &[&str], input: &str) -> Result<Vec<u8>, Error> {
        let mut child = self.spawn(job, options, Stdio::piped())?;
        match child.stdin.take() {
            Some(pipe) => finish(job, child, pipe, input),
            None => Err(Error::Run(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn spawn(&self, job: &str, options: &[&str], input: Stdio) -> Result<Child, Error> {
        let mut command = Command::new("notmuch");
        if let Some(database) = &self.database {
            command.env("NOTMUCH_DATABASE", std::path::absolute(database).map_err(Error::Run)?);
        }
        command.arg(job).args(options);
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotInstalled,
            _ => Error::Run(error),
        })
    }
}

/// Waits until `notmuch tag` has the database, or gives up.
///
/// notmuch waits for the lock without end, and whoever kills a program that may just have begun to write asks for trouble. But it
/// reads its input only when it has opened the database for writing. So it gets an empty line, which means nothing; if that
/// can be taken back, notmuch has not begun, and without further input it never will.
fn wait_for_lock(mut child: Child, ours: &UnixStream, theirs: UnixStream, wait: Duration) -> Result<Child, Error> {
    write_line_end(ours)?;
    let deadline = Instant::now() + wait;
    loop {
        let late = Instant::now() >= deadline;
        let peek = if late { RecvFlags::empty() } else { RecvFlags::PEEK };
        match recv(&theirs, &mut [0_u8; 1][..], peek | RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => return Ok(child),
            Ok(_) if late => {
                child.kill().and_then(|()| child.wait()).map_err(Error::Run)?;
                return Err(Error::Locked(wait.as_secs()));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Error::Run(error.into())),
        }
        if child.try_wait().map_err(Error::Run)?.is_some() {
            return Ok(child);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn write_line_end(mut stream: &UnixStream) -> Result<(), Error> {
    stream.write_all(b"\n").map_err(Error::Run)
}

/// Gives notmuch its input and takes its answer, both at once since neither side may wait for the other.
fn finish(job: &'static str, child: Child, mut pipe: impl Write + Send, input: &str) -> Result<Vec<u8>, Error> {
    let (written, output) = thread::scope(|scope| {
        let writer = scope.spawn(move || pipe.write_all(input.as_bytes()));
        let output = child.wait_with_output();
        (writer.join(), output)
    });
    let output = output.map_err(Error::Run)?;
    if !output.status.success() {
        return Err(Error::Notmuch {
            job,
            reason: reason(&output),
        });
    }
    match written {
        Ok(written) => written.map_err(Error::Run)?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    Ok(output.stdout)
}

/// The first line of what notmuch complained.
fn reason(output: &Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    match complaint.lines().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => printable(line),
        None => output.status.to_string(),
    }
}
