//! Layout of a request and its reply in the shared RAM, and the space for a reply.
//!
//! The data of a WRITE and of a READ begin on a page, as they do when a kernel in a virtual machine sends pages of
//! its cache. A daemon that opens files with O_DIRECT needs that.

use fuse::wire::{self, Opcode};

/// Most bytes of data in one request or reply: more is refused at INIT (max_write, max_pages).
pub(super) const DATA_MAX: u32 = 1 << 20;
const PAGE: u64 = 4096;
const IN_HEADER: u64 = size_of::<wire::InHeader>() as u64;
const OUT_HEADER: u64 = size_of::<wire::OutHeader>() as u64;
const WRITE_IN: u64 = size_of::<wire::WriteIn>() as u64;

/// Bytes of a place: a request of any length, and behind it the largest reply to a short request.
pub(super) const PLACE_SIZE: u64 = PAGE + DATA_MAX as u64 + 2 * PAGE;
/// Where a request begins in its place.
pub(super) const REQUEST_AT: u64 = PAGE - IN_HEADER - WRITE_IN;
/// Most bytes of a request. The kernel refuses to fill less than a WRITE of its max_write takes.
pub(super) const REQUEST_MAX: u64 = IN_HEADER + WRITE_IN + DATA_MAX as u64;
/// Bytes at the start of a request that [`reply_space`] wants to see: the header, and arguments as far as they tell sizes.
pub(super) const HEAD: usize = (IN_HEADER + WRITE_IN) as usize;

/// Where the reply to a request of `length` bytes begins in the same place, if there is space for it.
pub(super) fn reply_at(length: u64, space: u32) -> Option<u64> {
    let at = (REQUEST_AT + length + OUT_HEADER).next_multiple_of(PAGE) - OUT_HEADER;
    (at + u64::from(space) <= PLACE_SIZE).then_some(at)
}

/// Bytes that the reply to an operation has at most, its header included. `head` is the request's beginning, zeros behind its end.
pub(super) fn reply_space(opcode: u32, head: &[u8; HEAD]) -> u32 {
    let body = match Opcode::from_number(opcode) {
        Some(
            Opcode::Lookup | Opcode::Symlink | Opcode::Mknod | Opcode::Mkdir | Opcode::Link, //
        ) => size_of::<wire::EntryOut>(),
        Some(Opcode::Create | Opcode::Tmpfile) => size_of::<wire::EntryOut>() + size_of::<wire::OpenOut>(),
        Some(Opcode::Getattr | Opcode::Setattr) => size_of::<wire::AttrOut>(),
        Some(Opcode::Statx) => size_of::<wire::StatxOut>(),
        Some(Opcode::Open | Opcode::Opendir) => size_of::<wire::OpenOut>(),
        Some(Opcode::Statfs) => size_of::<wire::Statfs>(),
        Some(Opcode::Write | Opcode::CopyFileRange) => size_of::<wire::WriteOut>(),
        Some(Opcode::CopyFileRange64) => size_of::<wire::CopyFileRangeOut>(),
        Some(Opcode::Lseek) => size_of::<wire::LseekOut>(),
        // fuse_lk_out, fuse_poll_out and fuse_bmap_out of fuse.h.
        Some(Opcode::Getlk) => 24,
        Some(Opcode::Poll | Opcode::Bmap) => 8,
        // A target has at most PATH_MAX bytes with a NUL, which is not sent; the kernel refuses more.
        Some(Opcode::Readlink) => libc::PATH_MAX as usize - 1,
        Some(Opcode::Read | Opcode::Readdir | Opcode::Readdirplus) => argument(head, READ_SIZE),
        Some(Opcode::Getxattr | Opcode::Listxattr) => match argument(head, 0) {
            0 => size_of::<wire::GetxattrOut>(),
            size => size,
        },
        Some(Opcode::Ioctl) => size_of::<wire::IoctlOut>() + argument(head, IOCTL_OUT_SIZE),
        Some(
            Opcode::Unlink
            | Opcode::Rmdir
            | Opcode::Rename
            | Opcode::Rename2
            | Opcode::Release
            | Opcode::Releasedir
            | Opcode::Fsync
            | Opcode::Fsyncdir
            | Opcode::Setxattr
            | Opcode::Removexattr
            | Opcode::Flush
            | Opcode::Setlk
            | Opcode::Setlkw
            | Opcode::Access
            | Opcode::Fallocate
            | Opcode::Syncfs,
        ) => 0,
        // An operation that we do not know is the daemon's to refuse. A page holds whatever it says.
        _ => PAGE as usize,
    };
    u32::try_from(body)
        .unwrap_or(u32::MAX)
        .saturating_add(OUT_HEADER as u32)
}

/// Offset of `size` in `fuse_read_in`.
const READ_SIZE: usize = 16;
/// Offset of `out_size` in `fuse_ioctl_in`.
const IOCTL_OUT_SIZE: usize = 28;

/// The 32-bit field at `offset` of the arguments.
fn argument(head: &[u8; HEAD], offset: usize) -> usize {
    let field = head.get(IN_HEADER as usize + offset..).and_then(<[u8]>::first_chunk);
    field.map_or(0, |bytes| u32::from_ne_bytes(*bytes) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(offset: usize, size: u32) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[IN_HEADER as usize + offset..][..4].copy_from_slice(&size.to_ne_bytes());
        head
    }

    #[test]
    fn data_begin_on_a_page() {
        assert_eq!((REQUEST_AT + IN_HEADER + WRITE_IN) % PAGE, 0);
        for length in 40..9000 {
            let at = reply_at(length, 16).unwrap();
            assert_eq!((at + OUT_HEADER) % PAGE, 0);
            assert!(at >= REQUEST_AT + length, "the reply lies behind the request");
        }
    }

    #[test]
    fn the_largest_request_and_the_largest_reply_have_space() {
        assert!(reply_at(REQUEST_MAX, 24).is_some());
        let read = reply_space(Opcode::Read as u32, &head(READ_SIZE, DATA_MAX));
        assert_eq!(read, 16 + DATA_MAX);
        assert!(reply_at(80, read).is_some());
        assert!(reply_at(80, u32::MAX).is_none(), "and no other place is written to");
    }

    #[test]
    fn a_reply_gets_the_space_that_its_request_asks_for() {
        assert_eq!(reply_space(Opcode::Getxattr as u32, &head(0, 0)), 16 + 8);
        assert_eq!(reply_space(Opcode::Getxattr as u32, &head(0, 100)), 16 + 100);
        assert_eq!(reply_space(Opcode::Ioctl as u32, &head(28, 4)), 16 + 16 + 4);
        assert_eq!(reply_space(Opcode::Flush as u32, &head(0, 77)), 16);
        assert_eq!(reply_space(Opcode::Read as u32, &head(16, u32::MAX)), u32::MAX);
    }
}
