//! Runs of one small function as probes see them.

use why::Certainty;
use why::btf::Returns;
use why::code::X86_64;
use why::instruction::{Coverage, Exact, Jump, Load, Suspect, Test, coverage, exact};
use why::origin::{Answer, Origin};
use why::trace::{Call, Tree, Value};
use why::trace::{Got, Syscall};

const EINVAL: i32 = 22;
const AT: u64 = 0xffff_ffff_8100_0000;
/// Two tests, and the return that they share.
const MERGED: [u8; 24] = [
    0xf3, 0x0f, 0x1e, 0xfa, // endbr64
    0x48, 0x85, 0xff, // test %rdi,%rdi
    0x74, 0x09, // 7: je 12
    0x48, 0x83, 0xfe, 0x07, // cmp $7,%rsi
    0x77, 0x03, // d: ja 12
    0x31, 0xc0, 0xc3, // xor %eax,%eax; ret
    0xb8, 0xea, 0xff, 0xff, 0xff, // 12: mov $-22,%eax
    0xc3, // ret
];

fn suspect(bytes: &[u8]) -> Suspect {
    let end = AT + u64::try_from(bytes.len()).unwrap();
    Suspect::decode(
        "f",
        EINVAL,
        vec![("f".to_owned(), AT..end)],
        &[bytes.to_vec()],
        (&X86_64, &[]),
    )
}

fn call(function: &str, time: (u64, u64), errno: i32, children: Vec<Call>) -> Call {
    Call {
        function: function.to_owned(),
        time: (time.0, Some(time.1)),
        value: Some(Value {
            register: Some(i64::from(-errno).cast_unsigned()),
            returns: Returns::Int,
        }),
        children,
    }
}

/// A call that `f` refused between 10 and 20.
fn refused(hits: &[(u64, u64)]) -> Syscall {
    let f = call("f", (10, 20), EINVAL, Vec::new());
    Syscall {
        thread: 1,
        number: 9,
        returned: -i64::from(EINVAL),
        time: (Some(0), 30),
        tree: Tree {
            roots: vec![call("__x64_sys_mmap", (1, 29), EINVAL, vec![f])],
            complete: true,
        },
        lost: false,
        hits: hits.iter().map(|(time, offset)| (*time, AT + offset)).collect(),
        got: Vec::new(),
        requests: Vec::new(),
    }
}

fn answer() -> Answer {
    Answer {
        chain: vec!["__x64_sys_mmap".to_owned(), "f".to_owned()],
        origin: Origin::Function("f".to_owned()),
        check: None,
        request: None,
        turn: None,
        certainty: Certainty::Certain,
    }
}

fn found(place: &str, test: Test, certainty: Certainty) -> Option<Exact> {
    Some(Exact::Loaded(Load {
        place: place.to_owned(),
        unique: true,
        errno: EINVAL,
        test,
        certainty,
    }))
}

fn certainty(exact: Option<Exact>) -> Option<Certainty> {
    match exact? {
        Exact::Loaded(load) => Some(load.certainty),
        Exact::NotLoaded(_) => None,
    }
}

fn jump(place: &str) -> Test {
    Test::Before(Jump {
        place: place.to_owned(),
        taken: Some(true),
    })
}

#[test]
fn the_last_test_hit_before_a_merged_return_is_the_one() {
    let suspects = [suspect(&MERGED)];
    let first = refused(&[(11, 0x7), (12, 0x12)]);
    let second = refused(&[(11, 0x7), (12, 0xd), (13, 0x12)]);
    assert_eq!(
        exact(&suspects, &[], &first, &answer()),
        found("f+0x12", jump("f+0x7"), Certainty::Certain)
    );
    assert_eq!(
        exact(&suspects, &[], &second, &answer()),
        found("f+0x12", jump("f+0xd"), Certainty::Certain)
    );
}

