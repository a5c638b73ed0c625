//! Entries of manual pages. The pages are written for these tests.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tempfile::TempDir;
use why::manual::{Entry, entries_in, rank};

/// A directory of pages.
struct Pages(TempDir);

impl Pages {
    fn new() -> Self {
        let pages = Self(tempfile::tempdir().unwrap());
        fs::create_dir(pages.folder()).unwrap();
        pages
    }

    fn with(name: &str, source: &str) -> Self {
        let pages = Self::new();
        pages.add(name, source.as_bytes());
        pages
    }

    fn root(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("man2")
    }

    fn add(&self, name: &str, content: &[u8]) {
        fs::write(self.folder().join(name), content).unwrap();
    }

    fn entries(&self, call: &str, errno: &str) -> Option<Vec<Entry>> {
        entries_in(&[self.root()], call, errno)
    }

    fn texts(&self, call: &str, errno: &str) -> Vec<String> {
        let entries = self.entries(call, errno).unwrap();
        entries.into_iter().map(|entry| entry.text).collect()
    }
}

fn packed(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

const PAINT: &str = r#"'\" t
.\" A page about nothing.
.TH PAINT 2 2001-01-01 "Pages of a test"
.SH NAME
paint \- colour a wall
.SH DESCRIPTION
.TP
.B EACCES
Not said among the errors.
.SH ERRORS
.TP
.B EACCES
.\" a remark
The wall
.IR wall ,
or one of
.BR PAINT_ALL " and " PAINT_ODD ,
is \fInot\fP yours \(em see
.BR wall (7).
.TP
.BR EACCES ", " EPERM
Doesn\(aqt dry: \-1 of
.RI ( colour ).  \" a remark
.TP
.BR EROFS " (since Linux 9.1; before, " ENOSPC )
No paint.
.SH NOTES
.TP
.B EACCES
Not said here either.
"#;

#[test]
fn entries_of_an_errno_are_plain_text_in_the_order_of_the_page() {
    let pages = Pages::new();
    pages.add("paint.2.gz", &packed(PAINT.as_bytes()));
    let entries = pages.entries("paint", "EACCES").unwrap();
    let shown: Vec<_> = entries
        .iter()
        .map(|entry| (&*entry.page, &*entry.heading, &*entry.text))
        .collect();
    assert_eq!(
        shown,
        [
            (
                "paint(2)",
                "EACCES",
                "The wall wall, or one of PAINT_ALL and PAINT_ODD, is not yours -- see wall(7)."
            ),
            ("paint(2)", "EACCES, EPERM", "Doesn't dry: -1 of (colour)."),
        ]
    );
}

#[test]
fn a_heading_is_about_each_of_its_errnos_but_for_those_in_parentheses() {
    let pages = Pages::with("paint.2", PAINT);
    assert_eq!(pages.texts("paint", "EPERM"), ["Doesn't dry: -1 of (colour)."]);
    let read_only = pages.entries("paint", "EROFS").unwrap();
    assert_eq!(read_only[0].heading, "EROFS (since Linux 9.1; before, ENOSPC)");
    assert_eq!(pages.texts("paint", "ENOSPC"), [""; 0]);
}

#[test]
fn a_missing_page_is_told_from_a_page_that_says_nothing() {
    let pages = Pages::with("paint.2", PAINT);
    assert_eq!(pages.entries("paint", "EIO"), Some(Vec::new()));
    assert_eq!(pages.entries("varnish", "EIO"), None);
    for call in ["", ".", "../paint", "900 ", "man2/paint"] {
        assert_eq!(pages.entries(call, "EIO"), None, "{call:?}");
    }
}

#[test]
fn two_names_of_one_number_are_the_same_errno() {
    let pages = Pages::with("dry.2", ".SH ERRORS\n.TP\n.B EWOULDBLOCK\nStill wet.\n");
    assert_eq!(pages.texts("dry", "EAGAIN"), ["Still wet."]);
    let pages = Pages::with("dry.2", ".SH ERRORS\n.TP\n.B EAGAIN\n.TQ\n.B EWOULDBLOCK\nStill wet.\n");
    let entries = pages.entries("dry", "EAGAIN").unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].heading, "EAGAIN, EWOULDBLOCK");
    assert_eq!(entries[0].page, "dry(2)");
}

#[test]
fn lists_and_further_paragraphs_belong_to_their_entry() {
    let source = r"
.SH
ERRORS
.TP 12
\fBEINVAL\fR
One of:
.RS
.IP \[bu] 3
too few,
.IP \[bu]
too many,
.TP
.B EIO
in a list.
.RE
.IP
.in +4n
.EX
paint(wall,
      0);
.EE
.in
A last\c
.B word\c
\&.
.PP
This is about all of them.
.IP EBUSY 8
Headed in another way.
.SS Others
Nothing.
";
    let pages = Pages::with("paint.2", source);
    let expected = "One of:\n- too few,\n- too many,\nEIO in a list.\npaint(wall,\n0);\nA lastword.";
    assert_eq!(pages.texts("paint", "EINVAL"), [expected]);
    assert_eq!(pages.texts("paint", "EIO"), [""; 0]);
    assert_eq!(pages.texts("paint", "EBUSY"), ["Headed in another way."]);
}

