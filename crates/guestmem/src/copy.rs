//! Copies between guest memory and our own, while the guest may write at any time.
//!
//! Each byte of guest memory is accessed by exactly one relaxed atomic access, eight bytes at a time where alignment
//! allows. `ptr::copy` would be a data race, and would let the compiler read the same guest byte twice.
#![expect(unsafe_code, reason = "raw access to mapped memory; the callers give checked ranges")]

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::CursorError;

const WORD: usize = size_of::<u64>();

/// Fills `to` from guest memory at `from`.
///
/// # Safety
/// `from..from + to.len()` must be mapped, shared memory that no Rust reference points to.
#[inline]
pub(crate) unsafe fn load(from: *mut u8, to: &mut [u8]) {
    let (head, words, tail) = split(from, to.len());
    let (to_head, rest) = to.split_at_mut(head);
    let (to_words, to_tail) = rest.split_at_mut(words);
    let mut at = from;
    for byte in to_head {
        // SAFETY: in the caller's range.
        *byte = unsafe { AtomicU8::from_ptr(at) }.load(Ordering::Relaxed);
        at = at.wrapping_add(1);
    }
    for word in to_words.as_chunks_mut::<WORD>().0 {
        // SAFETY: in the caller's range, and aligned since `split` put the odd bytes into the head.
        *word = unsafe { AtomicU64::from_ptr(at.cast()) }
            .load(Ordering::Relaxed)
            .to_ne_bytes();
        at = at.wrapping_add(WORD);
    }
    debug_assert_eq!(to_tail.len(), tail);
    for byte in to_tail {
        // SAFETY: in the caller's range.
        *byte = unsafe { AtomicU8::from_ptr(at) }.load(Ordering::Relaxed);
        at = at.wrapping_add(1);
    }
}

/// Copies `from` to guest memory at `to`.
///
/// # Safety
/// `to..to + from.len()` must be mapped, shared memory that no Rust reference points to.
#[inline]
pub(crate) unsafe fn store(to: *mut u8, from: &[u8]) {
    let (head, words, tail) = split(to, from.len());
    let (from_head, rest) = from.split_at(head);
    let (from_words, from_tail) = rest.split_at(words);
    let mut at = to;
    for byte in from_head {
        // SAFETY: in the caller's range.
        unsafe { AtomicU8::from_ptr(at) }.store(*byte, Ordering::Relaxed);
        at = at.wrapping_add(1);
    }
    for word in from_words.as_chunks::<WORD>().0 {
        // SAFETY: in the caller's range, and aligned since `split` put the odd bytes into the head.
        unsafe { AtomicU64::from_ptr(at.cast()) }.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
        at = at.wrapping_add(WORD);
    }
    debug_assert_eq!(from_tail.len(), tail);
    for byte in from_tail {
        // SAFETY: in the caller's range.
        unsafe { AtomicU8::from_ptr(at) }.store(*byte, Ordering::Relaxed);
        at = at.wrapping_add(1);
    }
}

/// Fills `to` from memory at `from`, which may be part of a file that ends before it: such a touch is an error of the kernel's, and
/// no SIGBUS.
pub(crate) fn load_by_kernel(from: *mut u8, to: &mut [u8]) -> Result<(), CursorError> {
    let (own, other) = (vector(to.as_mut_ptr(), to.len()), vector(from, to.len()));
    // SAFETY: the kernel writes to `to` alone, and reads what the process may read, or refuses.
    let moved = unsafe { libc::process_vm_readv(this_process(), &own, 1, &other, 1, 0) };
    whole(moved, to.len())
}

/// Copies `from` to memory at `to`, as [`load_by_kernel`] does.
///
/// # Safety
/// If anything is mapped in `to..to + from.len()`, it must be shared memory that no Rust reference points to.
pub(crate) unsafe fn store_by_kernel(to: *mut u8, from: &[u8]) -> Result<(), CursorError> {
    let (own, other) = (vector(from.as_ptr().cast_mut(), from.len()), vector(to, from.len()));
    // SAFETY: the kernel reads `from`, and writes to the caller's range as far as the process may, or refuses.
    let moved = unsafe { libc::process_vm_writev(this_process(), &own, 1, &other, 1, 0) };
    whole(moved, from.len())
}

fn this_process() -> libc::pid_t {
    rustix::process::getpid().as_raw_nonzero().get()
}

fn vector(start: *mut u8, length: usize) -> libc::iovec {
    libc::iovec {
        iov_base: start.cast(),
        iov_len: length,
    }
}

fn whole(moved: libc::ssize_t, length: usize) -> Result<(), CursorError> {
    if usize::try_from(moved) == Ok(length) {
        Ok(())
    } else {
        Err(CursorError::Fault)
    }
}

/// Cuts `length` bytes at `start` into odd bytes in front, whole aligned words, and odd bytes behind.
#[inline]
fn split(start: *mut u8, length: usize) -> (usize, usize, usize) {
    let head = start.align_offset(WORD).min(length);
    let words = (length - head) & !(WORD - 1);
    (head, words, length - head - words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alignment_and_length_copies_exactly_its_bytes() {
        let source: Vec<u8> = (1..=64).collect();
        for start in 0..9 {
            for length in 0..40 {
                let mut guest = [0u64; 8];
                let at = guest.as_mut_ptr().cast::<u8>().wrapping_add(start);
                let mut back = vec![0; length];
                // SAFETY: at most 8 + 39 of the 64 bytes of `guest`, which nobody else refers to meanwhile.
                unsafe { store(at, &source[..length]) };
                // SAFETY: as above.
                unsafe { load(at, &mut back) };
                assert_eq!(back, source[..length]);
                let bytes: Vec<u8> = guest.iter().flat_map(|word| word.to_ne_bytes()).collect();
                assert!(
                    bytes[..start]
                        .iter()
                        .chain(&bytes[start + length..])
                        .all(|&byte| byte == 0)
                );
            }
        }
    }
}
