use std::fs;
use std::path::Path;

use driver::fs::{ROOT, directory_names, field_u64};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::world::World;

/// What a guest tries.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// The checks that refuse it, as in `INNKEEPER_WITHOUT_CHECK`.
    pub(crate) without: &'static str,
    /// The sandboxes that let it through.
    through: &'static [&'static str],
    /// `None` if it fails.
    pub(crate) act: fn(&mut World) -> Option<()>,
}

impl Attack {
    /// Whether it succeeds in `sandbox` once its checks are switched off.
    pub(crate) fn passes(&self, sandbox: &str) -> bool {
        sandbox == "none" || self.through.contains(&sandbox)
    }
}

/// The device number of /dev/zero, which no file is mistaken for.
const ZERO: u32 = 1 << 8 | 5;
/// What attacks change the mode of the file outside to.
const MARK: u32 = 0o1234;

/// All attacks that a request can express.
pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "open a device node",
        without: "kind",
        through: &["chroot", "landlock"],
        act: |world| {
            let made = world
                .session
                .ask(|requests| requests.mknod(ROOT, b"zero", libc::S_IFCHR | 0o666, ZERO));
            let node = field_u64(&made.unwrap(), 0);
            (world.read(node)? == [0; 64]).then_some(())
        },
    },
    Attack {
        name: "open a FIFO",
        without: "kind",
        through: &["namespace", "chroot", "landlock"],
        act: |world| {
            mknodat(CWD, world.path("data/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
            let node = world.find(ROOT, b"fifo").unwrap();
            let open = libc::O_RDWR as u32; // which waits for nobody
            world.session.ask(|requests| requests.open(node, open)).ok().map(drop)
        },
    },
    Attack {
        name: "remove a file by ..",
        without: "name",
        through: &[],
        act: |world| {
            let _ = world.session.ask(|requests| requests.unlink(ROOT, b"../secret"));
            (!world.path("secret").exists()).then_some(())
        },
    },
    Attack {
        name: "remove a file by its absolute path",
        without: "name",
        through: &[],
        act: |world| {
            let path = text(&world.path("secret"));
            let _ = world.session.ask(|requests| requests.unlink(ROOT, path.as_bytes()));
            (!world.path("secret").exists()).then_some(())
        },
    },
    Attack {
        name: "remove a file beside the socket by its absolute path",
        without: "name",
        through: &[],
        act: |world| {
            let path = world.session.daemon.directory.path().join("precious");
            fs::write(&path, "").unwrap();
            let _ = world
                .session
                .ask(|requests| requests.unlink(ROOT, text(&path).as_bytes()));
            (!path.exists()).then_some(())
        },
    },
    Attack {
        name: "move a file into the share by ..",
        without: "name",
        through: &[],
        act: |world| {
            let _ = world
                .session
                .ask(|requests| requests.rename(ROOT, b"../secret", ROOT, b"stolen"));
            is_file(&world.path("data/stolen"))
        },
    },
    Attack {
        name: "make a directory by ..",
        without: "name",
        through: &[],
        act: |world| {
            let _ = world.session.ask(|requests| requests.mkdir(ROOT, b"../made", 0o755));
            world.path("made").exists().then_some(())
        },
    },
    Attack {
        name: "make a device by ..",
        without: "name",
        through: &[],
        act: |world| {
            let _ = world
                .session
                .ask(|requests| requests.mknod(ROOT, b"../made", libc::S_IFCHR | 0o666, ZERO));
            world.path("made").exists().then_some(())
        },
    },
    Attack {
        name: "remove a file by .. of a directory that has left the share",
        without: "name",
        through: &[],
        act: |world| {
            let node = leave(world);
            let _ = world.session.ask(|requests| requests.unlink(node, b"../../secret"));
            (!world.path("secret").exists()).then_some(())
        },
    },
    Attack {
        name: "read through an absolute link",
        without: "beneath",
        through: &[],
        act: |world| {
            let node = world.follow(&text(&world.path("secret")))?;
            world.reads_secret(node)
        },
    },
    Attack {
        name: "read through a link by ..",
        without: "beneath",
        through: &[],
        act: |world| {
            let node = world.follow("../secret")?;
            world.reads_secret(node)
        },
    },
    Attack {
        name: "read through /proc/self/root",
        without: "beneath",
        through: &[],
        act: |world| {
            let node = world.follow(&format!("/proc/self/root{}", text(&world.path("secret"))))?;
            world.reads_secret(node)
        },
    },
    Attack {
        name: "read through /proc/PID/root",
        without: "beneath",
        through: &[],
        act: |world| {
            let process = world.session.daemon.child.id();
            let node = world.follow(&format!("/proc/{process}/root{}", text(&world.path("secret"))))?;
            world.reads_secret(node)
        },
    },
    Attack {
        name: "list a directory through a link",
        without: "beneath",
        through: &[],
        act: |world| {
            let node = world.follow(&text(&world.path("")))?;
            let opened = world.session.ask(|requests| requests.opendir(node)).ok()?;
            let handle = field_u64(&opened, 0);
            let listed = world
                .session
                .ask(|requests| requests.readdir(node, handle, 0, 4096))
                .ok()?;
            directory_names(&listed).contains(&b"secret".to_vec()).then_some(())
        },
    },
    Attack {
        name: "write through a link",
        without: "beneath",
        through: &[],
        act: |world| {
            let node = world.follow(&text(&world.path("secret")))?;
            let opened = world
                .session
                .ask(|requests| requests.open(node, libc::O_WRONLY as u32))
                .ok()?;
            let handle = field_u64(&opened, 0);
            let _ = world.session.ask(|requests| requests.write(node, handle, 0, b"!"));
            (!world.secret_is_unchanged()).then_some(())
        },
    },
    Attack {
        name: "truncate through a link",
        without: "beneath",
        through: &[],
        act: |world| {
            let node = world.follow(&text(&world.path("secret")))?;
            let _ = world.session.ask(|requests| requests.truncate(node, 0));
            (!world.secret_is_unchanged()).then_some(())
        },
    },
    Attack {
        name: "link a file into the share through a link",
        without: "beneath",
        through: &[],
        act: |world| {
            let node = world.follow(&text(&world.path("secret")))?;
            let _ = world.session.ask(|requests| requests.link(node, ROOT, b"stolen"));
            is_file(&world.path("data/stolen"))
        },
    },
    Attack {
        name: "change attributes through a link",
        without: "beneath",
        through: &["landlock"],
        act: |world| {
            let node = world.follow(&text(&world.path("secret")))?;
            let _ = world.session.ask(|requests| requests.chmod(node, MARK));
            world.secret_has_mode(MARK).then_some(())
        },
    },
    Attack {
        name: "read by ..",
        without: "name,beneath",
        through: &[],
        act: |world| {
            let node = world.find(ROOT, b"../secret")?;
            world.reads_secret(node)
        },
    },
    Attack {
        name: "read by an absolute path",
        without: "name,beneath",
        through: &[],
        act: |world| {
            let path = text(&world.path("secret"));
            let node = world.find(ROOT, path.as_bytes())?;
            world.reads_secret(node)
        },
    },
    Attack {
        name: "create a file by ..",
        without: "name,beneath",
        through: &[],
        act: |world| {
            let open = libc::O_WRONLY as u32;
            let _ = world
                .session
                .ask(|requests| requests.create(ROOT, b"../made", open, 0o644));
            world.path("made").exists().then_some(())
        },
    },
    Attack {
        name: "change attributes by ..",
        without: "name,beneath",
        through: &["landlock"],
        act: |world| {
            let node = world.find(ROOT, b"../secret")?;
            let _ = world.session.ask(|requests| requests.chmod(node, MARK));
            world.secret_has_mode(MARK).then_some(())
        },
    },
    Attack {
        name: "read by .. of a directory that has left the share",
        without: "name,beneath",
        through: &[],
        act: |world| {
            let node = leave(world);
            let node = world.find(node, b"../../secret")?;
            world.reads_secret(node)
        },
    },
    Attack {
        name: "change attributes by .. of a directory that has left the share",
        without: "name,beneath",
        through: &["chroot", "landlock"],
        act: |world| {
            let node = leave(world);
            let node = world.find(node, b"../../secret")?;
            let _ = world.session.ask(|requests| requests.chmod(node, MARK));
            world.secret_has_mode(MARK).then_some(())
        },
    },
];

/// A directory that the guest knows when a process of the host moves it out of the share.
fn leave(world: &mut World) -> u64 {
    let node = world.find(ROOT, b"sub").unwrap();
    fs::rename(world.path("data/sub"), world.path("elsewhere/sub")).unwrap();
    node
}

/// Not a link to one.
fn is_file(path: &Path) -> Option<()> {
    path.symlink_metadata().ok()?.is_file().then_some(())
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
