//! Calls the file system for each operation of a session, and writes its answer.

use guestmem::Reader;

use super::{Server, no_session};
use crate::arguments::Buffer;
use crate::dax;
use crate::failure::Places;
use crate::fs::{Entry, Errno, FileSystem, Result, XattrReply};
use crate::operation::Operation;
use crate::reply::{Directory, NO_ROOM, Reply};
use crate::request::Request;
use crate::wire::{self, Opcode};

/// Why a file system that gives too much is refused.
const FALSE_COUNT: &str = "the file system gave more than it was asked for";

impl<F: FileSystem> Server<F> {
    /// Serves a request within a session.
    pub(super) fn serve(
        &self,
        opcode: Opcode,
        header: &wire::InHeader,
        reader: &mut Reader<'_>,
        reply: &mut Reply<'_, '_>,
        places: &mut Option<Places>,
    ) -> Result<()> {
        let session = self.session();
        let terms = session.as_ref().ok_or_else(no_session)?;
        // To a guest that asks all the same, the operations do not exist.
        if matches!(opcode, Opcode::Setupmapping | Opcode::Removemapping) && self.window().is_none() {
            return Err(no_window());
        }
        let mut buffer = Buffer::new();
        let request = match Request::parse(opcode, header, reader, &mut buffer, terms) {
            Ok(request) => request,
            Err(errno) => {
                *places = self.told.listens().then(|| Places::of_node(&self.fs, header));
                return Err(errno);
            }
        };
        let result = check_room(&request.operation, reply).and_then(|()| self.call(&request, reader, reply));
        // Within the session, which knows the nodes.
        if result.is_err() && self.told.listens() {
            *places = Some(Places::of_request(&self.fs, &request));
        }
        result
    }

