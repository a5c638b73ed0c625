//! Tries namespaces in a child: a user namespace that cannot be completed has no way back.
#![expect(unsafe_code, reason = "fork(2) has no safe wrapper")]

use std::io::{self, PipeWriter, Read, Write};

use rustix::process::{Pid, WaitOptions, waitpid};

use crate::Error;
use crate::ids::Ids;
use crate::namespace::{self, Owner};
use crate::place::Place;

/// What the child says of success. No error's message reads so.
const WORKS: &str = "works";

/// Whether the process, which has one thread, can have namespaces of a user of its own with these users and groups.
pub(super) fn namespaces(place: &Place<'_>, ids: &Ids) -> Result<(), Error> {
    let refused = Error::namespace::<io::Error>;
    let (mut answer, question) = io::pipe().map_err(refused("try namespaces"))?;
    // SAFETY: a process of one thread leaves its child no lock that another thread holds.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(refused("try namespaces")(io::Error::last_os_error()));
    }
    let Some(child) = Pid::from_raw(child) else {
        tell(place, ids, question)
    };
    drop(question);
    let mut why = String::new();
    let read = answer.read_to_string(&mut why);
    waitpid(Some(child), WaitOptions::empty()).map_err(Error::namespace("try namespaces"))?;
    read.map_err(refused("try namespaces"))?;
    match why.as_str() {
        WORKS => Ok(()),
        "" => Err(refused("try namespaces")(io::Error::other("the trial ended early"))),
        _ => Err(Error::Trial(why)),
    }
}

/// The child's life.
fn tell(place: &Place<'_>, ids: &Ids, mut question: PipeWriter) -> ! {
    let why = match namespace::enter(place, Owner::Own(ids)) {
        Ok(_) => WORKS.to_owned(),
        Err(error) => error.to_string(),
    };
    let told = question.write_all(why.as_bytes());
    // SAFETY: ends the child at once, with nothing of its parent's undone.
    unsafe { libc::_exit(i32::from(told.is_err())) }
}
