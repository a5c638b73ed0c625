//! The certainty of an answer.

/// How far an answer is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// Every return was seen, and no other function can have made the errno.
    Certain,
    /// It fits all that was seen.
    Likely,
    /// Something was lost, so that another function may have made it.
    Unknown,
}

impl Certainty {
    /// The same, where something speaks against its being certain.
    #[must_use]
    pub fn unproved(self) -> Self {
        match self {
            Self::Certain => Self::Likely,
            lower => lower,
        }
    }
}
