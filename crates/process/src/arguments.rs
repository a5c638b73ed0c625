//! Options of every command, and the headings that group options in help.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};

/// What most users need.
pub const BASIC: &str = "Basic";
/// Who may do what.
pub const ACCESS: &str = "Access";
/// Queues and caches.
pub const PERFORMANCE: &str = "Performance";
/// How much a guest can make the daemon hold.
pub const LIMITS: &str = "Limits";
/// The window into the host's page cache.
pub const DAX: &str = "DAX";
/// Logs, and what helps to find a fault.
pub const DIAGNOSIS: &str = "Diagnosis";

/// Options of the innkeeper process itself.
#[derive(Clone, Debug, Args)]
pub struct Process {
    /// Limit of open files, 0 to leave it unchanged [default: 1000000, or the hard limit if it cannot be raised]
    #[arg(long, value_name = "N", value_parser = parse_open_files, help_heading = LIMITS)]
    pub rlimit_nofile: Option<u64>,
    /// The level of the log.
    #[command(flatten)]
    pub log: Log,
}

/// The log of the process.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Log {
    /// Least severe messages to log on standard error
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Warn, help_heading = DIAGNOSIS)]
    pub log_level: LogLevel,
}

/// See [`Log::log_level`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[expect(
    missing_docs,
    reason = "the levels are the words of help, which shows the names alone"
)]
pub enum LogLevel {
    Off,
    Error,
    #[default]
    Warn,
    Info,
    Debug,
    Trace,
}

impl Log {
    /// Has everything logged to standard error from this level up. For the start of the process, once.
    pub fn start(self) {
        // https://no-color.org
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        tracing_subscriber::fmt()
            .with_max_level(tracing::level_filters::LevelFilter::from(self.log_level))
            .with_writer(std::io::stderr)
            .with_ansi(colour && std::io::stderr().is_terminal())
            .init();
    }
}

impl From<LogLevel> for tracing::level_filters::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::OFF,
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// What one device and one machine take, with something for the guest. A machine with more queues or memory takes more, but then
/// is refused what it asks for, and not the start.
const FEWEST_OPEN_FILES: u64 = 64;

fn parse_open_files(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(count) if count == 0 || count >= FEWEST_OPEN_FILES => Ok(count),
        _ => Err(format!("give at least {FEWEST_OPEN_FILES}, or 0 to leave it unchanged")),
    }
}

/// Bytes, as a number alone or with suffix K, M or G.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 1 << 10),
        b'M' | b'm' => (&text[..text.len() - 1], 1 << 20),
        b'G' | b'g' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit))
}
