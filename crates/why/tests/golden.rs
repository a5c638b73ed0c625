//! Recordings of two kernels, made in guests by `innkeeper why --record` of `exercise refuse`, are explained without privilege.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;

use flate2::read::GzDecoder;
use serde_json::Value;
use why::Certainty::{self, Certain, Likely, Unknown};
use why::instruction::Exact;
use why::origin::Origin;
use why::ptrace::Outcome;
use why::recording::Recording;

fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/data", name].iter().collect()
}

fn recorded(kernel: &str) -> String {
    let mut text = String::new();
    let file = File::open(data(&format!("refused-{kernel}.json.gz"))).unwrap();
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

/// A case, the function that made its errno, what it had been told before, and how far that is to be trusted.
type Expected = (&'static str, &'static str, Option<&'static str>, Certainty);

/// Compares each answer with what is expected, and counts the instructions that are named.
fn explains(kernel: &str, expected: &[Expected]) -> usize {
    let recording = Recording::from_json(&recorded(kernel)).unwrap();
    assert!(recording.kernel.starts_with(kernel), "{}", recording.kernel);
    let answers = recording.explain_exactly().unwrap();
    let cases = fs::read_to_string(data(&format!("refused-{kernel}.cases"))).unwrap();
    assert_eq!(cases.lines().count(), expected.len());
    let mut instructions = 0;
    for (line, (case, function, check, certainty)) in cases.lines().zip(expected) {
        let words: Vec<_> = line.split(' ').collect();
        assert_eq!(words[0], *case);
        let [thread, number, errno] = [1, 2, 3].map(|at| words[at].parse::<i32>().unwrap());
        let call = recording.failures.iter().zip(&answers).rev().find(|(failure, _)| {
            (failure.thread, failure.number) == (thread, number as u64) && failure.outcome == Outcome::Errno(errno)
        });
        let (answer, exact) = call.unwrap().1.as_ref().unwrap();
        assert_eq!(answer.origin.function(), *function, "{case}");
        let told = answer.check.as_ref().map(|check| check.function.as_str());
        assert_eq!((told, answer.certainty), (*check, *certainty), "{case}");
        instructions += usize::from(matches!(exact, Some(Exact::Loaded(_))));
        if case.ends_with("-shared") && *case != "open-not-mine-shared" {
            assert!(matches!(answer.origin, Origin::Remote { .. }), "{case}");
        }
    }
    instructions
}

/// The answers to the recording of Linux 6.12 after a change of its text.
fn answers_after(change: impl FnOnce(&mut Value)) -> Vec<(String, Certainty)> {
    let mut recording = serde_json::from_str(&recorded("6.12")).unwrap();
    change(&mut recording);
    let recording = Recording::from_json(&recording.to_string()).unwrap();
    let found = recording.explain_exactly().unwrap().into_iter().flatten();
    let mut told = Vec::new();
    for (answer, exact) in found {
        told.push((answer.origin.function().to_owned(), answer.certainty));
        if let Some(Exact::Loaded(load)) = exact {
            told.push((load.place, load.certainty));
        }
    }
    told
}

#[test]
fn nothing_is_certain_if_any_event_was_lost() {
    let whole = answers_after(|_| ());
    assert!(whole.contains(&("__seccomp_filter".to_owned(), Certain)));
    let instruction = |(place, certainty): &(String, Certainty)| place.contains("+0x") && *certainty == Certain;
    assert!(whole.iter().any(instruction));
    // RB_MISSED_EVENTS in the header of one page, of which the others know nothing.
    let with_a_gap = answers_after(|recording| {
        let (_, pages) = recording["pages"].as_object_mut().unwrap().iter_mut().next().unwrap();
        let page = pages.as_array_mut().unwrap().last_mut().unwrap();
        let mut digits = page.as_str().unwrap().to_owned();
        let commit = 2 * 11;
        assert_eq!(
            &digits[commit..commit + 2],
            "00",
            "the highest byte of the page's length"
        );
        digits.replace_range(commit..commit + 2, "80");
        *page = digits.into();
    });
    let cut = answers_after(|recording| recording["cut"] = true.into());
    for answers in [&with_a_gap, &cut] {
        assert!(answers.iter().all(|(_, certainty)| *certainty != Certain));
        assert!(answers.contains(&("__seccomp_filter".to_owned(), Unknown)));
        assert!(answers.iter().any(|(_, certainty)| *certainty == Likely));
    }
    assert_eq!(cut.len(), whole.len());
}

#[test]
fn what_another_function_may_have_made_is_not_certain() {
    let of_mmap = |answers: Vec<(String, Certainty)>| {
        let found = answers.into_iter().find(|(function, _)| function == "do_mmap");
        found.unwrap().1
    };
    assert_eq!(of_mmap(answers_after(|_| ())), Certain);
    // It calls a function that cannot be traced, and that loads the errno as well.
    let called = answers_after(|recording| {
        let pair = serde_json::json!(["do_mmap", libc::EACCES]);
        recording["loading"]["elsewhere"].as_array_mut().unwrap().push(pair);
    });
    assert_eq!(of_mmap(called), Likely);
    // Probes on its instructions saw that none of them made it.
    let not_loaded = answers_after(|recording| {
        for suspect in recording["suspects"].as_array_mut().unwrap() {
            suspect["whole"] = true.into();
            suspect["sites"].as_array_mut().unwrap().clear();
        }
    });
    assert_eq!(of_mmap(not_loaded), Likely);
}

#[test]
fn a_call_of_a_32_bit_program_is_not_said_to_be_missing() {
    let missing = |architecture: u32| {
        let answers = answers_after(|recording| {
            for failure in recording["failures"].as_array_mut().unwrap() {
                failure["architecture"] = architecture.into();
            }
        });
        answers.iter().any(|(function, _)| function == "do_syscall_64")
    };
    assert!(missing(0xc000_003e));
    assert!(!missing(0x4000_0003));
}

#[test]
fn calls_refused_by_linux_6_12_are_explained_with_the_instruction() {
    let capability = Some("cap_capable");
    let instructions = explains(
        "6.12",
        &[
            ("open-missing", "step_into", None, Certain),
            ("open-missing-shared", "__fuse_simple_request", None, Likely),
            ("rmdir-full-shared", "__fuse_simple_request", None, Certain),
            ("open-not-mine", "generic_permission", capability, Likely),
            ("bind-low-port", "__inet_bind", capability, Likely),
            ("mount-as-user", "path_mount", capability, Likely),
            ("mmap-not-writable", "do_mmap", None, Certain),
            ("io_uring_register-memlock", "__io_account_mem", None, Certain),
            ("epoll-loop", "do_epoll_ctl", None, Certain),
            ("clone-too-many", "copy_process", capability, Likely),
            ("kill-not-mine", "check_kill_permission", capability, Likely),
            ("seccomp", "__seccomp_filter", None, Certain),
            ("no-such-call", "do_syscall_64", None, Certain),
            ("read-closed", "ksys_read", None, Certain),
            ("connect-refused", "__inet_stream_connect", None, Likely),
            ("write-beyond-limit", "generic_write_check_limits", None, Certain),
        ],
    );
    assert_eq!(
        instructions, 11,
        "all but two of a server, one of a filter, one of no call, and one that was read"
    );
}

#[test]
fn calls_refused_by_linux_6_1_are_explained_from_a_second_run() {
    let capability = Some("cap_capable");
    explains(
        "6.1",
        &[
            ("open-missing", "step_into", None, Certain),
            ("open-missing-shared", "fuse_simple_request", None, Likely),
            ("rmdir-full-shared", "fuse_simple_request", None, Certain),
            ("open-not-mine", "generic_permission", capability, Likely),
            ("bind-low-port", "__inet_bind", capability, Likely),
            ("mount-as-user", "path_mount", capability, Likely),
            ("mmap-not-writable", "do_mmap", None, Certain),
            ("io_uring_register-memlock", "__io_account_mem", None, Certain),
            ("epoll-loop", "do_epoll_ctl", None, Certain),
            ("clone-too-many", "copy_process", capability, Likely),
            ("kill-not-mine", "check_kill_permission", capability, Likely),
            ("seccomp", "__seccomp_filter", None, Certain),
            ("no-such-call", "do_syscall_64", None, Certain),
            ("read-closed", "ksys_read", None, Certain),
            ("connect-refused", "__inet_stream_connect", None, Likely),
            ("write-beyond-limit", "generic_write_check_limits", None, Certain),
        ],
    );
}

#[test]
fn a_recording_of_another_version_is_refused_in_one_sentence_with_the_way_out() {
    let text = recorded("6.12").replacen("\"version\":4", "\"version\":1", 1);
    let refused = Recording::from_json(&text).unwrap_err().to_string();
    assert_eq!(
        refused,
        "the recording has version 1, and this innkeeper reads version 4: record the case again, or explain it with the \
         innkeeper that recorded it"
    );
    // Whatever else another version has or lacks.
    assert_eq!(
        Recording::from_json("{\"version\":1}").unwrap_err().to_string(),
        refused
    );
    let no_recording = Recording::from_json("{\"kernel\":\"6.12\"}").unwrap_err().to_string();
    assert!(
        no_recording.starts_with("not a recording of `innkeeper why`"),
        "{no_recording}"
    );
}

#[test]
fn a_recording_that_was_cut_or_changed_is_refused_or_explained_and_never_panics() {
    let text = recorded("6.12");
    for length in (0..text.len()).step_by(text.len() / 37) {
        assert!(Recording::from_json(&text[..length]).is_err());
    }
    // One digit in ten thousand of the pages is another one: certainty may go, the rest must hold.
    let broken: String = text
        .char_indices()
        .map(|(at, letter)| {
            if at % 9973 == 0 && letter.is_ascii_digit() {
                '7'
            } else {
                letter
            }
        })
        .collect();
    if let Ok(recording) = Recording::from_json(&broken) {
        let _ = recording.explain_exactly();
    }
}
