//! Processes, their rights and their limits.

use libc::{
    SYS_capset, SYS_clone, SYS_kill, SYS_nanosleep, SYS_prctl, SYS_prlimit64, SYS_ptrace, SYS_sched_setscheduler,
    SYS_setgroups, SYS_sethostname, SYS_setns, SYS_setpriority, SYS_setuid, SYS_unshare, SYS_wait4,
};
use rustix::process::Resource;

use super::Case;
use super::call::{Call, be_a_user, descriptor, leak, limit, number, path};

#[rustfmt::skip] // One case a block, no wider than its words.
pub(super) const CASES: &[&Case] = &[
    &Case { name: "setuid-as-user", prepare: |_| {
        be_a_user()?;
        Call::new(SYS_setuid, [0])
    } },
    &Case { name: "setgroups-as-user", prepare: |_| {
        be_a_user()?;
        Call::new(SYS_setgroups, [1, leak([0_u32])])
    } },
    &Case { name: "capset-as-user", prepare: |_| {
        const VERSION: u32 = 0x2008_0522;
        be_a_user()?;
        Call::new(SYS_capset, [leak([VERSION, 0]), leak([1_u32, 1, 0, 0, 0, 0])])
    } },
    &Case { name: "kill-not-mine", prepare: |_| {
        be_a_user()?;
        Call::new(SYS_kill, [1, number(libc::SIGTERM)])
    } },
    &Case { name: "kill-nobody", prepare: |_| Call::new(SYS_kill, [4_000_000, number(libc::SIGTERM)]) },
    &Case { name: "kill-bad-signal", prepare: |_| Call::new(SYS_kill, [1, 999]) },
    &Case { name: "ptrace-not-mine", prepare: |_| {
        be_a_user()?;
        Call::new(SYS_ptrace, [libc::PTRACE_SEIZE as usize, 1, 0, 0])
    } },
    &Case { name: "clone-too-many", prepare: |_| {
        limit(Resource::Nproc, 0)?;
        be_a_user()?;
        Call::new(SYS_clone, [number(libc::SIGCHLD), 0, 0, 0, 0])
    } },
    &Case { name: "clone-flags", prepare: |_| Call::new(SYS_clone, [number(libc::CLONE_SIGHAND), 0, 0, 0, 0]) },
    &Case { name: "unshare-as-user", prepare: |_| {
        be_a_user()?;
        Call::new(SYS_unshare, [number(libc::CLONE_NEWNET)])
    } },
    &Case { name: "setns-no-namespace", prepare: |_| {
        Call::new(SYS_setns, [descriptor(std::fs::File::open("/")?), 0])
    } },
    &Case { name: "setpriority-as-user", prepare: |_| {
        be_a_user()?;
        Call::new(SYS_setpriority, [0, 0, number(-5)])
    } },
    &Case { name: "sched_setscheduler-as-user", prepare: |_| {
        be_a_user()?;
        Call::new(SYS_sched_setscheduler, [0, number(libc::SCHED_FIFO), leak(10_i32)])
    } },
    &Case { name: "prlimit-raise-as-user", prepare: |_| {
        limit(Resource::Core, 0)?;
        be_a_user()?;
        Call::new(SYS_prlimit64, [0, libc::RLIMIT_CORE as usize, leak([1_u64, 1]), 0])
    } },
    &Case { name: "sethostname-as-user", prepare: |_| {
        be_a_user()?;
        Call::new(SYS_sethostname, [path("name"), 4])
    } },
    &Case { name: "wait4-no-child", prepare: |_| Call::new(SYS_wait4, [usize::MAX, 0, 0, 0]) },
    &Case { name: "prctl-unknown", prepare: |_| Call::new(SYS_prctl, [9999, 0, 0, 0, 0]) },
    &Case { name: "nanosleep-nonsense", prepare: |_| {
        Call::new(SYS_nanosleep, [leak([0_i64, 2_000_000_000]), 0])
    } },
];
