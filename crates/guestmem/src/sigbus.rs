//! Keeps the process alive when mapped guest memory is no longer there (SIGBUS).
//!
//! A mapping can outlive its contents: any owner of the file can shorten it, a huge page can be missing, a disk can
//! fail. The thread that accesses such a page gets SIGBUS, which ends the process. A handler for the whole process,
//! installed with the first mapping, looks the address up among the registered mappings. If the address is in one,
//! the handler maps a zero page there and marks the mapping as lost; the interrupted access then succeeds. Other
//! modules handle the loss: cursors report [`Fault`](crate::CursorError::Fault), and a queue that lies there is
//! retired. Any other SIGBUS goes to the previous disposition.
//!
//! **One page at a time.** The handler replaces only the faulting page (a huge page, if the mapping has those), not
//! the rest of the mapping:
//! - a missing huge page or an unreadable block does not affect the pages behind it, which the guest still uses;
//! - for the other pages behind the end of the file the kernel still returns EFAULT. In replaced pages, its system
//!   calls succeed, and would write zeros into files.
//!
//! The number of replaced pages stays small, because cursors and queues avoid a mapping once it is lost. If the
//! kernel accepts no more mappings (`vm.max_map_count`), the whole mapping is replaced by one.
//!
//! **Async-signal-safety.** The handler takes no lock, allocates nothing and cannot panic. It loads and stores
//! atomics, and makes at most three system calls: mmap(2), sigaction(2) and raise(3). POSIX does not list mmap as
//! async-signal-safe. On Linux it is a plain system call. Its wrapper in libc has no state but errno, which the
//! handler preserves. The handler interrupts a load or store of this crate, never an allocator or libc, because
//! nothing else accesses these pages.
//!
//! **Races.** A thread that accesses a mapping owns a handle on it. A mapping leaves the registry before it is
//! unmapped, when the last handle is dropped. Therefore the entry that a handler needs does not change while the
//! handler runs. Other entries may change meanwhile. A length of 0 removes an entry before anything else in it
//! changes, and the handler loads the length again after the start. Two threads may fault on one page: both map a
//! zero page there, and what the first has stored into it is lost, which is no worse than before. A thread may also
//! access the zero page that another thread's fault has mapped there. The mark is set before the page is mapped, and
//! is checked after the access.
#![expect(
    unsafe_code,
    reason = "a signal handler, and pages that it maps over registered mappings"
)]

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering, compiler_fence, fence};

/// Mappings that are registered and lost.
static LOST: AtomicUsize = AtomicUsize::new(0);

/// The registry: a list that only grows, whose entries are used again.
static FIRST: Entry = Entry::new();

static INSTALLED: OnceLock<()> = OnceLock::new();

/// The disposition before ours. Written before our handler is installed.
static EARLIER_HANDLER: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);
static EARLIER_FLAGS: AtomicI32 = AtomicI32::new(0);

/// Whether part of any mapping in this process is lost. Only then is `is_range_lost` or a look at a mapping of interest: this is one
/// relaxed load. Call it after the access that may have met the loss.
#[inline]
pub fn is_any_memory_lost() -> bool {
    // Loads and stores of guest memory come first: this thread's handler runs in the middle of them, and another thread's has
    // set the mark before they find its page. On x86-64 neither fence is an instruction.
    compiler_fence(Ordering::SeqCst);
    fence(Ordering::Acquire);
    LOST.load(Ordering::Relaxed) != 0
}

/// Whether the range touches a lost mapping.
#[inline]
pub(crate) fn is_range_lost(start: *mut u8, length: usize) -> bool {
    is_any_memory_lost() && is_range_in_lost_mapping(start.addr(), length)
}

#[cold]
fn is_range_in_lost_mapping(start: usize, length: usize) -> bool {
    FIRST.list().any(|entry| {
        entry.lost.load(Ordering::SeqCst)
            && entry.mapping().is_some_and(|mapping| {
                start < mapping.start.saturating_add(mapping.length) && mapping.start < start.saturating_add(length)
            })
    })
}

