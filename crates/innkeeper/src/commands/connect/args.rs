//! The command line of `innkeeper connect`.

use std::path::PathBuf;

use clap::Args;
use process::arguments::{BASIC, Log};

/// Connect standard input and output to a port of a guest
///
/// Ends when the guest ends the connection. The end of standard input is passed on, so that the guest may still answer.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                    ssh -o ProxyCommand='innkeeper connect /run/vm1/v 22' root@vm1\n  \
                    echo status | innkeeper connect /run/vm1/v 5000\n\n\
                  Exit status: 0 once the guest has ended the connection; 2 for a wrong command line; 1 if the guest cannot be reached, or \
                  for any other failure.")]
pub(crate) struct Connect {
    /// The socket that `innkeeper vsock --uds-path` created
    #[arg(value_name = "PATH", help_heading = BASIC)]
    pub(crate) path: PathBuf,
    /// The port that a program of the guest listens on (AF_VSOCK)
    #[arg(value_name = "PORT", help_heading = BASIC)]
    pub(crate) port: u32,
    #[command(flatten)]
    pub(crate) log: Log,
}
