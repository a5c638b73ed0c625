//! Causes of failed requests: the host's system call that failed, or our rule that refused the request.
//!
//! The thread that serves a request remembers the cause, only while failures are reported (`Watch`). Successful calls
//! never get here, and the code for failures is out of line, so that it does not slow the rest. The last cause
//! counts: if an operation overcomes an error by another attempt and that fails too, the second error is reported.

use std::cell::{Cell, RefCell};

use crate::fs::{Errno, Result};

/// What an errno comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A system call of the host failed.
    Call {
        /// The call with its arguments. Descriptors are named for what they are of: `parent`, `node`, `file`. One line of printable
        /// text, whatever names the guest gives.
        call: String,
        /// What the host answered; not always what the guest is given.
        errno: Errno,
    },
    /// No call was made, or none failed.
    Rule(&'static str),
}

/// A cause, and the errno that the guest is given for it.
struct Noted(Cause, Errno);

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unwatched,
    Watched,
    Noted,
}

thread_local! {
    /// Apart from `NOTED`, so that a request that succeeds touches nothing that needs a destructor.
    static STATE: Cell<State> = const { Cell::new(State::Unwatched) };
    static NOTED: RefCell<Option<Noted>> = const { RefCell::new(None) };
}

/// The thread remembers causes until this is dropped.
#[must_use]
pub(crate) struct Watch(());

impl Watch {
    pub(crate) fn begin() -> Watch {
        STATE.set(State::Watched);
        Watch(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if STATE.replace(State::Unwatched) == State::Noted {
            NOTED.take();
        }
    }
}

/// What `errno` comes from, if that is known.
pub(crate) fn of(errno: Errno) -> Option<Cause> {
    if STATE.get() != State::Noted {
        return None;
    }
    let noted = NOTED.take();
    noted
        .filter(|Noted(_, given)| *given == errno)
        .map(|Noted(cause, _)| cause)
}

/// Does something whose errors are no cause of anything.
pub(crate) fn aside<T>(work: impl FnOnce() -> T) -> T {
    let state = STATE.replace(State::Unwatched);
    let done = work();
    STATE.set(state);
    done
}

/// The last cause, out of the way of others.
pub(crate) struct SetAside(Option<Noted>);

/// To be asked before something is tried that may fail and be of no account.
pub(crate) fn set_aside() -> SetAside {
    SetAside(match STATE.get() {
        State::Noted => NOTED.take(),
        State::Unwatched | State::Watched => None,
    })
}

impl SetAside {
    /// Makes it the last cause again.
    pub(crate) fn back(self) {
        if let Some(noted) = self.0 {
            NOTED.replace(Some(noted));
            STATE.set(State::Noted);
        }
    }
}

#[cold]
#[inline(never)]
fn note(given: Errno, cause: impl FnOnce() -> Cause) {
    if STATE.get() != State::Unwatched {
        let cause = cause();
        NOTED.replace(Some(Noted(cause, given)));
        STATE.set(State::Noted);
    }
}

impl Errno {
    /// This errno, since a rule of ours refuses the request. `rule` is the end of a sentence: "refused: ...".
    #[cold]
    #[inline(never)]
    pub(crate) fn rule(self, rule: &'static str) -> Errno {
        note(self, || Cause::Rule(rule));
        self
    }

    /// This errno in place of the last one, from the same cause.
    pub(crate) fn in_place_of_the_last(self) -> Errno {
        if STATE.get() == State::Noted {
            NOTED.with_borrow_mut(|noted| {
                if let Some(Noted(_, given)) = noted {
                    *given = self;
                }
            });
        }
        self
    }
}

/// The answer of the host to a system call. There is no other way from its errno to one for the guest.
pub(crate) trait HostResult<T> {
    /// Of `call`, which is only put into words if it failed and somebody wants to know.
    fn of(self, call: impl FnOnce() -> String) -> Result<T>;
}

impl<T> HostResult<T> for rustix::io::Result<T> {
    #[inline]
    fn of(self, call: impl FnOnce() -> String) -> Result<T> {
        match self {
            Ok(answer) => Ok(answer),
            Err(errno) => Err(failed(errno.raw_os_error(), call)),
        }
    }
}

impl<T> HostResult<T> for std::io::Result<T> {
    fn of(self, call: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| failed(error.raw_os_error().unwrap_or(libc::EIO), call))
    }
}

#[cold]
#[inline(never)]
fn failed(errno: i32, call: impl FnOnce() -> String) -> Errno {
    // The daemon's limit of open files is not one of the guest's process: to that, the system has run out.
    let given = if errno == libc::EMFILE { libc::ENFILE } else { errno };
    note(Errno(given), || Cause::Call {
        call: call(),
        errno: Errno(errno),
    });
    Errno(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(errno: rustix::io::Errno, call: &str) -> Errno {
        Err::<(), _>(errno).of(|| call.into()).unwrap_err()
    }

    #[test]
    fn the_last_cause_is_that_of_the_errno_and_of_no_other() {
        let _watch = Watch::begin();
        let refused = failing(rustix::io::Errno::EXIST, "first()");
        failing(rustix::io::Errno::NOENT, "second()");
        assert_eq!(of(refused), None, "it was overcome");
        assert_eq!(of(Errno::ENOENT), None, "it was taken");
        let refused = failing(rustix::io::Errno::MFILE, "third()");
        assert_eq!(refused, Errno::ENFILE);
        let cause = Cause::Call {
            call: "third()".into(),
            errno: Errno::EMFILE,
        };
        assert_eq!(of(refused), Some(cause));
    }

    #[test]
    fn a_cause_that_was_set_aside_comes_back() {
        let _watch = Watch::begin();
        let refused = Errno::EROFS.rule("a rule");
        let aside = set_aside();
        failing(rustix::io::Errno::NOENT, "second()");
        aside.back();
        assert_eq!(of(refused), Some(Cause::Rule("a rule")));
    }

    #[test]
    fn nobody_puts_into_words_what_nobody_wants_to_know() {
        let silent = || Err::<(), _>(rustix::io::Errno::IO).of(|| unreachable!("nobody watches"));
        assert_eq!(silent(), Err(Errno::EIO));
        let watch = Watch::begin();
        let refused = Errno::EROFS.rule("a rule");
        assert_eq!(aside(silent), Err(Errno::EIO));
        assert_eq!(of(refused), Some(Cause::Rule("a rule")));
        let refused = Errno::EROFS.rule("a rule");
        drop(watch);
        assert_eq!(of(refused), None, "nothing is left for the next request");
        let _watch = Watch::begin();
        assert_eq!(of(refused), None);
    }
}
