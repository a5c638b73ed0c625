//! Facts about functions from the code of the running kernel.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;

use super::error::Error;
use crate::explain::Loading;
use crate::explain::instruction::Suspect;
use crate::explain::untraced::{self, Untraced};
use crate::kernel::btf::Functions;
use crate::kernel::code::{self, Decoder, Memory};
use crate::kernel::symbols::{ByName, Symbols};

/// The kernel that runs here.
struct Kernel {
    kallsyms: String,
    symbols: Symbols,
    decoder: &'static dyn Decoder,
    memory: Memory,
}

impl Kernel {
    fn open() -> Result<Self, code::Error> {
        let kallsyms = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        Ok(Self {
            symbols: Symbols::parse(&kallsyms),
            kallsyms,
            decoder: code::native()?,
            memory: Memory::open()?,
        })
    }

    fn find(&self, function: &str, errno: i32, names: &ByName<'_>) -> Result<Vec<Suspect>, code::Error> {
        Suspect::find(function, errno, names, &self.memory, self.decoder)
    }
}

/// Which of these functions load the errno beside them; none if the code cannot be read. `available` is the text of the tracer's
/// `available_filter_functions`, and `functions` is what all functions return.
pub(super) fn loading(ran: BTreeSet<(String, i32)>, available: &str, functions: &Functions) -> Option<Loading> {
    let kernel = Kernel::open().ok()?;
    let names = kernel.symbols.by_name();
    let read = |range: &Range<u64>| kernel.memory.read(range).ok();
    let mut untraced = Untraced::of(untraced::Kernel {
        symbols: &kernel.symbols,
        traceable: untraced::traceable(&kernel.kallsyms, available),
        functions,
        decoder: kernel.decoder,
        read: &read,
    });
    let mut loading = Loading::default();
    for (function, errno) in ran {
        let found = kernel.find(&function, errno, &names).unwrap_or_default();
        let all = found.len() == names.ranges(&function).len();
        let unseen = found.iter().any(|suspect| untraced.may_make(suspect.leaves(), errno));
        loading.add((function, errno), &found, all, unseen);
    }
    Some(loading)
}

/// These functions as the kernel's code has them.
pub(super) fn suspects(wanted: impl IntoIterator<Item = (String, i32)>) -> Result<Vec<Suspect>, Error> {
    let kernel = Kernel::open()?;
    let names = kernel.symbols.by_name();
    let mut suspects = Vec::new();
    for (function, errno) in wanted {
        suspects.extend(kernel.find(&function, errno, &names)?);
    }
    Ok(suspects)
}
