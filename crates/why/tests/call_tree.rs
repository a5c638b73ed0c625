//! Trees made by hand after those of real kernels.

use why::btf::Returns;
use why::trace::{Call, Event, Tree, Value};
use why::{Cause, Certainty};

fn value(register: u64, returns: Returns) -> Option<Value> {
    Some(Value {
        register: Some(register),
        returns,
    })
}

fn int(number: i32) -> Option<Value> {
    value(u64::from(number.cast_unsigned()), Returns::Int)
}

/// No errno, as the kernel's filter leaves it.
fn quiet(returns: Returns) -> Option<Value> {
    Some(Value {
        register: None,
        returns,
    })
}

/// A call and what it calls, as events.
fn call(function: &str, depth: usize, value: Option<Value>, inner: Vec<Event>) -> Vec<Event> {
    let mut events = vec![Event::Entry {
        time: 1,
        function: function.to_owned(),
        depth,
    }];
    events.extend(inner);
    events.push(Event::Exit {
        time: 2,
        function: function.to_owned(),
        depth,
        value,
    });
    events
}

/// bind() of port 80 without the capability.
fn bind() -> Vec<Event> {
    let capability = call("cap_capable", 4, int(-1), vec![]);
    let asked = call("ns_capable", 3, value(0xffff_ff00, Returns::Bool), capability);
    let inner = call("__inet_bind", 2, int(-13), asked);
    call(
        "__x64_sys_bind",
        0,
        value(0xffff_ffff_ffff_fff3, Returns::Long),
        call("__sys_bind", 1, int(-13), inner),
    )
}

fn names(chain: &[&Call]) -> Vec<String> {
    chain.iter().map(|call| call.function.clone()).collect()
}

#[test]
fn an_errno_is_followed_to_its_origin_and_the_check_behind_it() {
    let tree = Tree::build(bind());
    assert!(tree.complete);
    let explanation = tree.explain(13).unwrap();
    assert_eq!(
        names(&explanation.chain),
        ["__x64_sys_bind", "__sys_bind", "__inet_bind"]
    );
    assert!(matches!(explanation.cause, Cause::Translated(check) if check.function == "cap_capable"));
    assert_eq!(explanation.certainty, Certainty::Likely);
}

#[test]
fn an_origin_that_called_nothing_that_failed_is_certain() {
    let events = call(
        "__x64_sys_close",
        0,
        int(-9),
        call("file_close_fd", 1, value(0, Returns::Pointer), vec![]),
    );
    let tree = Tree::build(events);
    let explanation = tree.explain(9).unwrap();
    assert_eq!(names(&explanation.chain), ["__x64_sys_close"]);
    assert_eq!(
        (explanation.cause, explanation.certainty),
        (Cause::None, Certainty::Certain)
    );
}

#[test]
fn a_return_that_is_not_known_forbids_certainty() {
    let tree = Tree::build(call("f", 0, int(-9), call("g", 1, None, vec![])));
    assert_eq!(tree.explain(9).unwrap().certainty, Certainty::Likely);
}

#[test]
fn a_failure_that_was_swallowed_and_made_anew_is_found() {
    let request = call(
        "__fuse_simple_request",
        4,
        value((-2i64).cast_unsigned(), Returns::Long),
        vec![],
    );
    let lookup = call("fuse_lookup", 3, value(0, Returns::Pointer), request);
    let atomic = call("fuse_atomic_open", 2, int(0), lookup);
    let retry = call("fuse_permission", 2, int(-10), vec![]);
    let error = value((-2i64).cast_unsigned(), Returns::Pointer);
    let inner = call("path_openat", 1, error, [atomic, retry].concat());
    let tree = Tree::build(call("do_filp_open", 0, error, inner));
    let explanation = tree.explain(2).unwrap();
    assert_eq!(names(&explanation.chain), ["do_filp_open", "path_openat"]);
    assert!(matches!(explanation.cause, Cause::Recreated(found) if found.function == "__fuse_simple_request"));
}

#[test]
fn a_walk_done_again_and_a_void_function_are_no_cause() {
    let walk = call("fuse_permission", 1, int(-10), vec![]);
    let unlock = call(
        "fuse_unlock_inode",
        1,
        value((-2i64).cast_unsigned(), Returns::Nothing),
        vec![],
    );
    let tree = Tree::build(call("f", 0, int(-2), [walk, unlock].concat()));
    assert_eq!(tree.explain(2).unwrap().cause, Cause::None);
}