#[test]
fn pages_that_stand_for_others_are_followed() {
    let pages = Pages::with("paint.2", PAINT);
    symlink("paint.2", pages.folder().join("link.2")).unwrap();
    pages.add("paintat.2", b".\\\" generated\n.so man2/paint.2\n");
    pages.add("twice.2.gz", &packed(b".so paintat.2\n"));
    for call in ["link", "paintat", "twice"] {
        let entries = pages.entries(call, "EROFS").unwrap();
        assert_eq!(entries[0].page, "paint(2)", "{call}");
    }
}

#[test]
fn a_page_that_stands_for_itself_or_for_a_file_elsewhere_is_no_page() {
    let pages = Pages::new();
    pages.add("round.2", b".so man2/round.2\n");
    fs::write(pages.root().join("secret.2"), PAINT).unwrap();
    for (number, path) in ["../secret.2", "man2/../../secret.2", "/etc/passwd", "secret"]
        .iter()
        .enumerate()
    {
        pages.add(&format!("away{number}.2"), format!(".so {path}\n").as_bytes());
        assert_eq!(pages.entries(&format!("away{number}"), "EROFS"), None, "{path}");
    }
    assert_eq!(pages.entries("round", "EROFS"), None);
}

#[test]
fn a_page_without_the_errno_hands_on_to_the_pages_that_it_refers_to() {
    let pages = Pages::with("paint.2", PAINT);
    let source = "
.TH repaint 2
.SH SEE ALSO
.BR scrape (2)
.SH ERRORS
All errors of
.BR paint (2),
.BR paint (2)
and
.BR repaint (2).
.TP
.B EBUSY
Still wet.
";
    pages.add("repaint.2", source.as_bytes());
    pages.add("scrape.2", PAINT.as_bytes());
    let entries = pages.entries("repaint", "EROFS").unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].page, "paint(2)");
    assert_eq!(pages.texts("repaint", "EBUSY"), ["Still wet."]);
}

#[test]
fn the_first_directory_with_a_page_that_can_be_read_is_used() {
    let [first, second] = [Pages::new(), Pages::with("paint.2", PAINT)];
    let roots = [first.root(), second.root()];
    first.add("paint.2.gz", b"not packed at all");
    assert_eq!(entries_in(&roots, "paint", "EROFS").unwrap()[0].text, "No paint.");
    first.add("paint.2", b".SH ERRORS\n.TP\n.B EROFS\nOurs.\n");
    assert_eq!(entries_in(&roots, "paint", "EROFS").unwrap()[0].text, "Ours.");
}

#[test]
fn a_broken_or_short_file_is_no_page() {
    let whole = packed(PAINT.as_bytes());
    for length in 0..whole.len() {
        let pages = Pages::new();
        pages.add("paint.2.gz", &whole[..length]);
        assert_eq!(pages.entries("paint", "EROFS"), None, "{length} bytes");
    }
}

#[test]
fn of_a_page_that_unpacks_without_an_end_the_beginning_is_read() {
    const READ: usize = 4 << 20;
    let mut source = b".SH ERRORS\n.TP\n.B EIO\nEarly. ".to_vec();
    source.resize(16 * READ, b'x');
    source.extend(b"\n.TP\n.B EBUSY\nLate.\n");
    let packed = packed(&source);
    assert!(packed.len() < READ, "{}", packed.len());
    let pages = Pages::new();
    pages.add("endless.2.gz", &packed);
    let texts = pages.texts("endless", "EIO");
    assert!(texts[0].starts_with("Early. xxx"));
    assert!(texts[0].len() < READ);
    assert_eq!(pages.texts("endless", "EBUSY"), [""; 0]);
}

#[test]
fn a_pipe_or_directory_in_the_place_of_a_page_is_no_page() {
    let pages = Pages::new();
    let pipe = pages.folder().join("paint.2");
    mkfifo(&pipe);
    fs::create_dir(pages.folder().join("dry.2.gz")).unwrap();
    symlink("/dev/zero", pages.folder().join("zero.2")).unwrap();
    for call in ["paint", "dry", "zero"] {
        assert_eq!(pages.entries(call, "EIO"), None, "{call}");
    }
}

fn mkfifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[test]
fn nothing_that_a_terminal_obeys_is_handed_on() {
    let source = ".TH pa\u{1b}[2Jint 2\n.SH ERRORS\n.TP\n.B EIO\u{7}\n\u{1b}[31mred\u{9b}1m \\\u{1b}]0;x\u{7}\ttab\n";
    let pages = Pages::with("paint.2", source);
    let entry = &pages.entries("paint", "EIO").unwrap()[0];
    assert_eq!(entry.page, "pa[2Jint(2)");
    assert_eq!(entry.heading, "EIO");
    assert_eq!(entry.text, "[31mred1m ]0;x tab");
}

