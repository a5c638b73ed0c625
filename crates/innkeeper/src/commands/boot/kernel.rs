//! The choice of the kernel to boot, and its release.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::error::Error;
use super::root::Root;

/// A kernel, open for reading.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) file: File,
    /// What `uname -r` will say in the guest, the name of its directory in /lib/modules.
    pub(crate) release: String,
}

impl Kernel {
    /// The kernel the user named, or the newest in the root's /boot.
    pub(crate) fn find(named: Option<&Path>, root: &Root, root_path: &Path) -> Result<Self, Error> {
        let (file, path) = match named {
            Some(path) => (File::open(path), path.to_path_buf()),
            None => {
                let name = newest(root).ok_or_else(|| Error::NoKernel { root: root_path.into() })?;
                let inside = format!("boot/{name}");
                (root.file(&inside), root.display(&inside))
            }
        };
        let read_error = |source| Error::ReadKernel {
            path: path.clone(),
            source,
        };
        let file = file.map_err(read_error)?;
        match release(&file) {
            Ok(Some(release)) => Ok(Self { file, release }),
            Ok(None) => Err(Error::NotAKernel { path }),
            Err(source) => Err(read_error(source)),
        }
    }
}

fn newest(root: &Root) -> Option<String> {
    let names = root
        .names("boot")
        .unwrap_or_default()
        .into_iter()
        .filter_map(|name| name.into_string().ok());
    names
        .filter(|name| name.starts_with("vmlinuz-"))
        .max_by_key(|name| version_key(name))
}

/// Orders versions as people do: 6.12 comes after 6.9.
fn version_key(version: &str) -> Vec<(u64, String)> {
    let mut parts = Vec::new();
    for part in version.split(['.', '-', '+', '_', '~']) {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        parts.push((part[..digits].parse().unwrap_or(0), part[digits..].to_owned()));
    }
    parts
}

/// The release in a bzImage's setup header; `None` if this is no bzImage (Linux x86 boot protocol).
fn release(image: &File) -> io::Result<Option<String>> {
    const SECTOR: u64 = 0x200;
    let mut header = [0; 16];
    match image.read_exact_at(&mut header, 0x202) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    // At 0x202 the magic, at 0x206 the protocol's version (the pointer came with 2.00), at 0x20e the pointer to the text.
    let protocol = u16::from_le_bytes([header[4], header[5]]);
    let pointer = u16::from_le_bytes([header[12], header[13]]);
    if &header[..4] != b"HdrS" || protocol < 0x200 || pointer == 0 {
        return Ok(None);
    }
    let mut text = [0; 128];
    let length = image.read_at(&mut text, SECTOR + u64::from(pointer))?;
    let first_word = text[..length]
        .split(|&byte| byte == b' ' || byte == 0)
        .next()
        .unwrap_or_default();
    // It becomes a directory's name below /lib/modules.
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-+_~".contains(byte);
    Ok(String::from_utf8(first_word.to_vec())
        .ok()
        .filter(|word| !word.is_empty() && word.bytes().all(|b| plain(&b))))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use super::*;

    /// As much of a bzImage as is looked at.
    pub(crate) fn image(release: &str) -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        let text = format!("{release} (builder@host) #1 SMP");
        image[0x300..0x300 + text.len()].copy_from_slice(text.as_bytes());
        image
    }

    fn release_of(image: &[u8]) -> Option<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), image).unwrap();
        release(file.as_file()).unwrap()
    }

    #[test]
    fn the_release_is_read_from_the_setup_header() {
        assert_eq!(
            release_of(&image("6.1.0-56-cloud-amd64")).as_deref(),
            Some("6.1.0-56-cloud-amd64")
        );
    }

    #[test]
    fn what_is_no_kernel_is_none() {
        assert_eq!(release_of(b""), None);
        assert_eq!(release_of(&[0; 4096]), None);
        assert_eq!(
            release_of(&image("../../etc")),
            None,
            "a release is one name, not a path"
        );
    }

    #[test]
    fn the_newest_kernel_is_taken() {
        let tree = tempfile::tempdir().unwrap();
        let boot = tree.path().join("boot");
        fs::create_dir(&boot).unwrap();
        for release in ["6.9.1-amd64", "6.12.3-amd64", "5.10.0"] {
            fs::write(boot.join(format!("vmlinuz-{release}")), image(release)).unwrap();
        }
        fs::write(boot.join("config-7.0.0"), "").unwrap();
        let root = Root::open(tree.path()).unwrap();
        let kernel = Kernel::find(None, &root, tree.path()).unwrap();
        assert_eq!(kernel.release, "6.12.3-amd64");
    }
}
