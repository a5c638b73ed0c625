//! Errors in opening a tap interface.

use rustix::io::Errno;

/// Why there is no tap interface.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No interface can have this name.
    #[error("{name:?} is no name of an interface: it takes 1 to 15 characters, without spaces, '/', ':' and '%'")]
    Name {
        /// The name.
        name: String,
    },
    /// The kernel has no tap interfaces.
    #[error("/dev/net/tun does not exist: load the module with `modprobe tun`")]
    NoTun,
    /// The device cannot be opened.
    #[error("cannot open /dev/net/tun: {0}")]
    Device(Errno),
    /// The interface belongs to somebody else, or is to be made.
    #[error(
        "not permitted to use the tap interface {name}: make it once with \
         `sudo ip tuntap add dev {name} mode tap user $USER multi_queue && sudo ip link set {name} up`"
    )]
    NotPermitted {
        /// The interface.
        name: String,
    },
    /// Another process has it open.
    #[error("the tap interface {name} is in use by another process: end that one, or take another interface")]
    InUse {
        /// The interface.
        name: String,
    },
    /// It is another kind of interface, or was made for one queue.
    #[error("{name} is no tap interface{}: {}", if *.several { " with several queues" } else { "" }, way_out(.name, *.several))]
    OtherKind {
        /// The interface.
        name: String,
        /// Several queues are wanted.
        several: bool,
    },
    /// Anything else.
    #[error("cannot use the tap interface {name}: {errno}")]
    Interface {
        /// The interface.
        name: String,
        /// The kernel's error.
        errno: Errno,
    },
}

impl Error {
    pub(crate) fn device(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NODEV | Errno::NXIO => Self::NoTun,
            errno => Self::Device(errno),
        }
    }

    pub(crate) fn interface(name: &str, several: bool, errno: Errno) -> Self {
        let name = name.to_owned();
        match errno {
            Errno::PERM | Errno::ACCESS => Self::NotPermitted { name },
            Errno::BUSY => Self::InUse { name },
            Errno::INVAL => Self::OtherKind { name, several },
            errno => Self::Interface { name, errno },
        }
    }
}

fn way_out(name: &str, several: bool) -> String {
    if several {
        format!("make it with `ip tuntap add dev {name} mode tap multi_queue`, or ask for 1 queue")
    } else {
        "take another name, or delete that interface first".into()
    }
}
