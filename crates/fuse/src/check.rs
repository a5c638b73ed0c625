//! The checks that keep a guest inside the share, as switches for the escape suite.
//!
//! The feature `unchecked` makes a build in which the variable `INNKEEPER_WITHOUT_CHECK` switches checks off, so that
//! the suite sees what the confinement holds alone. Any other build ignores the variable and has no switches.

/// A rule that the file system holds a guest to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Only regular files and directories are opened.
    Kind,
    /// A name is one component of a path.
    Name,
    /// What a name stands for lies in its directory, and no link is followed.
    Beneath,
}

impl Check {
    /// Whether the check is in force.
    #[cfg(not(feature = "unchecked"))]
    #[inline(always)]
    pub(crate) const fn is_on(self) -> bool {
        true
    }

    /// Whether the check is in force: the variable does not name it. It has names as `kind,beneath`.
    #[cfg(feature = "unchecked")]
    pub(crate) fn is_on(self) -> bool {
        use std::sync::OnceLock;

        static OFF: OnceLock<String> = OnceLock::new();
        let off = OFF.get_or_init(|| std::env::var("INNKEEPER_WITHOUT_CHECK").unwrap_or_default());
        let name = match self {
            Check::Kind => "kind",
            Check::Name => "name",
            Check::Beneath => "beneath",
        };
        !off.split(',').any(|word| word == name)
    }
}
