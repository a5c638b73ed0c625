//! Makes a recording from a session of the tracer: the pages of failed calls, with everything needed to read them.

use std::collections::BTreeMap;
use std::fs;

use super::data::{Recording, which};
use super::error::{Error, VERSION};
use super::kernel_code;
use crate::explain::Loading;
use crate::kernel::btf::Functions;
use crate::kernel::hex::to_hex;
use crate::kernel::ring_buffer::{self, Layout};
use crate::kernel::symbols::Symbols;
use crate::kernel::{source, tracefs};
use crate::observe::failure::Failure;
use crate::trace::{Reader, Which};

/// The types of the kernel's functions.
const TYPES: &str = "/sys/kernel/btf/vmlinux";
/// What to say where the kernel tells no addresses.
const NO_NAMES: &str = "functions go by their addresses: the kernel hides its symbols (/proc/kallsyms), which \
                        `sysctl kernel.kptr_restrict=1` shows to root";

impl Recording {
    pub(super) fn new(
        header: [String; 2],
        formats: Vec<String>,
        seen: tracefs::Seen,
        has_returns: bool,
        failures: &[Failure],
        functions: &Functions,
        notes: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let (layout, events) = tracefs::understand(&header, &formats)?;
        let symbols = Symbols::parse(&fs::read_to_string("/proc/kallsyms").unwrap_or_default());
        if symbols.is_empty() {
            notes.push(NO_NAMES.to_owned());
        }
        let reader = Reader {
            layout: &layout,
            events: &events,
            symbols: &symbols,
            functions,
            probed: &seen.probed,
        };
        let mut pages = seen.pages;
        keep_calls(&layout, &reader, which(has_returns), &mut pages);
        let symbols = symbols.only(reader.addresses(pages.iter().map(|page| page.bytes.as_slice())));
        let functions = functions.only(symbols.names());
        let mut written: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for page in &pages {
            let used = ring_buffer::Page::parse(&layout, &page.bytes).map_or(page.bytes.len(), |page| page.extent());
            let bytes = page.bytes.get(..used).unwrap_or(&page.bytes);
            written.entry(page.processor).or_default().push(to_hex(bytes));
        }
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Self {
            version: VERSION,
            kernel: kernel.trim().to_owned(),
            build: source::build(),
            failures: failures.to_vec(),
            header,
            formats,
            symbols,
            functions,
            probed: seen.probed,
            loading: None,
            suspects: Vec::new(),
            refused: Vec::new(),
            has_returns,
            cut: seen.cut,
            pages: written,
        })
    }

    /// Which functions load errnos of this recording, by the code of the kernel that runs here; none if that cannot be read.
    pub(super) fn loading(&self, available: &str, functions: &Functions) -> Result<Option<Loading>, Error> {
        if self.symbols.is_empty() {
            // Code is found by names.
            return Ok(None);
        }
        let ran = if self.has_returns {
            // What an origin called may have made the errno unseen.
            let origins = self.origins()?;
            self.ran_in_failures(|function, errno| origins.contains(&(function.to_owned(), errno)))?
        } else {
            self.ran_in_failures(|_, _| true)?
        };
        Ok(kernel_code::loading(ran, available, functions))
    }
}

/// What the functions of the kernel that runs here return.
pub(super) fn functions(notes: &mut Vec<String>) -> Functions {
    let types = fs::read(TYPES).map_err(|error| error.to_string());
    let functions = types.and_then(|bytes| Functions::parse(&bytes, &modules()).map_err(|error| error.to_string()));
    // Without type information a return is an errno if it looks like one, and no answer is certain.
    functions.unwrap_or_else(|error| {
        notes.push(format!(
            "no answer is certain without the kernel's type information ({TYPES}: {error}), which a kernel with \
             CONFIG_DEBUG_INFO_BTF has"
        ));
        Functions::default()
    })
}

/// The type information of the modules that are loaded.
fn modules() -> Vec<Vec<u8>> {
    let files = fs::read_dir("/sys/kernel/btf").into_iter().flatten().flatten();
    let files = files.filter(|file| file.file_name() != "vmlinux");
    files.filter_map(|file| fs::read(file.path()).ok()).collect()
}

/// Drops the pages that hold nothing of these calls: a recording is to be sent around.
fn keep_calls(layout: &Layout, reader: &Reader<'_>, which: Which, pages: &mut Vec<tracefs::Page>) {
    let calls = reader.syscalls(pages.iter().map(|page| page.bytes.as_slice()), which);
    let windows: Vec<_> = calls
        .iter()
        .map(|call| (call.time.0.unwrap_or(0), call.time.1))
        .collect();
    pages.retain(|page| {
        let Ok(page) = ring_buffer::Page::parse(layout, &page.bytes) else {
            return true;
        };
        let times = || page.records().flatten().map(|record| record.time);
        let (Some(first), Some(last)) = (times().min(), times().max()) else {
            return page.missed() != ring_buffer::Missed::Nothing;
        };
        windows.iter().any(|(from, to)| first <= *to && *from <= last)
    });
}
