//! A Message-ID as notmuch keeps it, and how it stands in a query.

use std::fmt;
use std::str::FromStr;

use crate::{encoded_word, sha1};

/// The longest id that notmuch keeps as it is, in bytes.
const LONGEST: usize = 189;

/// A Message-ID without its angle brackets; never empty, without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageId(String);

/// Why a text cannot be a Message-ID.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Nothing there.
    #[error("a Message-ID cannot be empty")]
    Empty,
    /// It would end the line that notmuch reads a query from, or worse.
    #[error("a Message-ID cannot contain control characters")]
    ControlCharacter,
}

impl MessageId {
    /// The id in the value of a Message-ID header, by the rules by which notmuch finds it.
    ///
    /// # Errors
    /// When the value is empty or the id holds a control character.
    pub fn from_header(value: &[u8]) -> Result<Self, InvalidId> {
        // RFC 6532: UTF-8; older software sends anything, which notmuch takes for ISO 8859-1.
        let text = match str::from_utf8(value) {
            Ok(text) => text.to_owned(),
            Err(_) => value.iter().copied().map(char::from).collect(),
        };
        let text = encoded_word::decode(&text);
        let text = text.trim_matches([' ', '\t', '\r']);
        match bracketed(text) {
            Some(id) => Self::new(id),
            None => Self::new(text.to_owned()),
        }
    }

    fn new(id: String) -> Result<Self, InvalidId> {
        if id.is_empty() {
            return Err(InvalidId::Empty);
        }
        if id.chars().any(char::is_control) {
            return Err(InvalidId::ControlCharacter);
        }
        if id.len() > LONGEST {
            // As a string of C, with the zero byte that ends it.
            let digest = sha1::hexadecimal(format!("{id}\0").as_bytes());
            return Ok(Self(format!("notmuch-sha1-{digest}")));
        }
        Ok(Self(id))
    }

    /// The query that matches this message and no other.
    #[must_use]
    pub fn query(&self) -> String {
        format!("id:{}", quote(&self.0))
    }
}

/// An id on the command line: bare, in angle brackets, or as notmuch prints it, after `id:`.
impl FromStr for MessageId {
    type Err = InvalidId;

    fn from_str(argument: &str) -> Result<Self, InvalidId> {
        Self::from_header(argument.strip_prefix("id:").unwrap_or(argument).as_bytes())
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.0)
    }
}

/// The text as one quoted term of a query: only a double quote ends it, and two of them stand for one.
pub(crate) fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// The first text in angle brackets, without blanks. A missing `>` is the end of the text.
fn bracketed(text: &str) -> Option<String> {
    let (_, text) = without_comments(text).split_once('<')?;
    let text = without_comments(text);
    let id = without_every_other_blank(text.split('>').next().unwrap_or_default());
    (!id.is_empty()).then_some(id)
}

/// What notmuch makes of blanks within an id: it takes out a blank and does not look at the character behind it.
fn without_every_other_blank(text: &str) -> String {
    let mut taken = false;
    text.chars()
        .filter(|c| {
            taken = !taken && [' ', '\t'].contains(c);
            !taken
        })
        .collect()
}

/// The text behind the blanks and comments (RFC 5322 3.2.2, nested, with quoted pairs) at its beginning.
fn without_comments(text: &str) -> &str {
    let mut depth = 0_usize;
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '(' => depth += 1,
            ')' if depth > 0 => depth -= 1,
            '\\' if depth > 0 => drop(characters.next()),
            ' ' | '\t' | '\r' => {}
            _ if depth > 0 => {}
            _ => return &text[at..],
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(value: &str) -> String {
        MessageId::from_header(value.as_bytes()).expect("is an id").0
    }

    #[test]
    fn real_headers_give_the_id_that_notmuch_keeps() {
        for (value, expected) in [
            (" <a@b>", "a@b"),
            ("<a@b> <c@d>", "a@b"),
            ("(by <x@y> (nested)) junk <a@b>", "a@b"),
            ("<a @\tb>", "a@b"),
            ("<a  @   b>", "a @ b"),
            ("<a@b", "a@b"),
            ("a@b ", "a@b"),
            ("<>", "<>"),
            ("=?us-ascii?Q?=3Ca=40b=3E?=", "a@b"),
            ("<ä@b>", "ä@b"),
        ] {
            assert_eq!(id(value), expected, "{value}");
        }
    }

    #[test]
    fn nothing_and_control_characters_are_refused() {
        assert_eq!(MessageId::from_header(b" \t"), Err(InvalidId::Empty));
        for value in [&b"<a\0b>"[..], b"<a\nb>", b"=?utf-8?q?<a=0Atag:x>?=", b"<a\xc2\x85b>"] {
            assert_eq!(MessageId::from_header(value), Err(InvalidId::ControlCharacter));
        }
    }

    #[test]
    fn arguments_come_in_three_forms() {
        for argument in ["a@b", "<a@b>", "id:a@b"] {
            assert_eq!(argument.parse::<MessageId>().expect("is an id").0, "a@b");
        }
    }

    proptest! {
        #[test]
        fn a_query_is_one_line_and_one_term(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(id) = MessageId::from_header(&value) {
                let query = id.query();
                prop_assert!(!query.chars().any(char::is_control));
                let inner = query.strip_prefix("id:\"").and_then(|q| q.strip_suffix('"')).expect("is quoted");
                prop_assert!(!inner.replace("\"\"", "").contains('"'));
                prop_assert_eq!(inner.replace("\"\"", "\""), id.0);
            }
        }
    }
}