    /// Calls the file system and writes what it answers.
    fn call(&self, request: &Request<'_>, data: &mut Reader<'_>, reply: &mut Reply<'_, '_>) -> Result<()> {
        let fs = &self.fs;
        let Request {
            node,
            ref caller,
            ref operation,
        } = *request;
        match *operation {
            Operation::Lookup { name } => put_entry(reply, &fs.lookup(caller, node, name)?),
            Operation::Getattr { handle } => reply.put(&wire::AttrOut::from(fs.getattr(caller, node, handle)?)),
            Operation::Statx { handle, flags, mask } => {
                reply.put(&wire::StatxOut::from(fs.statx(caller, node, handle, flags, mask)?))
            }
            Operation::Setattr { ref change } => reply.put(&wire::AttrOut::from(fs.setattr(caller, node, change)?)),
            Operation::Readlink => {
                let target = fs.readlink(caller, node)?;
                reply.put_bytes(&target, Errno::ENAMETOOLONG)
            }
            Operation::Symlink { name, target } => put_entry(reply, &fs.symlink(caller, node, name, target)?),
            Operation::Mknod { name, ref create } => put_entry(reply, &fs.mknod(caller, node, name, create)?),
            Operation::Mkdir { name, ref create } => put_entry(reply, &fs.mkdir(caller, node, name, create)?),
            Operation::Unlink { name } => fs.unlink(caller, node, name),
            Operation::Rmdir { name } => fs.rmdir(caller, node, name),
            Operation::Rename { name, to, flags } => fs.rename(caller, (node, name), to, flags),
            Operation::Link { node: old, name } => put_entry(reply, &fs.link(caller, old, node, name)?),
            Operation::Open { flags, kill_suid_gid } => {
                reply.put(&wire::OpenOut::from(fs.open(caller, node, flags, kill_suid_gid)?))
            }
            Operation::Create {
                name,
                ref create,
                kill_suid_gid,
            } => {
                let (entry, opened) = fs.create(caller, node, name, create, kill_suid_gid)?;
                put_entry(reply, &entry)?;
                reply.put(&wire::OpenOut::from(opened))
            }
            Operation::Tmpfile { ref create } => {
                let (entry, opened) = fs.tmpfile(caller, node, create)?;
                put_entry(reply, &entry)?;
                reply.put(&wire::OpenOut::from(opened))
            }
            Operation::Read { handle, offset, size } if reply.may_defer() => reply.fill_or_defer(size, |out| {
                let rest = fs.read_at_once(node, handle, offset, size, out)?;
                Ok(rest.map(|rest| (rest, self.deferred.add())))
            }),
            Operation::Read { handle, offset, size } => {
                reply.fill(size, |out| fs.read(node, handle, offset, size, out))
            }
            Operation::Write { ref to } => {
                let size = fs.write(caller, node, to, data)?;
                reply.put(&wire::WriteOut { size, padding: 0 })
            }
            Operation::Flush { handle } => fs.flush(node, handle),
            Operation::Release { handle } => fs.release(node, handle),
            Operation::Fsync { handle, data_only } => fs.fsync(node, handle, data_only),
            Operation::Syncfs => fs.syncfs(node),
            Operation::Opendir { flags } => reply.put(&wire::OpenOut::from(fs.opendir(caller, node, flags)?)),
            Operation::Readdir {
                handle,
                offset,
                size,
                plus,
            } => reply.fill(size, |out| {
                let mut sink = Directory::new(out, plus);
                match fs.readdir(caller, node, handle, offset, plus, &mut sink) {
                    // The guest holds lookup counts of the entries that are there already; it meets the error when it
                    // reads on behind them.
                    Err(_) if !sink.is_empty() => Ok(()),
                    result => result,
                }
            }),
            Operation::Releasedir { handle } => fs.releasedir(node, handle),
            Operation::Fsyncdir { handle, data_only } => fs.fsyncdir(node, handle, data_only),
            Operation::Statfs => reply.put(&fs.statfs(node)?),
            Operation::Access { mask } => fs.access(caller, node, mask),
            Operation::Setxattr {
                name,
                value,
                flags,
                kill_sgid,
            } => fs.setxattr(caller, node, name, value, flags, kill_sgid),
            Operation::Getxattr { name, size } => put_xattr(reply, size, fs.getxattr(caller, node, name, size)?),
            Operation::Listxattr { size } => put_xattr(reply, size, fs.listxattr(caller, node, size)?),
            Operation::Removexattr { name } => fs.removexattr(caller, node, name),
            Operation::Fallocate {
                handle,
                mode,
                offset,
                len,
            } => fs.fallocate(caller, node, handle, mode, offset, len),
            Operation::Lseek { handle, offset, whence } => {
                let offset = fs.lseek(node, handle, offset, whence)?;
                reply.put(&wire::LseekOut { offset })
            }
            Operation::CopyFileRange { ref range, wide: true } => {
                let bytes_copied = fs.copy_file_range(caller, range)?;
                reply.put(&wire::CopyFileRangeOut { bytes_copied })
            }
            Operation::CopyFileRange { ref range, wide: false } => {
                let size =
                    u32::try_from(fs.copy_file_range(caller, range)?).map_err(|_| Errno::EIO.rule(FALSE_COUNT))?;
                reply.put(&wire::WriteOut { size, padding: 0 })
            }
            Operation::Ioctl {
                handle,
                command,
                input,
                out_size,
            } => {
                let output = fs.ioctl(caller, node, handle, command, input, out_size)?;
                if output.len() > out_size as usize {
                    return Err(Errno::EIO.rule(FALSE_COUNT));
                }
                reply.put(&wire::IoctlOut::default())?;
                reply.put_bytes(&output, Errno::EINVAL)
            }
            Operation::Setupmapping { ref setup } => {
                let window = self.window().ok_or_else(no_window)?;
                dax::set_up(&*window, node, setup, |write| fs.open_for_mapping(node, write))
            }
            Operation::Removemapping { ranges } => dax::remove(&*self.window().ok_or_else(no_window)?, ranges),
        }
    }
}

fn no_window() -> Errno {
    Errno::ENOSYS.rule("the device has no window (--dax)")
}

/// Refuses, before anything is done, what could not be answered.
fn check_room(operation: &Operation<'_>, reply: &Reply<'_, '_>) -> Result<()> {
    match operation {
        _ if operation.reply_length() <= reply.room() => Ok(()),
        Operation::Getxattr { .. } | Operation::Listxattr { .. } => Err(Errno::ERANGE.rule(NO_ROOM)),
        _ => Err(Errno::EINVAL.rule(NO_ROOM)),
    }
}

fn put_entry(reply: &mut Reply<'_, '_>, entry: &Entry) -> Result<()> {
    reply.put(&wire::EntryOut::from(entry))
}

/// Answers GETXATTR and LISTXATTR: with the length alone if the guest asked with `size` 0.
fn put_xattr(reply: &mut Reply<'_, '_>, size: u32, answer: XattrReply) -> Result<()> {
    let length = match &answer {
        XattrReply::Value(value) => u32::try_from(value.len()).map_err(|_| Errno::E2BIG.rule(FALSE_COUNT))?,
        XattrReply::Size(length) => *length,
    };
    match answer {
        _ if size == 0 => reply.put(&wire::GetxattrOut {
            size: length,
            padding: 0,
        }),
        XattrReply::Value(value) if length <= size => reply.put_bytes(&value, Errno::ERANGE),
        _ => Err(Errno::ERANGE.rule("the value is longer than the guest asked for")),
    }
}
