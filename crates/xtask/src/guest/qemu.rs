//! The QEMU command line of a guest with shares, and the differences between guests.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::guest::accelerator::Accelerator;
use crate::setup::Parts;

/// Which emulated device carries a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    /// The host's QEMU, `vhost-user-fs-pci`.
    HostFs,
    /// The newer QEMU, `vhost-user-fs-pci`.
    NewFs,
    /// The newer QEMU's generic device, which shows the guest every feature that the daemon offers.
    NewGeneric,
    /// User-Mode Linux's own front end, without QEMU.
    Uml,
}

/// One column of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) device: Device,
    pub(crate) packed: bool,
    /// Request queues.
    pub(crate) queues: u16,
}

impl Variant {
    /// The QEMU that has the device; `None` if no QEMU has it.
    pub(crate) fn program(self, parts: &Parts) -> Option<&Path> {
        match self.device {
            Device::HostFs => Some(&parts.boot.qemu),
            Device::NewFs | Device::NewGeneric => Some(&parts.new_qemu),
            Device::Uml => None,
        }
    }

    /// What `innkeeper share --ring` has to be. The fs device is asked for its format by an option of its own, and a
    /// daemon that offers both proves that the option decides; elsewhere the daemon alone decides.
    pub(crate) fn offer(self) -> &'static str {
        match self.device {
            Device::NewGeneric | Device::Uml if !self.packed => "split",
            _ => "auto",
        }
    }

    fn device_option(self, chardev: &str, tag: &str) -> Option<String> {
        let queues = self.queues;
        match self.device {
            Device::HostFs | Device::NewFs => {
                let packed = if self.packed { "on" } else { "off" };
                Some(format!(
                    "vhost-user-fs-pci,chardev={chardev},tag={tag},num-request-queues={queues},packed={packed}"
                ))
            }
            // virtio-fs is device 26. Its configuration: tag, number of queues, size of notification buffers.
            Device::NewGeneric => {
                let all = 1 + queues;
                Some(format!(
                    "vhost-user-test-device-pci,chardev={chardev},virtio-id=26,num_vqs={all},config_size=44"
                ))
            }
            Device::Uml => None,
        }
    }
}

impl std::fmt::Display for Variant {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let device = match self.device {
            Device::HostFs => "qemu7-fs",
            Device::NewFs => "qemu11-fs",
            Device::NewGeneric => "qemu11-generic",
            Device::Uml => "uml",
        };
        write!(
            to,
            "{device}/{}/{}q",
            if self.packed { "packed" } else { "split" },
            self.queues
        )
    }
}

pub(crate) struct QemuCommand(Command);

impl QemuCommand {
    pub(crate) fn new(program: &Path, accelerator: Accelerator, cpus: u16) -> QemuCommand {
        let mut command = Command::new(program);
        command
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(accelerator.options())
            .args(["-smp", &accelerator.processors(cpus)]);
        command.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
        QemuCommand(command)
    }

    /// A machine whose memory other processes can map; `memory` in MiB.
    pub(crate) fn machine(mut self, kernel: &Path, memory: u32, append: &str) -> QemuCommand {
        self.0
            .args(["-M", "q35,memory-backend=mem", "-m", &format!("{memory}M")])
            .args([
                "-object",
                &format!("memory-backend-memfd,id=mem,size={memory}M,share=on"),
            ])
            .arg("-kernel")
            .arg(kernel)
            .args(["-append", &format!("console=ttyS0 panic=-1 {append}")]);
        self
    }

    pub(crate) fn shares(mut self, shares: &[(PathBuf, &str)], variant: Variant) -> QemuCommand {
        for (index, (socket, tag)) in shares.iter().enumerate() {
            let chardev = format!("c{index}");
            let Some(device) = variant.device_option(&chardev, tag) else {
                continue;
            };
            self.0
                .args(["-chardev", &format!("socket,id={chardev},path={}", socket.display())])
                .args(["-device", &device]);
        }
        self
    }

    pub(crate) fn build(self) -> Command {
        self.0
    }
}
