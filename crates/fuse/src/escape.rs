//! Escaping of names from the guest for a line of text. An escaped name cannot end the line, move a terminal's
//! cursor, end a quotation, or make the line long.

use std::fmt::{self, Display, Formatter, Write};

/// Bytes of a guest, shown without quotation marks. UTF-8 that can be printed is shown as it is, `"` and `\` behind a `\`, and every
/// other byte as `\x` and two digits.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a> {
    bytes: &'a [u8],
    limit: usize,
    end: bool,
}

impl<'a> Escaped<'a> {
    /// The start of `bytes`, followed by `...` if that is not all. `limit` counts bytes of the text, as long as they are in a JSON
    /// string.
    pub fn start(bytes: &'a [u8], limit: usize) -> Escaped<'a> {
        let end = false;
        Escaped { bytes, limit, end }
    }

    /// The end of `bytes` likewise, behind `...` if that is not all.
    pub fn end(bytes: &'a [u8], limit: usize) -> Escaped<'a> {
        let end = true;
        Escaped { bytes, limit, end }
    }

    fn pieces(&self) -> impl Iterator<Item = Piece> + use<'a> {
        self.bytes.utf8_chunks().flat_map(|chunk| {
            let invalid = chunk.invalid().iter().map(|&byte| Piece::Byte(byte));
            chunk.valid().chars().map(Piece::of).chain(invalid)
        })
    }
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut over = self
            .pieces()
            .map(Piece::length)
            .sum::<usize>()
            .saturating_sub(self.limit);
        if over == 0 {
            return self.pieces().try_for_each(|piece| piece.fmt(f));
        }
        if self.end {
            f.write_str("...")?;
            for piece in self.pieces() {
                match over {
                    0 => piece.fmt(f)?,
                    _ => over = over.saturating_sub(piece.length()),
                }
            }
            return Ok(());
        }
        let mut room = self.limit;
        for piece in self.pieces() {
            let Some(left) = room.checked_sub(piece.length()) else {
                break;
            };
            piece.fmt(f)?;
            room = left;
        }
        f.write_str("...")
    }
}

/// What is shown or left out as a whole.
#[derive(Clone, Copy)]
enum Piece {
    Plain(char),
    /// `"` or `\`.
    Quoted(char),
    Byte(u8),
    /// Nothing to be seen, or worse: control characters, marks that turn the direction, separators of lines.
    Unprintable(char),
}

impl Piece {
    fn of(character: char) -> Piece {
        match character {
            '"' | '\\' => Piece::Quoted(character),
            ' '..='~' => Piece::Plain(character),
            // What Rust would not print as it is in a string literal.
            _ if character.escape_debug().len() > 1 => Piece::Unprintable(character),
            _ => Piece::Plain(character),
        }
    }

    /// In a JSON string, where each `\` and `"` takes two.
    fn length(self) -> usize {
        match self {
            Piece::Plain(character) => character.len_utf8(),
            Piece::Quoted(_) => 4,
            Piece::Byte(_) => 5,
            Piece::Unprintable(character) => 5 * character.len_utf8(),
        }
    }

    fn fmt(self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Piece::Plain(character) => f.write_char(character),
            Piece::Quoted(character) => write!(f, "\\{character}"),
            Piece::Byte(byte) => write!(f, "\\x{byte:02x}"),
            Piece::Unprintable(character) => {
                let mut bytes = [0; 4];
                let bytes = character.encode_utf8(&mut bytes).bytes();
                bytes.into_iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_can_be_printed_is_and_the_rest_is_bytes() {
        let shown = |bytes: &[u8]| Escaped::start(bytes, 1000).to_string();
        assert_eq!(shown("plain name, größer, 文".as_bytes()), "plain name, größer, 文");
        assert_eq!(shown(b"a\nb\t\x1b[2J\x7f\0"), r"a\x0ab\x09\x1b[2J\x7f\x00");
        assert_eq!(shown(br#"" ENOENT \x0a"#), r#"\" ENOENT \\x0a"#);
        assert_eq!(shown(b"\xff\xc3(\xe2\x80"), r"\xff\xc3(\xe2\x80");
        // NEL, LINE SEPARATOR, RIGHT-TO-LEFT OVERRIDE, ZERO WIDTH SPACE.
        assert_eq!(shown("\u{85}\u{2028}".as_bytes()), r"\xc2\x85\xe2\x80\xa8");
        assert_eq!(shown("\u{202e}\u{200b}".as_bytes()), r"\xe2\x80\xae\xe2\x80\x8b");
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        assert_eq!(Escaped::start("aßc".as_bytes(), 4).to_string(), "aßc");
        assert_eq!(Escaped::start("aßc".as_bytes(), 2).to_string(), "a...");
        assert_eq!(Escaped::end("aßc".as_bytes(), 2).to_string(), "...c");
        assert_eq!(Escaped::start(b"\n\n", 9).to_string(), r"\x0a...");
        assert_eq!(Escaped::end(b"\n\n", 9).to_string(), r"...\x0a");
    }

    proptest! {
        #[test]
        fn no_bytes_leave_their_line_their_quotation_or_their_limit(bytes: Vec<u8>, limit in 0..50usize, end: bool) {
            let shown = Escaped { bytes: &bytes, limit, end }.to_string();
            prop_assert!(shown.chars().all(|character| !character.is_control()));
            let unescaped = shown.replace(r"\\", "").replace(r#"\""#, "");
            prop_assert!(!unescaped.contains('"'));
            prop_assert!(shown.len() <= limit + 3);
        }

        #[test]
        fn no_two_names_look_alike(one: Vec<u8>, other: Vec<u8>) {
            let shown = |bytes: &[u8]| Escaped::start(bytes, usize::MAX).to_string();
            prop_assert_eq!(one == other, shown(&one) == shown(&other));
        }
    }
}
