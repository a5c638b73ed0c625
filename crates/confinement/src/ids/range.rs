//! Ranges of ids that a user namespace maps.

use std::str::FromStr;

/// The most lines that a map may have (user_namespaces(7)).
const MOST: usize = 340;

/// Consecutive ids of a user namespace, and the ids of the host that they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first id in the namespace.
    pub inside: u32,
    /// The first id on the host.
    pub outside: u32,
    /// How many: at least 1, and none is 4294967295, which is no id.
    pub count: u32,
}

impl IdRange {
    /// One id under its own number.
    pub(super) fn same(id: u32) -> IdRange {
        IdRange {
            inside: id,
            outside: id,
            count: 1,
        }
    }

    pub(super) fn has_outside(self, id: u32) -> bool {
        id.checked_sub(self.outside).is_some_and(|beyond| beyond < self.count)
    }
}

/// Written `:INSIDE:OUTSIDE:COUNT:`. In place of the colons, any one character will do.
impl FromStr for IdRange {
    type Err = String;

    fn from_str(text: &str) -> Result<IdRange, String> {
        let shape = || "write it as :GUEST:HOST:COUNT:, such as :0:1000:1:".to_owned();
        let delimiter = text.chars().next().filter(|first| !first.is_ascii_digit());
        let delimiter = delimiter.ok_or_else(shape)?;
        let fields: Vec<_> = text.split(delimiter).collect();
        let ["", inside, outside, count, ""] = fields[..] else {
            return Err(shape());
        };
        let number = |field: &str| match field.parse::<u32>() {
            Ok(number) if field.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
            _ => Err(format!("`{field}` is no number from 0 to {}", u32::MAX)),
        };
        let (inside, outside, count) = (number(inside)?, number(outside)?, number(count)?);
        if count == 0 {
            return Err("it has no id: COUNT is at least 1".into());
        }
        for first in [inside, outside] {
            if first.checked_add(count).is_none() {
                return Err(format!("{count} ids from {first} on go beyond {}", u32::MAX - 1));
            }
        }
        Ok(IdRange { inside, outside, count })
    }
}

/// Refuses what no namespace can have.
pub(super) fn check(ranges: &[IdRange]) -> Result<(), String> {
    if ranges.len() > MOST {
        return Err(format!(
            "{} ranges are too many: a map has at most {MOST}",
            ranges.len()
        ));
    }
    let overlap = |first: u32, count: u32, other: u32, other_count: u32| {
        u64::from(first) < u64::from(other) + u64::from(other_count)
            && u64::from(other) < u64::from(first) + u64::from(count)
    };
    for (at, a) in ranges.iter().enumerate() {
        for b in &ranges[at + 1..] {
            for (whose, first, other) in [("guest", a.inside, b.inside), ("host", a.outside, b.outside)] {
                if overlap(first, a.count, other, b.count) {
                    let twice = first.max(other);
                    return Err(format!("two ranges have id {twice} of the {whose}"));
                }
            }
        }
    }
    Ok(())
}

/// The ids within the namespace, adjoining ranges as one.
pub(super) fn list(ranges: &[IdRange]) -> String {
    let mut spans: Vec<(u32, u32)> = ranges
        .iter()
        .map(|range| (range.inside, range.inside + (range.count - 1)))
        .collect();
    spans.sort_unstable();
    spans.dedup_by(|next, before| {
        let adjoins = before.1.checked_add(1) == Some(next.0);
        if adjoins {
            before.1 = next.1;
        }
        adjoins
    });
    let texts = spans.iter().map(|&(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(", ")
}
