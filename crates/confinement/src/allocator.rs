//! The C library's allocator, as a thread's list of system calls can bear it.
#![expect(unsafe_code, reason = "mallopt(3) has no safe wrapper")]

/// As many threads as allocate without waiting for each other.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 64;

/// Gives glibc's allocator a number of arenas. Without one it asks for the number of processors when the ninth thread allocates, and opens
/// files of sysfs for that.
pub(crate) fn stay_away_from_files() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it changes a number that the allocator reads under a lock of its own.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS)
    };
}
