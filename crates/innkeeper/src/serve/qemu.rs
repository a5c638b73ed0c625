//! QEMU's options for a device, and a command line of them to paste into a shell.

use std::path::Path;

/// A device of QEMU whose back end is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QemuDevice {
    /// Of its character device, among others of the machine.
    pub(crate) id: &'static str,
    /// Its name, such as `vhost-user-fs-pci`.
    pub(crate) name: &'static str,
    /// Its options but for what it is connected to, each with a comma in front.
    pub(crate) options: String,
    /// Set for a network device, which QEMU connects by a `-netdev`: the options of that but for the character device.
    pub(crate) netdev: Option<String>,
}

impl QemuDevice {
    /// QEMU's options for the device on character device `chardev`: one or two, each with its value.
    pub(crate) fn on(&self, chardev: &str) -> Vec<String> {
        let Self { name, options, .. } = self;
        match &self.netdev {
            None => vec!["-device".into(), format!("{name},chardev={chardev}{options}")],
            Some(netdev) => vec![
                "-netdev".into(),
                format!("vhost-user,id={chardev},chardev={chardev}{netdev}"),
                "-device".into(),
                format!("{name},netdev={chardev}{options}"),
            ],
        }
    }

    /// The QEMU command line, up to the user's own drives and kernel.
    pub(crate) fn command_line(&self, socket: &Path) -> String {
        let chardev = format!("socket,id={},path={}", self.id, option_value(&socket.to_string_lossy()));
        let words: Vec<_> = self.on(self.id).iter().map(|word| shell_word(word)).collect();
        format!(
            "qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=mem,size=1G,share=on -machine q35,memory-backend=mem \
             -chardev {} {}",
            shell_word(&chardev),
            words.join(" "),
        )
    }
}

/// A comma ends a value in QEMU's option lists unless it is doubled.
pub(crate) fn option_value(value: &str) -> String {
    value.replace(',', ",,")
}

/// A word as a shell reads it.
pub(crate) fn shell_word(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+=,:@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
