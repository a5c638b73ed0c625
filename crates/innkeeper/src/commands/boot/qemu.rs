//! The virtual machine: QEMU's command line, and the running QEMU.
#![expect(
    unsafe_code,
    reason = "what QEMU inherits can be arranged only between fork and exec"
)]

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use process::child::die_with_us;

use super::accelerator::Accelerator;
use super::error::Error;
use crate::guest::channel;
use crate::serve::qemu::QemuDevice;

const PROGRAM: &str = "qemu-system-x86_64";

/// As much of QEMU's complaints as is kept.
const SAID_BYTES: u64 = 16 << 10;

/// Everything that makes up the machine. QEMU inherits the descriptors; nothing has a name that another user could open
/// or that would be left over.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) accelerator: &'a Accelerator,
    pub(crate) memory: u64,
    pub(crate) cpus: u16,
    pub(crate) kernel: OwnedFd,
    pub(crate) initrd: Option<OwnedFd>,
    pub(crate) words: String,
    pub(crate) devices: Vec<Attached>,
    pub(crate) console: OwnedFd,
    pub(crate) channel: Option<OwnedFd>,
}

/// A device whose back end is ours.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) qemu: QemuDevice,
    /// Connected to the back end.
    pub(crate) socket: OwnedFd,
}

/// Finds the QEMU to run: a name without a slash is looked for in PATH, as a shell does.
pub(crate) fn find(named: Option<&Path>) -> Result<PathBuf, Error> {
    let program = named.unwrap_or(Path::new(PROGRAM));
    if program.components().count() > 1 || program.has_root() {
        return if program.exists() {
            Ok(program.into())
        } else {
            Err(Error::NoQemu {
                program: program.display().to_string(),
            })
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file());
    found.ok_or_else(|| Error::NoQemu {
        program: format!("{} in PATH", program.display()),
    })
}

/// Finds a QEMU with shared memory for devices (11.1): the one named, else the one in PATH.
pub(crate) fn find_for_dax(named: Option<&Path>) -> Result<PathBuf, Error> {
    let program = find(named)?;
    if knows_generic_device(&program) {
        Ok(program)
    } else {
        Err(Error::NoQemuForDax { program })
    }
}

/// QEMU does not list the device, but tells about its options.
fn knows_generic_device(program: &Path) -> bool {
    let help = Command::new(program)
        .args(["-device", "vhost-user-test-device-pci,help"])
        .output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("num_vqs"))
}

impl Machine<'_> {
    fn arguments(&self) -> Vec<OsString> {
        let mut line = Vec::<OsString>::new();
        let mut add = |words: &[&str]| line.extend(words.iter().map(OsString::from));
        add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        // The daemon maps the guest's memory: it must be shared.
        let memory = format!("memory-backend-memfd,id=mem,size={},share=on", self.memory);
        add(&[
            "-machine",
            "q35,memory-backend=mem",
            "-object",
            &memory,
            "-m",
            &format!("{}M", self.memory >> 20),
        ]);
        add(&["-smp", &self.accelerator.processors(self.cpus)]);
        add(&self.accelerator.options());
        add(&["-kernel", &descriptor_path(&self.kernel), "-append", &self.words]);
        if let Some(initrd) = &self.initrd {
            add(&["-initrd", &descriptor_path(initrd)]);
        }
        add(&[
            "-chardev",
            &chardev("console", &self.console),
            "-serial",
            "chardev:console",
        ]);
        for (index, device) in self.devices.iter().enumerate() {
            let id = format!("{}{index}", device.qemu.id);
            add(&["-chardev", &chardev(&id, &device.socket)]);
            let words = device.qemu.on(&id);
            add(&words.iter().map(String::as_str).collect::<Vec<_>>());
        }
        if let Some(socket) = &self.channel {
            add(&[
                "-chardev",
                &chardev("channel", socket),
                "-device",
                "virtio-serial-pci,max_ports=2",
            ]);
            add(&[
                "-device",
                &format!("virtserialport,chardev=channel,name={}", channel::PORT),
            ]);
        }
        line
    }

    fn descriptors(&self) -> Vec<RawFd> {
        let devices = self.devices.iter().map(|device| &device.socket);
        let rest = [
            Some(&self.kernel),
            self.initrd.as_ref(),
            Some(&self.console),
            self.channel.as_ref(),
        ];
        devices
            .chain(rest.into_iter().flatten())
            .map(AsRawFd::as_raw_fd)
            .collect()
    }

    /// Starts QEMU. It dies with the calling thread, which must be the one that lives as long as innkeeper does.
    pub(crate) fn start(self, program: &Path) -> Result<Qemu, Error> {
        let mut command = Command::new(program);
        command
            .args(self.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        tracing::debug!("starting {command:?}");
        die_with_us(&mut command);
        let inherited = self.descriptors();
        // SAFETY: `prepare` makes system calls only and allocates nothing, as is due between fork and exec.
        unsafe { command.pre_exec(move || prepare(&inherited)) };
        let mut child = command.spawn().map_err(|source| Error::RunQemu {
            program: program.into(),
            source,
        })?;
        let stderr = child.stderr.take();
        let said = thread::spawn(move || stderr.map(collect).unwrap_or_default());
        Ok(Qemu {
            child,
            said: Some(said),
        })
    }
}