#[test]
fn of_two_tries_the_last_one_counts() {
    let (first, last) = (call("first", 1, int(-2), vec![]), call("last", 1, int(-2), vec![]));
    let tree = Tree::build(call("f", 0, int(-2), [first, last].concat()));
    assert_eq!(names(&tree.explain(2).unwrap().chain), ["f", "last"]);
}

#[test]
fn any_loss_turns_certainty_off() {
    for missing in 0..bind().len() {
        let mut events = bind();
        events[missing] = Event::Lost;
        let tree = Tree::build(events);
        assert!(!tree.complete);
        assert!(
            tree.explain(13)
                .is_none_or(|explanation| explanation.certainty == Certainty::Unknown)
        );
        let mut events = bind();
        events.remove(missing);
        assert!(!Tree::build(events).complete, "event {missing} is not missed");
    }
}

#[test]
fn an_errno_that_no_function_returned_is_not_explained() {
    assert!(Tree::build(bind()).explain(5).is_none());
    assert!(Tree::build([]).explain(5).is_none());
}

#[test]
fn an_interrupt_that_came_in_between_is_no_part_of_the_call() {
    // A graph counts functions in it that it does not show, so that what is inside does not fit together.
    let odd = vec![Event::Entry {
        time: 1,
        function: "update_curr".to_owned(),
        depth: 7,
    }];
    let interrupt = call("__sysvec_apic_timer_interrupt", 1, quiet(Returns::Nothing), odd);
    let tree = Tree::build(call("f", 0, int(-9), interrupt));
    assert!(tree.complete && tree.roots[0].children.is_empty());
    let mut cut = call("__sysvec_apic_timer_interrupt", 1, None, vec![]);
    cut.pop();
    let after = call("g", 1, int(0), vec![]);
    assert!(!Tree::build(call("f", 0, int(-9), [cut, after].concat())).complete);
}

#[test]
fn a_truth_value_between_makes_the_same_errno_another_ones_check() {
    let asked = call(
        "ns_capable",
        1,
        quiet(Returns::Bool),
        call("cap_capable", 2, int(-1), vec![]),
    );
    let tree = Tree::build(call("path_mount", 0, int(-1), asked));
    let explanation = tree.explain(1).unwrap();
    assert_eq!(names(&explanation.chain), ["path_mount"]);
    assert!(matches!(explanation.cause, Cause::Translated(check) if check.function == "cap_capable"));
}

#[test]
fn an_unsigned_number_that_is_the_errno_to_the_last_bit_hands_it_on() {
    let unsigned = |errno: i64| value(errno.cast_unsigned(), Returns::Unsigned);
    let called = |inner| call("__x64_sys_mmap", 0, int(-13), call("do_mmap", 1, inner, vec![]));
    let origin = |inner| names(&Tree::build(called(inner)).explain(13).unwrap().chain);
    assert_eq!(origin(unsigned(-13)), ["__x64_sys_mmap", "do_mmap"]);
    assert_eq!(origin(unsigned(-12)), ["__x64_sys_mmap"]);
    assert_eq!(origin(unsigned(0xffff_fff3)), ["__x64_sys_mmap"]);
}

#[test]
fn a_callee_that_returned_no_errno_leaves_certainty_and_one_of_another_type_that_fits_takes_it() {
    let with = |inner| Tree::build(call("f", 0, int(-9), call("g", 1, inner, vec![])));
    let certainty = |inner| with(inner).explain(9).unwrap().certainty;
    assert_eq!(certainty(quiet(Returns::Int)), Certainty::Certain);
    assert_eq!(certainty(value(0xffff_fff7, Returns::Other)), Certainty::Likely);
}

#[test]
fn a_tree_deeper_than_any_kernel_draws_is_cut() {
    let entries = (0..1_000_000).map(|depth| Event::Entry {
        time: 1,
        function: "f".to_owned(),
        depth,
    });
    let tree = Tree::build(entries);
    assert!(!tree.complete && tree.explain(1).is_none());
}
