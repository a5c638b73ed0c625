//! Calls whose functions are known and whose return values are not, made by hand after those of real kernels.

use why::Loading;
use why::alignment::{Known, Successes, Turn, may_be_made_inside, missed, turn};
use why::btf::{Functions, Returns};
use why::trace::Syscall;
use why::trace::{Call, Tree, Value};

fn call(function: &str, children: Vec<Call>) -> Call {
    Call {
        function: function.to_owned(),
        time: (0, Some(1)),
        value: None,
        children,
    }
}

fn leaf(function: &str) -> Call {
    call(function, Vec::new())
}

fn syscall(returned: i64, root: Call) -> Syscall {
    Syscall {
        thread: 1,
        number: 0,
        returned,
        time: (Some(0), 1),
        tree: Tree {
            roots: vec![root],
            complete: true,
        },
        lost: false,
        hits: Vec::new(),
        got: Vec::new(),
        requests: Vec::new(),
    }
}

/// These functions load this errno.
fn plainly(functions: &[&str], errno: i32) -> Loading {
    Loading {
        plainly: functions.iter().map(|name| ((*name).to_owned(), errno)).collect(),
        ..Loading::default()
    }
}

/// Where the call turned back; `loading` are functions whose code loads its errno.
fn turned(failed: &Syscall, succeeded: &[Syscall], loading: Option<&[&str]>) -> Turn {
    let errno = i32::try_from(-failed.returned).unwrap();
    let loading = loading.map(|names| plainly(names, errno));
    let functions = Functions::default();
    let known = Known {
        functions: &functions,
        loading: loading.as_ref(),
    };
    turn(&failed.tree.roots, errno, known, &Successes::of(succeeded)).unwrap()
}

/// io_uring_setup() as in the article of 2019: a limit on locked memory, and what runs when it is not reached.
fn set_up(enough: bool) -> Syscall {
    let mut children = vec![leaf("capable"), leaf("io_account_mem")];
    children.extend(if enough {
        vec![leaf("io_allocate_scq_urings"), leaf("anon_inode_getfile")]
    } else {
        vec![leaf("free_uid")]
    });
    syscall(
        if enough { 3 } else { -12 },
        call("__x64_sys_io_uring_setup", vec![call("io_uring_setup", children)]),
    )
}

#[test]
fn the_landmark_is_the_last_call_before_the_unwinding_and_what_succeeds_goes_on() {
    let turn = turned(&set_up(false), &[set_up(true)], Some(&["io_account_mem"]));
    assert_eq!(turn.chain.last().unwrap(), "io_account_mem");

    let turn = turned(&set_up(false), &[set_up(true)], Some(&["io_uring_setup"]));
    assert_eq!(
        turn,
        Turn {
            chain: vec!["__x64_sys_io_uring_setup".to_owned(), "io_uring_setup".to_owned()],
            landmark: Some("io_account_mem".to_owned()),
            missing: Some("io_allocate_scq_urings".to_owned()),
            unwinding: Some("free_uid".to_owned()),
            asked: None,
        }
    );
}

#[test]
fn a_function_that_ran_as_it_does_when_all_is_well_did_not_fail() {
    let walk = || {
        call(
            "link_path_walk",
            vec![call("inode_permission", vec![leaf("generic_permission")])],
        )
    };
    let open = |returned, tail: &str| {
        syscall(
            returned,
            call("__x64_sys_openat", vec![call("path_openat", vec![walk(), leaf(tail)])]),
        )
    };
    let (failed, succeeded) = (open(-13, "terminate_walk"), [open(3, "do_open")]);
    let both = ["path_openat", "link_path_walk"];
    let found = turned(&failed, &succeeded, Some(&both));
    assert_eq!(found.chain.last().unwrap(), "path_openat");
    assert_eq!(found.missing.as_deref(), Some("do_open"));

    // Never seen to succeed, it may have failed.
    let found = turned(&failed, &[], Some(&both));
    assert_eq!(found.chain.last().unwrap(), "link_path_walk");

    // Nor does it tell anything if the last function in it calls none and makes such an errno.
    let last = ["path_openat", "generic_permission"];
    let found = turned(&failed, &succeeded, Some(&last));
    assert_eq!(found.chain.last().unwrap(), "generic_permission");
}

#[test]
fn what_is_done_in_the_end_of_every_call_is_no_landmark() {
    let kill = |returned, inner: Vec<Call>| {
        let mut children = inner;
        children.push(leaf("audit_log"));
        syscall(returned, call("__x64_sys_kill", vec![call("kill_pid", children)]))
    };
    let failed = kill(-1, vec![leaf("check_kill_permission")]);
    let succeeded = [kill(0, vec![leaf("check_kill_permission"), leaf("do_send_sig_info")])];
    let found = turned(&failed, &succeeded, None);
    assert_eq!(found.chain.last().unwrap(), "check_kill_permission");
}

#[test]
fn a_function_that_loads_no_such_errno_was_told_it() {
    let read = syscall(
        -9,
        call(
            "__x64_sys_read",
            vec![call(
                "ksys_read",
                vec![leaf("fdget_pos"), leaf("security_file_permission"), leaf("fput")],
            )],
        ),
    );
    let found = turned(&read, &[], Some(&["fdget_pos"]));
    assert_eq!(found.chain.last().unwrap(), "fdget_pos");
    let found = turned(&read, &[], Some(&["ksys_read"]));
    assert_eq!(found.chain.last().unwrap(), "ksys_read");
}

