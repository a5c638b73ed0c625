//! Functions that call others which no tracer shows, with small code made by hand.

use std::collections::BTreeSet;
use std::ops::Range;

use why::Loading;
use why::alignment::{Known, may_be_made_inside};
use why::btf::Functions;
use why::code::X86_64;
use why::instruction::Suspect;
use why::symbols::Symbols;
use why::trace::Call;
use why::untraced::{Kernel, Untraced, traceable};

const EINVAL: i32 = 22;
/// Where the first function lies, and how far the next one is from it.
const AT: u64 = 0xffff_ffff_8100_0000;
const STEP: u64 = 0x100;
/// `return -EINVAL` and `return -EFAULT`.
const REFUSES: [u8; 6] = [0xb8, 0xea, 0xff, 0xff, 0xff, 0xc3];
const FAULTS: [u8; 6] = [0xb8, 0xf2, 0xff, 0xff, 0xff, 0xc3];

/// A kernel of functions, each with what it does.
struct Made(Vec<(&'static str, Vec<u8>)>);

impl Made {
    fn kallsyms(&self) -> String {
        let lines = self
            .0
            .iter()
            .zip(0..)
            .map(|((name, _), place)| (AT + STEP * place, *name));
        let end = (AT + STEP * self.0.len() as u64, "end");
        lines
            .chain([end])
            .map(|(address, name)| format!("{address:x} T {name}\n"))
            .collect()
    }

    /// What is known of the first function's code.
    fn loading(&self, available: &str, functions: &str) -> Loading {
        let kallsyms = self.kallsyms();
        let symbols = Symbols::parse(&kallsyms);
        let functions: Functions = serde_json::from_str(functions).unwrap();
        let read = |range: &Range<u64>| {
            let (_, code) = self.0.get(usize::try_from((range.start - AT) / STEP).unwrap())?;
            (!code.is_empty()).then(|| code.clone())
        };
        let mut untraced = Untraced::of(Kernel {
            symbols: &symbols,
            traceable: traceable(&kallsyms, available),
            functions: &functions,
            decoder: &X86_64,
            read: &read,
        });
        let (name, code) = &self.0[0];
        let pieces = vec![((*name).to_owned(), AT..AT + code.len() as u64)];
        let suspect = Suspect::decode(name, EINVAL, pieces, std::slice::from_ref(code), (&X86_64, &[]));
        let unseen = untraced.may_make(suspect.leaves(), EINVAL);
        let mut loading = Loading::default();
        loading.add(((*name).to_owned(), EINVAL), &[suspect], true, unseen);
        loading
    }

    /// Whether another function may have made what the first one loads.
    fn is_doubted(&self, available: &str, functions: &str) -> bool {
        let loading = self.loading(available, functions);
        let pair = (self.0[0].0.to_owned(), EINVAL);
        assert!(loading.plainly.contains(&pair));
        loading.elsewhere.contains(&pair)
    }
}

/// Calls or jumps (`0xe8`, `0xe9`) from an instruction of the function at a place to the function at another one.
fn goes(opcode: u8, from: u64, to: u64) -> [u8; 5] {
    let distance = i32::try_from((to * STEP).cast_signed() - (from + 5).cast_signed()).unwrap();
    let [a, b, c, d] = distance.to_le_bytes();
    [opcode, a, b, c, d]
}

/// `oom_score_adj_write()` in short: what it calls first has an errno, or it refuses itself.
fn origin() -> (&'static str, Vec<u8>) {
    let code = [&goes(0xe8, 0, 1)[..], &[0x85, 0xc0, 0x75, 0x05], &REFUSES].concat();
    ("oom_score_adj_write", code)
}

/// An origin, and a function that it calls.
fn calling(callee: Vec<u8>) -> Made {
    Made(vec![origin(), ("kstrtoint", callee)])
}

#[test]
fn a_function_that_cannot_be_traced_may_have_made_what_its_caller_loads_too() {
    let refuses = calling(REFUSES.to_vec());
    assert!(refuses.is_doubted("oom_score_adj_write\n", "{}"));
    assert!(
        !refuses.is_doubted("oom_score_adj_write\nkstrtoint\n", "{}"),
        "it would have been seen"
    );
    assert!(
        refuses.is_doubted("", "{}"),
        "the kernel does not say what can be traced"
    );
}

#[test]
fn what_cannot_return_this_errno_leaves_its_caller_certain() {
    assert!(!calling(FAULTS.to_vec()).is_doubted("", "{}"), "it has another errno");
    let refuses = calling(REFUSES.to_vec());
    for (returns, doubted) in [("nothing", false), ("bool", false), ("other", false), ("long", true)] {
        assert_eq!(
            refuses.is_doubted("", &format!(r#"{{"kstrtoint": "{returns}"}}"#)),
            doubted,
            "{returns}"
        );
    }
}

#[test]
fn code_that_is_not_known_in_full_may_do_anything() {
    assert!(calling(Vec::new()).is_doubted("", "{}"), "it cannot be read");
    assert!(calling(vec![0x06]).is_doubted("", "{}"), "no instruction of 64 bits");
    // sbb %eax,%eax; and $-22,%eax; ret
    let masks = [0x19, 0xc0, 0x83, 0xe0, 0xea, 0xc3];
    assert!(calling(masks.to_vec()).is_doubted("", "{}"));
    // mov $-86,%eax; sar $2,%eax; ret: as an xarray keeps it
    let kept = [0xb8, 0xaa, 0xff, 0xff, 0xff, 0xc1, 0xf8, 0x02, 0xc3];
    assert!(calling(kept.to_vec()).is_doubted("", "{}"));
    let nowhere = Made(vec![("f", [&goes(0xe8, 0, 9)[..], &REFUSES].concat())]);
    assert!(nowhere.is_doubted("", "{}"), "no function is known there");
}

#[test]
fn what_such_a_function_calls_itself_counts_as_well() {
    let handing_on = |last: [u8; 6]| {
        Made(vec![
            origin(),
            ("kstrtoint", [&goes(0xe8, STEP, 2)[..], &[0xc3]].concat()),
            ("kstrtoll", goes(0xe9, 2 * STEP, 3).to_vec()),
            ("_kstrtoull", last.to_vec()),
        ])
    };
    assert!(handing_on(REFUSES).is_doubted("", "{}"));
    assert!(!handing_on(FAULTS).is_doubted("", "{}"));
    assert!(
        !handing_on(REFUSES).is_doubted("kstrtoll\n", "{}"),
        "what can be traced is in the graph"
    );
    let forever = Made(vec![origin(), ("kstrtoint", goes(0xe9, STEP, 1).to_vec())]);
    assert!(!forever.is_doubted("", "{}"));
}

#[test]
fn of_several_functions_of_one_name_all_can_be_traced_or_none_is_known_to_be() {
    let kallsyms = "1000 t init\n2000 t init\n3000 t __se_sys_bind\n3000 T __x64_sys_bind\n4000 t open\t[fuse]\n";
    let both = traceable(kallsyms, "init\ninit\n__se_sys_bind\nopen [fuse]\n");
    assert_eq!(both, BTreeSet::from([0x1000, 0x2000, 0x3000, 0x4000]));
    assert!(traceable(kallsyms, "init\n").is_empty());
}

#[test]
fn of_several_functions_of_one_name_another_may_have_run() {
    let named = |code: &[u8]| {
        let pieces = vec![("f".to_owned(), AT..AT + code.len() as u64)];
        Suspect::decode("f", EINVAL, pieces, &[code.to_vec()], (&X86_64, &[]))
    };
    let doubted = |found: &[Suspect], all: bool| {
        let mut loading = Loading::default();
        loading.add(("f".to_owned(), EINVAL), found, all, false);
        loading.elsewhere.contains(&("f".to_owned(), EINVAL))
    };
    assert!(!doubted(&[named(&REFUSES), named(&REFUSES)], true));
    assert!(doubted(&[named(&REFUSES), named(&FAULTS)], true));
    assert!(doubted(&[named(&REFUSES), named(&REFUSES)], false), "there are more");
}

#[test]
fn a_function_whose_return_was_missed_may_have_it_from_one_that_cannot_be_traced() {
    let made = Made(vec![
        ("inner", [&goes(0xe8, 0, 1)[..], &[0xc3]].concat()),
        ("kstrtoint", REFUSES.to_vec()),
    ]);
    let functions = Functions::default();
    let is_doubted = |available: &str| {
        let loading = made.loading(available, "{}");
        let call = |function: &str, children| Call {
            function: function.to_owned(),
            time: (0, Some(1)),
            value: None,
            children,
        };
        let known = Known {
            functions: &functions,
            loading: Some(&loading),
        };
        may_be_made_inside(&call("outer", vec![call("inner", Vec::new())]), EINVAL, known)
    };
    assert!(is_doubted(""));
    assert!(!is_doubted("kstrtoint\n"));
}
