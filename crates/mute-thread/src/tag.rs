//! The tag that marks muted messages.

use std::fmt::{self, Write};
use std::str::FromStr;

use crate::message_id::quote;

/// A tag that notmuch accepts and that this program may put.
#[derive(Debug, Clone)]
pub(crate) struct Tag(String);

#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidTag {
    #[error("a tag cannot be empty, longer than 200 bytes or begin with a minus sign")]
    Form,
    #[error("a tag cannot contain control characters")]
    ControlCharacter,
    #[error("notmuch reserves this tag for its own use")]
    Taken,
}

impl FromStr for Tag {
    type Err = InvalidTag;

    fn from_str(name: &str) -> Result<Self, InvalidTag> {
        // NOTMUCH_TAG_MAX, notmuch.h.
        if name.is_empty() || name.len() > 200 || name.starts_with('-') {
            return Err(InvalidTag::Form);
        }
        if name.chars().any(char::is_control) {
            return Err(InvalidTag::ControlCharacter);
        }
        // notmuch-new and the Maildir flags put and take these.
        let taken = [
            "unread",
            "draft",
            "flagged",
            "passed",
            "replied",
            "attachment",
            "signed",
            "encrypted",
        ];
        if taken.contains(&name) {
            return Err(InvalidTag::Taken);
        }
        Ok(Self(name.to_owned()))
    }
}

impl Tag {
    pub(crate) fn query(&self) -> String {
        format!("tag:{}", quote(&self.0))
    }

    /// As `notmuch tag --batch` wants it: whatever could be taken for a blank or a mark is hexadecimal.
    pub(crate) fn in_batch(&self) -> String {
        let mut encoded = String::new();
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() {
                encoded.push(byte.into());
            } else {
                // Writing to a string cannot fail.
                let _ = write!(encoded, "%{byte:02x}");
            }
        }
        encoded
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
