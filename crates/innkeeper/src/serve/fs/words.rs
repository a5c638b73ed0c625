//! QEMU's options for a share, and the guest's mount command.

use super::args::Export;
use crate::serve::qemu::{QemuDevice, option_value, shell_word};

/// The command that mounts the share in the guest.
pub(super) fn mount(tag: &str, export: &Export) -> String {
    let options: Vec<_> = [(export.readonly, "ro"), (export.dax.is_some(), "dax=inode")]
        .into_iter()
        .filter_map(|(wanted, option)| wanted.then_some(option))
        .collect();
    let options = match options.join(",") {
        none if none.is_empty() => none,
        some => format!("-o {some} "),
    };
    format!("mount -t virtiofs {options}{} /mnt", shell_word(tag))
}

/// QEMU's device for a share.
pub(super) fn qemu(tag: &str, export: &Export, packed: bool) -> QemuDevice {
    if export.dax.is_some() {
        return generic(export);
    }
    let mut options = format!(",tag={}", option_value(tag));
    if export.num_queues > 1 {
        options.push_str(&format!(",num-request-queues={}", export.num_queues));
    }
    if packed {
        options.push_str(",packed=on");
    }
    QemuDevice {
        id: "share",
        name: "vhost-user-fs-pci",
        options,
        netdev: None,
    }
}

/// The one device of QEMU that has shared memory (11.1). It passes on every feature that we offer, packed rings among them, and
/// takes the tag from us.
fn generic(export: &Export) -> QemuDevice {
    QemuDevice {
        id: "share",
        name: "vhost-user-test-device-pci",
        options: format!(",virtio-id=26,num_vqs={},config_size=44", export.num_queues + 1),
        netdev: None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use crate::serve::device::Service;
    use crate::serve::fs::Share;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        share: Share,
    }

    fn share(tag: &str, options: &[&str]) -> Share {
        let line = ["share", "/srv", "--socket-path", "/s", "--tag", tag];
        Line::parse_from(line.iter().chain(options)).share
    }

    #[test]
    fn the_qemu_line_asks_for_what_is_not_qemus_default() {
        let four = share("data", &["--num-queues", "4", "--ring", "packed"]);
        let line = four.qemu().command_line(Path::new("/run/fs.sock"));
        assert!(line.ends_with(
            "-chardev socket,id=share,path=/run/fs.sock \
             -device vhost-user-fs-pci,chardev=share,tag=data,num-request-queues=4,packed=on"
        ));
        assert!(
            line.contains("memory-backend-memfd,id=mem,size=1G,share=on"),
            "vhost-user needs shared memory"
        );
        let line = share("data", &[]).qemu().command_line(Path::new("/run/fs.sock"));
        assert!(line.ends_with("-device vhost-user-fs-pci,chardev=share,tag=data"));
    }

    #[test]
    fn a_name_reaches_qemu_and_the_guest_whatever_it_holds() {
        let line = share("it's, all", &[]).qemu().command_line(Path::new("/run/a b,c"));
        assert!(line.contains("-chardev 'socket,id=share,path=/run/a b,,c'"));
        assert!(line.ends_with(r"-device 'vhost-user-fs-pci,chardev=share,tag=it'\''s,, all'"));
        assert_eq!(
            mount("two words", &share("two words", &["--readonly"]).export),
            "mount -t virtiofs -o ro 'two words' /mnt"
        );
    }
}
