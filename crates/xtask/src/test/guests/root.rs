//! The share as the guest's root: the negotiated features, the use of every queue, and a killed QEMU without
//! consequences for others.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::BOOT_LIMIT;
use crate::guest::qemu::Variant;
use crate::guest::{Guest, Lab};

/// Feature bits.
const VERSION_1: usize = 32;
const RING_PACKED: usize = 34;

/// A lane whose queue nobody uses sleeps a few times while it is set up; a used one far more than this.
const IDLE: u64 = 15;

/// The job that tells what was negotiated and uses every queue.
pub(super) const BOOT: &str = include_str!("../../../guest/boot.sh");

/// A guest boots from the directory, negotiates what the variant says, and uses each of its queues.
pub(super) fn root(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let mut guest = Guest::new(lab, variant, directory, BOOT)?;
    let bits = boot_and_check(&guest, variant)?;
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok(shown(&bits))
}

/// Returns the numbers of the feature bits that were negotiated.
pub(super) fn boot_and_check(guest: &Guest<'_>, variant: Variant) -> Result<Vec<usize>> {
    fs::write(guest.root().join("from-host"), "the host's words")?;
    let mut console = guest.start()?;
    console.wait_for("innkeeper-guest: used", BOOT_LIMIT)?;
    let lanes = guest.request_lanes()?;
    fs::write(guest.root().join("counted"), "")?;
    let printed = guest.end_of_job(console, BOOT_LIMIT)?;

    let bits = feature_bits(&printed)?;
    ensure!(
        bits.contains(&VERSION_1),
        "the guest negotiated {bits:?} without bit {VERSION_1}"
    );
    let packed = bits.contains(&RING_PACKED);
    ensure!(
        packed == variant.packed,
        "bit {RING_PACKED} is {packed} in the guest, which negotiated {bits:?}"
    );
    ensure!(
        printed.contains("root rootfs / virtiofs rw"),
        "the root is not our share:\n{printed}"
    );
    ensure!(
        printed.contains("host said the host's words"),
        "the guest read other data:\n{printed}"
    );
    let written = fs::read_to_string(guest.root().join("from-guest")).context("the guest's file is not there")?;
    ensure!(written == "guest says this\n", "the guest's file holds {written:?}");
    if let Some(lanes) = &lanes {
        ensure!(
            lanes.len() == usize::from(variant.queues),
            "the daemon runs these request lanes: {lanes:?}"
        );
        ensure!(
            lanes.iter().all(|&(_, sleeps)| sleeps > IDLE),
            "a request queue was not used: {lanes:?}"
        );
    }
    Ok(bits)
}

pub(super) fn shown(bits: &[usize]) -> String {
    let bits: Vec<String> = bits.iter().map(usize::to_string).collect();
    format!("feature bits {}", bits.join(" "))
}

/// The numbers of the bits that the guest's driver negotiated; sysfs prints them from bit 0 on.
fn feature_bits(printed: &str) -> Result<Vec<usize>> {
    let line = printed.lines().find_map(|line| line.strip_prefix("features "));
    let line = line.with_context(|| format!("no feature bits in\n{printed}"))?;
    Ok(line
        .char_indices()
        .filter(|(_, bit)| *bit == '1')
        .map(|(number, _)| number)
        .collect())
}

/// QEMU is killed in the middle of requests; the next one on the same socket finds a daemon that works.
pub(super) fn crash(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let mut guest = Guest::new(lab, variant, directory, include_str!("../../../guest/crash.sh"))?;
    for _ in 0..2 {
        let mut console = guest.start()?;
        console.wait_for("innkeeper-guest: ready", BOOT_LIMIT)?;
        console.kill()?;
        guest.check_daemons_live()?;
    }
    fs::write(guest.root().join("job"), BOOT)?;
    boot_and_check(&guest, variant)?;
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok("two QEMUs killed, the third served".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_bits_are_numbered_from_the_left() {
        assert_eq!(feature_bits("x\nfeatures 01001\n").unwrap(), [1, 4]);
        assert!(feature_bits("x").is_err());
    }
}
