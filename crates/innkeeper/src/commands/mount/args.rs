//! The command line of `mount`.

use std::path::PathBuf;

use clap::Args;
use devices::fs::REQUEST_QUEUES_MAX;
use process::arguments::{Log, PERFORMANCE};

/// Mount the share of a vhost-user-fs daemon on this host, without a virtual machine
///
/// Needs root (CAP_SYS_ADMIN) and /dev/fuse. Runs in the foreground until the share is unmounted, a signal arrives (SIGINT,
/// SIGTERM, SIGHUP), or the daemon ends. If the daemon ends, accesses fail.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                    innkeeper mount /run/project.sock /mnt/project\n  \
                    innkeeper mount /run/project.sock /mnt/project --packed --queues 2\n\n\
                  Exit status: 0 after umount or a signal; 2 for a wrong command line; 1 for any other failure, the end of \
                  the daemon included.")]
pub(crate) struct Mount {
    /// Socket of the daemon: innkeeper share, virtiofsd or another
    #[arg(value_name = "SOCKET")]
    pub(crate) socket: PathBuf,
    /// Directory to mount on
    #[arg(value_name = "MOUNTPOINT")]
    pub(crate) mountpoint: PathBuf,
    /// Use packed rings
    #[arg(long, help_heading = PERFORMANCE)]
    pub(crate) packed: bool,
    /// Use N request queues, each with its own thread (1 to 64)
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(REQUEST_QUEUES_MAX)),
        help_heading = PERFORMANCE,
    )]
    pub(crate) queues: u16,
    /// Descriptors of a queue, a power of two from 4 to 1024; a request takes two
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = parse_queue_size, help_heading = PERFORMANCE)]
    pub(crate) queue_size: u16,
    /// Under load, poll for up to N microseconds before sleeping (0 to 1000, 0 turns polling off)
    #[arg(
        long,
        value_name = "N",
        default_value_t = 50,
        value_parser = clap::value_parser!(u32).range(0..=1000),
        help_heading = PERFORMANCE,
    )]
    pub(crate) poll_us: u32,
    #[command(flatten)]
    pub(crate) log: Log,
}

fn parse_queue_size(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|size: &u16| size.is_power_of_two() && (4..=1024).contains(size))
        .ok_or_else(|| "give a power of two from 4 to 1024".into())
}
