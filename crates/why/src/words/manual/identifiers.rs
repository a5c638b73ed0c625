//! Identifiers in the text of a page.

/// The identifiers of a text.
pub(super) fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_between).filter(|name| !name.is_empty())
}

/// The identifier that the text ends with; without looking at the rest, for this is asked at many places of one text.
pub(super) fn last_name(text: &str) -> &str {
    text.rsplit(is_between).next().unwrap_or_default()
}

fn is_between(letter: char) -> bool {
    !letter.is_ascii_alphanumeric() && letter != '_'
}
