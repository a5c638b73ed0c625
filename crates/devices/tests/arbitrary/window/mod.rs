//! Arbitrary bytes as mappings in a DAX window whose front end refuses some. No mapping overlaps another, none is
//! unmapped in part, and the guest's view agrees with a model. The fuzz target `window` runs the same body.

use std::os::unix::fs::FileExt;

use driver::fs::{self, Request, Requests, field_u64};
use driver::{Answers, Guest, Options, RangeError};
use rustix::io::Errno;

use crate::bytes::Bytes;
use crate::daemon::{Daemon, LIMIT};
use crate::resources::Resources;

const PAGE: u64 = 4096;
const WINDOW: u64 = 2 << 20;
/// Mappings mostly lie in so many pages at the start of the window, and in as many of a file: they are to meet each other.
const PAGES: u64 = 24;
/// Some lie in so many at the end of the window. In between there are none.
const LAST_PAGES: u64 = 8;
/// No mapping reaches behind the end of a file: to look there is SIGBUS.
const FILE_PAGES: u64 = 2 * PAGES;
const FILES: [&str; 3] = ["a", "b", "c"];
/// Longer sequences take no input to new places.
const MOST_REQUESTS: u32 = 300;

/// INIT flags of DAX (FUSE 7.31 and 7.36), and the one without which the second word of flags does not count.
const DAX: u64 = 1 << 26 | 1 << 30 | 1 << 33;

/// How many mappings were made, and how many were not.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) granted: u32,
    pub(crate) refused: u32,
}

/// What a page of the window shows: who had it mapped, and which page of which file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shown {
    owner: u64,
    file: u64,
    page: u64,
}

pub(crate) fn run(bytes: &[u8]) -> Outcome {
    let before = Resources::now();
    let daemon = Daemon::sharing(WINDOW, |share| {
        for (number, name) in (0..).zip(FILES) {
            let file = std::fs::File::create(share.join(name)).expect("a file");
            file.set_len(FILE_PAGES * PAGE).expect("a length");
            for page in 0..FILE_PAGES {
                file.write_all_at(&mark(number, page).to_le_bytes(), page * PAGE)
                    .expect("a mark");
            }
        }
        std::fs::File::create(share.join("empty")).expect("a file");
        std::fs::create_dir(share.join("directory")).expect("a directory");
    });
    let mut bytes = Bytes(bytes);
    let outcome = Driver::connect(&daemon, &mut bytes).run(&mut bytes);
    drop(daemon);
    before.await_return();
    outcome
}

/// What a page of a file begins with.
fn mark(file: u64, page: u64) -> u64 {
    0x6d61_726b << 32 | file << 16 | page
}

struct Driver {
    guest: Guest,
    requests: Requests,
    /// Node and lookups of each file, an empty one and a directory.
    nodes: Vec<(u64, u64)>,
    /// What the guest is to see.
    model: Vec<Option<Shown>>,
    answers: Answers,
    outcome: Outcome,
}

impl Driver {
    fn connect(daemon: &Daemon, bytes: &mut Bytes<'_>) -> Self {
        let options = Options {
            packed: bytes.u8() & 1 != 0,
            queue_size: 8,
            places: 4,
            place_size: 1 << 16,
            timeout: LIMIT,
            ..Options::default()
        };
        let mut driver = Self {
            guest: Guest::connect(&daemon.socket(), &options).expect("a guest"),
            requests: Requests::new(0, 0),
            nodes: Vec::new(),
            model: vec![None; (WINDOW / PAGE) as usize],
            answers: Answers::Serve,
            outcome: Outcome::default(),
        };
        driver.begin();
        driver
    }

    fn run(mut self, bytes: &mut Bytes<'_>) -> Outcome {
        let end = bytes.u8();
        let mut requests = 0;
        while !bytes.is_empty() && requests < MOST_REQUESTS {
            requests += 1;
            match bytes.u8() {
                0..=139 => self.map(bytes),
                140..=189 => self.unmap(bytes),
                190..=209 => self.forget(bytes),
                210..=229 => self.answer(Answers::Serve),
                230..=241 => self.answer(Answers::RefuseNextMap(Errno::NOMEM)),
                242..=249 => self.answer(Answers::RefuseMap(Errno::MFILE)),
                _ => {
                    self.end();
                    self.begin();
                }
            }
        }
        match end % 3 {
            0 => self.end(),
            1 => self.reset(),
            // The guest goes as it is.
            _ => {}
        }
        self.outcome
    }

