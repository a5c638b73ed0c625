//! Names of the values that decide whether a call fails.

/// Of what kind a value is that a failure may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A limit of the process, `RLIMIT_NOFILE`.
    Limit(&'static str),
    /// Whether the thread has this capability.
    Capability(&'static str),
    /// A setting, by its path below `/proc/sys`, or a control group's by its name.
    Setting(&'static str),
    /// How the file in question is mounted.
    Mount,
    /// Which security modules there are, and what the thread is to them.
    Modules,
    /// Whether seccomp filters calls.
    Seccomp,
    /// As whom the thread acts.
    User,
}
