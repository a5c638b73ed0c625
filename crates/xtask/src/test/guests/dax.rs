//! The DAX window in a real guest: it is used, coherent and emptied, and files stay correct.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cases::When::{self, Ordinary, WithAll};
use super::{BOOT_LIMIT, Body, suites};
use crate::guest::daemon::{Daemon, Share, Sharing, WindowCounts};
use crate::guest::qemu::Variant;
use crate::guest::{Guest, Lab};
use crate::run::output;

pub(super) const CASES: &[(When, &str, Body)] = &[
    (Ordinary, "dax-mount", mount),
    (Ordinary, "dax-coherence", coherence),
    (Ordinary, "dax-random", random),
    (Ordinary, "dax-two-windows", two_windows),
    (Ordinary, "dax-direct", direct),
    (Ordinary, "dax-sequence", sequence),
    // What the one before is compared with, when it fails.
    (WithAll, "plain-sequence", plain_sequence),
    (Ordinary, "dax-posix", posix),
    (Ordinary, "dax-tree", copied_tree),
];

/// Under TCG on a busy machine.
const EXERCISE_LIMIT: Duration = Duration::from_secs(900);

/// From the unmounting of a share to the moment at which QEMU has let go of all of its files.
const LEFT_LIMIT: Duration = Duration::from_secs(20);

const MIB: usize = 1 << 20;

/// What Linux maps at once.
const RANGE: usize = 2 * MIB;

/// What a daemon says as it starts if it cannot have QEMU map beyond the end of a file.
const NO_VIEWS: &str = "cannot map beyond the end of files";

/// How much of DAX this host can do.
struct Reach {
    /// What the lengths of files that are mapped must be multiples of.
    granule: usize,
    /// For the result, if it is not all.
    note: &'static str,
}

/// Files of any length, where the daemon can have them mapped beyond their end.
const WHOLE: Reach = Reach { granule: 1, note: "" };
const FITTING: Reach = Reach {
    granule: RANGE,
    note: "; lengths in units of 2 MiB alone are mapped: this host has no views",
};

impl Reach {
    fn of(lab: &Lab, variant: Variant, directory: &Path) -> Result<Reach> {
        let sockets = tempfile::tempdir().context("cannot create a temporary directory for a socket")?;
        let share = Share {
            directory: sockets.path(),
            tag: "probe",
            sharing: Sharing::Dax(2),
        };
        let log = directory.join("daemon-probe.log");
        let daemon = Daemon::start(&lab.daemon, &share, variant, &sockets.path().join("probe"), &log)?;
        let said = daemon.said()?;
        daemon.stop()?;
        Ok(if said.contains(NO_VIEWS) { FITTING } else { WHOLE })
    }
}

/// Everything is mapped, of whatever length, which takes views.
const CHOSEN: &str = "dax=always";

/// Both ways to mount use the window and not the page cache, which a plain mount of the same file fills.
fn mount(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    const SIZE: usize = 64 * MIB;
    /// In kB: what of a file that is not read through the page cache may still end there.
    const GROWTH: i64 = 8 << 10;
    let share = directory.join("share");
    fs::create_dir(&share)?;
    let file = share.join("file");
    fs::write(&file, numbered(SIZE))?;
    let sum = output(Command::new("md5sum").arg(&file))?;
    let sum = sum.split_whitespace().next().unwrap_or_default();

    let mut guest = Guest::new(lab, variant, directory, include_str!("../../../guest/dax_mount.sh"))?;
    let shares = [
        ("plain", Sharing::Plain),
        ("always", Sharing::Dax(128)),
        ("inode", Sharing::Dax(128)),
    ];
    for (tag, sharing) in shares {
        guest.share(&share, tag, sharing)?;
    }
    let printed = guest.run(BOOT_LIMIT)?;
    let windows = printed.lines().filter(|line| line.contains("Cache len: 0x8000000 "));
    ensure!(windows.count() == 2, "not two windows of 128 MiB:\n{printed}");
    let mut seen = Vec::new();
    for (tag, sharing) in shares {
        let value = |name: &str| {
            let prefix = format!("{tag} {name} ");
            let value = printed.lines().find_map(|line| line.strip_prefix(&prefix));
            value.with_context(|| format!("no {prefix:?} in\n{printed}"))
        };
        ensure!(value("sum")? == sum, "the guest read other data from {tag}");
        let grown: i64 = value("grew")?.parse().context("the growth is not a number")?;
        if sharing == Sharing::Plain {
            // The figure is the whole guest's: a few pages of other files may go meanwhile.
            ensure!(
                grown >= (SIZE >> 10) as i64 / 10 * 9,
                "the page cache grew by {grown} kB without DAX"
            );
            seen.push(format!("plain: page cache {grown:+} kB"));
            continue;
        }
        ensure!(grown < GROWTH, "the page cache grew by {grown} kB with dax={tag}");
        ensure!(
            printed
                .lines()
                .any(|line| line.contains("virtiofs") && line.contains(&format!("dax={tag}"))),
            "/proc/mounts does not show dax={tag}:\n{printed}"
        );
        let counts = emptied(&guest, tag)?;
        ensure!(
            counts.mapped >= (SIZE / RANGE) as u64,
            "the file was not read through the window: {counts:?}"
        );
        seen.push(format!("dax={tag}: {grown:+} kB, {} mappings", counts.mapped));
    }
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok(seen.join("; "))
}