#[test]
fn what_is_about_other_calls_of_the_page_comes_last() {
    let source = "
.SH ERRORS
.TP
.BR EBADF \" (\" paintat \"() only)\"
First.
.TP
.B EBADF
.RB ( fpaint ()
and
.BR paintat ())
Second.
.TP
.B EBADF
Third.
";
    let pages = Pages::with("paint.2", source);
    let texts = |call: &str| {
        pages.add(&format!("{call}.2"), source.as_bytes());
        let all = pages.texts(call, "EBADF");
        all.iter()
            .map(|text| text.rsplit(' ').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(texts("paint"), ["Third.", "First.", "Second."]);
    assert_eq!(texts("fpaint"), ["Second.", "Third.", "First."]);
    assert_eq!(texts("newpaintat64"), ["First.", "Second.", "Third."]);
}

const INVALID: &str = "
.SH ERRORS
.TP
.B EINVAL
The size is odd.
.TP
.B EINVAL
.B WALL_NEW
is among the
.IR flags .
.TP
.BR EINVAL \" (\" other \"() only)\"
The buffers are not registered.
.TP
.B EINVAL
The buffers have no permission.
";

#[test]
fn entries_that_share_words_with_the_failure_come_first() {
    let pages = Pages::with("paint.2", INVALID);
    let ranked = |words: &[&str]| {
        let mut entries = pages.entries("paint", "EINVAL").unwrap();
        rank(&mut entries, words);
        entries.into_iter().map(|entry| entry.text).collect::<Vec<_>>()
    };
    assert_eq!(ranked(&[])[0], "The size is odd.");
    assert_eq!(
        ranked(&["wall_flag_perm", "WALL_NEW|WALL_OLD"])[0],
        "WALL_NEW is among the flags."
    );
    assert_eq!(ranked(&["buffer_permission"])[0], "The buffers have no permission.");
    assert_eq!(ranked(&["check_size"])[0], "The size is odd.");
    assert_eq!(ranked(&["__x64_sys_register"])[0], "The size is odd.");
    let registered = ranked(&["buffers_registered"]);
    assert_eq!(registered[3], "The buffers are not registered.");
}

#[test]
fn an_entry_stands_out_by_the_flags_that_it_asks_for_and_by_nothing_that_all_say() {
    let source = "
.SH ERRORS
.TP
.B EINVAL
.B WALL_NEW
was given, but
.B WALL_OLD
was not.
.TP
.B EINVAL
.B WALL_NEW
and
.B WALL_OLD
were both given.
.TP
.B EINVAL
Neither
.B WALL_NEW
nor
.B WALL_OLD
was given.
";
    let pages = Pages::with("paint.2", source);
    let ranked = |words: &[&str]| {
        let mut entries = pages.entries("paint", "EINVAL").unwrap();
        let stands_out = rank(&mut entries, words);
        (entries.swap_remove(0).text, stands_out)
    };
    let said = |text: &str, stands_out| (text.to_owned(), stands_out);
    assert_eq!(
        ranked(&["WALL_NEW"]),
        said("WALL_NEW was given, but WALL_OLD was not.", true)
    );
    assert_eq!(
        ranked(&["WALL_NEW|WALL_OLD"]),
        said("WALL_NEW and WALL_OLD were both given.", true)
    );
    assert_eq!(ranked(&["0"]), said("Neither WALL_NEW nor WALL_OLD was given.", false));
    assert!(!ranked(&["given"]).1, "what all say tells none from the others");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_page_of_printable_text_or_none(
        content in prop::collection::vec(prop_oneof![
            Just(b".SH ERRORS\n".to_vec()), Just(b".TP\n".to_vec()), Just(b".B EIO\n".to_vec()), Just(b".RS\n".to_vec()),
            Just(b".RE\n".to_vec()), Just(b".IP ".to_vec()), Just(b".BR \"".to_vec()), Just(b"\\f[".to_vec()), Just(b"\\s-".to_vec()),
            Just(b"\\h'".to_vec()), Just(b"\\(".to_vec()), Just(b"\\c\n".to_vec()), Just(b"(paint()".to_vec()), Just(b".ig\n".to_vec()),
            prop::collection::vec(any::<u8>(), 0..8),
        ], 0..60),
        pack in any::<bool>(),
    ) {
        let content = content.concat();
        let pages = Pages::new();
        if pack {
            pages.add("paint.2.gz", &packed(&content));
        } else {
            pages.add("paint.2", &content);
        }
        let mut entries = pages.entries("paint", "EIO").unwrap_or_default();
        rank(&mut entries, &["paint_wall"]);
        for entry in entries {
            prop_assert!(entry.heading.contains("EIO"));
            prop_assert!(!entry.text.is_empty());
            let all = entry.page + &entry.heading + &entry.text;
            prop_assert!(all.chars().all(|letter| letter == '\n' || !letter.is_control()), "{:?}", all);
        }
    }
}
