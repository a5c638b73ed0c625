//! Functions that the tracer cannot show, where one may have made an errno inside a function that it shows.
//!
//! Linux builds all of `lib/` without the tracer's hooks (`ccflags-remove` in its Makefile: `kstrtoint`,
//! `import_iovec`), some functions are marked `notrace`, and assembler has none. Neither the return value of such a
//! function nor its call is observed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use crate::kernel::btf::Functions;
use crate::kernel::code::{Code, Decoder, Piece};
use crate::kernel::symbols::{self, Symbols};

/// Functions that are looked at for one errno; behind more than these nobody knows.
const LOOKED_AT_MAX: usize = 400;

/// The functions that can be traced, by the texts of `/proc/kallsyms` and of the tracer's `available_filter_functions`.
///
/// The latter has names alone: of functions of one name either all can be traced, or it is not known which.
#[must_use]
pub fn traceable(kallsyms: &str, available: &str) -> BTreeSet<u64> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for line in available.lines() {
        if let Some(name) = line.split_ascii_whitespace().next() {
            *counts.entry(name).or_default() += 1;
        }
    }
    let mut addresses: HashMap<&str, Vec<u64>> = HashMap::new();
    for (address, name) in symbols::functions(kallsyms) {
        addresses.entry(name).or_default().push(address);
    }
    let all = addresses
        .into_iter()
        .filter(|(name, addresses)| counts.get(name).is_some_and(|count| *count >= addresses.len()));
    all.flat_map(|(_, addresses)| addresses).collect()
}

/// The code of a kernel, and what is known of its functions.
pub struct Kernel<'k> {
    /// Where its functions lie.
    pub symbols: &'k Symbols,
    /// Where those begin that can be traced.
    pub traceable: BTreeSet<u64>,
    /// What they return.
    pub functions: &'k Functions,
    /// Its instructions.
    pub decoder: &'k dyn Decoder,
    /// Its memory, where that can be read.
    pub read: &'k dyn Fn(&Range<u64>) -> Option<Vec<u8>>,
}

/// The functions of a kernel that cannot be traced, each decoded once.
pub struct Untraced<'k> {
    kernel: Kernel<'k>,
    decoded: BTreeMap<u64, Option<Code>>,
}

impl<'k> Untraced<'k> {
    /// Of this kernel.
    #[must_use]
    pub fn of(kernel: Kernel<'k>) -> Self {
        Self {
            kernel,
            decoded: BTreeMap::new(),
        }
    }

    /// Whether code that calls or jumps to these addresses may be told the errno there, by a function that cannot be traced.
    ///
    /// What is called by way of a register is not known, and taken for a function that can be.
    pub fn may_make(&mut self, targets: &[u64], errno: i32) -> bool {
        let mut seen = BTreeSet::new();
        let mut wanted = targets.to_vec();
        while let Some(target) = wanted.pop() {
            let Some((name, range)) = self.kernel.symbols.containing(target) else {
                return true;
            };
            // What is called from there is in the graph, or can tell an errno to nobody.
            let harmless = self.kernel.traceable.contains(&range.start) || !self.kernel.functions.may_fail(name);
            if harmless || !seen.insert(range.start) {
                continue;
            }
            if seen.len() > LOOKED_AT_MAX {
                return true;
            }
            match self.code(&range) {
                Some(code) if code.whole() && !code.can_make(errno) => wanted.extend(code.leaves()),
                _ => return true,
            }
        }
        false
    }

    fn code(&mut self, range: &Range<u64>) -> Option<&Code> {
        let Kernel { decoder, read, .. } = self.kernel;
        let decoded = self.decoded.entry(range.start).or_insert_with(|| {
            let piece = Piece {
                address: range.start,
                bytes: &read(range)?,
            };
            Some(Code::decode(decoder, &[piece], &[]))
        });
        decoded.as_ref()
    }
}