/// Host and guest, and two guests, see what the other stores, with no call in between that would write or drop a cache.
fn coherence(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let share = directory.join("share");
    fs::create_dir(&share)?;
    let path = share.join("file");
    fs::write(&path, vec![b'.'; 2 * RANGE])?;
    let file = File::options().read(true).write(true).open(&path)?;
    let host_sees = |offset: usize, text: &str| {
        let mut found = vec![0; text.len()];
        file.read_exact_at(&mut found, offset as u64)?;
        let found = String::from_utf8_lossy(&found);
        ensure!(
            found == text,
            "the host reads {found:?} where a guest has stored {text:?}"
        );
        Ok(())
    };
    let guest = |name: &str| -> Result<Guest<'_>> {
        let job = format!("self={name}\n{}", include_str!("../../../guest/coherence.sh"));
        let mut guest = Guest::new(lab, variant, &directory.join(name), &job)?;
        guest.share(&share, "share", Sharing::Dax(32))?;
        Ok(guest)
    };
    let tell =
        |guest: &Guest<'_>, name: &str| fs::write(guest.root().join(name), "").context("cannot signal the guest");

    let mut first = guest("first")?;
    let mut first_console = first.start()?;
    first_console.wait_for("waiting", BOOT_LIMIT)?;
    file.write_all_at(b"the host's words", 100)?;
    first_console.wait_for("seen", BOOT_LIMIT)?;

    // The second guest has the page mapped before the first stores in it.
    let mut second = guest("second")?;
    let mut second_console = second.start()?;
    second_console.wait_for("waiting", BOOT_LIMIT)?;
    tell(&first, "go")?;
    first_console.wait_for("stored", BOOT_LIMIT)?;
    host_sees(4096, "the first guest's words")?;
    second_console.wait_for("seen", BOOT_LIMIT)?;

    tell(&first, "looked")?;
    first_console.wait_for("waiting", BOOT_LIMIT)?;
    tell(&second, "go")?;
    second_console.wait_for("stored", BOOT_LIMIT)?;
    host_sees(RANGE, "the second guest's words")?;
    first_console.wait_for("seen", BOOT_LIMIT)?;
    tell(&second, "looked")?;

    let mut mapped = Vec::new();
    for (guest, console) in [(&mut first, first_console), (&mut second, second_console)] {
        guest.end_of_job(console, BOOT_LIMIT)?;
        mapped.push(emptied(guest, "share")?.mapped);
        guest.check_daemons_live()?;
    }
    first.finish()?;
    second.finish()?;
    Ok(format!("host and guests saw each other's stores; {mapped:?} mappings"))
}

/// A window an eighth of the file: ranges are taken from one part of it for another all the time.
fn random(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    const WINDOW: u32 = 32;
    let command = format!("exercise random file --accesses 4000 --file-size {}MiB", 8 * WINDOW);
    let dax = Dax {
        window: WINDOW,
        least: (8 * WINDOW as usize * MIB / RANGE) as u64,
    };
    on_share(lab, variant, directory, "dax=always", Some(&dax), &command)
}

/// Two shares at once: QEMU tells each daemon of the other's mappings too, while that one waits for a mapping of its own.
fn two_windows(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    const SIZE: usize = 64 * MIB;
    let mut guest = Guest::new(lab, variant, directory, include_str!("../../../guest/two_windows.sh"))?;
    let tags = ["first", "second"];
    for tag in tags {
        let share = directory.join(tag);
        fs::create_dir(&share)?;
        fs::write(share.join("file"), numbered(SIZE))?;
        guest.share(&share, tag, Sharing::Dax(16))?;
    }
    guest.run(BOOT_LIMIT)?;
    for tag in tags {
        let counts = emptied(&guest, tag)?;
        ensure!(
            counts.mapped >= (SIZE / RANGE) as u64,
            "the file was not read through the window of {tag}: {counts:?}"
        );
    }
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok(format!("{} MiB through each, equal", SIZE / MIB))
}

