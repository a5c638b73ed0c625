//! A tree of C sources to work on: the same bytes every time, with sizes typical of source trees.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::random::Random;

/// Files of a directory, and directories of one above.
const PART_FILES: u32 = 12;
const GROUP_PARTS: u32 = 12;
/// A file in so many is compiled.
const COMPILED_OF: u32 = 125;
const COMPILED_MOST: usize = 24;
/// A file in so many has the line that is searched for.
const MARKED_OF: u32 = 50;
/// A file in so many is read to see whether it is right.
const LOOKED_INTO_OF: u32 = 20;
/// The word that is searched for.
pub(super) const MARK: &str = "FIXME";
/// Middle sizes of the tenths of a source tree's files.
const SIZES: [u64; 10] = [200, 700, 1300, 2200, 3400, 5000, 7500, 12_000, 20_000, 55_000];
/// So long ago that no tool takes a file for one that has just changed (git's "racy" entries).
const MODIFIED: Duration = Duration::from_secs(1_700_000_000);

const WORDS: [&str; 32] = [
    "the", "of", "a", "to", "is", "queue", "buffer", "page", "lock", "device", "entry", "while", "before", "request",
    "must", "not", "held", "caller", "state", "index", "and", "when", "free", "node", "count", "until", "written",
    "by", "in", "reply", "mapped", "range",
];

/// How large the tree is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tree {
    /// Besides main.c.
    pub(super) files: u32,
}

impl Tree {
    /// Writes all of it into the directory `to`, which is there.
    pub(super) fn write(self, to: &Path) -> io::Result<()> {
        write(&to.join("main.c"), &main())?;
        for number in 0..self.files {
            let directory = to.join(directory(number));
            if is_header(number) {
                fs::create_dir_all(&directory)?;
            }
            write(&directory.join(name(number)), &contents(number))?;
        }
        Ok(())
    }

    /// Whether all of it is in `directory`: each name, and the contents of some.
    pub(super) fn is_in(self, directory: &Path) -> bool {
        (0..self.files).all(|number| {
            let path = directory.join(self::directory(number)).join(name(number));
            if number.is_multiple_of(LOOKED_INTO_OF) {
                fs::read(path).is_ok_and(|bytes| bytes == contents(number).as_bytes())
            } else {
                path.is_file()
            }
        })
    }

    /// How many lines have [`MARK`].
    pub(super) fn marks(self) -> usize {
        (0..self.files).filter(|&number| is_marked(number)).count()
    }

    /// The sources to compile, which make a program together.
    pub(super) fn sources(self) -> Vec<PathBuf> {
        let count = (self.files / COMPILED_OF) as usize;
        let sources = (0..self.files).filter(|&number| !is_header(number));
        let sources = sources.map(|number| directory(number).join(name(number)));
        let sources = sources.take(count.clamp(2, COMPILED_MOST));
        std::iter::once("main.c".into()).chain(sources).collect()
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.set_modified(SystemTime::UNIX_EPOCH + MODIFIED)
}

fn is_header(number: u32) -> bool {
    number.is_multiple_of(PART_FILES)
}

fn is_marked(number: u32) -> bool {
    number % MARKED_OF == 7
}

fn directory(number: u32) -> PathBuf {
    let part = number / PART_FILES;
    format!("group{:02}/part{:02}", part / GROUP_PARTS, part % GROUP_PARTS).into()
}

fn name(number: u32) -> String {
    let part = number / PART_FILES;
    if is_header(number) {
        format!("part{part:04}.h")
    } else {
        format!("file{number:06}.c")
    }
}

fn main() -> String {
    let called = function(1, 0);
    format!("unsigned {called}(unsigned value);\n\nint main(void)\n{{\n\treturn {called}(1) == 0;\n}}\n")
}

fn function(number: u32, step: u32) -> String {
    format!("work_{number:06}_{step}")
}

fn contents(number: u32) -> String {
    let mut random = Random::new(number.into());
    let middle = *random.of(&SIZES);
    let size = (middle / 2 + random.below(middle)) as usize;
    let mut text = String::with_capacity(size + 1024);
    comment(&mut text, &mut random);
    if is_marked(number) {
        add(&mut text, format_args!("/* {MARK}: {} */\n", sentence(&mut random)));
    }
    if is_header(number) {
        let files = number + 1..number + PART_FILES;
        add(
            &mut text,
            format_args!("#ifndef PART_{number}\n#define PART_{number}\n\n"),
        );
        for file in files {
            add(
                &mut text,
                format_args!("unsigned {}(unsigned value);\n", function(file, 0)),
            );
        }
        while text.len() < size {
            text.push('\n');
            comment(&mut text, &mut random);
        }
        text.push_str("\n#endif\n");
    } else {
        add(
            &mut text,
            format_args!("#include \"{}\"\n", name(number - number % PART_FILES)),
        );
        for step in 0.. {
            text.push('\n');
            define(&mut text, &mut random, &function(number, step));
            if text.len() >= size {
                break;
            }
        }
    }
    text
}

/// A function that a compiler has some work with.
fn define(text: &mut String, random: &mut Random, name: &str) {
    comment(text, random);
    let mut number = || random.below(10_000);
    add(
        text,
        format_args!(
            "unsigned {name}(unsigned value)\n{{\n\tunsigned result = value ^ {}u;\n\n\tfor (unsigned step = 0; step < {}u; step++)\n\t\t\
             result = result * {}u + (step ^ {}u);\n\tif (result % {}u == 0)\n\t\treturn result / 3;\n\treturn result;\n}}\n",
            number(),
            number(),
            number(),
            number(),
            number() + 2,
        ),
    );
}

fn comment(text: &mut String, random: &mut Random) {
    text.push_str("/*\n");
    for _ in 0..=random.below(4) {
        add(text, format_args!(" * {}\n", sentence(random)));
    }
    text.push_str(" */\n");
}

fn sentence(random: &mut Random) -> String {
    let words = (0..6 + random.below(8)).map(|_| *random.of(&WORDS));
    words.collect::<Vec<_>>().join(" ")
}

fn add(text: &mut String, what: std::fmt::Arguments<'_>) {
    // A string takes whatever is written to it.
    let _ = text.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_every_time_and_as_large_as_sources_are() {
        let sizes: Vec<_> = (0..1000).map(|number| contents(number).len()).collect();
        assert_eq!(
            sizes,
            (0..1000).map(|number| contents(number).len()).collect::<Vec<_>>()
        );
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!((8_000..14_000).contains(&mean), "{mean} bytes a file");
    }

    #[test]
    fn the_lines_to_find_are_as_many_as_said() {
        let tree = Tree { files: 300 };
        let lines: usize = (0..300)
            .map(|number| contents(number).lines().filter(|line| line.contains(MARK)).count())
            .sum();
        assert_eq!(lines, tree.marks());
        assert!(lines > 0);
    }

    #[test]
    fn what_is_compiled_is_there_and_has_names_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree { files: 1000 };
        tree.write(directory.path()).unwrap();
        let sources = tree.sources();
        assert_eq!(sources.len(), 1 + 8);
        assert!(tree.is_in(directory.path()));
        assert!(!Tree { files: 1001 }.is_in(directory.path()));
        for source in &sources {
            assert!(directory.path().join(source).is_file(), "{}", source.display());
        }
        let mut names: Vec<_> = sources.iter().map(|source| source.file_name()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), sources.len());
    }
}