/// A running QEMU, killed when dropped.
#[derive(Debug)]
pub(crate) struct Qemu {
    child: Child,
    said: Option<JoinHandle<String>>,
}

impl Qemu {
    /// Waits for the end of a QEMU that is about to end by itself.
    pub(crate) fn wait(mut self) -> Result<(), Error> {
        let status = self.child.wait().map_err(process::Error::system("wait for QEMU"))?;
        let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        let said = if said.trim().is_empty() {
            "nothing".into()
        } else {
            said.trim().to_owned()
        };
        Err(Error::QemuFailed {
            status: describe(status),
            said,
        })
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // SIGKILL, since nothing of QEMU's own is worth saving: it has no disk, and its memory goes with it. Both fail only
        // if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the child: the descriptors that were made for it stay open.
fn prepare(inherited: &[RawFd]) -> io::Result<()> {
    for &descriptor in inherited {
        // SAFETY: the parent holds these descriptors open across the fork.
        let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) };
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())?;
    }
    Ok(())
}

fn collect(mut stderr: impl Read) -> String {
    let mut said = Vec::new();
    // A broken pipe ends the text, no more.
    let _ = stderr.by_ref().take(SAID_BYTES).read_to_end(&mut said);
    let _ = io::copy(&mut stderr, &mut io::sink());
    String::from_utf8_lossy(&said).into_owned()
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("signal {signal}"),
        None => format!("exit status {}", status.code().unwrap_or_default()),
    }
}

fn chardev(id: &str, socket: &OwnedFd) -> String {
    format!("socket,id={id},fd={}", socket.as_raw_fd())
}

fn descriptor_path(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::boot::args::tests::parsed;

    fn line(options: &[&str], channel: bool) -> String {
        let boot = parsed(&[&["/srv"], options].concat());
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let machine = Machine {
            accelerator: &Accelerator::Tcg("no /dev/kvm".into()),
            memory: boot.memory.0,
            cpus: boot.cpus,
            kernel: null(),
            initrd: None,
            words: "console=ttyS0".into(),
            devices: vec![Attached {
                qemu: QemuDevice {
                    id: "share",
                    name: "vhost-user-fs-pci",
                    options: ",tag=a,,b".into(),
                    netdev: None,
                },
                socket: null(),
            }],
            console: null(),
            channel: channel.then(null),
        };
        let words = machine.arguments();
        words
            .iter()
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn the_machine_has_what_was_asked_for() {
        let line = line(&["--memory", "512M", "--cpus", "3"], false);
        assert!(
            line.contains("-object memory-backend-memfd,id=mem,size=536870912,share=on -m 512M -smp 3,maxcpus=3"),
            "{line}"
        );
        assert!(line.contains("-accel tcg,thread=multi -cpu max"), "{line}");
        assert!(
            line.contains("-device vhost-user-fs-pci,chardev=share0,tag=a,,b"),
            "{line}"
        );
        assert!(!line.contains("-initrd") && !line.contains("virtserialport"), "{line}");
    }

    #[test]
    fn a_command_gets_its_channel() {
        let line = line(&[], true);
        assert!(
            line.contains("-device virtserialport,chardev=channel,name=innkeeper"),
            "{line}"
        );
    }
}
