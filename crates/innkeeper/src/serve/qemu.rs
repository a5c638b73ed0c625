//! QEMU's options for a device, and a command line of them to paste into a shell.

use std::path::Path;

/// A device of QEMU whose back end is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QemuDevice {
    /// Of its character device, among others of the machine.
    pub(crate) id: &'static str,
    /// Its name, such as `vhost-user-fs-pci`.
    pub(crate) name: &'static str,
    /// Its options but for the character device, each with a comma in front.
    pub(crate) options: String,
}

impl QemuDevice {
    /// The value of QEMU's `-device`, on character device `chardev`.
    pub(crate) fn on(&self, chardev: &str) -> String {
        format!("{},chardev={chardev}{}", self.name, self.options)
    }

    /// The QEMU command line, up to the user's own drives and kernel.
    pub(crate) fn command_line(&self, socket: &Path) -> String {
        let chardev = format!("socket,id={},path={}", self.id, option_value(&socket.to_string_lossy()));
        format!(
            "qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=mem,size=1G,share=on -machine q35,memory-backend=mem \
             -chardev {} -device {}",
            shell_word(&chardev),
            shell_word(&self.on(self.id)),
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
