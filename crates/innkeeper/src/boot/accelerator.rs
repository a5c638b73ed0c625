//! Whether QEMU can use KVM here.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::Error;

/// What runs the guest's instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Kvm,
    /// QEMU's own translator, and why not KVM.
    Tcg(String),
}

impl Accelerator {
    /// Tries KVM out. /dev/kvm may be there and even make virtual machines, and still QEMU may not run on it (a nested
    /// host that does not pass on what `-cpu host` promises): only a QEMU that has started tells.
    pub(crate) fn probe(qemu: &Path) -> Result<Self, Error> {
        if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
            let way_out = if error.kind() == io::ErrorKind::PermissionDenied {
                "; join the group kvm"
            } else {
                ""
            };
            return Ok(Self::Tcg(format!("/dev/kvm: {error}{way_out}")));
        }
        match try_out(qemu) {
            Ok(None) => Ok(Self::Kvm),
            Ok(Some(said)) => Ok(Self::Tcg(format!("QEMU does not start with it: {said}"))),
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
}

/// Starts a machine that is stopped before its first instruction, and ends it; answers what QEMU complained of.
fn try_out(qemu: &Path) -> io::Result<Option<String>> {
    let mut child = Command::new(qemu)
        .args([
            "-machine",
            "q35",
            "-m",
            "64",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-S",
        ])
        .args(Accelerator::Kvm.options())
        .args(["-monitor", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut monitor) = child.stdin.take() {
        // A QEMU that is gone already tells by its status.
        let _ = monitor.write_all(b"quit\n");
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
    Ok(Some(first.trim().to_owned()))
}

impl std::fmt::Display for Accelerator {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kvm => to.write_str("KVM"),
            Self::Tcg(reason) => write!(to, "TCG, which is slow, since KVM does not work ({reason})"),
        }
    }
}
