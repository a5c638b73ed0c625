//! Encoded words (RFC 2047), which some senders put even around a Message-ID.

/// The text with each encoded word in UTF-8, US-ASCII or ISO 8859-1 decoded; what cannot be decoded stays.
pub(crate) fn decode(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    let mut after_word = false;
    while let Some(start) = rest.find("=?") {
        let (plain, word) = rest.split_at(start);
        let Some((content, length)) = decode_word(word) else {
            decoded.push_str(plain);
            decoded.push_str("=?");
            rest = &word[2..];
            after_word = false;
            continue;
        };
        // RFC 2047 6.2: blanks between two encoded words are not part of the text.
        if !(after_word && plain.trim_matches([' ', '\t']).is_empty()) {
            decoded.push_str(plain);
        }
        decoded.push_str(&content);
        rest = &word[length..];
        after_word = true;
    }
    decoded.push_str(rest);
    decoded
}

/// The content of the encoded word at the beginning of the text, and the word's length.
fn decode_word(text: &str) -> Option<(String, usize)> {
    let mut parts = text[2..].splitn(4, '?');
    let (charset, encoding, content) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next()?.strip_prefix('=')?;
    let bytes = match encoding {
        "q" | "Q" => decode_q(content)?,
        "b" | "B" => decode_base64(content)?,
        _ => return None,
    };
    // RFC 2231 5: a language may follow the character set.
    let charset = charset.split('*').next().unwrap_or_default().to_ascii_lowercase();
    let decoded = match charset.as_str() {
        "utf-8" | "us-ascii" => String::from_utf8(bytes).ok()?,
        "iso-8859-1" => bytes.into_iter().map(char::from).collect(),
        _ => return None,
    };
    let length = "=?".len() + charset_length(text) + encoding.len() + content.len() + "??".len() + "?=".len();
    Some((decoded, length))
}

fn charset_length(text: &str) -> usize {
    text[2..].find('?').unwrap_or_default()
}

fn decode_q(content: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(content.len());
    let mut rest = content.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'_' => b' ',
            b'=' => (hexadecimal(rest.next()?)? << 4) | hexadecimal(rest.next()?)?,
            byte => byte,
        });
    }
    Some(bytes)
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16)?.try_into().ok()
}

fn decode_base64(content: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(content.len());
    let (mut bits, mut count) = (0_u32, 0);
    for byte in content.trim_end_matches('=').bytes() {
        let digit = ALPHABET.iter().position(|&letter| letter == byte)?;
        bits = (bits << 6 | u32::try_from(digit).ok()?) & 0xfff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::decode;

    #[test]
    fn words_are_decoded_and_blanks_between_them_dropped() {
        assert_eq!(decode("a =?UTF-8?q?=3Cb=40c=3E?= d"), "a <b@c> d");
        assert_eq!(decode("=?utf-8?B?PGFA?= =?iso-8859-1*de?Q?=E4_>?="), "<a@ä >");
    }

    #[test]
    fn what_is_no_word_stays() {
        for text in [
            "=?",
            "=?a?q?b",
            "=?utf-8?x?b?=",
            "=?utf-8?q?=?=",
            "=?utf-8?b?*?=",
            "=?koi8-r?q?a?=",
        ] {
            assert_eq!(decode(text), text);
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_decoder(text in "(=\\?|\\?=|utf-8|\\?[qb]\\?|=[0-9A-F]|.){0,30}") {
            decode(&text);
        }
    }
}
