//! `share --log-errors`: a line for every errno that a guest gets.

mod file;
mod line;
mod output;
mod time;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use fuse::failure::{Failure, Failures};

use self::line::Lines;
use self::output::Output;
use super::args::LogErrors;
use super::error::Error;

/// Where the lines go, and in which form.
#[derive(Debug)]
pub(crate) struct ErrorLog {
    lines: Lines,
    output: Output,
}

impl ErrorLog {
    /// The log that is asked for, if one is. Makes its file.
    pub(crate) fn open(args: &LogErrors) -> Result<Option<Arc<Self>>, Error> {
        let Some(format) = args.log_errors else { return Ok(None) };
        let output = match &args.log_errors_to {
            Some(path) => Output::to_file(file::open(path)?),
            None => {
                let own = io::stderr().as_fd().try_clone_to_owned();
                Output::to_standard_error(own.map_err(process::Error::system("write errors to standard error"))?)
            }
        };
        let lines = Lines(format);
        Ok(Some(Arc::new(Self { lines, output })))
    }

    /// Says in the daemon's own log how many lines were lost, if any were.
    pub(crate) fn end(&self) {
        let lost = self.output.lost_in_all();
        if lost > 0 {
            tracing::warn!("the error log lacks {lost} lines that could not be written");
        }
    }
}

impl Failures for ErrorLog {
    fn failed(&self, failure: &Failure<'_>) {
        let line = self.lines.failure(&time::now(), failure);
        self.output.put(&line, |lost| self.lines.gap(&time::now(), lost));
    }
}
