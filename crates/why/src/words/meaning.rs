//! The meaning of an errno, in a sentence of this project's own: for calls whose manual page is not installed or does
//! not mention it.

/// Names and sentences, in the order of the numbers.
#[rustfmt::skip] // A table.
const MEANINGS: &[(&str, &str)] = &[
    ("EPERM", "only somebody with more rights, mostly root, may do this"),
    ("ENOENT", "something that was named is not there, mostly a file or a directory on the way to it"),
    ("ESRCH", "no process has this number"),
    ("EINTR", "a signal came while the call was waiting; it can be made again"),
    ("EIO", "a device, or what stands for one, could not read or write"),
    ("ENXIO", "nothing stands behind this special file or address"),
    ("E2BIG", "what was handed over is longer than the kernel takes"),
    ("ENOEXEC", "the file is not a program that this machine can run"),
    ("EBADF", "the number is not that of an open file, or the file was not opened for this"),
    ("ECHILD", "there is no child process to wait for"),
    ("EAGAIN", "this cannot be done just now without waiting, or a limit is reached; it may work later"),
    ("ENOMEM", "there is not enough memory, or a limit on it is reached"),
    ("EACCES", "the permissions of a file or another object do not allow this to the caller"),
    ("EFAULT", "an address is outside of the program's memory"),
    ("ENOTBLK", "a disk or another block device is needed here"),
    ("EBUSY", "it is in use, so this has to wait until it is not"),
    ("EEXIST", "what was to be created is there already"),
    ("EXDEV", "the two places are on different file systems or mounts"),
    ("ENODEV", "there is no such device, or this one cannot do that"),
    ("ENOTDIR", "a directory is needed, and this is something else"),
    ("EISDIR", "this is a directory, and something else is needed"),
    ("EINVAL", "an argument has a value that makes no sense here"),
    ("ENFILE", "the whole system has as many open files as it allows"),
    ("EMFILE", "the process has as many open files, or the like, as it is allowed"),
    ("ENOTTY", "the file does not know this request; often a terminal was expected"),
    ("ETXTBSY", "the file is a program that is being run, or a file being written that was to be run"),
    ("EFBIG", "the file would become larger than a limit or the file system allows"),
    ("ENOSPC", "there is no room left: on the disk, or in a table of the kernel"),
    ("ESPIPE", "there is no moving about in a pipe, socket or terminal"),
    ("EROFS", "the file system can only be read"),
    ("EMLINK", "the file has as many names, or the directory as many directories, as can be counted"),
    ("EPIPE", "nobody reads at the other end any more"),
    ("EDOM", "a number is outside of what the function is defined for"),
    ("ERANGE", "the result is larger than the place for it"),
    ("EDEADLK", "waiting for this would never end, as each would wait for the other"),
    ("ENAMETOOLONG", "a path, or a name in it, is longer than can be kept"),
    ("ENOLCK", "there are no more locks to be had"),
    ("ENOSYS", "this kernel does not have the call, or it is hidden from the program"),
    ("ENOTEMPTY", "the directory still has something in it"),
    ("ELOOP", "too many symbolic links follow each other, or a link is not to be followed"),
    ("ENOMSG", "the queue has no message of this type"),
    ("EIDRM", "the queue, semaphore or memory was removed meanwhile"),
    ("ECHRNG", "the number of the channel is out of range"),
    ("EL2NSYNC", "the second level of a line is out of step"),
    ("EL3HLT", "the third level of a line has halted"),
    ("EL3RST", "the third level of a line was reset"),
    ("ELNRNG", "the number of the link is out of range"),
    ("EUNATCH", "the driver for this protocol is not attached"),
    ("ENOCSI", "no structure of this kind is left"),
    ("EL2HLT", "the second level of a line has halted"),
    ("EBADE", "the exchange is not a valid one"),
    ("EBADR", "the request does not describe anything valid"),
    ("EXFULL", "the table of exchanges is full"),
    ("ENOANO", "an anode that is needed is not there"),
    ("EBADRQC", "the code of the request is unknown"),
    ("EBADSLT", "there is no such slot"),
    ("EBFONT", "the font's file is damaged"),
    ("ENOSTR", "the device is not a stream"),
    ("ENODATA", "there is nothing to read: no data, or no attribute of this name"),
    ("ETIME", "a timer ran out before the answer came"),
    ("ENOSR", "there is nothing left to make streams of"),
    ("ENONET", "the machine is not on a network"),
    ("ENOPKG", "a package, or an algorithm, that is needed is not installed"),
    ("EREMOTE", "the object is on another machine"),
    ("ENOLINK", "the connection to the other machine is cut"),
    ("EADV", "advertising a resource failed"),
    ("ESRMNT", "the resource is mounted by others"),
    ("ECOMM", "sending failed on the way"),
    ("EPROTO", "the other side did not keep to the protocol"),
    ("EMULTIHOP", "the way leads over several machines, which is not supported"),
    ("EDOTDOT", "something of a remote file system went wrong"),
    ("EBADMSG", "the message is damaged, or its checksum is wrong"),
    ("EOVERFLOW", "a number does not fit into the type that the caller has for it"),
    ("ENOTUNIQ", "the name is not the only one of its kind on the network"),
    ("EBADFD", "the file is in a state in which this cannot be done"),
    ("EREMCHG", "the address of the other side changed"),
    ("ELIBACC", "a shared library that is needed cannot be reached"),
    ("ELIBBAD", "a shared library is damaged"),
    ("ELIBSCN", "the .lib section of a program is damaged"),
    ("ELIBMAX", "the program wants more shared libraries than can be linked"),
    ("ELIBEXEC", "a shared library cannot be run as a program"),
    ("EILSEQ", "these bytes are not a character, or not in this encoding"),
    ("ERESTART", "the call was interrupted and is to be made again"),
    ("ESTRPIPE", "a pipe between streams broke"),
    ("EUSERS", "there are too many users, or levels of namespaces"),
    ("ENOTSOCK", "the file is open, and is not a socket"),
    ("EDESTADDRREQ", "nothing says where to send this"),
    ("EMSGSIZE", "the message is too long to be sent as one"),
    ("EPROTOTYPE", "the protocol or the other socket is of another type than this socket"),
    ("ENOPROTOOPT", "the protocol has no such option"),
    ("EPROTONOSUPPORT", "there is no such protocol here, or not for this type of socket"),
    ("ESOCKTNOSUPPORT", "there is no such type of socket here"),
    ("EOPNOTSUPP", "this kind of object cannot do that"),
    ("EPFNOSUPPORT", "there is no such family of protocols here"),
    ("EAFNOSUPPORT", "there is no such family of addresses here, or not for this socket"),
    ("EADDRINUSE", "another socket has this address already"),
    ("EADDRNOTAVAIL", "this machine does not have the address, or no port is left"),
    ("ENETDOWN", "the network interface is switched off"),
    ("ENETUNREACH", "no route leads to that network"),
    ("ENETRESET", "the network broke the connection off"),
    ("ECONNABORTED", "the connection was given up before it was taken"),
    ("ECONNRESET", "the other side broke the connection off"),
    ("ENOBUFS", "there is no memory for network buffers, or a queue is full"),
    ("EISCONN", "the socket is connected already"),
    ("ENOTCONN", "the socket is not connected, or the server of the mount is gone"),
    ("ESHUTDOWN", "this direction of the connection was shut already"),
    ("ETOOMANYREFS", "too many file descriptors are under way in messages"),
    ("ETIMEDOUT", "the other side did not answer in time"),
    ("ECONNREFUSED", "the other side is there, and nobody listens"),
    ("EHOSTDOWN", "the other machine is down"),
    ("EHOSTUNREACH", "no way leads to the other machine"),
    ("EALREADY", "this is being done already"),
    ("EINPROGRESS", "this was begun and goes on in the background"),
    ("ESTALE", "the file was removed or replaced behind the back of this handle"),
    ("EUCLEAN", "the file system is damaged and needs to be checked"),
    ("ENOTNAM", "this is no named file of XENIX"),
    ("ENAVAIL", "there are no semaphores of XENIX"),
    ("EISNAM", "this is a named file of XENIX"),
    ("EREMOTEIO", "a device, or the far side of one, could not do what was asked"),
    ("EDQUOT", "the quota of the user, group or project is used up"),
    ("ENOMEDIUM", "there is no disk in the drive"),
    ("EMEDIUMTYPE", "the disk in the drive is of the wrong kind"),
    ("ECANCELED", "the operation was called off before it was done"),
    ("ENOKEY", "the key that is needed is not there"),
    ("EKEYEXPIRED", "the key was valid up to a time that is over"),
    ("EKEYREVOKED", "the key was revoked"),
    ("EKEYREJECTED", "the key is not accepted, or the signature by it is wrong"),
    ("EOWNERDEAD", "whoever held the lock ended without giving it back"),
    ("ENOTRECOVERABLE", "the lock, or the data that it guards, cannot be used any more"),
    ("ERFKILL", "the radio is switched off"),
    ("EHWPOISON", "the memory is broken, and was taken out of use"),
];

/// The sentence for an errno by its name (`EACCES`): one line, without a full stop.
#[must_use]
pub fn meaning(errno: &str) -> Option<&'static str> {
    MEANINGS
        .iter()
        .find(|(name, _)| *name == errno)
        .map(|(_, sentence)| *sentence)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::words::errno_name;

    #[test]
    fn every_errno_has_a_sentence_in_its_place() {
        let named: Vec<_> = (1..4096).filter_map(errno_name).collect();
        let meant: Vec<_> = MEANINGS.iter().map(|(name, _)| *name).collect();
        assert_eq!(meant, named);
        assert!(meaning("EACCES").unwrap().contains("permissions"));
        assert_eq!(meaning("ENONSENSE"), None);
    }

    #[test]
    fn sentences_are_short_lines_and_no_two_are_the_same() {
        let mut seen = BTreeSet::new();
        for (name, sentence) in MEANINGS {
            assert!((15..=100).contains(&sentence.len()), "{name}: {sentence}");
            assert!(sentence.is_ascii() && !sentence.ends_with('.'), "{name}: {sentence}");
            assert!(seen.insert(sentence), "{name}: {sentence}");
        }
    }
}
