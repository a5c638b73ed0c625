//! The program against the real notmuch and the real mutt.

mod documents;
mod errors;
mod ids;
mod mailbox;
mod mutt;
mod threads;
