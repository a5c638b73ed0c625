//! The host's plan for the guest, as a file of the initramfs.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Where the plan lies in the initramfs.
pub(crate) const PATH: &str = "/plan";

/// What the guest's first process has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Files of the initramfs to remove once all is loaded, to give their memory back.
    pub(crate) files: Vec<String>,
    /// Modules to load, in order.
    pub(crate) modules: Vec<String>,
    /// Tag of the share that becomes the root.
    pub(crate) root_tag: String,
    pub(crate) readonly: bool,
    /// The program to become when there is no command.
    pub(crate) init: Option<String>,
    /// The command to run, empty for none.
    pub(crate) command: Vec<OsString>,
    /// The host's terminal: its TERM, when the command is to have a terminal.
    pub(crate) terminal: Option<OsString>,
}

impl Plan {
    /// The plan as a file: `key NUL value NUL`, over and over. No value can hold a NUL, since all were arguments or paths.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let mut put = |key: &str, value: &OsStr| {
            for part in [key.as_bytes(), value.as_bytes()] {
                file.extend_from_slice(part);
                file.push(0);
            }
        };
        self.files.iter().for_each(|path| put("file", path.as_ref()));
        self.modules.iter().for_each(|path| put("module", path.as_ref()));
        put("root", self.root_tag.as_ref());
        put("readonly", if self.readonly { "yes" } else { "no" }.as_ref());
        self.init.iter().for_each(|path| put("init", path.as_ref()));
        self.command.iter().for_each(|word| put("command", word));
        self.terminal.iter().for_each(|name| put("terminal", name));
        file
    }

    /// Reads what [`Plan::write`] wrote; `None` if this is anything else.
    pub(crate) fn read(file: &[u8]) -> Option<Self> {
        let mut plan = Self::default();
        let mut parts = file.strip_suffix(b"\0")?.split(|&byte| byte == 0);
        while let Some(key) = parts.next() {
            let value = parts.next()?;
            let text = || String::from_utf8(value.to_vec()).ok();
            let word = || OsString::from_vec(value.to_vec());
            match key {
                b"file" => plan.files.push(text()?),
                b"module" => plan.modules.push(text()?),
                b"root" => plan.root_tag = text()?,
                b"readonly" => plan.readonly = value == b"yes",
                b"init" => plan.init = Some(text()?),
                b"command" => plan.command.push(word()),
                b"terminal" => plan.terminal = Some(word()),
                _ => return None,
            }
        }
        Some(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let plan = Plan {
            files: vec!["/lib64/ld.so".into()],
            modules: vec!["/modules/fuse.ko".into(), "/modules/virtiofs.ko".into()],
            root_tag: "rootfs".into(),
            readonly: true,
            init: None,
            command: vec!["printf".into(), "".into(), OsString::from_vec(vec![0xff, b'\n'])],
            terminal: Some("xterm".into()),
        };
        assert_eq!(Plan::read(&plan.write()), Some(plan));
        let plan = Plan {
            init: Some("/sbin/init".into()),
            ..Plan::default()
        };
        assert_eq!(Plan::read(&plan.write()), Some(plan));
    }

    #[test]
    fn half_a_plan_is_none() {
        for wrong in [&b""[..], b"root\0", b"root\0tag", b"colour\0blue\0"] {
            assert_eq!(Plan::read(wrong), None);
        }
    }
}
