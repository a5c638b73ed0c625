//! The program as its callers see it: lines, exit statuses, files.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use tempfile::TempDir;

fn exercise() -> Command {
    Command::new(env!("CARGO_BIN_EXE_exercise"))
}

fn run(words: &[&str], file: &Path) -> Output {
    let (job, rest) = words.split_first().unwrap();
    exercise().arg(job).arg(file).args(rest).output().unwrap()
}

/// What it printed, given that all was well.
fn good(words: &[&str], file: &Path) -> String {
    let output = run(words, file);
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What it complained about, given that it ended with this status.
fn bad(status: i32, words: &[&str], file: &Path) -> String {
    let output = run(words, file);
    assert_eq!(
        output.status.code(),
        Some(status),
        "{words:?}: {}",
        text(&output.stderr)
    );
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A directory on the file system that the build is on, and one on tmpfs.
fn directories() -> [TempDir; 2] {
    [env!("CARGO_TARGET_TMPDIR"), "/dev/shm"].map(|parent| tempfile::tempdir_in(parent).unwrap())
}

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn direct_transfers_between_a_file_and_a_mapping_are_equal() {
    // On the file system of the build alone: not every kernel has O_DIRECT on tmpfs.
    let directory = directory();
    let (file, mapped) = (directory.path().join("file"), directory.path().join("mapped"));
    let mapped = mapped.to_str().unwrap();
    let line = good(&["direct", mapped, "--transfers", "50", "--length", "1MiB"], &file);
    assert!(
        line.starts_with("direct: ") && line.ends_with(" writes equal\n"),
        "{line}"
    );
    assert!(fs::read(&file).unwrap() != fs::read(mapped).unwrap());
    let odd = bad(2, &["direct", mapped, "--length", "1000"], &file);
    assert!(odd.contains("multiple of 512"), "{odd}");
}

#[test]
fn sequences_of_several_seeds_are_equal() {
    for directory in directories() {
        let file = directory.path().join("file");
        for seed in ["1", "2", "3", "4"] {
            let line = good(&["sequence", "--operations", "2000", "--seed", seed], &file);
            assert!(line.starts_with("sequence: 2000 operations equal (read "), "{line}");
        }
    }
}

#[test]
fn sequences_in_granules_of_2_mib_are_equal() {
    for directory in directories() {
        let file = directory.path().join("file");
        for seed in ["1", "2"] {
            let words = [
                "sequence",
                "--operations",
                "200",
                "--seed",
                seed,
                "--length",
                "16MiB",
                "--granule",
                "2MiB",
            ];
            let line = good(&words, &file);
            assert!(line.starts_with("sequence: 200 operations equal (read "), "{line}");
            assert!(fs::metadata(&file).unwrap().len().is_multiple_of(2 << 20));
        }
    }
}

#[test]
fn tmpfs_has_no_collapse_and_the_line_says_so() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let line = good(&["sequence", "--operations", "10"], &directory.path().join("file"));
    assert!(line.contains("; not supported here: "), "{line}");
    assert!(line.trim_end().ends_with("collapse, insert)"), "{line}");
}

#[test]
fn random_access_goes_on_with_the_file_that_it_left() {
    for directory in directories() {
        let file = directory.path().join("file");
        for seed in ["1", "2", "3"] {
            let line = good(
                &["random", "--accesses", "500", "--file-size", "3MiB", "--seed", seed],
                &file,
            );
            let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
            assert_eq!(numbers.iter().sum::<u64>(), 500, "{line}");
            assert!(
                line.starts_with("random: ") && line.ends_with(" writes equal\n"),
                "{line}"
            );
            assert_eq!(fs::metadata(&file).unwrap().len(), 3 << 20);
        }
    }
}

#[test]
fn a_changed_byte_is_found_by_random_access() {
    let directory = directory();
    let file = directory.path().join("file");
    let words = ["random", "--accesses", "100", "--file-size", "1MiB", "--seed", "1"];
    good(&words, &file);
    let opened = fs::OpenOptions::new().read(true).write(true).open(&file).unwrap();
    let mut byte = [0];
    opened.read_exact_at(&mut byte, 0x8_1234).unwrap();
    opened.write_all_at(&[!byte[0]], 0x8_1234).unwrap();
    // No access at all: what is left is the comparison of the whole file.
    let complaint = bad(1, &["random", "--accesses", "0", "--file-size", "1MiB"], &file);
    let expected = format!("at 0x81234 expected {:02x}", byte[0]);
    assert!(
        complaint.contains(&expected) && complaint.contains("seed 1"),
        "{complaint}"
    );
}

#[test]
fn a_file_of_someone_else_is_not_accessed_at_random() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, vec![1; 8192]).unwrap();
    let complaint = bad(1, &["random", "--file-size", "8KiB"], &file);
    assert!(
        complaint.contains("block 0 was not written by this program"),
        "{complaint}"
    );
    let complaint = bad(1, &["random"], &file);
    assert!(complaint.contains("holds 8192 bytes"), "{complaint}");
    assert_eq!(fs::read(&file).unwrap(), vec![1; 8192]);
}

