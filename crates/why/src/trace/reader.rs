//! Parses raw pages into the system calls of each thread, each with the functions that it ran through.

use std::collections::{BTreeMap, BTreeSet};

use super::call_tree::{Event, Tree, Value, is_interrupt};
use super::request::Request;
use super::syscall::{Got, Syscall, is_errno};
use crate::kernel::btf::{Functions, Returns};
use crate::kernel::ring_buffer::{Events, Layout, Missed, Page};
use crate::kernel::symbols::Symbols;
use crate::kernel::tracefs::{GOT, NUMBERED, Probed, SENT};

/// Which system calls are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that failed.
    Failed,
    /// All that were recorded.
    All,
}

/// What it takes to read pages.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// How pages are laid out.
    pub layout: &'a Layout,
    /// The events in them.
    pub events: &'a Events,
    /// The kernel's functions.
    pub symbols: &'a Symbols,
    /// What they return.
    pub functions: &'a Functions,
    /// Whose returns were probed.
    pub probed: &'a Probed,
}

enum What {
    Entry {
        function: String,
        depth: usize,
    },
    Exit {
        function: String,
        depth: usize,
        value: Option<u64>,
        /// How many functions the thread's graph had no room for.
        overrun: u64,
    },
    Returned {
        function: String,
        value: u64,
    },
    Hit {
        address: u64,
        values: Vec<u64>,
    },
    /// A request leaves for a FUSE server.
    Sent(Request),
    /// The number of the request that has just left.
    Numbered {
        opcode: u32,
        unique: u64,
    },
    /// A request of any thread was answered, with this number of an errno.
    Answered {
        connection: u64,
        unique: u64,
        errno: i32,
    },
    Enter,
    Leave {
        number: u64,
        returned: i64,
    },
    Lost,
}

struct Seen {
    time: u64,
    thread: i32,
    what: What,
}

/// A thread's events since it entered its present system call.
#[derive(Default)]
struct Open {
    entered: Option<u64>,
    events: Vec<Event>,
    base: Option<usize>,
    hits: Vec<(u64, u64)>,
    got: Vec<Got>,
    requests: Vec<Request>,
}

