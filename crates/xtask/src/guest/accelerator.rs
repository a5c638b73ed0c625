//! Detects whether QEMU can use KVM on this machine, by running a guest.

use std::path::Path;
use std::time::Duration;

use super::console::Console;
use super::qemu::QemuCommand;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Kvm,
    Tcg,
}

impl Accelerator {
    /// Boots the kernel without a root under KVM. /dev/kvm may be there, and even make machines, and still not run a
    /// guest: nested hosts fail when QEMU sets a register, or at some instruction that they cannot emulate.
    pub(crate) fn probe(qemu: &Path, kernel: &Path) -> Accelerator {
        if !Path::new("/dev/kvm").exists() {
            return Accelerator::Tcg;
        }
        let command = QemuCommand::new(qemu, Accelerator::Kvm, 1).machine(kernel, 512, "");
        let booted = Console::start(command.build(), None)
            .and_then(|mut console| console.wait_for("Linux version", Duration::from_secs(10)));
        if booted.is_ok() {
            Accelerator::Kvm
        } else {
            Accelerator::Tcg
        }
    }

    pub(crate) fn options(self) -> [&'static str; 4] {
        match self {
            Accelerator::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Accelerator::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }

    /// QEMU's `-smp`. As `innkeeper boot` has it, and for its reason: a translator with one thread, or for one processor
    /// at most, leaves out the barriers that keep kicks and calls from being lost.
    pub(crate) fn processors(self, cpus: u16) -> String {
        match self {
            Accelerator::Kvm => cpus.to_string(),
            Accelerator::Tcg => format!("{cpus},maxcpus={}", cpus.max(2)),
        }
    }
}