/// Starts a process that prints lines.
fn start(words: &[&str], file: &Path) -> (Child, BufReader<ChildStdout>) {
    let (job, rest) = words.split_first().unwrap();
    let mut child = exercise()
        .arg(job)
        .arg(file)
        .args(rest)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

fn line(lines: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    line
}

#[test]
fn one_process_sees_what_another_stored() {
    for directory in directories() {
        let file = directory.path().join("file");
        fs::write(&file, vec![0; 16_384]).unwrap();
        // The text crosses a page, so that both pages are mapped.
        let (mut waiting, mut heard) = start(&["await", "8189", "hello there"], &file);
        assert_eq!(line(&mut heard), "waiting\n");
        let (mut storing, mut said) = start(&["store", "8189", "hello there"], &file);
        assert_eq!(line(&mut said), "stored\n");
        assert_eq!(line(&mut heard), "seen\n");
        assert!(waiting.wait().unwrap().success());
        assert!(
            storing.try_wait().unwrap().is_none(),
            "the mapping is kept until standard input ends"
        );
        drop(storing.stdin.take());
        assert!(storing.wait().unwrap().success());
        assert_eq!(&fs::read(&file).unwrap()[8188..8201], b"\0hello there\0");
    }
}

#[test]
fn await_ends_at_its_limit() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, "something else").unwrap();
    let output = run(&["await", "0", "hello", "--limit", "0"], &file);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "waiting\n");
    assert!(
        text(&output.stderr).contains("\"hello\" was not at 0x0"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_file_that_is_too_short_is_refused_and_not_touched() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, "four").unwrap();
    for job in ["store", "await"] {
        let complaint = bad(1, &[job, "0", "five!"], &file);
        assert!(complaint.contains("holds 4 bytes"), "{complaint}");
    }
    let complaint = bad(1, &["store", "0", "text"], &directory.path().join("absent"));
    assert!(
        complaint.starts_with("exercise: cannot open ") && complaint.contains("absent"),
        "{complaint}"
    );
}

#[test]
fn bad_usage_costs_one_sentence_and_status_2() {
    let directory = directory();
    let file = directory.path().join("file");
    for words in [
        &["sequence", "--granule", "0"][..],
        &["sequence", "--length", "5MiB", "--granule", "2MiB"],
        &["sequence", "--length", "0"],
        &["sequence", "--length", "5X"],
        &["sequence", "--length", "99999999999GiB"],
        &["sequence", "--operations", "many"],
        &["random", "--file-size", "4097"],
        &["random", "--file-size", "0"],
        &["store", "0"],
        &["store", "0", ""],
        &["await", "-1", "text"],
        &["dance"],
    ] {
        let complaint = bad(2, words, &file);
        assert!(complaint.starts_with("exercise: "), "{complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
    assert!(!file.exists());

    let output = exercise().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let complaint = text(&output.stderr);
    assert!(complaint.contains("requires a subcommand"), "{complaint}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
}