impl Reader<'_> {
    /// The failed system calls, or all, in the order of their returns.
    #[must_use]
    pub fn syscalls<'p>(&self, pages: impl IntoIterator<Item = &'p [u8]>, which: Which) -> Vec<Syscall> {
        let mut seen: Vec<Seen> = Vec::new();
        for page in pages {
            self.page(page, &mut seen);
        }
        // A gap may have swallowed the beginning of a call, which then looks like one with no functions at all.
        let lost = seen.iter().any(|seen| matches!(seen.what, What::Lost));
        // Stable, so that what one processor wrote in one tick keeps its order.
        seen.sort_by_key(|seen| seen.time);
        let mut threads: BTreeMap<i32, Open> = BTreeMap::new();
        let mut overruns: BTreeMap<i32, u64> = BTreeMap::new();
        let mut syscalls = Vec::new();
        for Seen { time, thread, what } in seen {
            match what {
                What::Lost => threads.values_mut().for_each(Open::lose),
                What::Enter => {
                    let open = Open {
                        entered: Some(time),
                        ..Open::default()
                    };
                    threads.insert(thread, open);
                }
                What::Leave { number, returned } => {
                    let mut open = threads.remove(&thread).unwrap_or_default();
                    if which == Which::All || is_errno(returned) {
                        self.add_silent(&mut open.events);
                        syscalls.push(Syscall {
                            thread,
                            number,
                            returned,
                            time: (open.entered, time),
                            tree: Tree::build(open.events),
                            lost,
                            hits: open.hits,
                            got: open.got,
                            requests: open.requests,
                        });
                    }
                }
                What::Entry { function, depth } => {
                    let open = threads.entry(thread).or_default();
                    let base = *open.base.get_or_insert(depth);
                    let depth = depth.saturating_sub(base);
                    open.events.push(Event::Entry { time, function, depth });
                }
                What::Exit {
                    function,
                    depth,
                    value,
                    overrun,
                } => {
                    let open = threads.entry(thread).or_default();
                    if overrun > overruns.get(&thread).copied().unwrap_or(0) {
                        overruns.insert(thread, overrun);
                        open.lose();
                    }
                    let depth = depth.saturating_sub(open.base.unwrap_or(depth));
                    let value = value.map(|value| self.value(&function, value));
                    open.events.push(Event::Exit {
                        time,
                        function,
                        depth,
                        value,
                    });
                }
                What::Hit { address, values } => {
                    if let Some(open) = threads.get_mut(&thread) {
                        open.hits.push((time, address));
                        open.got.push(Got { time, address, values });
                    }
                }
                What::Sent(request) => {
                    if let Some(open) = threads.get_mut(&thread) {
                        open.requests.push(Request { time, ..request });
                    }
                }
                What::Numbered { opcode, unique } => {
                    let last = threads.get_mut(&thread).and_then(|open| open.requests.last_mut());
                    if let Some(request) = last
                        && (request.opcode, request.unique) == (opcode, 0)
                    {
                        request.unique = unique;
                    }
                }
                What::Answered {
                    connection,
                    unique,
                    errno,
                } => {
                    // Whoever asked is still waiting; who answers is a thread of its own.
                    let mut waiting = threads.values_mut().flat_map(|open| &mut open.requests);
                    let asked = waiting.find(|request| (request.connection, request.unique) == (connection, unique));
                    if let Some(request) = asked {
                        request.answered = Some(errno);
                    }
                }
                What::Returned { function, value } => {
                    if let Some(open) = threads.get_mut(&thread) {
                        let placed = open.returned(&function, self.value(&function, value));
                        if !placed && self.functions.may_fail(&function) && open.is_inside() {
                            open.lose();
                        }
                    }
                }
            }
        }
        syscalls
    }

    fn value(&self, function: &str, register: u64) -> Value {
        Value {
            register: Some(register),
            returns: self.functions.returns(function).unwrap_or(Returns::Ambiguous),
        }
    }

    /// Returns that the kernel was told not to write down were no errnos; nor is what can hold none by its type.
    fn add_silent(&self, events: &mut [Event]) {
        for event in events {
            if let Event::Exit { function, value, .. } = event
                && value.is_none()
                && (!self.functions.may_fail(function) || self.probed.has(function))
            {
                *value = Some(Value {
                    register: None,
                    returns: self.functions.returns(function).unwrap_or(Returns::Ambiguous),
                });
            }
        }
    }

    /// Every address of a function in these pages.
    #[must_use]
    pub fn addresses<'p>(&self, pages: impl IntoIterator<Item = &'p [u8]>) -> BTreeSet<u64> {
        let mut addresses = BTreeSet::new();
        for page in pages.into_iter().filter_map(|page| Page::parse(self.layout, page).ok()) {
            for record in page.records().flatten() {
                let Some(format) = self.events.of(record.payload) else {
                    continue;
                };
                let fields = ["func", "__probe_func"].iter().filter_map(|name| format.field(name));
                addresses.extend(fields.filter_map(|field| field.unsigned(record.payload)));
            }
        }
        addresses
    }

    fn page(&self, bytes: &[u8], seen: &mut Vec<Seen>) {
        let lost = |time| Seen {
            time,
            thread: 0,
            what: What::Lost,
        };
        let Ok(page) = Page::parse(self.layout, bytes) else {
            seen.push(lost(0));
            return;
        };
        let mut records = page.records().peekable();
        if page.missed() != Missed::Nothing {
            let first = records.peek().and_then(|record| record.as_ref().ok());
            seen.push(lost(first.map_or(0, |record| record.time)));
        }
        for record in records {
            match record {
                Ok(record) => {
                    if let Some((thread, what)) = self.record(record.payload) {
                        let time = record.time;
                        seen.push(Seen { time, thread, what });
                    }
                }
                Err(_) => seen.push(lost(seen.last().map_or(0, |seen| seen.time))),
            }
        }
    }

    fn record(&self, payload: &[u8]) -> Option<(i32, What)> {
        let format = self.events.of(payload)?;
        let unsigned = |name| format.field(name)?.unsigned(payload);
        let signed = |name| format.field(name)?.signed(payload);
        let named = |name| {
            let address = unsigned(name)?;
            let known = self.symbols.name(address);
            Some(known.map_or_else(|| format!("{address:#x}"), str::to_owned))
        };
        let depth = || usize::try_from(unsigned("depth")?).ok();
        let what = match format.name.as_str() {
            "funcgraph_entry" => What::Entry {
                function: named("func")?,
                depth: depth()?,
            },
            "funcgraph_exit" => What::Exit {
                function: named("func")?,
                depth: depth()?,
                value: unsigned("retval"),
                overrun: unsigned("overrun").unwrap_or(0),
            },
            "sys_enter" => What::Enter,
            "sys_exit" => What::Leave {
                number: unsigned("id")?,
                returned: signed("ret")?,
            },
            // Since Linux 6.12 virtio-fs gives a request its number after this event, which then says 0.
            "fuse_request_send" => What::Sent(Request {
                time: 0,
                connection: unsigned("connection")?,
                unique: unsigned("unique")?,
                opcode: u32::try_from(unsigned("opcode")?).ok()?,
                answered: None,
            }),
            "fuse_request_end" => What::Answered {
                connection: unsigned("connection")?,
                unique: unsigned("unique")?,
                errno: i32::try_from(signed("error")?.checked_neg()?).ok()?,
            },
            NUMBERED => What::Numbered {
                opcode: u32::try_from(unsigned("opcode")?).ok()?,
                unique: unsigned("unique")?,
            },
            SENT => What::Sent(Request {
                time: 0,
                connection: 0,
                unique: unsigned("unique")?,
                opcode: u32::try_from(unsigned("opcode")?).ok()?,
                answered: None,
            }),
            name if name.starts_with("site") => What::Hit {
                address: unsigned("__probe_ip")?,
                values: GOT.iter().map_while(|name| unsigned(name)).collect(),
            },
            name if name.starts_with("returned") => What::Returned {
                function: named("__probe_func")?,
                value: signed("value")?.cast_unsigned(),
            },
            _ => return None,
        };
        Some((i32::try_from(signed("common_pid")?).ok()?, what))
    }
}

