//! Return values of functions, in pages made by the kernel's descriptions. Some come from graphs that have them, in
//! two versions of the record (`funcgraph-retval`, of kernels with CONFIG_FUNCTION_GRAPH_RETVAL, which no Debian
//! kernel has). Others come from probes beside a graph, whose values come late.

mod failure;

use failure::failure;
use why::Certainty;
use why::Loading;
use why::alignment::Known;
use why::btf::Functions;
use why::origin::{Answer, answers};
use why::ring_buffer::{Events, Format, Layout};
use why::symbols::Symbols;
use why::trace::{Reader, Which};
use why::tracefs::Probed;

const EACCES: i32 = 13;
const THREAD: i32 = 7;
const BIND: u64 = 49;
const COMMON: &str = "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
                      \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
                      \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
                      \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n";
const ENTRY: &str = "\tfield:unsigned long func;\toffset:8;\tsize:8;\tsigned:0;\n\
                     \tfield:int depth;\toffset:16;\tsize:4;\tsigned:1;\n";
/// As Linux 6.5 to 6.12 have it.
const EXIT_WITH_TIMES_BEHIND: &str = "\tfield:unsigned long func;\toffset:8;\tsize:8;\tsigned:0;\n\
                                      \tfield:unsigned long retval;\toffset:16;\tsize:8;\tsigned:0;\n\
                                      \tfield:int depth;\toffset:24;\tsize:4;\tsigned:1;\n\
                                      \tfield:unsigned int overrun;\toffset:28;\tsize:4;\tsigned:0;\n\
                                      \tfield:unsigned long long calltime;\toffset:32;\tsize:8;\tsigned:0;\n\
                                      \tfield:unsigned long long rettime;\toffset:40;\tsize:8;\tsigned:0;\n";
/// As a later kernel may order it.
const EXIT_WITH_RETURN_LAST: &str = "\tfield:unsigned long func;\toffset:8;\tsize:8;\tsigned:0;\n\
                                     \tfield:int depth;\toffset:16;\tsize:4;\tsigned:1;\n\
                                     \tfield:unsigned int overrun;\toffset:20;\tsize:4;\tsigned:0;\n\
                                     \tfield:unsigned long retval;\toffset:24;\tsize:8;\tsigned:0;\n";
/// As kernels without a return value have it.
const EXIT_ALONE: &str = "\tfield:unsigned long func;\toffset:8;\tsize:8;\tsigned:0;\n\
                          \tfield:int depth;\toffset:16;\tsize:4;\tsigned:1;\n";
/// Of a probe on all functions.
const RETURNED: &str = "\tfield:unsigned long __probe_func;\toffset:8;\tsize:8;\tsigned:0;\n\
                        \tfield:unsigned long __probe_ret_ip;\toffset:16;\tsize:8;\tsigned:0;\n\
                        \tfield:s64 value;\toffset:24;\tsize:8;\tsigned:1;\n";
const SYS_ENTER: &str = "\tfield:long id;\toffset:8;\tsize:8;\tsigned:1;\n";
const SYS_EXIT: &str = "\tfield:long id;\toffset:8;\tsize:8;\tsigned:1;\n\
                        \tfield:long ret;\toffset:16;\tsize:8;\tsigned:1;\n";

/// The functions and what they return.
const FUNCTIONS: [(&str, &str); 8] = [
    ("__x64_sys_bind", "long"),
    ("__inet_bind", "int"),
    ("ns_capable", "bool"),
    ("cap_capable", "int"),
    ("release_sock", "nothing"),
    ("__sysvec_apic_timer_interrupt", "nothing"),
    ("hrtimer_interrupt", "nothing"),
    ("hidden", "int"),
];

/// The events' fields in this kernel, and pages of it.
struct Kernel {
    formats: Vec<Format>,
    data: Vec<u8>,
    loading: Option<Loading>,
}

impl Kernel {
    fn new(exit: &str) -> Self {
        let events = [
            ("funcgraph_entry", ENTRY),
            ("funcgraph_exit", exit),
            ("sys_enter", SYS_ENTER),
            ("sys_exit", SYS_EXIT),
            ("returned", RETURNED),
        ];
        let formats = events.iter().enumerate().map(|(id, (name, fields))| {
            Format::parse(&format!("name: {name}\nID: {}\nformat:\n{COMMON}{fields}", id + 1)).unwrap()
        });
        Self {
            formats: formats.collect(),
            data: Vec::new(),
            loading: None,
        }
    }

    /// Writes a record, one unit of time after the one before; a field that the event has not is not written.
    fn record(&mut self, event: &str, fields: &[(&str, u64)]) {
        let format = self.formats.iter().find(|format| format.name == event).unwrap();
        let mut payload = [0; 48];
        payload[..2].copy_from_slice(&u16::try_from(format.id).unwrap().to_le_bytes());
        payload[4..8].copy_from_slice(&THREAD.to_le_bytes());
        for (name, value) in fields {
            if let Some(field) = format.field(name) {
                payload[field.offset..][..field.size].copy_from_slice(&value.to_le_bytes()[..field.size]);
            }
        }
        self.data.extend((12u32 | 1 << 5).to_le_bytes());
        self.data.extend(payload);
    }

