//! Requests to FUSE servers in pages as kernels before and since 6.10 write them.

mod failure;

use failure::failure;
use why::Certainty;
use why::alignment::Known;
use why::btf::Functions;
use why::origin::{Answer, Origin, answers};
use why::request::Refused;
use why::ring_buffer::{Events, Format, Layout};
use why::symbols::Symbols;
use why::trace::{Reader, Which};
use why::tracefs::Probed;

const EACCES: i32 = 13;
const THREAD: i32 = 7;
const WORKER: i32 = 99;
const LOOKUP: u64 = 1;
const MKDIR: u64 = 9;
/// Functions have their place here as address.
const FUNCTIONS: [&str; 5] = [
    "__x64_sys_mkdir",
    "fuse_mkdir.isra.0",
    "__fuse_simple_request",
    "fuse_lookup",
    "step_into",
];

/// Events with their numbers and fields: three words of 64 bits each.
const EVENTS: [(&str, [&str; 3]); 8] = [
    ("sys_enter", ["id", "-", "-"]),
    ("sys_exit", ["id", "ret", "-"]),
    ("funcgraph_entry", ["func", "depth", "-"]),
    ("funcgraph_exit", ["func", "depth", "retval"]),
    ("fuse_request_send", ["connection", "unique", "opcode"]),
    ("fuse_request_end", ["connection", "unique", "error"]),
    ("fuse_numbered", ["opcode", "unique", "-"]),
    ("fuse_sent", ["opcode", "unique", "-"]),
];