#[test]
fn a_server_that_was_asked_is_named_although_nothing_here_loads_its_errno() {
    let asked = call(
        "fuse_simple_request",
        vec![leaf("fuse_get_req"), leaf("fuse_put_request")],
    );
    let open = syscall(
        -2,
        call(
            "__x64_sys_openat",
            vec![call("fuse_lookup_name", vec![asked, leaf("fuse_queue_forget")])],
        ),
    );
    let found = turned(&open, &[], Some(&[]));
    assert_eq!(found.chain.last().unwrap(), "fuse_simple_request");
}

#[test]
fn a_return_that_a_probe_missed_is_looked_for_where_the_code_loads_the_errno() {
    let inner = call(
        "vfs_readlink",
        vec![leaf("security_inode_readlink"), leaf("page_get_link")],
    );
    let outer = call(
        "do_readlinkat",
        vec![leaf("user_path_at_empty"), inner, leaf("path_put")],
    );
    let functions = Functions::default();
    let missed_with = |loading: &[&str]| {
        let loading = plainly(loading, 22);
        let known = Known {
            functions: &functions,
            loading: Some(&loading),
        };
        let found = missed(&outer, 22, known);
        found.iter().map(|call| call.function.clone()).collect::<Vec<_>>()
    };
    assert_eq!(missed_with(&["page_get_link"]), ["vfs_readlink", "page_get_link"]);
    assert_eq!(
        missed_with(&["do_readlinkat", "page_get_link"]),
        [""; 0],
        "it made the errno itself"
    );
    assert_eq!(missed_with(&[]), [""; 0], "nothing there makes it");
    let known = Known {
        functions: &functions,
        loading: None,
    };
    assert!(missed(&outer, 22, known).is_empty(), "nothing is known of the code");
}

#[test]
fn what_returned_unseen_and_can_make_the_errno_leaves_its_caller_in_doubt() {
    let functions: Functions = serde_json::from_str(r#"{"release_sock": "nothing"}"#).unwrap();
    let is_doubted = |inner: Call, loading: Option<Loading>| {
        let known = Known {
            functions: &functions,
            loading: loading.as_ref(),
        };
        may_be_made_inside(&call("inet_accept", vec![leaf("lock_sock"), inner]), 22, known)
    };
    let unseen = || call("do_accept", vec![leaf("inet_csk_accept")]);
    let both = || Some(plainly(&["inet_accept", "inet_csk_accept"], 22));
    let outer = || plainly(&["inet_accept"], 22);
    assert!(is_doubted(unseen(), both()));
    assert!(!is_doubted(unseen(), Some(outer())), "nothing in there loads it");
    let perhaps = Loading {
        perhaps: plainly(&["do_accept"], 22).plainly,
        ..outer()
    };
    assert!(is_doubted(unseen(), Some(perhaps)), "not all of its code is known");
    assert!(is_doubted(unseen(), None), "nothing is known of the code");
    assert!(
        is_doubted(leaf("fuse_simple_request"), Some(outer())),
        "a server may say anything"
    );
    let hands_nothing_on = call("release_sock", vec![leaf("inet_csk_accept")]);
    assert!(!is_doubted(hands_nothing_on, both()));
}

#[test]
fn a_number_says_that_a_function_did_not_fail_and_no_object_does_not() {
    let functions = Functions::default();
    let loading = plainly(&["inet_accept", "inet_csk_accept"], 22);
    let is_doubted = |register: i64, returns: Returns| {
        let inner = Call {
            value: Some(Value {
                register: Some(register.cast_unsigned()),
                returns,
            }),
            ..leaf("inet_csk_accept")
        };
        let known = Known {
            functions: &functions,
            loading: Some(&loading),
        };
        may_be_made_inside(&call("inet_accept", vec![inner]), 22, known)
    };
    assert!(!is_doubted(0, Returns::Int));
    // The errno is where an argument of the caller's points to.
    assert!(is_doubted(0, Returns::Pointer));
    assert!(!is_doubted(-11, Returns::Pointer), "it failed, and with another errno");
}

#[test]
fn a_name_that_a_server_was_just_asked_for_was_missing_there() {
    let asked = call("fuse_lookup", vec![leaf("fuse_simple_request"), leaf("d_splice_alias")]);
    let walk = |looked_up: Call| {
        let walk = call(
            "path_openat",
            vec![
                call("__lookup_slow", vec![looked_up]),
                leaf("up_read"),
                leaf("step_into"),
            ],
        );
        syscall(-2, call("__x64_sys_openat", vec![walk]))
    };
    let loading: Option<&[&str]> = Some(&["step_into"]);
    let found = turned(&walk(asked), &[], loading);
    assert_eq!(found.chain.last().unwrap(), "step_into");
    assert_eq!(found.asked.as_deref(), Some("fuse_simple_request"));
    assert_eq!(turned(&walk(leaf("simple_lookup")), &[], loading).asked, None);
}