    /// A function's run.
    fn call(&mut self, function: &str, depth: u64, retval: u64, inside: impl FnOnce(&mut Self)) {
        let func = address(function);
        self.record("funcgraph_entry", &[("func", func), ("depth", depth)]);
        inside(self);
        let fields = [
            ("func", func),
            ("depth", depth),
            ("retval", retval),
            ("calltime", 1),
            ("rettime", 2),
        ];
        self.record("funcgraph_exit", &fields);
    }

    /// What a probe writes down of a return that was an errno.
    fn returned(&mut self, function: &str, value: u64) {
        self.record("returned", &[("__probe_func", address(function)), ("value", value)]);
    }

    /// What is found of the bind() that this kernel has written down.
    fn explain(self, probed: &Probed) -> Answer {
        let mut events = Events::default();
        self.formats.into_iter().for_each(|format| events.add(format));
        let symbols: String = FUNCTIONS
            .iter()
            .map(|(name, _)| format!("{:x} t {name}\n", address(name)))
            .collect();
        let returns: Vec<_> = FUNCTIONS
            .iter()
            .map(|(name, kind)| format!("\"{name}\":\"{kind}\""))
            .collect();
        let functions: Functions = serde_json::from_str(&format!("{{{}}}", returns.join(","))).unwrap();
        let reader = Reader {
            layout: &Layout::parse(include_str!("data/header_page"), include_str!("data/header_event")).unwrap(),
            events: &events,
            symbols: &Symbols::parse(&symbols),
            functions: &functions,
            probed,
        };
        let length = self.data.len() as u64;
        let page = [&1000u64.to_le_bytes()[..], &length.to_le_bytes(), &self.data].concat();
        let syscalls = reader.syscalls([page.as_slice()], Which::Failed);
        let failure = failure(THREAD, BIND, "bind", EACCES);
        let known = Known {
            functions: &functions,
            loading: self.loading.as_ref(),
        };
        let mut inferred = failure.clone();
        inferred.inferred = true;
        // That a call failed as well, though not in the kernel's eyes, changes nothing for the next one.
        let mut found = answers(&[inferred, failure.clone()], &syscalls, known, true);
        // The one that is in the recording was dropped, and this came after it.
        let mut later = failure.clone();
        later.dropped_before = 1;
        assert!(
            answers(&[later, failure], &syscalls, known, true)
                .iter()
                .all(Option::is_none)
        );
        let answer = found.remove(1).unwrap().0;
        assert!(found[0].is_none());
        assert_eq!(syscalls[0].tree.complete, answer.certainty != Certainty::Unknown);
        answer
    }
}

fn address(function: &str) -> u64 {
    let at = FUNCTIONS.iter().position(|(name, _)| *name == function).unwrap();
    0x1000 + 0x100 * at as u64
}

/// An errno as an int is returned: the upper half of the register is what it happens to be.
fn int(errno: i32) -> u64 {
    u64::from((-errno).cast_unsigned())
}

/// bind() of a low port without the capability.
fn bind(exit: &str) -> Answer {
    let mut kernel = Kernel::new(exit);
    let refused = i64::from(-EACCES).cast_unsigned();
    kernel.record("sys_enter", &[("id", BIND)]);
    kernel.call("__x64_sys_bind", 0, refused, |kernel| {
        kernel.call("__inet_bind", 1, int(EACCES), |kernel| {
            // Only the lowest byte of a truth value counts.
            kernel.call("ns_capable", 2, 0xffff_ff00, |kernel| {
                kernel.call("cap_capable", 3, int(1), |_| {});
            });
        });
        // A function that returns nothing leaves its neighbour's errno in the register.
        kernel.call("release_sock", 1, int(EACCES), |_| {});
    });
    kernel.record("sys_exit", &[("id", BIND), ("ret", refused)]);
    kernel.explain(&Probed::None)
}

#[test]
fn returns_in_the_graph_name_the_origin_and_the_check_before_it() {
    for exit in [EXIT_WITH_TIMES_BEHIND, EXIT_WITH_RETURN_LAST] {
        let answer = bind(exit);
        assert_eq!(answer.chain, ["__x64_sys_bind", "__inet_bind"]);
        assert_eq!(answer.origin.function(), "__inet_bind");
        let check = answer.check.unwrap();
        assert_eq!((check.function.as_str(), check.errno), ("cap_capable", Some(1)));
        assert_eq!(answer.certainty, Certainty::Likely);
    }
}

#[test]
fn a_function_that_calls_nothing_that_fails_made_the_errno_for_certain() {
    let mut kernel = Kernel::new(EXIT_WITH_TIMES_BEHIND);
    let refused = i64::from(-EACCES).cast_unsigned();
    kernel.record("sys_enter", &[("id", BIND)]);
    kernel.call("__x64_sys_bind", 0, refused, |kernel| {
        kernel.call("__inet_bind", 1, int(EACCES), |kernel| {
            kernel.call("release_sock", 2, 0, |_| {});
        });
    });
    kernel.record("sys_exit", &[("id", BIND), ("ret", refused)]);
    let answer = kernel.explain(&Probed::None);
    assert_eq!(
        (answer.origin.function(), answer.certainty),
        ("__inet_bind", Certainty::Certain)
    );
}

