//! An initramfs archive: cpio in "newc" form, as the kernel's initramfs/buffer-format document defines it.

/// The archive being written.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory, mode 0755. The kernel makes no parents: each must have been added before.
    pub(crate) fn directory(&mut self, path: &str) {
        self.entry(path, 0o040_755, &[]);
    }

    /// Adds a regular file with these permission bits.
    pub(crate) fn file(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.entry(path, 0o100_000 | mode, contents);
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.entries += 1;
        // Names in the archive are relative to the root.
        let name = path.trim_start_matches('/');
        let (inode, size) = (self.entries, contents.len());
        // In order: inode, mode, user, group, links, time, size, device (2), special device (2), name size, checksum.
        let fields = [
            inode,
            mode,
            0,
            0,
            1,
            0,
            size as u32,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").into_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    /// Header with name, and contents, each end on a multiple of four bytes.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_aligned_and_says_its_size() {
        let mut archive = Archive::default();
        archive.directory("/bin");
        archive.file("/bin/x", 0o755, b"12345");
        let bytes = archive.finish();

        assert_eq!(&bytes[..14], b"07070100000001");
        assert_eq!(&bytes[14..22], b"000041ed", "a directory of mode 0755");
        // "bin" and its NUL end at 114, padded to 116.
        let file = &bytes[116..];
        assert_eq!(&file[14..22], b"000081ed", "a regular file of mode 0755");
        assert_eq!(&file[54..62], b"00000005");
        // "bin/x" and its NUL end at 116, a multiple of four already.
        assert_eq!(&file[116..124], b"12345\0\0\0");
        assert_eq!(&file[124..130], b"070701");
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.windows(11).any(|name| name == b"TRAILER!!!\0"));
    }
}
