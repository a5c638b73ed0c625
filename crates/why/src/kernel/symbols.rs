//! Names of the kernel's functions by address, from `/proc/kallsyms`.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Names that stand for the bytes before a function, or for another view of it.
const ALIASES: [&str; 4] = ["__pfx_", "__pi_", "__cfi_", "__SCT__"];
/// A tracer's address of a function may lie behind its first instructions.
const PROLOGUE: u64 = 32;

/// The kernel's functions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Symbols {
    by_address: BTreeMap<u64, String>,
}

impl Symbols {
    /// Reads the text of `/proc/kallsyms`. Without privilege all addresses there are 0, and none is known after.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut symbols = Self::default();
        for (address, name) in functions(text) {
            if !ALIASES.iter().any(|alias| name.starts_with(alias)) {
                symbols.add(address, name);
            }
        }
        symbols
    }

    /// Adds a function; of several at one address the name with the fewest underscores in front wins, then the first.
    pub fn add(&mut self, address: u64, name: &str) {
        let rank = |name: &str| name.bytes().take_while(|byte| *byte == b'_').count();
        match self.by_address.get(&address) {
            Some(known) if rank(known) <= rank(name) || known.starts_with("__x64_sys_") => {}
            _ => drop(self.by_address.insert(address, name.to_owned())),
        }
    }

    /// The same, of the functions at these addresses alone.
    #[must_use]
    pub fn only(&self, addresses: impl IntoIterator<Item = u64>) -> Self {
        let known = addresses.into_iter().filter_map(|address| self.entry(address));
        Self {
            by_address: known.map(|(address, name)| (address, name.to_owned())).collect(),
        }
    }

    /// The same to look names up in.
    #[must_use]
    pub fn by_name(&self) -> ByName<'_> {
        let mut ranges: HashMap<&str, Vec<Range<u64>>> = HashMap::new();
        let ends = self.by_address.keys().skip(1);
        for ((start, name), end) in self.by_address.iter().zip(ends) {
            ranges.entry(name).or_default().push(*start..*end);
        }
        ByName { ranges }
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// The names, by address.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_address.values().map(String::as_str)
    }

    /// The function that starts at this address, or a few bytes before it.
    #[must_use]
    pub fn name(&self, address: u64) -> Option<&str> {
        self.entry(address).map(|(_, name)| name)
    }

    /// The function that has this address in it, and where that lies: up to the function behind.
    #[must_use]
    pub fn containing(&self, address: u64) -> Option<(&str, Range<u64>)> {
        let (start, name) = self.by_address.range(..=address).next_back()?;
        let (end, _) = self.by_address.range(address.checked_add(1)?..).next()?;
        Some((name, *start..*end))
    }

    /// As [`Self::name`], with the function's own address.
    #[must_use]
    pub fn entry(&self, address: u64) -> Option<(u64, &str)> {
        let (start, name) = self.by_address.range(..=address).next_back()?;
        (address - start < PROLOGUE).then_some((*start, name.as_str()))
    }
}

/// The functions in the text of `/proc/kallsyms`, by all of their names.
pub(crate) fn functions(text: &str) -> impl Iterator<Item = (u64, &str)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
        let address = u64::from_str_radix(address, 16).ok()?;
        let function = matches!(kind, "t" | "T" | "w" | "W");
        (address != 0 && function).then_some((address, name))
    })
}

/// The kernel's functions by their names.
#[derive(Clone, Debug)]
pub struct ByName<'s> {
    ranges: HashMap<&'s str, Vec<Range<u64>>>,
}

impl ByName<'_> {
    /// Where the functions of this name lie: up to the function behind, which is more than their own bytes where they are
    /// padded. The last function of all has no known end and is left out.
    #[must_use]
    pub fn ranges(&self, name: &str) -> &[Range<u64>] {
        self.ranges.get(name).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_named_by_their_first_bytes_and_aliases_are_not() {
        let text = "ffffffff81000000 T _stext\nffffffff81000010 t __pfx_do_open\nffffffff81000020 t do_open\n\
                    ffffffff81000100 d data\nffffffff81000200 t __se_sys_bind\nffffffff81000200 T __x64_sys_bind\n\
                    ffffffffc0000000 t fuse_open\t[fuse]\n";
        let symbols = Symbols::parse(text);
        assert_eq!(symbols.name(0xffff_ffff_8100_0024), Some("do_open"));
        assert_eq!(symbols.name(0xffff_ffff_8100_0104), None);
        assert_eq!(symbols.name(0xffff_ffff_c000_0000), Some("fuse_open"));
        assert_eq!(symbols.name(0), None);
    }

    #[test]
    fn a_function_ends_where_the_next_one_begins_and_a_name_may_be_of_several() {
        let text = "1000 t init\n1400 t __pfx_do_open\n1410 T do_open\n1800 t init\n1900 t last\n";
        let symbols = Symbols::parse(text);
        let symbols = symbols.by_name();
        assert_eq!(symbols.ranges("init"), [0x1000..0x1410, 0x1800..0x1900]);
        assert_eq!(symbols.ranges("do_open"), std::slice::from_ref(&(0x1410..0x1800)));
        assert_eq!(symbols.ranges("last"), []);
    }

    #[test]
    fn addresses_hidden_from_users_name_nothing() {
        assert_eq!(Symbols::parse("0000000000000000 T do_open\n").name(0), None);
    }
}