impl Open {
    /// Whether the graph's first function has not returned. Functions around that one return behind it, and have no exit.
    fn is_inside(&self) -> bool {
        !matches!(self.events.last(), None | Some(Event::Exit { depth: 0, .. }))
    }

    fn lose(&mut self) {
        if self.events.last() != Some(&Event::Lost) {
            self.events.push(Event::Lost);
        }
    }

    /// A probe's value goes to the exit that it belongs to: the graph writes that one first, so it is the last exit of this
    /// function that has none yet. Between the two may be an interrupt, of any length. Answers whether there is that exit.
    fn returned(&mut self, wanted: &str, found: Value) -> bool {
        /// Exits between a function's own and its probe's event: those of tail calls, which return at once with it.
        const LOOKED_AT: usize = 64;
        /// Events of all kinds: no interrupt is as long, and a recording that is not a kernel's may be.
        const WALKED: usize = 1 << 14;
        let mut looked_at = 0;
        let mut interrupt: Option<(String, usize)> = None;
        for event in self.events.iter_mut().rev().take(WALKED) {
            match event {
                Event::Entry { function, depth, .. } => {
                    interrupt = interrupt.filter(|(handler, at)| (handler, at) != (function, depth));
                }
                Event::Lost => {}
                Event::Exit { .. } if interrupt.is_some() => {}
                Event::Exit { function, value, .. } if function == wanted && value.is_none() => {
                    *value = Some(found);
                    return true;
                }
                Event::Exit { .. } if looked_at == LOOKED_AT => return false,
                Event::Exit { function, depth, .. } if is_interrupt(function) => {
                    interrupt = Some((function.clone(), *depth));
                }
                Event::Exit { .. } => looked_at += 1,
            }
        }
        false
    }
}
