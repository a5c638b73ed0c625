//! Short names of contenders: the program, and its difference from other contenders of the same program.

/// The longest name that stands in a table as it is.
const LONG: usize = 44;

/// A name for each of the other command lines, beside our own, which lies in `directory` and is called by its program alone.
///
/// Placeholders such as `{socket}` are the same for all and are left out. Only equal command lines get a number.
pub(crate) fn names(directory: &str, ours: &str, others: &[String]) -> Vec<String> {
    let ours = Line {
        directory: Some(directory),
        ..Line::read(ours)
    };
    let others: Vec<Line<'_>> = others.iter().map(|other| Line::read(other)).collect();
    let all: Vec<&Line<'_>> = [&ours].into_iter().chain(&others).collect();
    // As they would be without numbers.
    let mut taken = vec![ours.program.to_owned()];
    let mut names = Vec::new();
    for line in &others {
        let full = line.name(&all, &ours);
        let short = shortened(&full);
        let equals = taken.iter().filter(|name| **name == full).count();
        names.push(match equals {
            0 if names.contains(&short) => full.clone(),
            0 => short,
            others => format!("{short} ({})", others + 1),
        });
        taken.push(full);
    }
    names
}

/// A command line taken apart.
#[derive(Debug, PartialEq)]
struct Line<'a> {
    /// The program's file name.
    program: &'a str,
    /// The directory in which the command names it; none: the shell looks for it.
    directory: Option<&'a str>,
    /// Options with their values, and words that belong to no option.
    options: Vec<Setting<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Setting<'a> {
    /// Without dashes; empty for a word by itself.
    name: &'a str,
    value: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn read(command: &'a str) -> Self {
        let mut words = command.split_whitespace().map(|word| word.trim_matches(['\'', '"']));
        let path = words.next().unwrap_or_default();
        let (directory, program) = match path.rsplit_once('/') {
            Some((directory, program)) => (Some(directory), program),
            None => (None, path),
        };
        let mut words = words.peekable();
        let mut options = Vec::new();
        while let Some(word) = words.next() {
            let Some(option) = word.strip_prefix('-') else {
                options.push(Setting {
                    name: "",
                    value: Some(word),
                });
                continue;
            };
            let option = option.strip_prefix('-').unwrap_or(option);
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (option, words.next_if(|next| !next.starts_with('-'))),
            };
            options.push(Setting { name, value });
        }
        options.retain(|setting| !setting.value.is_some_and(|value| value.contains('{')));
        Self {
            program,
            directory,
            options,
        }
    }

    /// The program with all in which this line differs from the others of the same program.
    fn name(&self, all: &[&Line<'_>], ours: &Line<'_>) -> String {
        let namesakes: Vec<&&Line<'_>> = all.iter().filter(|line| line.program == self.program).collect();
        let mut name = self.program.to_owned();
        if namesakes.iter().any(|other| other.directory != self.directory) {
            name.push_str(" in ");
            name.push_str(self.directory.unwrap_or("$PATH"));
        }
        let everywhere = |setting: &Setting<'_>| namesakes.iter().all(|other| other.options.contains(setting));
        for setting in self.options.iter().filter(|setting| !everywhere(setting)) {
            name.push_str(&format!(", {}", setting.text()));
        }
        // Nothing but what it lacks tells it from ours.
        if name == ours.program {
            for setting in &ours.options {
                if !self.options.contains(setting) {
                    name.push_str(&format!(", without {}", setting.text()));
                }
            }
        }
        name
    }
}

impl Setting<'_> {
    /// `thread-pool-size=16` is `thread-pool 16`: a number says by itself that it is a size or a count.
    fn text(&self) -> String {
        let Some(value) = self.value else {
            return self.name.into();
        };
        let mut name = self.name;
        if value.bytes().all(|byte| byte.is_ascii_digit()) {
            name = name.strip_prefix("num-").unwrap_or(name);
            let shorter = name.strip_suffix("-size").or_else(|| name.strip_suffix("-count"));
            name = shorter.filter(|shorter| shorter.contains('-')).unwrap_or(name);
        }
        format!("{name} {value}").trim_start().to_owned()
    }
}

/// The start and the end of a long name, which mostly tell it apart.
fn shortened(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= LONG {
        return name.into();
    }
    let half = LONG / 2;
    let start: String = letters[..half].iter().collect();
    let end: String = letters[letters.len() - (LONG - half - 1)..].iter().collect();
    format!("{start}…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "innkeeper share {directory} --socket-path {socket} --num-queues 1";

    fn named(others: &[&str]) -> Vec<String> {
        let others: Vec<String> = others.iter().map(|&other| other.into()).collect();
        names("/here", OURS, &others)
    }

    #[test]
    fn a_program_without_namesake_is_called_by_its_name_alone() {
        let other = "/usr/libexec/virtiofsd --socket-path={socket} --shared-dir={directory} --sandbox none";
        assert_eq!(named(&[other]), ["virtiofsd"]);
    }

    #[test]
    fn namesakes_are_called_by_the_options_in_which_they_differ() {
        let pool = |size| format!("virtiofsd --socket-path={{socket}} --sandbox none --thread-pool-size {size}");
        let others = [
            pool(0),
            pool(16),
            "virtiofsd --socket-path={socket} --sandbox none".into(),
        ];
        assert_eq!(
            named(&others.each_ref().map(|other| &**other)),
            ["virtiofsd, thread-pool 0", "virtiofsd, thread-pool 16", "virtiofsd"]
        );
        let flags = ["virtiofsd --cache=auto --readonly", "virtiofsd --cache always"];
        assert_eq!(
            named(&flags),
            ["virtiofsd, cache auto, readonly", "virtiofsd, cache always"]
        );
    }

    #[test]
    fn ours_keeps_its_name_and_another_of_it_says_what_differs() {
        let share = "/here/innkeeper share {directory} --socket-path {socket}";
        assert_eq!(
            named(&[&format!("{share} --num-queues 1 --ring split")]),
            ["innkeeper, ring split"]
        );
        assert_eq!(named(&[share]), ["innkeeper, without queues 1"]);
    }

    #[test]
    fn the_same_program_elsewhere_is_called_by_its_directory() {
        assert_eq!(named(&[&format!("/old/{OURS}")]), ["innkeeper in /old"]);
        assert_eq!(named(&[OURS]), ["innkeeper in $PATH"]);
    }

    #[test]
    fn equal_command_lines_get_numbers() {
        let other = "virtiofsd --socket-path={socket}";
        assert_eq!(
            named(&[other, other, &format!("/here/{OURS}")]),
            ["virtiofsd", "virtiofsd (2)", "innkeeper (2)"]
        );
    }

    #[test]
    fn a_long_name_is_cut_unless_another_one_is_cut_to_the_same() {
        let of = |middle: &str| {
            format!("virtiofsd --log-file=/var/log/a/long/directory/{middle}/with/another/long/one/inside/of/it/log")
        };
        let (one, two) = (of("one"), of("two"));
        let names = named(&[&one, &two]);
        assert!(names[0].chars().count() == LONG && names[0].contains('…'), "{names:?}");
        assert!(names[1].contains("/two/") && names[0] != names[1], "{names:?}");
    }
}
