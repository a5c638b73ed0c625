//! The guest's side of `boot`: innkeeper as the first process of the initramfs. It loads modules, mounts the root,
//! and becomes the root's init or runs the one command.

pub(crate) mod channel;
mod command;
pub(crate) mod places;
pub(crate) mod plan;
mod root;

use std::convert::Infallible;
use std::ffi::{CStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};

use places::{DEV, FAILURE, PROC, PROGRAM, SYS};
use plan::Plan;

/// `finit_module(2)`: the kernel decompresses the file (Linux 5.17).
const MODULE_INIT_COMPRESSED_FILE: libc::c_int = 4;

/// Whether the kernel of a guest has started us as its first process.
pub(crate) fn invoked(arguments: &[OsString]) -> bool {
    std::process::id() == 1 && arguments.first().is_some_and(|name| name == PROGRAM)
}

/// Does what the plan says and never returns: the first process must not end.
pub(crate) fn run(arguments: &[OsString]) -> ! {
    let Err(reason) = carry_out(arguments);
    // The console is all there is to say it on; the host reads it there.
    let line = format!("\r\n{FAILURE}{reason}\r\n");
    let _ = File::options()
        .write(true)
        .open("/dev/console")
        .and_then(|mut console| console.write_all(line.as_bytes()));
    power_off()
}

fn carry_out(arguments: &[OsString]) -> Result<Infallible, String> {
    for (source, target) in [("proc", PROC), ("sysfs", SYS), ("devtmpfs", DEV)] {
        mount(source, target, source, MountFlags::empty(), None::<&CStr>)
            .map_err(|error| format!("mounting {target}: {error}"))?;
    }
    let plan = fs::read(plan::PATH).map_err(|error| format!("reading {}: {error}", plan::PATH))?;
    let plan = Plan::read(&plan).ok_or_else(|| format!("{} is damaged", plan::PATH))?;
    for module in &plan.modules {
        load(module).map_err(|error| format!("loading {module}: {error}"))?;
    }
    for file in &plan.files {
        fs::remove_file(file).map_err(|error| format!("removing {file}: {error}"))?;
    }
    root::mount(&plan)?;

    let Some(init) = &plan.init else {
        // Looked up while /sys is in sight; the new root need not have one.
        let port = command::open_port()?;
        root::enter()?;
        root::mount_for_command(&plan)?;
        command::run(&plan, port)?;
        power_off()
    };
    root::enter()?;
    // As the kernel would have done: the words on its command line that it did not know go to init.
    let error = Command::new(init).args(&arguments[1..]).exec();
    Err(format!("starting {init}: {error}"))
}

fn load(module: &str) -> io::Result<()> {
    let flags = if module.ends_with(".ko") {
        0
    } else {
        MODULE_INIT_COMPRESSED_FILE
    };
    match finit_module(File::open(module)?, c"", flags) {
        // Built in after all, or loaded by a device's alias in the meantime.
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn power_off() -> ! {
    rustix::fs::sync();
    // Refused only to those who are not root. Then, as ever, the first process must not end.
    let _ = reboot(RebootCommand::PowerOff);
    loop {
        std::thread::park();
    }
}
