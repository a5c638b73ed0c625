//! Detects whether QEMU can use KVM here.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use super::error::Error;

/// How long the kernel may take to its first word. It takes a tenth of a second where KVM works.
const PATIENCE: Duration = Duration::from_secs(10);

/// What runs the guest's instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Kvm,
    /// QEMU's own translator, and why not KVM.
    Tcg(String),
}

impl Accelerator {
    /// Tries KVM out. /dev/kvm may be there and even make virtual machines, and still no guest may run on it (a nested host
    /// that does not pass on what `-cpu host` promises, or cannot emulate some instruction): only a kernel that has said its
    /// first word tells.
    pub(crate) fn probe(qemu: &Path, kernel: &File) -> Result<Self, Error> {
        if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
            let way_out = if error.kind() == io::ErrorKind::PermissionDenied {
                "; join the group kvm"
            } else {
                ""
            };
            return Ok(Self::Tcg(format!("/dev/kvm: {error}{way_out}")));
        }
        match try_out(qemu, kernel) {
            Ok(None) => Ok(Self::Kvm),
            Ok(Some(said)) => Ok(Self::Tcg(format!("no guest starts with it: {said}"))),
            Err(source) => Err(Error::RunQemu {
                program: qemu.into(),
                source,
            }),
        }
    }

    /// QEMU's options.
    pub(crate) fn options(&self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg(_) => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }

    /// QEMU's `-smp`. Its translator leaves out the guest's memory barriers where it believes that one thread alone sees the
    /// guest's memory: for one thread, or for a machine that can have only one processor. The daemon is a further thread,
    /// and without those barriers (VIRTIO 1.1 2.6.13.4.1 for split rings) kicks and calls are lost.
    pub(crate) fn processors(&self, cpus: u16) -> String {
        match self {
            Self::Kvm => cpus.to_string(),
            Self::Tcg(_) => format!("{cpus},maxcpus={}", cpus.max(2)),
        }
    }
}

/// What a machine on trial does first.
enum Sign {
    Console,
    Complaint(String),
    Gone,
}

/// Starts the kernel, without a root, until it speaks; answers what QEMU complained of instead.
fn try_out(qemu: &Path, kernel: &File) -> io::Result<Option<String>> {
    // By descriptor, since what the root calls a path may be another file on the host.
    let kernel = format!("/proc/{}/fd/{}", std::process::id(), kernel.as_raw_fd());
    let mut command = Command::new(qemu);
    process::child::die_with_us(&mut command);
    let mut child = command
        .args([
            "-machine",
            "q35",
            "-m",
            "256",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args(Accelerator::Kvm.options())
        .arg("-kernel")
        .arg(kernel)
        .args([
            "-append",
            "console=ttyS0 earlyprintk=serial,ttyS0 panic=-1",
            "-serial",
            "stdio",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (signs, seen) = channel();
    let watchers = [
        child
            .stdout
            .take()
            .map(|console| watch(console, signs.clone(), greeting)),
        child
            .stderr
            .take()
            .map(|complaints| watch(complaints, signs, complaint)),
    ];
    let first = seen.recv_timeout(PATIENCE);
    child.kill()?;
    child.wait()?;
    for watcher in watchers.into_iter().flatten() {
        // They end with QEMU's ends of the pipes, and have nothing to say any more.
        let _ = watcher.join();
    }
    Ok(match first {
        Ok(Sign::Console) => None,
        Ok(Sign::Complaint(line)) => Some(line),
        // The complaint may have come just behind the end of the console.
        Ok(Sign::Gone) => Some(
            seen.try_iter()
                .find_map(Sign::words)
                .unwrap_or_else(|| "QEMU ended at once".into()),
        ),
        Err(_) => Some(format!("the kernel was silent for {} seconds", PATIENCE.as_secs())),
    })
}

impl Sign {
    fn words(self) -> Option<String> {
        match self {
            Sign::Complaint(line) => Some(line),
            Sign::Console | Sign::Gone => None,
        }
    }
}

/// Reads one of QEMU's outputs to its end, and sends what `judge` first makes of all that came.
fn watch(
    mut output: impl Read + Send + 'static,
    signs: Sender<Sign>,
    judge: fn(&str) -> Option<Sign>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let (mut said, mut bytes) = (String::new(), [0; 4096]);
        while let Ok(length @ 1..) = output.read(&mut bytes) {
            said.push_str(&String::from_utf8_lossy(&bytes[..length]));
            if let Some(sign) = judge(&said) {
                // Nobody listens any more once the verdict is known; the same below.
                let _ = signs.send(sign);
                return;
            }
        }
        let _ = signs.send(Sign::Gone);
    })
}

/// The kernel's first line. Its decompressor speaks before, and is where a KVM that cannot emulate fails.
fn greeting(console: &str) -> Option<Sign> {
    console.contains("Linux version").then_some(Sign::Console)
}

/// Warnings are no complaints: QEMU warns of each processor feature that the host lacks.
fn complaint(said: &str) -> Option<Sign> {
    let (lines, _unfinished) = said.rsplit_once('\n')?;
    let mut lines = lines.lines().map(str::trim);
    let line = lines.find(|line| !line.is_empty() && !line.contains("warning:"))?;
    Some(Sign::Complaint(line.to_owned()))
}

impl std::fmt::Display for Accelerator {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kvm => to.write_str("KVM"),
            Self::Tcg(reason) => write!(to, "TCG, which is slow, since KVM does not work ({reason})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(said: &str) -> Option<String> {
        complaint(said).and_then(Sign::words)
    }

    #[test]
    fn a_warning_of_qemu_is_no_reason_against_kvm() {
        let warning = "qemu: warning: host doesn't support requested feature: CPUID.80000001H:ECX.svm [bit 2]\n";
        assert_eq!(words_of(warning), None);
        let error = format!("{warning}\nKVM internal error. Suberror: 1\n");
        assert_eq!(words_of(&error).as_deref(), Some("KVM internal error. Suberror: 1"));
    }

    #[test]
    fn a_qemu_that_ends_at_once_is_no_kvm() {
        let seen = try_out(Path::new("/bin/false"), &File::open("/dev/null").unwrap()).unwrap();
        assert_eq!(seen.as_deref(), Some("QEMU ended at once"));
    }
}