#[test]
fn a_name_that_another_function_has_as_well_is_marked() {
    let end = AT + 0x1000 + MERGED.len() as u64;
    let pieces = vec![("f".to_owned(), AT + 0x1000..end)];
    let other = Suspect::decode("f", EINVAL, pieces, &[MERGED.to_vec()], (&X86_64, &[]));
    let hits = refused(&[(11, 0x7), (12, 0x12)]);
    let unique = |suspects: &[Suspect]| match exact(suspects, &[], &hits, &answer()) {
        Some(Exact::Loaded(load)) => load.unique,
        other => panic!("{other:?}"),
    };
    assert!(unique(&[suspect(&MERGED)]));
    assert!(!unique(&[suspect(&MERGED), other]));
}

#[test]
fn hits_outside_of_the_run_that_failed_are_of_others() {
    let suspects = [suspect(&MERGED)];
    let hits = [
        (5, 0x7),
        (6, 0x12),
        (11, 0x7),
        (12, 0xd),
        (13, 0x12),
        (25, 0x7),
        (26, 0x12),
    ];
    assert_eq!(
        exact(&suspects, &[], &refused(&hits), &answer()),
        found("f+0x12", jump("f+0xd"), Certainty::Certain)
    );
    assert_eq!(
        exact(&suspects, &[], &refused(&[(6, 0x12), (25, 0x12)]), &answer()),
        Some(Exact::NotLoaded("f".to_owned()))
    );
}

#[test]
fn hits_in_a_run_inside_of_the_run_are_not_its_own() {
    let mut syscall = refused(&[(11, 0x7), (12, 0xd), (13, 0x12), (15, 0x7), (16, 0x12)]);
    syscall.tree.roots[0].children[0].children = vec![call("f", (14, 17), 0, Vec::new())];
    assert_eq!(
        exact(&[suspect(&MERGED)], &[], &syscall, &answer()),
        found("f+0x12", jump("f+0xd"), Certainty::Certain)
    );
}

#[test]
fn a_test_that_could_not_be_probed_leaves_the_test_unknown() {
    let hits = refused(&[(11, 0x7), (12, 0x12)]);
    assert_eq!(
        exact(&[suspect(&MERGED)], &[AT + 0xd], &hits, &answer()),
        found("f+0x12", Test::Unknown, Certainty::Certain)
    );
}

#[test]
fn an_instruction_that_could_not_be_probed_makes_the_other_likely() {
    let two = [
        0x74, 0x06, // 0: je 8
        0xb8, 0xea, 0xff, 0xff, 0xff, 0xc3, // 2: mov $-22,%eax; ret
        0xb8, 0xea, 0xff, 0xff, 0xff, 0xc3, // 8: mov $-22,%eax; ret
    ];
    let hits = refused(&[(11, 0x0), (12, 0x8)]);
    let suspects = [suspect(&two)];
    assert_eq!(
        exact(&suspects, &[], &hits, &answer()),
        found("f+0x8", jump("f+0x0"), Certainty::Certain)
    );
    assert_eq!(
        exact(&suspects, &[AT + 2], &hits, &answer()),
        found("f+0x8", jump("f+0x0"), Certainty::Likely)
    );
}

#[test]
fn a_function_that_only_handed_on_what_it_swallowed_is_likely_at_most() {
    let mut answer = answer();
    answer.chain.pop();
    let hits = refused(&[(11, 0x7), (12, 0x12)]);
    assert_eq!(
        certainty(exact(&[suspect(&MERGED)], &[], &hits, &answer)),
        Some(Certainty::Likely)
    );
    answer.certainty = Certainty::Unknown;
    assert_eq!(
        certainty(exact(&[suspect(&MERGED)], &[], &hits, &answer)),
        Some(Certainty::Unknown)
    );
}

#[test]
fn an_errno_loaded_in_advance_is_decided_by_the_last_test_after_it() {
    let early = [
        0x74, 0x00, // 0: je 2
        0xb8, 0xea, 0xff, 0xff, 0xff, // 2: mov $-22,%eax
        0x74, 0x06, // 7: je f
        0x75, 0x04, // 9: jne f
        0x31, 0xc0, // xor %eax,%eax
        0x74, 0x00, // d: je f
        0xc3, // f: ret
    ];
    let held = |place: &str| {
        Test::After(Jump {
            place: place.to_owned(),
            taken: Some(true),
        })
    };
    let suspects = [suspect(&early)];
    assert_eq!(suspects[0].probes(), [AT + 2, AT + 7, AT + 9]);
    for (hits, place) in [
        (vec![(11, 0x0), (12, 0x2), (13, 0x7)], "f+0x7"),
        (vec![(12, 0x2), (13, 0x7), (14, 0x9)], "f+0x9"),
    ] {
        assert_eq!(
            exact(&suspects, &[], &refused(&hits), &answer()),
            found("f+0x2", held(place), Certainty::Certain)
        );
    }
}

