//! Source lines of the kernel's instructions, if the debug information of exactly this kernel is installed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use addr2line::Loader;
use object::read::ReadCache;
use object::{Object, ObjectSymbol, SymbolKind};

use crate::kernel::hex::to_hex;

/// The notes that the kernel's image has, with its build id among them.
const NOTES: &str = "/sys/kernel/notes";
/// Owner and type of the note that is a build id (elf(5)).
const OWNER: &[u8] = b"GNU\0";
const BUILD_ID: u32 = 3;
/// A function that every kernel has, and its file: what comes before that in a path is where the kernel was built.
const EVERYWHERE: (&str, &str) = ("start_kernel", "init/main.c");

/// The debug information of one kernel.
pub struct Source {
    loader: Loader,
    /// Where functions are in the file; none where it has several of a name.
    functions: BTreeMap<String, Option<Range<u64>>>,
    /// The directory in which the kernel was built, with a slash behind it.
    tree: String,
}

/// Where an instruction comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The file, from the kernel's own directory on.
    pub file: String,
    /// The line in it, from 1 on.
    pub line: u32,
    /// The function that the compiler has put into another one here.
    pub inlined: Option<String>,
}

/// Which debug information is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// The kernel's own.
    Own(PathBuf),
    /// That of another build of this release.
    Other(PathBuf),
    /// None.
    None,
}

/// Why the debug information cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {} as debug information: {reason}", path.display())]
pub struct Unreadable {
    path: PathBuf,
    reason: String,
}

/// The build id of the kernel that runs here, as hexadecimal digits.
#[must_use]
pub fn build() -> Option<String> {
    build_in(&fs::read(NOTES).ok()?)
}

/// The build id among an image's notes, as hexadecimal digits.
#[must_use]
pub fn build_in(mut notes: &[u8]) -> Option<String> {
    fn part<'n>(notes: &mut &'n [u8], length: usize) -> Option<&'n [u8]> {
        // Each part is filled up to four bytes; behind the last one that may be missing.
        let part = notes.get(..length)?;
        *notes = notes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(part)
    }
    loop {
        let mut word = || Some(u32::from_le_bytes(part(&mut notes, 4)?.try_into().ok()?));
        let (owner, text, kind) = (word()?, word()?, word()?);
        let owner = part(&mut notes, usize::try_from(owner).ok()?)?;
        let text = part(&mut notes, usize::try_from(text).ok()?)?;
        if (owner, kind) == (OWNER, BUILD_ID) {
            return Some(to_hex(text));
        }
    }
}

/// Looks for the debug information of a kernel below `root`, by its release and build id.
#[must_use]
pub fn installed(root: &Path, kernel: &str, build: &str) -> Installed {
    // Both may come from a recording, which may say anything.
    if kernel.contains('/')
        || ["", ".", ".."].contains(&kernel)
        || build.len() < 3
        || !build.bytes().all(|digit| digit.is_ascii_hexdigit())
    {
        return Installed::None;
    }
    let (first, rest) = build.split_at(2);
    let files = [
        format!("usr/lib/debug/.build-id/{first}/{rest}.debug"),
        format!("usr/lib/debug/boot/vmlinux-{kernel}"),
        format!("usr/lib/debug/lib/modules/{kernel}/vmlinux"),
        format!("lib/modules/{kernel}/build/vmlinux"),
    ];
    let mut found = Installed::None;
    for path in files.iter().map(|file| root.join(file)).filter(|path| path.is_file()) {
        if build_of(&path).as_deref() == Some(build) {
            return Installed::Own(path);
        }
        if found == Installed::None {
            found = Installed::Other(path);
        }
    }
    found
}

fn build_of(path: &Path) -> Option<String> {
    let cache = ReadCache::new(File::open(path).ok()?);
    let file = object::File::parse(&cache).ok()?;
    Some(to_hex(file.build_id().ok()??))
}

impl Source {
    /// Reads a file with debug information.
    ///
    /// # Errors
    /// It has none that is understood.
    pub fn open(path: &Path) -> Result<Self, Unreadable> {
        let unreadable = |reason: String| Unreadable {
            path: path.to_owned(),
            reason,
        };
        let cache = ReadCache::new(File::open(path).map_err(|error: io::Error| unreadable(error.to_string()))?);
        let file = object::File::parse(&cache).map_err(|error| unreadable(error.to_string()))?;
        let mut functions: BTreeMap<String, Option<Range<u64>>> = BTreeMap::new();
        for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
            if let Ok(name) = symbol.name() {
                let range = symbol.address()..symbol.address().saturating_add(symbol.size());
                let known = functions.entry(name.to_owned()).or_insert_with(|| Some(range.clone()));
                known.take_if(|known| *known != range);
            }
        }
        let loader = Loader::new(path).map_err(|error| unreadable(error.to_string()))?;
        let mut source = Self {
            loader,
            functions,
            tree: String::new(),
        };
        let (function, file) = EVERYWHERE;
        source.tree = source
            .line(function)
            .and_then(|line| Some(line.file.strip_suffix(file)?.to_owned()))
            .unwrap_or_default();
        Ok(source)
    }

    /// The line that an instruction comes from, such as `do_mmap+0xb5`. Of several lines for which the compiler made one
    /// instruction it is one.
    #[must_use]
    pub fn line(&self, place: &str) -> Option<Line> {
        let (function, offset) = match place.rsplit_once("+0x") {
            Some((function, digits)) => (function, u64::from_str_radix(digits, 16).ok()?),
            None => (place, 0),
        };
        let range = self.functions.get(function)?.as_ref()?;
        let address = range
            .start
            .checked_add(offset)
            .filter(|address| range.contains(address))?;
        let mut frames = self.loader.find_frames(address).ok()?;
        let innermost = frames.next().ok()??;
        let location = innermost.location?;
        let file = location.file?;
        let is_inlined = matches!(frames.next(), Ok(Some(_)));
        let name = innermost.function.filter(|_| is_inlined);
        Some(Line {
            file: file.strip_prefix(&self.tree).unwrap_or(file).to_owned(),
            line: location.line.filter(|line| *line > 0)?,
            inlined: name.and_then(|name| Some(name.raw_name().ok()?.into_owned())),
        })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file, self.line)?;
        match &self.inlined {
            Some(function) => write!(formatter, " in {function}()"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(owner: &[u8], kind: u32, text: &[u8]) -> Vec<u8> {
        let filled = |bytes: &[u8]| [bytes, &[0; 3][..bytes.len().next_multiple_of(4) - bytes.len()]].concat();
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
        [
            &length(owner)[..],
            &length(text),
            &kind.to_le_bytes(),
            &filled(owner),
            &filled(text),
        ]
        .concat()
    }

    #[test]
    fn a_build_id_is_found_among_other_notes() {
        let other = note(b"Linux\0", 0x101, b"6.12");
        let own = note(OWNER, BUILD_ID, &[0x50, 4, 0xad, 0xda, 0xd8]);
        let found = build_in(&[&other[..], &note(OWNER, 1, &[1]), &own].concat());
        assert_eq!(found.as_deref(), Some("5004addad8"));
        assert_eq!(build_in(&other), None);
        for length in 0..own.len() - 3 {
            assert_eq!(build_in(&own[..length]), None, "{length}");
        }
        assert_eq!(build_in(&[0xff; 64]), None);
    }
}
