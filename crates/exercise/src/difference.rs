//! Describes where two byte strings differ.

use std::fmt::Write;

/// How many bytes of each side are shown.
const SHOWN: usize = 16;

/// Says where `found`, which was read at `offset`, is not as `expected`; `None` if they are equal.
pub(crate) fn between(expected: &[u8], found: &[u8], offset: u64) -> Option<String> {
    let both = expected.len().min(found.len());
    // Equal slices are the rule and compared by memcmp; the position is only looked for when they differ.
    if expected[..both] == found[..both] {
        return (expected.len() != found.len()).then(|| {
            format!(
                "{} bytes at {offset:#x} where {} were expected",
                found.len(),
                expected.len()
            )
        });
    }
    let at = (0..both).find(|&at| expected[at] != found[at])?;
    let different = (0..both).filter(|&at| expected[at] != found[at]).count();
    let end = both.min(at + SHOWN);
    Some(format!(
        "at {:#x} expected {} found {} ({different} of {both} bytes differ)",
        offset + at as u64,
        hexadecimal(&expected[at..end]),
        hexadecimal(&found[at..end]),
    ))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