#[test]
fn a_function_that_loaded_nothing_is_told_only_if_all_could_be_seen() {
    let none = refused(&[(11, 0x7), (12, 0xd)]);
    assert_eq!(
        exact(&[suspect(&MERGED)], &[], &none, &answer()),
        Some(Exact::NotLoaded("f".to_owned()))
    );
    // The one that could not be seen it was, then.
    assert_eq!(
        exact(&[suspect(&MERGED)], &[AT + 0x12], &none, &answer()),
        found("f+0x12", Test::Unknown, Certainty::Likely)
    );
    let two = [MERGED, MERGED].concat();
    assert_eq!(exact(&[suspect(&two)], &[AT + 0x12, AT + 0x2a], &none, &answer()), None);
    assert_eq!(exact(&[], &[], &none, &answer()), None);
    let lost = Answer {
        certainty: Certainty::Unknown,
        ..answer()
    };
    assert_eq!(exact(&[suspect(&MERGED)], &[], &none, &lost), None);
}

#[test]
fn a_function_that_always_fails_makes_no_test() {
    let always = [0xb8, 0xea, 0xff, 0xff, 0xff, 0xc3]; // mov $-22,%eax; ret
    assert_eq!(
        exact(&[suspect(&always)], &[], &refused(&[(11, 0x0)]), &answer()),
        found("f+0x0", Test::None, Certainty::Certain)
    );
}

#[test]
fn an_errno_that_cannot_be_followed_is_likely_at_most() {
    let stored = [0xc7, 0x47, 0x04, 0xea, 0xff, 0xff, 0xff, 0x8b, 0x47, 0x04, 0xc3]; // movl $-22,4(%rdi); mov 4(%rdi),%eax
    assert_eq!(
        exact(&[suspect(&stored)], &[], &refused(&[(11, 0x0)]), &answer()),
        found("f+0x0", Test::Unknown, Certainty::Likely)
    );
}

#[test]
fn probes_are_few_and_begin_with_the_instructions_that_load() {
    assert_eq!(suspect(&MERGED).probes(), [AT + 0x12, AT + 0x7, AT + 0xd]);
    let mut many = Vec::new();
    for left in (0..60_u8).rev() {
        many.extend([0x74, left * 2]); // je, all to the load at the end
    }
    many.extend([0xb8, 0xea, 0xff, 0xff, 0xff, 0xc3]);
    let suspect = suspect(&many);
    assert_eq!((suspect.probes().len(), suspect.probes()[0]), (20, AT + 120));
    let hits = refused(&[(11, 0), (12, 120)]);
    assert_eq!(
        exact(&[suspect], &[], &hits, &answer()),
        found("f+0x78", Test::Unknown, Certainty::Certain)
    );
}

/// `f` with a probe on each of its four blocks.
fn deep() -> [Suspect; 1] {
    let mut suspect = suspect(&MERGED);
    assert!(suspect.look_deep());
    [suspect]
}

fn covered(run: &[&str], jump: &str, certainty: Certainty) -> Option<Coverage> {
    Some(Coverage {
        function: "f".to_owned(),
        blocks: 4,
        run: run.iter().map(|&place| place.to_owned()).collect(),
        jump: Some(Jump {
            place: jump.to_owned(),
            taken: Some(true),
        }),
        compared: None,
        certainty,
    })
}