/// The data of requests lies in the window: the daemon's own, and that of another share, of which QEMU tells it.
fn direct(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    const LENGTH: usize = 8 * MIB;
    let (window, plain) = (directory.join("window"), directory.join("plain"));
    for share in [&window, &plain] {
        fs::create_dir(share)?;
    }
    // What is chosen for DAX is chosen by its length as the guest first meets it.
    for (name, length) in [("between", LENGTH), ("within", LENGTH), ("file", 1)] {
        fs::write(window.join(name), vec![0; length])?;
    }
    let mut guest = Guest::new(lab, variant, directory, include_str!("../../../guest/direct.sh"))?;
    guest.share(&window, "window", Sharing::Dax(32))?;
    guest.share(&plain, "plain", Sharing::Plain)?;
    let printed = guest.run(EXERCISE_LIMIT)?;
    let lines = printed.lines().filter(|line| line.ends_with(" equal"));
    let seen: Vec<_> = lines.map(str::trim).collect();
    ensure!(seen.len() == 2, "not two results:\n{printed}");
    let counts = emptied(&guest, "window")?;
    ensure!(
        counts.mapped >= (2 * LENGTH / RANGE) as u64,
        "the files were not mapped: {counts:?}"
    );
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok(seen.join("; "))
}

fn sequence(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let Reach { granule, note } = Reach::of(lab, variant, directory)?;
    let command = format!("exercise sequence file --operations 20000 --length 16MiB --granule {granule}");
    let dax = Dax { window: 64, least: 8 };
    let seen = on_share(lab, variant, directory, "dax=always", Some(&dax), &command)?;
    Ok(seen + note)
}

pub(super) fn plain_sequence(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let command = "exercise sequence file --operations 20000";
    on_share(lab, variant, directory, "rw", None, command)
}

fn posix(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    suites::posix_over_dax(lab, variant, directory, CHOSEN)
}

fn copied_tree(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    suites::copied_tree_over_dax(lab, variant, directory, CHOSEN)
}

struct Dax {
    /// In MiB.
    window: u32,
    /// How many mappings the command cannot do without.
    least: u64,
}

/// Runs the command in the guest, in an empty share, and returns the last line it printed.
fn on_share(
    lab: &Lab,
    variant: Variant,
    directory: &Path,
    options: &str,
    dax: Option<&Dax>,
    command: &str,
) -> Result<String> {
    let share = directory.join("share");
    fs::create_dir(&share)?;
    let job = format!(
        "options={options}\ncommand='{command}'\n{}",
        include_str!("../../../guest/share.sh")
    );
    let mut guest = Guest::new(lab, variant, directory, &job)?;
    guest.share(
        &share,
        "share",
        dax.map_or(Sharing::Plain, |dax| Sharing::Dax(dax.window)),
    )?;
    let mut console = guest.start()?;
    console
        .wait_for("innkeeper-guest: unmounted", EXERCISE_LIMIT)
        .with_context(|| format!("the guest printed:\n{}", guest.printed()))?;
    console.wait_for_no_files_mapped(LEFT_LIMIT)?;
    fs::write(guest.root().join("counted"), "")?;
    let printed = guest.end_of_job(console, BOOT_LIMIT)?;
    let said = printed.lines().find(|line| line.contains(" equal"));
    let mut seen = said.with_context(|| format!("no result:\n{printed}"))?.to_owned();
    if let Some(dax) = dax {
        let counts = emptied(&guest, "share")?;
        ensure!(
            counts.mapped >= dax.least,
            "{counts:?}: fewer than the {} mappings that this takes",
            dax.least
        );
        seen.push_str(&format!("; {} mappings", counts.mapped));
    }
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok(seen)
}

/// The counters of a share that the guest has unmounted.
fn emptied(guest: &Guest<'_>, tag: &str) -> Result<WindowCounts> {
    let counts = guest.window_counts(tag)?;
    ensure!(counts.mapped == counts.unmapped, "mappings of {tag} leaked: {counts:?}");
    Ok(counts)
}

/// Contents in which no two places are alike.
fn numbered(size: usize) -> Vec<u8> {
    (0..size as u64 / 8).flat_map(u64::to_le_bytes).collect()
}
