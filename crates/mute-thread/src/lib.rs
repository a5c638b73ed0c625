//! Silences mail threads in a notmuch database: a tag on the messages of a thread is the whole state.

pub mod cli;
mod encoded_word;
mod error;
pub mod header;
pub mod message_id;
mod mute;
mod notmuch;
mod sha1;
mod tag;