#[test]
fn the_values_that_the_deciding_jump_was_about_are_told() {
    let suspects = deep();
    let got = |time, offset, value| Got {
        time,
        address: AT + offset,
        values: vec![value],
    };
    let told = |hits: &[(u64, u64)], got: Vec<Got>| {
        let call = Syscall { got, ..refused(hits) };
        coverage(&suspects, &[], &call, &answer()).unwrap().compared
    };
    let fetches: Vec<_> = suspects[0].fetches().collect();
    let fetched = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>();
    assert_eq!(
        fetches,
        [
            (AT + 0x4, fetched(&["%di:u64", "%di:u64"])),
            (AT + 0x9, fetched(&["%si:u64"]))
        ]
    );
    let second = [(11, 0x0), (12, 0x9), (13, 0x12)];
    let values = vec![
        got(5, 0x9, 1),
        got(11, 0x4, 0xffff_8880_0000_0000),
        got(12, 0x9, 8),
        got(25, 0x9, 2),
    ];
    assert_eq!(
        told(&second, values.clone()).as_deref(),
        Some("%rsi (8) was compared with 7"),
        "of this run, not of those before and after it"
    );
    assert_eq!(told(&second, vec![got(5, 0x9, 1)]), None);
    let first = [(11, 0x0), (12, 0x12)];
    assert_eq!(
        told(&first, vec![got(11, 0x4, 0)]).as_deref(),
        Some("%rdi (0) was compared with 0")
    );
}

#[test]
fn the_blocks_that_were_run_tell_the_jump_without_a_probe_on_it() {
    let suspects = deep();
    let probes: Vec<u64> = suspects[0].probes().iter().map(|address| address - AT).collect();
    assert_eq!(
        probes,
        [0x12, 0x7, 0xd, 0x0, 0x9, 0xf],
        "what loads, the tests, then the other blocks"
    );
    let first = refused(&[(11, 0x0), (12, 0x12)]);
    let second = refused(&[(11, 0x0), (12, 0x9), (13, 0x12)]);
    let told = |call| coverage(&suspects, &[], call, &answer());
    assert_eq!(told(&first), covered(&["f+0x0", "f+0x12"], "f+0x7", Certainty::Certain));
    assert_eq!(
        told(&second),
        covered(&["f+0x0", "f+0x9", "f+0x12"], "f+0xd", Certainty::Certain)
    );
}

#[test]
fn the_entry_is_run_although_its_probe_is_hit_before_the_function_is_said_to_be_entered() {
    let call = refused(&[(9, 0x0), (12, 0x12)]);
    let told = coverage(&deep(), &[], &call, &answer());
    assert_eq!(told, covered(&["f+0x0", "f+0x12"], "f+0x7", Certainty::Certain));
}

#[test]
fn a_block_that_could_not_be_probed_makes_coverage_likely() {
    let call = refused(&[(11, 0x0), (13, 0x12)]);
    let told = coverage(&deep(), &[AT + 0x9], &call, &answer());
    assert_eq!(told, covered(&["f+0x0", "f+0x12"], "f+0x7", Certainty::Likely));
}

#[test]
fn blocks_of_another_run_or_of_no_run_are_no_coverage() {
    let early = refused(&[(5, 0x0), (6, 0x12)]);
    assert_eq!(coverage(&deep(), &[], &early, &answer()), None);
    let call = refused(&[(11, 0x0), (12, 0x12)]);
    assert_eq!(
        coverage(&[suspect(&MERGED)], &[], &call, &answer()),
        None,
        "it was not looked at as a whole"
    );
}

#[test]
fn an_errno_loaded_in_advance_has_its_jump_behind_the_load() {
    const ADVANCE: [u8; 16] = [
        0xb8, 0xea, 0xff, 0xff, 0xff, // mov $-22,%eax
        0x48, 0x85, 0xff, // test %rdi,%rdi
        0x74, 0x02, // 8: je c
        0x31, 0xc0, // a: xor %eax,%eax
        0xc3, // c: ret
        0x90, 0x90, 0x90,
    ];
    let mut suspect = suspect(&ADVANCE);
    assert!(suspect.look_deep());
    let call = refused(&[(11, 0x0), (12, 0xc)]);
    let told = coverage(&[suspect], &[], &call, &answer()).unwrap();
    let jump = told.jump.unwrap();
    assert_eq!((jump.place.as_str(), jump.taken), ("f+0x8", Some(true)));
}
