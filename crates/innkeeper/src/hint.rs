//! What to paste into a shell so that a guest gets the share.

use std::path::Path;

use crate::args::{Export, Ring};

/// The QEMU command line, up to the user's own drives and kernel.
pub(crate) fn qemu(socket: &Path, tag: &str, export: &Export) -> String {
    let chardev = format!("socket,id=share,path={}", option_value(&socket.to_string_lossy()));
    format!(
        "qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=mem,size=1G,share=on -machine q35,memory-backend=mem \
         -chardev {} -device {}",
        shell_word(&chardev),
        shell_word(&device("share", tag, export, export.ring == Ring::Packed)),
    )
}

/// The command that mounts the share in the guest.
pub(crate) fn mount(tag: &str, export: &Export) -> String {
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

/// QEMU's device for a share on character device `chardev`.
pub(crate) fn device(chardev: &str, tag: &str, export: &Export, packed: bool) -> String {
    if export.dax.is_some() {
        return generic_device(chardev, export);
    }
    let mut device = format!("vhost-user-fs-pci,chardev={chardev},tag={}", option_value(tag));
    if export.num_queues > 1 {
        device.push_str(&format!(",num-request-queues={}", export.num_queues));
    }
    if packed {
        device.push_str(",packed=on");
    }
    device
}

/// The one device of QEMU that has shared memory (11.1). It passes on every feature that we offer, packed rings among them, and
/// takes the tag from us.
fn generic_device(chardev: &str, export: &Export) -> String {
    format!(
        "vhost-user-test-device-pci,chardev={chardev},virtio-id=26,num_vqs={},config_size=44",
        export.num_queues + 1
    )
}

/// A comma ends a value in QEMU's option lists unless it is doubled.
fn option_value(value: &str) -> String {
    value.replace(',', ",,")
}

fn shell_word(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+=,:@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Job};

    fn export(options: &[&str]) -> Export {
        let line = ["innkeeper", "share", "/srv", "--socket-path", "/s"]
            .iter()
            .chain(options);
        let Job::Share(share) = Arguments::parse_from(line).job else {
            panic!("share was asked for")
        };
        share.export
    }

    #[test]
    fn the_qemu_line_asks_for_what_is_not_qemus_default() {
        let line = qemu(
            Path::new("/run/fs.sock"),
            "data",
            &export(&["--num-queues", "4", "--ring", "packed"]),
        );
        assert!(line.ends_with(
            "-chardev socket,id=share,path=/run/fs.sock \
             -device vhost-user-fs-pci,chardev=share,tag=data,num-request-queues=4,packed=on"
        ));
        assert!(
            line.contains("memory-backend-memfd,id=mem,size=1G,share=on"),
            "vhost-user needs shared memory"
        );
        let line = qemu(Path::new("/run/fs.sock"), "data", &export(&[]));
        assert!(line.ends_with("-device vhost-user-fs-pci,chardev=share,tag=data"));
    }

    #[test]
    fn a_name_reaches_qemu_and_the_guest_whatever_it_holds() {
        let line = qemu(Path::new("/run/a b,c"), "it's, all", &export(&[]));
        assert!(line.contains("-chardev 'socket,id=share,path=/run/a b,,c'"));
        assert!(line.ends_with(r"-device 'vhost-user-fs-pci,chardev=share,tag=it'\''s,, all'"));
        assert_eq!(
            mount("two words", &export(&["--readonly"])),
            "mount -t virtiofs -o ro 'two words' /mnt"
        );
    }
}
