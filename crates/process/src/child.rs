//! Children that must not outlive this process.
#![expect(
    unsafe_code,
    reason = "what a child inherits can be arranged only between fork and exec"
)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::signals;

/// Has the kernel kill the child as soon as the calling thread ends, however that comes about. No signal is blocked in the child.
pub fn die_with_us(command: &mut Command) {
    let parent = std::process::id();
    let tie = move || {
        signals::unblock_all()?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid().is_none_or(|now| now.as_raw_nonzero().get().cast_unsigned() != parent) {
            // It died in between, and nobody would tell us any more.
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(())
    };
    // SAFETY: `tie` makes system calls only and allocates nothing, as is due between fork and exec.
    unsafe { command.pre_exec(tie) };
}
