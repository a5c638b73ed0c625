//! An entry of a manual page.

/// What a page says about an errno, in one of its places about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The page, as in `open(2)`.
    pub page: String,
    /// The heading, as in `EACCES` or `EINVAL (since Linux 3.7)`.
    pub heading: String,
    /// Plain text: one line a paragraph, of any length, with no character that a terminal obeys.
    pub text: String,
    /// Says by itself that it is about other calls of the same page.
    pub(super) elsewhere: bool,
}
