//! Where a file is cached while a guest reads it: in the guest, on the host or both.

use std::fs::{self, File};
use std::io::Write as _;
use std::num::NonZeroU64;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Advice, fadvise};

use super::picture;
use crate::guest::daemon::{Program, Sharing};
use crate::guest::qemu::{Device, Variant};
use crate::guest::{Guest, Lab};
use crate::run::output;
use crate::setup;
use crate::test::guests::fresh;
use crate::test::{build_guest_programs, build_innkeeper, target, workspace};

/// All in MiB.
const GUEST_MEMORY: u32 = 256;
const FILE: u64 = 512;
const STEP: u64 = 16;
const WINDOW: u32 = 512;

/// How much the guest's page cache may grow with DAX, and has to grow without it for the comparison to mean something.
const MOST_WITH: f64 = 8.0;
const LEAST_WITHOUT: f64 = 100.0;

/// For one step, under TCG on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// How much of the file was read, and how much of it lies in memory, in MiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) read: f64,
    /// Growth of the guest's whole page cache since the start.
    pub(super) guest: f64,
    /// Pages of this file in the host's.
    pub(super) host: f64,
}

pub(super) fn run() -> Result<()> {
    let parts = setup::all()?;
    let programs = build_guest_programs()?;
    let lab = Lab::new(&parts, programs, Program::Innkeeper(build_innkeeper()?));
    let directory = target()?.join("bench-dax");
    fresh(&directory)?;
    let share = directory.join("share");
    fs::create_dir(&share).context("cannot create the share")?;
    let file = make_file(&share.join("file"))?;

    let without = measure(&lab, &directory.join("without"), &share, &file, Sharing::Plain)?;
    let with = measure(&lab, &directory.join("with"), &share, &file, Sharing::Dax(WINDOW))?;
    fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;

    println!("A guest of {GUEST_MEMORY} MiB reads a file of {FILE} MiB:");
    let grown = |samples: &[Sample]| samples.iter().map(|sample| sample.guest).fold(0.0, f64::max);
    let host = |samples: &[Sample]| samples.last().map_or(0.0, |sample| sample.host);
    for (name, samples) in [("without DAX", &without), ("with DAX", &with)] {
        println!(
            "  {name:11}  guest page cache grew by {:6.2} MiB, host page cache holds {:3.0} MiB of the file",
            grown(samples),
            host(samples)
        );
    }
    let picture = workspace()?.join("docs/dax.svg");
    fs::create_dir_all(workspace()?.join("docs")).context("cannot create docs")?;
    fs::write(&picture, picture::draw(&without, &with, FILE as f64)).context("cannot write docs/dax.svg")?;
    println!("  drawn in docs/dax.svg");
    ensure!(
        grown(&with) < MOST_WITH,
        "with DAX the guest's page cache must grow by less than {MOST_WITH} MiB"
    );
    ensure!(
        grown(&without) > LEAST_WITHOUT,
        "without DAX the guest's page cache must grow by more than {LEAST_WITHOUT} MiB"
    );
    Ok(())
}

/// A file without holes, and on the disk, so that the page cache can let go of it.
fn make_file(path: &Path) -> Result<File> {
    let mut file = File::options().read(true).write(true).create_new(true).open(path)?;
    for mebibyte in 0..FILE {
        let words = 1 << 17;
        let bytes: Vec<u8> = (0..words)
            .flat_map(|word| (mebibyte * words + word).to_le_bytes())
            .collect();
        file.write_all(&bytes).context("cannot write the file")?;
    }
    file.sync_all().context("cannot write the file to the disk")?;
    Ok(file)
}

fn measure(lab: &Lab, directory: &Path, share: &Path, file: &File, sharing: Sharing) -> Result<Vec<Sample>> {
    let variant = Variant {
        device: Device::NewGeneric,
        packed: true,
        queues: 1,
    };
    let options = if sharing == Sharing::Plain { "rw" } else { "dax=always" };
    let job = format!(
        "options={options} size={FILE} step={STEP}\n{}",
        include_str!("../../guest/page_cache.sh")
    );
    let mut guest = Guest::new(lab, variant, directory, &job)?;
    guest.set_memory(GUEST_MEMORY);
    guest.share(share, "share", sharing)?;
    fadvise(file, 0, None::<NonZeroU64>, Advice::DontNeed).context("cannot drop the file from the page cache")?;

    let mut console = guest.start()?;
    let mut samples = Vec::new();
    let mut at_start = 0.0;
    for read in (0..=FILE).step_by(STEP as usize) {
        let said = format!("innkeeper-guest: read {read} cached ");
        let line = console.wait_for(&said, LIMIT)?;
        let cached = line.rsplit(' ').next().unwrap_or_default();
        let cached = cached.parse::<f64>().with_context(|| format!("no size in {line:?}"))? / 1024.0;
        if read == 0 {
            at_start = cached;
        }
        samples.push(Sample {
            read: read as f64,
            guest: cached - at_start,
            host: resident(&share.join("file"))?,
        });
        fs::write(guest.root().join(format!("noted-{read}")), "").context("cannot signal the guest to continue")?;
    }
    guest.end_of_job(console, LIMIT)?;
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok(samples)
}

/// How many MiB of the file are in this host's page cache.
fn resident(path: &Path) -> Result<f64> {
    let options = ["--bytes", "--noheadings", "--raw", "--output", "RES"];
    let said = output(Command::new("fincore").args(options).arg(path))?;
    let bytes: u64 = said
        .trim()
        .parse()
        .with_context(|| format!("fincore printed {said:?}"))?;
    Ok(bytes as f64 / f64::from(1 << 20))
}
