//! The section ERRORS of a manual page, as its blocks.

use super::roff::{Line, arguments, plain, shown};

/// Of a page what this is about.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// As in `open(2)`; empty if the page does not say.
    pub(super) name: String,
    /// The blocks that are headed by errnos, in their order.
    pub(super) blocks: Vec<Block>,
    /// What the section says outside of them.
    pub(super) besides: String,
}

/// A heading, and what is said below it.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) heading: String,
    pub(super) text: String,
}

impl Block {
    /// Whether its heading has this errno, outside of parentheses: there stands what other kernels return.
    pub(super) fn is_about(&self, errno: &str) -> bool {
        errnos(&self.heading).any(|found| found == errno)
    }
}

/// What of a page is being read.
#[derive(Debug, Default, PartialEq, Eq)]
enum Section {
    /// Not the errors.
    #[default]
    Other,
    /// The heading of a section is on the next line.
    Heading,
    Errors,
}

impl Page {
    /// Reads a page's source. Whatever that is, this ends and takes memory in proportion to it.
    pub(super) fn of(source: &str) -> Self {
        let mut reader = Reader::default();
        for line in source.lines() {
            reader.line(line);
        }
        reader.end_block();
        reader.page
    }
}

#[derive(Default)]
struct Reader {
    page: Page,
    section: Section,
    block: Option<Block>,
    /// The next line that shows something is a heading.
    heading_next: bool,
    /// How far indented: what is headed there is part of the block.
    nested: usize,
    /// Lines are kept apart.
    literal: bool,
    /// The last line is to be continued without a space.
    continued: bool,
    /// Lines of no meaning here, up to the one that begins with this.
    until: Option<&'static str>,
}

impl Reader {
    fn line(&mut self, line: &str) {
        if let Some(end) = self.until {
            if line.starts_with(end) {
                self.until = None;
            }
            return;
        }
        match Line::of(line) {
            Line::Nothing => {}
            Line::Text(text) if self.section == Section::Heading => self.begin_section(&plain(text)),
            Line::Text(text) => self.show(&plain(text), text.trim_end().ends_with("\\c")),
            Line::Macro(name, rest) => self.obey(name, rest),
        }
    }

    fn obey(&mut self, name: &str, rest: &str) {
        match name {
            "TH" => self.page.name = title(rest),
            "SH" if rest.is_empty() => {
                self.end_block();
                self.section = Section::Heading;
            }
            "SH" => {
                let words: Vec<_> = arguments(rest).iter().map(|word| plain(word)).collect();
                self.begin_section(&words.join(" "));
            }
            // A definition, and text that is not shown.
            "de" | "de1" | "am" | "ig" => self.until = Some(".."),
            "TS" => self.until = Some(".TE"),
            "EQ" => self.until = Some(".EN"),
            _ if self.section != Section::Errors => {}
            "TP" if self.nested == 0 => {
                self.end_block();
                self.heading_next = true;
            }
            "TQ" if self.nested == 0 => self.heading_next = true,
            "SS" => self.end_block(),
            "PP" | "LP" | "P" | "HP" if self.nested == 0 => self.end_block(),
            "IP" => self.indented(rest),
            "PP" | "LP" | "P" | "HP" | "TP" | "TQ" | "br" | "sp" => self.paragraph(),
            "RS" => {
                self.nested += 1;
                self.paragraph();
            }
            "RE" => {
                self.nested = self.nested.saturating_sub(1);
                self.paragraph();
            }
            "EX" | "nf" => self.literal = true,
            "EE" | "fi" => {
                self.literal = false;
                self.paragraph();
            }
            _ => {
                if let Some(text) = shown(name, rest) {
                    self.show(&text, rest.ends_with("\\c"));
                }
            }
        }
    }

    fn begin_section(&mut self, heading: &str) {
        self.end_block();
        self.section = if heading.trim() == "ERRORS" {
            Section::Errors
        } else {
            Section::Other
        };
        self.nested = 0;
        self.literal = false;
    }

    /// A further paragraph of the block, an item of a list in it, or in some pages a block of its own.
    fn indented(&mut self, rest: &str) {
        let mark = arguments(rest).first().map(|mark| plain(mark)).unwrap_or_default();
        if self.nested == 0 && errnos(&mark).next().is_some() {
            self.end_block();
            self.heading_next = true;
            self.show(&mark, false);
            return;
        }
        self.paragraph();
        if !mark.is_empty() {
            self.show(&mark, false);
        }
    }

    fn show(&mut self, text: &str, continued: bool) {
        if self.section != Section::Errors {
            return;
        }
        if self.heading_next {
            self.heading_next = false;
            self.head(text.trim());
            return;
        }
        if self.literal {
            self.paragraph();
        }
        let glued = std::mem::replace(&mut self.continued, continued);
        let target = self.target();
        for (index, word) in text.split_whitespace().enumerate() {
            let apart = index > 0 || !glued;
            if apart && !target.is_empty() && !target.ends_with('\n') {
                target.push(' ');
            }
            target.push_str(word);
        }
    }

    fn head(&mut self, heading: &str) {
        match &mut self.block {
            // A second heading of the same block.
            Some(block) if block.text.is_empty() => {
                block.heading.push_str(", ");
                block.heading.push_str(heading);
            }
            _ => {
                self.end_block();
                self.block = Some(Block {
                    heading: heading.to_owned(),
                    text: String::new(),
                });
            }
        }
    }

    fn target(&mut self) -> &mut String {
        match &mut self.block {
            Some(block) => &mut block.text,
            None => &mut self.page.besides,
        }
    }

    fn paragraph(&mut self) {
        self.continued = false;
        let target = self.target();
        if !target.is_empty() && !target.ends_with('\n') {
            target.push('\n');
        }
    }

    fn end_block(&mut self) {
        self.paragraph();
        self.heading_next = false;
        if let Some(mut block) = self.block.take() {
            block.text.truncate(block.text.trim_end().len());
            if errnos(&block.heading).next().is_some() && !block.text.is_empty() {
                self.page.blocks.push(block);
            }
        }
    }
}

/// `open(2)` of `open 2 2023-02-05 ...`; some pages have their names in capitals.
fn title(rest: &str) -> String {
    let words = arguments(rest);
    let (Some(name), Some(section)) = (words.first(), words.get(1)) else {
        return String::new();
    };
    let name = plain(name);
    let name = if name.contains(|letter: char| letter.is_lowercase()) {
        name
    } else {
        name.to_lowercase()
    };
    format!("{name}({})", plain(section))
}

/// The errnos of a heading, but for those in parentheses.
fn errnos(heading: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    heading
        .split_inclusive(['(', ')'])
        .filter(move |part| {
            let outside = depth == 0;
            match part.chars().last() {
                Some('(') => depth += 1,
                Some(')') => depth = depth.saturating_sub(1),
                _ => {}
            }
            outside
        })
        .flat_map(|part| part.split(|letter: char| !letter.is_ascii_uppercase() && !letter.is_ascii_digit()))
        .filter(|word| word.len() > 2 && word.starts_with('E'))
}