    fn ask(&mut self, make: impl FnOnce(&mut Requests) -> Request) -> Result<Vec<u8>, i32> {
        let request = make(&mut self.requests);
        let answer = self.guest.queues[1].call(&request.readable, request.reply_space);
        let (written, bytes) = answer.expect("a reply");
        let reply = fs::reply(&request, written, &bytes).expect("a well-formed reply");
        reply.map(<[u8]>::to_vec)
    }

    fn begin(&mut self) {
        self.ask(|requests| requests.init(45, DAX)).expect("a session");
        self.nodes = FILES.iter().chain(&["empty", "directory"]).map(|_| (0, 0)).collect();
        for index in 0..self.nodes.len() {
            self.look_up(index);
        }
    }

    fn look_up(&mut self, index: usize) {
        let name = FILES
            .get(index)
            .unwrap_or(&["empty", "directory"][index.saturating_sub(FILES.len()) % 2]);
        let entry = self.ask(|requests| requests.lookup(fs::ROOT, name.as_bytes()));
        let (node, lookups) = &mut self.nodes[index];
        *node = field_u64(&entry.expect("an entry"), 0);
        *lookups += 1;
    }

    fn answer(&mut self, answers: Answers) {
        self.answers = answers;
        self.window().answer(answers);
    }

    fn window(&self) -> &driver::Window {
        self.guest.window().expect("a window")
    }

    fn map(&mut self, bytes: &mut Bytes<'_>) {
        let (choice, wild) = (bytes.u8(), bytes.u8());
        let index = match choice {
            0..=239 => usize::from(choice) % FILES.len(),
            _ => usize::from(choice) % self.nodes.len(),
        };
        let write = choice & 8 != 0;
        let (mut file_page, mut page) = (u64::from(bytes.u8()) % PAGES, u64::from(bytes.u8()) % PAGES);
        let pages = 1 + u64::from(bytes.u8()) % (PAGES / 3);
        let (mut node, _) = self.nodes[index];
        let mut length = pages * PAGE;
        let mut skew = 0;
        match wild {
            // At the very end of the window, or partly behind it.
            0..=8 => page = WINDOW / PAGE - u64::from(wild) % LAST_PAGES,
            9..=11 => skew = 1 + bytes.u64() % (PAGE - 1),
            12..=15 => length = bytes.u64() | 1 << 40,
            // Ends behind the last offset that a file can have.
            16..=19 => file_page = (1 << 51) - 1 + u64::from(bytes.u8()),
            20..=23 => length = 0,
            24..=27 => node = bytes.u64() | 1 << 32,
            28..=31 => page = u64::MAX / PAGE - u64::from(bytes.u8()),
            _ => {}
        }
        let (file_offset, offset) = (file_page * PAGE, (page * PAGE).wrapping_add(skew));
        let result = self.ask(|requests| requests.set_up_mapping(node, file_offset, offset, length, write));
        let mut wanted = self.model.clone();
        if result.is_ok() {
            self.outcome.granted += 1;
            assert!(
                index < FILES.len() && node == self.nodes[index].0,
                "it cannot be mapped: {index} {node}"
            );
            assert!(offset.is_multiple_of(PAGE) && length.is_multiple_of(PAGE) && length > 0);
            assert!(
                offset.checked_add(length).is_some_and(|end| end <= WINDOW),
                "{offset:#x} {length:#x}"
            );
            for (at, page) in (page..page + length / PAGE).zip(file_page..) {
                let file = index as u64;
                wanted[at as usize] = Some(Shown {
                    owner: node,
                    file,
                    page,
                });
            }
        } else {
            self.outcome.refused += 1;
            let errno = result.expect_err("a failure");
            let ordinary = wild > 31 && index < FILES.len();
            assert!(
                !ordinary || page + pages > WINDOW / PAGE || self.answers != Answers::Serve,
                "{errno}: page {page} of the window, {pages} pages from {file_page} on of file {index}"
            );
        }
        self.compare(&wanted);
    }