type Record = (i32, &'static str, [u64; 3]);

fn negative(errno: i32) -> u64 {
    i64::from(-errno).cast_unsigned()
}

fn address(function: &str) -> u64 {
    let at = FUNCTIONS.iter().position(|name| *name == function).unwrap();
    0x1000 + 0x100 * u64::try_from(at).unwrap()
}

fn enter(function: &str, depth: u64) -> Record {
    (THREAD, "funcgraph_entry", [address(function), depth, 0])
}

fn leave(function: &str, depth: u64, returned: u64) -> Record {
    (THREAD, "funcgraph_exit", [address(function), depth, returned])
}

fn sent(unique: u64, opcode: u64) -> Record {
    (THREAD, "fuse_request_send", [24, unique, opcode])
}

fn answered(unique: u64, errno: i32) -> Record {
    (WORKER, "fuse_request_end", [24, unique, negative(errno)])
}

fn numbered(unique: u64, opcode: u64) -> Record {
    (THREAD, "fuse_numbered", [opcode, unique, 0])
}

/// One page with these records, a unit of time apart.
fn page(records: &[Record]) -> Vec<u8> {
    let mut data = Vec::new();
    for (thread, event, words) in records {
        let id = EVENTS.iter().position(|(name, _)| name == event).unwrap() + 1;
        // 32 bytes of payload, one unit of time after the record before.
        data.extend((8u32 | 1 << 5).to_le_bytes());
        data.extend(u32::try_from(id).unwrap().to_le_bytes());
        data.extend(thread.to_le_bytes());
        words.iter().for_each(|word| data.extend(word.to_le_bytes()));
    }
    [&1000u64.to_le_bytes()[..], &(data.len() as u64).to_le_bytes(), &data].concat()
}

/// What is found of a mkdir that these records are all of.
fn explain(records: &[Record]) -> Answer {
    let whole = [
        &[(THREAD, "sys_enter", [83, 0, 0])],
        records,
        &[(THREAD, "sys_exit", [83, negative(EACCES), 0])],
    ]
    .concat();
    let mut events = Events::default();
    for (id, (name, fields)) in EVENTS.iter().enumerate() {
        let mut text = format!("name: {name}\nID: {}\nformat:\n", id + 1);
        text.push_str("\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n");
        text.push_str("\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n");
        for (at, field) in fields.iter().enumerate() {
            text.push_str(&format!(
                "\tfield:u64 {field};\toffset:{};\tsize:8;\tsigned:0;\n",
                8 + 8 * at
            ));
        }
        events.add(Format::parse(&text).unwrap());
    }
    let symbols: String = FUNCTIONS
        .iter()
        .map(|name| format!("{:016x} t {name}\n", address(name)))
        .collect();
    let reader = Reader {
        layout: &Layout::parse(include_str!("data/header_page"), include_str!("data/header_event")).unwrap(),
        events: &events,
        symbols: &Symbols::parse(&symbols),
        functions: &Functions::default(),
        probed: &Probed::None,
    };
    let page = page(&whole);
    let syscalls = reader.syscalls([page.as_slice()], Which::Failed);
    let failure = failure(THREAD, 83, "mkdir", EACCES);
    let known = Known {
        functions: reader.functions,
        loading: None,
    };
    let found = answers(&[failure], &syscalls, known, true).remove(0);
    found.expect("the call is in the page").0
}

/// A mkdir that is refused, with what was seen while its request was on its way.
fn refused_mkdir(meanwhile: &[Record]) -> Option<Refused> {
    let before = [
        enter("__x64_sys_mkdir", 0),
        sent(248, LOOKUP),
        enter("fuse_mkdir.isra.0", 1),
        enter("__fuse_simple_request", 2),
    ];
    let after = [
        leave("__fuse_simple_request", 2, negative(EACCES)),
        leave("fuse_mkdir.isra.0", 1, negative(EACCES)),
        leave("__x64_sys_mkdir", 0, negative(EACCES)),
    ];
    let answer = explain(&[&before, meanwhile, &after].concat());
    assert!(matches!(answer.origin, Origin::Remote { .. }), "{answer:?}");
    answer.request
}

fn request(operation: &str, unique: Option<u64>) -> Option<Refused> {
    let operation = operation.to_owned();
    Some(Refused {
        operation,
        unique,
        lost: false,
    })
}

#[test]
fn the_number_is_that_of_the_kernels_event_or_of_the_queue() {
    let known = request("MKDIR", Some(250));
    assert_eq!(refused_mkdir(&[sent(250, MKDIR), answered(250, EACCES)]), known);
    assert_eq!(refused_mkdir(&[sent(0, MKDIR), numbered(250, MKDIR)]), known);
    assert_eq!(refused_mkdir(&[sent(250, MKDIR), numbered(4, MKDIR)]), known);
    assert_eq!(refused_mkdir(&[(THREAD, "fuse_sent", [MKDIR, 250, 0])]), known);
}

#[test]
fn a_number_that_is_of_something_else_is_none() {
    let unknown = request("MKDIR", None);
    assert_eq!(refused_mkdir(&[sent(0, MKDIR)]), unknown);
    assert_eq!(
        refused_mkdir(&[sent(0, MKDIR), numbered(250, LOOKUP)]),
        unknown,
        "no such header there"
    );
    let other = (WORKER, "fuse_sent", [MKDIR, 250, 0]);
    assert_eq!(refused_mkdir(&[sent(0, MKDIR), other]), unknown);
    assert_eq!(
        refused_mkdir(&[sent(250, MKDIR), answered(250, 0)]),
        unknown,
        "it was answered otherwise"
    );
}

#[test]
fn without_events_the_function_that_asked_tells_the_operation() {
    assert_eq!(refused_mkdir(&[]), request("MKDIR", None));
}

#[test]
fn an_operation_without_a_name_has_its_number() {
    assert_eq!(refused_mkdir(&[sent(250, 4711)]), request("OPCODE_4711", Some(250)));
}

#[test]
fn a_name_that_the_server_did_not_find_is_its_answer_though_the_walk_makes_the_errno_again() {
    let walk = |lookup: u64, after: &'static str| {
        explain(&[
            enter("__x64_sys_mkdir", 0),
            enter("fuse_lookup", 1),
            enter("__fuse_simple_request", 2),
            sent(250, LOOKUP),
            leave("__fuse_simple_request", 2, lookup),
            leave("fuse_lookup", 1, 0),
            enter(after, 1),
            leave(after, 1, negative(EACCES)),
            leave("__x64_sys_mkdir", 0, negative(EACCES)),
        ])
    };
    let asked = walk(negative(EACCES), "step_into");
    assert!(matches!(asked.origin, Origin::Remote { .. }), "{asked:?}");
    assert_eq!(asked.certainty, Certainty::Likely);
    assert_eq!(asked.request, request("LOOKUP", Some(250)));
    let found = walk(0, "step_into");
    assert_eq!(found.origin, Origin::Function("step_into".to_owned()));
    assert_eq!(found.request, None);
}