/// A mapping's place in the registry. Drop it before the mapping is unmapped.
#[derive(Debug)]
pub(crate) struct Registration(&'static Entry);

impl Registration {
    /// Protects the `length` bytes from `start` on, a shared mapping for reading and writing with pages of `page_size`.
    ///
    /// # Safety
    /// They are mapped until this value is dropped, no Rust reference ever points there, and whoever touches them keeps this
    /// value alive meanwhile.
    pub(crate) unsafe fn new(start: *mut u8, length: usize, page_size: usize) -> Registration {
        INSTALLED.get_or_init(install);
        let entry = FIRST.take();
        entry.start.store(start.expose_provenance(), Ordering::SeqCst);
        entry.page_size.store(page_size, Ordering::SeqCst);
        entry.length.store(length, Ordering::SeqCst);
        Registration(entry)
    }

    /// Whether part of the mapping was not there.
    #[inline]
    pub(crate) fn is_lost(&self) -> bool {
        is_any_memory_lost() && self.0.lost.load(Ordering::Relaxed)
    }

    /// The offset at which the loss was noticed, for the first caller.
    pub(crate) fn take_report(&self) -> Option<usize> {
        let first = self.is_lost() && !self.0.reported.swap(true, Ordering::SeqCst);
        first.then(|| self.0.lost_at.load(Ordering::SeqCst))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let entry = self.0;
        entry.length.store(0, Ordering::SeqCst);
        if entry.lost.swap(false, Ordering::SeqCst) {
            LOST.fetch_sub(1, Ordering::SeqCst);
        }
        entry.reported.store(false, Ordering::SeqCst);
        entry.taken.store(false, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Entry {
    start: AtomicUsize,
    /// 0: no mapping.
    length: AtomicUsize,
    page_size: AtomicUsize,
    lost: AtomicBool,
    /// Offset of the first fault.
    lost_at: AtomicUsize,
    reported: AtomicBool,
    /// Has an owner.
    taken: AtomicBool,
    next: OnceLock<&'static Entry>,
}

/// What a handler knows of a mapping.
struct Mapping {
    start: usize,
    length: usize,
    page_size: usize,
}

impl Entry {
    const fn new() -> Entry {
        Entry {
            start: AtomicUsize::new(0),
            length: AtomicUsize::new(0),
            page_size: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
            lost_at: AtomicUsize::new(0),
            reported: AtomicBool::new(false),
            taken: AtomicBool::new(false),
            next: OnceLock::new(),
        }
    }

    /// This entry and those behind it. `OnceLock::get` is one atomic load.
    fn list(&'static self) -> impl Iterator<Item = &'static Entry> {
        std::iter::successors(Some(self), |entry| entry.next.get().copied())
    }

    /// Takes a free entry, or appends one.
    fn take(&'static self) -> &'static Entry {
        let is_free = |entry: &&Entry| !entry.taken.swap(true, Ordering::SeqCst);
        if let Some(entry) = self.list().find(is_free) {
            return entry;
        }
        let new: &'static Entry = Box::leak(Box::new(Entry::new()));
        new.taken.store(true, Ordering::SeqCst);
        let mut last = self;
        // Whoever appends at the same time moves the end of the list.
        while last.next.set(new).is_err() {
            last = last.next.get().copied().unwrap_or(last);
        }
        new
    }

    /// The mapping, unless there is none or it is about to change.
    fn mapping(&self) -> Option<Mapping> {
        let length = self.length.load(Ordering::SeqCst);
        let start = self.start.load(Ordering::SeqCst);
        let page_size = self.page_size.load(Ordering::SeqCst);
        let stable = length != 0 && page_size != 0 && self.length.load(Ordering::SeqCst) == length;
        stable.then_some(Mapping {
            start,
            length,
            page_size,
        })
    }

    /// Marks the mapping as lost, and puts a zero page under `offset`. False if the kernel refuses.
    fn replace(&self, mapping: &Mapping, offset: usize) -> bool {
        self.mark(offset);
        let first = offset - offset % mapping.page_size;
        mapping.replace(first, mapping.page_size)
            || mapping.replace(0, mapping.length.next_multiple_of(mapping.page_size))
    }

    /// When this returns the mark is there, and counted, whichever thread's it is.
    fn mark(&self, offset: usize) {
        if self.lost.load(Ordering::SeqCst) {
            return;
        }
        self.lost_at.store(offset, Ordering::SeqCst);
        LOST.fetch_add(1, Ordering::SeqCst);
        if self.lost.swap(true, Ordering::SeqCst) {
            LOST.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Mapping {
    fn replace(&self, offset: usize, length: usize) -> bool {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let at = ptr::with_exposed_provenance_mut::<c_void>(self.start.wrapping_add(offset));
        // SAFETY: whole pages of a registered mapping, which the interrupted thread keeps mapped, and to which no Rust reference
        // points: others see their bytes change, as a guest could have changed them.
        let mapped = unsafe { libc::mmap(at, length, protection, flags, -1, 0) };
        mapped != libc::MAP_FAILED
    }
}

/// Makes `on_sigbus` the handler. If the kernel refuses, which it has no reason to, SIGBUS is as deadly as it was.
fn install() {
    let mut earlier = no_action();
    // SAFETY: stores the present disposition into `earlier`, and changes nothing.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &mut earlier) } != 0 {
        return;
    }
    EARLIER_HANDLER.store(earlier.sa_sigaction, Ordering::SeqCst);
    EARLIER_FLAGS.store(earlier.sa_flags, Ordering::SeqCst);
    let mut action = no_action();
    action.sa_sigaction = on_sigbus as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
    // On the stack for signals where the thread has one, as Rust's own handler for stack overflows needs it.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for, and is async-signal-safe.
    let _refused = unsafe { libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) };
}

/// The default disposition, with no signal blocked.
fn no_action() -> libc::sigaction {
    // SAFETY: a structure of numbers, an optional function and a set of signals, for all of which zeros are a value.
    unsafe { std::mem::zeroed() }
}

extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: gives the address of this thread's errno.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; it is valid as long as the thread.
    let saved = unsafe { *errno };
    // SAFETY: SA_SIGINFO: the kernel passes a valid structure, which nobody changes meanwhile.
    let known = unsafe { &*info };
    let code = known.si_code;
    // Other codes have no address, or are about no access of this thread, or cannot be helped by another page.
    let handled = matches!(code, libc::BUS_ADRERR | libc::BUS_MCEERR_AR) && {
        // SAFETY: with these codes the field is set.
        let address = unsafe { known.si_addr() }.addr();
        FIRST.list().any(|entry| {
            entry.mapping().is_some_and(|mapping| {
                let offset = address.wrapping_sub(mapping.start);
                offset < mapping.length && entry.replace(&mapping, offset)
            })
        })
    };
    // A warning that a page which nobody uses yet went bad (BUS_MCEERR_AO): the access that meets it is another signal.
    let is_advice = code == libc::BUS_MCEERR_AO;
    if !handled && !is_advice {
        pass_on(signal, code, info, context);
    }
    // SAFETY: as for the load.
    unsafe { *errno = saved };
}

/// Does what would have been done without us. After the default disposition is back, the fault happens again and is deadly.
fn pass_on(signal: c_int, code: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let handler = EARLIER_HANDLER.load(Ordering::SeqCst);
    // kill(2) and the like: nothing happens again by itself.
    let is_sent = code <= 0;
    if handler == libc::SIG_IGN && is_sent {
        return;
    }
    // A fault cannot be ignored.
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // SAFETY: the default disposition, for which nothing has to hold.
        let _refused = unsafe { libc::sigaction(signal, &no_action(), ptr::null_mut()) };
        if is_sent {
            // SAFETY: sends this thread a signal, which is blocked until the handler has returned.
            let _refused = unsafe { libc::raise(signal) };
        }
        return;
    }
    if EARLIER_FLAGS.load(Ordering::SeqCst) & libc::SA_SIGINFO != 0 {
        // SAFETY: neither of the two constants, so that it is a function, of this type with that flag.
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = unsafe { std::mem::transmute(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: as above, of this type without the flag.
        let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
        handler(signal);
    }
}