#[test]
fn a_function_that_is_named_although_it_returned_something_else_is_not_certain() {
    let mut kernel = Kernel::new(EXIT_WITH_TIMES_BEHIND);
    let refused = i64::from(-EACCES).cast_unsigned();
    kernel.record("sys_enter", &[("id", BIND)]);
    kernel.call("__x64_sys_bind", 0, refused, |kernel| {
        kernel.call("__inet_bind", 1, int(EACCES), |kernel| {
            kernel.call("cap_capable", 2, 0, |_| {});
        });
    });
    kernel.record("sys_exit", &[("id", BIND), ("ret", refused)]);
    // Nothing in __inet_bind() loads it.
    kernel.loading = Some(Loading {
        plainly: [("cap_capable".to_owned(), EACCES)].into(),
        ..Loading::default()
    });
    let answer = kernel.explain(&Probed::None);
    assert_eq!(
        (answer.origin.function(), answer.certainty),
        ("cap_capable", Certainty::Likely)
    );
}

/// bind() that `cap_capable()` refused for all that is known, where a probe tells of it after what else the kernel writes down.
fn bind_with_a_late_probe(before: impl FnOnce(&mut Kernel)) -> Answer {
    let mut kernel = Kernel::new(EXIT_ALONE);
    let refused = i64::from(-EACCES).cast_unsigned();
    kernel.record("sys_enter", &[("id", BIND)]);
    kernel.call("__x64_sys_bind", 0, 0, |kernel| {
        kernel.call("__inet_bind", 1, 0, |kernel| {
            kernel.call("cap_capable", 2, 0, |_| {});
            before(kernel);
            kernel.returned("cap_capable", int(EACCES));
        });
        kernel.returned("__inet_bind", int(EACCES));
    });
    kernel.returned("__x64_sys_bind", refused);
    kernel.record("sys_exit", &[("id", BIND), ("ret", refused)]);
    kernel.explain(&Probed::All)
}

#[test]
fn a_probe_is_late_by_interrupts_in_interrupts_that_run_its_function_too() {
    let answer = bind_with_a_late_probe(|kernel| {
        kernel.call("__sysvec_apic_timer_interrupt", 2, 0, |kernel| {
            kernel.call("cap_capable", 3, 0, |_| {});
            kernel.call("__sysvec_apic_timer_interrupt", 3, 0, |kernel| {
                kernel.call("cap_capable", 4, 0, |_| {});
            });
            kernel.call("cap_capable", 3, 0, |_| {});
        });
    });
    assert_eq!(
        (answer.origin.function(), answer.certainty),
        ("cap_capable", Certainty::Certain)
    );
}

#[test]
fn a_return_of_a_function_that_the_graph_has_not_leaves_nothing_certain() {
    // Deeper than the graph goes: its value comes and no exit is there.
    let answer = bind_with_a_late_probe(|kernel| kernel.returned("hidden", int(EACCES)));
    assert_eq!(answer.certainty, Certainty::Unknown);
}

#[test]
fn a_graph_that_ran_out_of_room_leaves_nothing_certain() {
    let certainty = |overrun: u64| {
        let mut kernel = Kernel::new(EXIT_WITH_RETURN_LAST);
        let refused = i64::from(-EACCES).cast_unsigned();
        kernel.record("sys_enter", &[("id", BIND)]);
        kernel.call("__x64_sys_bind", 0, refused, |kernel| {
            let func = ("func", address("__inet_bind"));
            kernel.record("funcgraph_entry", &[func, ("depth", 1)]);
            let fields = [func, ("depth", 1), ("retval", int(EACCES)), ("overrun", overrun)];
            kernel.record("funcgraph_exit", &fields);
        });
        kernel.record("sys_exit", &[("id", BIND), ("ret", refused)]);
        kernel.explain(&Probed::None).certainty
    };
    assert_eq!(certainty(0), Certainty::Certain);
    assert_eq!(certainty(1), Certainty::Unknown);
}

#[test]
fn a_probe_is_late_by_an_interrupt_of_any_length() {
    for length in [0, 1, 63, 64, 1000] {
        let answer = bind_with_a_late_probe(|kernel| {
            kernel.call("__sysvec_apic_timer_interrupt", 2, 0, |kernel| {
                (0..length).for_each(|_| kernel.call("hrtimer_interrupt", 3, 0, |_| {}));
            });
        });
        assert_eq!(answer.origin.function(), "cap_capable", "{length}");
        assert_eq!(answer.certainty, Certainty::Certain, "{length}");
    }
}

#[test]
fn a_probe_that_is_late_by_more_than_is_understood_leaves_nothing_certain() {
    let answer = bind_with_a_late_probe(|kernel| {
        (0..1000).for_each(|_| kernel.call("release_sock", 2, 0, |_| {}));
    });
    assert_eq!(answer.certainty, Certainty::Unknown);
}