    fn unmap(&mut self, bytes: &mut Bytes<'_>) {
        let ranges: Vec<_> = (0..=bytes.u8() % 3)
            .map(|_| {
                let (page, pages) = (u64::from(bytes.u8()) % PAGES, 1 + u64::from(bytes.u8()) % (PAGES / 2));
                match bytes.u8() {
                    0..=3 => (0, WINDOW),
                    4..=7 => (bytes.u64(), bytes.u64()),
                    8..=11 => (page * PAGE, u64::MAX),
                    12..=15 => (WINDOW - PAGE, pages * PAGE),
                    _ => (page * PAGE, pages * PAGE),
                }
            })
            .collect();
        let result = self.ask(|requests| requests.remove_mappings(0, &ranges));
        let mut wanted = self.model.clone();
        if result.is_ok() {
            for (offset, length) in ranges {
                wanted[(offset / PAGE) as usize..][..(length / PAGE) as usize].fill(None);
            }
        }
        self.compare(&wanted);
    }

    fn forget(&mut self, bytes: &mut Bytes<'_>) {
        let choice = bytes.u8();
        let index = usize::from(choice) % self.nodes.len();
        if choice & 0xc0 == 0xc0 {
            self.look_up(index);
            return;
        }
        let (node, lookups) = self.nodes[index];
        let count = match choice & 0x30 {
            0x30 => lookups - 1,
            _ => lookups,
        };
        let forget = self.requests.forget(node, count);
        self.guest.queues[0].call(&forget.readable, 0).expect("it is taken");
        let mut wanted = self.model.clone();
        self.nodes[index].1 -= count;
        if count == lookups {
            for page in &mut wanted {
                page.take_if(|shown| shown.owner == node);
            }
            self.look_up(index);
        }
        self.compare(&wanted);
    }

    /// DESTROY: the window is empty.
    fn end(&mut self) {
        self.ask(Requests::destroy).expect("it is granted");
        self.assert_empty();
    }

    /// The guest reboots: the front end drops what is mapped, and is asked for nothing.
    fn reset(&mut self) {
        self.window().clear().expect("it can be emptied");
        let asked = self.window().asked();
        self.guest.frontend().reset_device().expect("it is granted");
        assert_eq!(self.window().asked(), asked, "the front end has dropped everything");
        self.assert_empty();
    }

    fn assert_empty(&mut self) {
        let window = self.window();
        assert_eq!(window.memory().count(), 0, "something is mapped yet");
        assert_eq!(window.mapped(), window.unmapped());
        assert_eq!(window.violations(), 0, "the front end was asked for what must not be");
        self.model.fill(None);
    }

    /// The window shows what is wanted. What the front end has refused may be missing, where it was not asked for itself.
    fn compare(&mut self, wanted: &[Option<Shown>]) {
        assert_eq!(
            self.window().violations(),
            0,
            "the front end was asked for what must not be"
        );
        let refuses = self.answers != Answers::Serve;
        let end = WINDOW / PAGE;
        for page in (0..2 * PAGES).chain(end - LAST_PAGES..end) {
            let (wanted, before) = (wanted[page as usize], &mut self.model[page as usize]);
            let mut bytes = [0; 8];
            let memory = self.guest.window().expect("a window").memory();
            let shown = match memory.load(page * PAGE, &mut bytes) {
                Ok(()) => Some(u64::from_le_bytes(bytes)),
                Err(RangeError::NotMapped { .. }) => None,
                Err(error) => panic!("{error}"),
            };
            let marked = wanted.map(|shown| mark(shown.file, shown.page));
            // A part of a mapping that was cut is mapped again, and that may be refused.
            let lost = refuses && shown.is_none() && wanted == *before;
            assert!(
                shown == marked || lost,
                "page {page} shows {shown:x?}, and is to show {wanted:?} in place of {before:?}"
            );
            *before = if shown.is_some() { wanted } else { None };
        }
        if matches!(self.answers, Answers::RefuseNextMap(_)) {
            // It may or may not have been used up.
            self.answer(Answers::Serve);
        }
    }
}
