//! What a share could have of the host beyond files: DAX, file handles, locks.

use std::path::Path;
use std::process::Command;

use rustix::system::uname;
use rustix::thread::{CapabilitySet, capabilities};

use super::{BY_HANDLES, WITH_WINDOW};
use crate::serve::exercise::{Need, Ran};

/// In what a daemon says that can have no views of files.
const VIEWS: &str = "beyond the end of files";
/// The releases that DAX takes.
const LINUX: (u32, u32) = (6, 9);
const QEMU: (u32, u32) = (11, 1);

/// One line each.
pub(super) fn of(passes: &[Ran]) -> Vec<Need> {
    let pass = |name| passes.iter().find(|pass| pass.pass == name);
    vec![
        mapping(pass(WITH_WINDOW)),
        views(pass(WITH_WINDOW)),
        handles(pass(BY_HANDLES)),
        locks(),
    ]
}

/// Whether this process, and so a daemon of this user, has it.
fn has(capability: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(capability))
}

fn mapping(pass: Option<&Ran>) -> Need {
    let mapped = pass.is_some_and(|pass| {
        let mut operations = pass.operations.iter();
        pass.refused.is_none() && operations.any(|step| step.operation == "SETUPMAPPING" && step.errno.is_none())
    });
    let (new, qemu) = match qemu() {
        Some(version) => (version >= QEMU, format!("QEMU here is {}.{}", version.0, version.1)),
        None => (false, "no QEMU in PATH".to_owned()),
    };
    let mapped_here = if mapped {
        "files can be mapped"
    } else {
        "a file could not be mapped"
    };
    Need {
        what: "DAX",
        works: mapped && new,
        text: format!("{mapped_here}; needs QEMU {}.{} ({qemu})", QEMU.0, QEMU.1),
    }
}

fn views(pass: Option<&Ran>) -> Need {
    let (linux, release) = linux();
    let mut missing = Vec::new();
    for (there, what) in [
        (Path::new("/dev/fuse").exists(), "/dev/fuse".to_owned()),
        (has(CapabilitySet::SYS_ADMIN), "CAP_SYS_ADMIN".to_owned()),
        (
            linux >= LINUX,
            format!("Linux {}.{} (this is {release})", LINUX.0, LINUX.1),
        ),
    ] {
        if !there {
            missing.push(what);
        }
    }
    // All may be there and the sandbox in the way.
    let mut warnings = pass.map_or(&[][..], |pass| &pass.warnings).iter();
    let refused = warnings.find(|warning| warning.contains(VIEWS));
    let all = format!("/dev/fuse, CAP_SYS_ADMIN and Linux {}.{}", LINUX.0, LINUX.1);
    Need {
        what: "DAX of any length",
        works: missing.is_empty() && refused.is_none(),
        text: match refused {
            None if missing.is_empty() => format!("has what it needs: {all}"),
            Some(why) if missing.is_empty() => why.clone(),
            _ => format!(
                "only files of a multiple of 2 MiB; needs {all}; missing: {}",
                missing.join(", ")
            ),
        },
    }
}

fn handles(pass: Option<&Ran>) -> Need {
    let works = pass.is_some_and(|pass| pass.refused.is_none());
    let capability = if has(CapabilitySet::DAC_READ_SEARCH) {
        "there"
    } else {
        "missing"
    };
    Need {
        what: "file handles",
        works,
        text: if works {
            "files that the guest knows cost no descriptor".to_owned()
        } else {
            format!(
                "each file that the guest knows costs a descriptor; needs CAP_DAC_READ_SEARCH ({capability}), a file system that can \
                 be exported, and --sandbox namespace or none"
            )
        },
    }
}

fn locks() -> Need {
    Need {
        what: "locks of the host",
        works: false,
        text: "a guest's locks (flock, fcntl) hold within that guest; for the host's, a share would need FUSE_SETLK and a thread for each lock \
               that waits".to_owned(),
    }
}

fn linux() -> ((u32, u32), String) {
    let release = uname().release().to_string_lossy().into_owned();
    (version(&release).unwrap_or_default(), release)
}

fn qemu() -> Option<(u32, u32)> {
    let program = format!("qemu-system-{}", std::env::consts::ARCH);
    let output = Command::new(program).arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    version(said.split("version ").nth(1)?)
}

/// The first two numbers of a release.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_by_their_first_two_numbers() {
        assert_eq!(version("11.1.0 (Debian 1:11.1)"), Some((11, 1)));
        assert_eq!(version("6.9-rc1"), Some((6, 9)));
        assert!(version("10.2.1") < Some(QEMU));
        assert_eq!(version("none"), None);
    }
}
