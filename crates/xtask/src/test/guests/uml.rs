//! User-Mode Linux as the guest: it boots and shuts down in two seconds, and its kernel is the first with IN_ORDER.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::{Advice, fadvise};

use super::cases::Daemons::{self, Any, Ours};
use super::cases::When::{self, Ordinary, WithAll};
use super::{BOOT_LIMIT, Body, dax, root, suites};
use crate::guest::daemon::Sharing;
use crate::guest::qemu::Variant;
use crate::guest::{Guest, Lab};
use crate::run::output;
use crate::tree;

/// Those that take longest come first.
pub(super) const CASES: &[(When, Daemons, &str, Body)] = &[
    (Ordinary, Any, "tree", suites::copied_tree),
    (Ordinary, Any, "posix", suites::posix),
    (WithAll, Ours, "guests", guests),
    (Ordinary, Ours, "in-order", in_order),
    (Ordinary, Any, "sequence", dax::plain_sequence),
    (Ordinary, Any, "mounts", mounts),
    (Ordinary, Ours, "crash", crash),
    (Ordinary, Ours, "daemon-killed", daemon_killed),
    (Ordinary, Any, "names", names),
    (Ordinary, Ours, "root", boot),
];

/// Bit of VIRTIO_F_IN_ORDER.
const IN_ORDER: usize = 35;

/// How often a share is mounted, and how many guests follow each other.
const IN_A_ROW: usize = 50;

/// From the end of a guest to the end of the processes that ran its programs, and of what its daemon had open for it.
const LEFT_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

const TREE_JOB: &str = include_str!("../../../guest/tree.sh");

/// The share is the root, and the driver takes IN_ORDER.
fn boot(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let mut guest = Guest::new(lab, variant, directory, root::BOOT)?;
    let seen = boot_in_order(&guest, variant)?;
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok(seen)
}

fn boot_in_order(guest: &Guest<'_>, variant: Variant) -> Result<String> {
    let bits = root::boot_and_check(guest, variant)?;
    ensure!(
        bits.contains(&IN_ORDER),
        "the guest negotiated {bits:?} without bit {IN_ORDER} (IN_ORDER)"
    );
    Ok(root::shown(&bits))
}

/// Slow and quick requests in one ring: those that finish early wait for those in front of them.
fn in_order(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    const FILES: usize = 8;
    const SIZE: u64 = 8 << 20;
    let share = directory.join("share");
    fs::create_dir(&share)?;
    let files: Vec<String> = (0..FILES).map(|index| format!("file-{index}")).collect();
    let mut sums = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let path = share.join(file);
        let content = (0..SIZE / 8).flat_map(|word| (word * FILES as u64 + index as u64).to_le_bytes());
        fs::write(&path, content.collect::<Vec<u8>>())?;
        let sum = output(Command::new("md5sum").arg(&path))?;
        sums.push(sum.split_whitespace().next().unwrap_or_default().to_owned());
    }
    let job = format!(
        "files='{}'\n{}",
        files.join(" "),
        include_str!("../../../guest/uml_in_order.sh")
    );
    let mut guest = Guest::new(lab, variant, directory, &job)?;
    guest.share(&share, "share", Sharing::Plain)?;
    for file in &files {
        // Only pages that are on the disk can leave the cache.
        let file = File::open(share.join(file))?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed).context("cannot drop the files from the page cache")?;
    }
    let mut console = guest.start()?;
    console.wait_for("innkeeper-guest: read", BOOT_LIMIT)?;
    let helpers = guest.helpers("share")?;
    ensure!(
        helpers != Some(0),
        "no read left its lane: nothing could be out of order"
    );
    fs::write(guest.root().join("counted"), "")?;
    let printed = guest.end_of_job(console, BOOT_LIMIT)?;
    for (file, sum) in files.iter().zip(&sums) {
        let line = format!("sum {file} {sum} {sum}");
        ensure!(
            printed.lines().any(|printed| printed == line),
            "no {line:?}: the guest read other data:\n{printed}"
        );
    }
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok(format!(
        "{FILES} files read twice at a time among other requests, equal"
    ))
}

/// One share mounted again and again, after which its daemon has no more open than before.
fn mounts(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let share = directory.join("share");
    fs::create_dir(&share)?;
    let job = format!("mounts={IN_A_ROW}\n{}", include_str!("../../../guest/uml_mounts.sh"));
    let mut guest = Guest::new(lab, variant, directory, &job)?;
    guest.share(&share, "share", Sharing::Plain)?;
    let before = guest.open_descriptors("share")?;
    let started = Instant::now();
    guest.run(BOOT_LIMIT)?;
    let seconds = started.elapsed().as_secs_f64();
    for mount in 1..=IN_A_ROW {
        let written = fs::read_to_string(share.join(format!("file-{mount}")))?;
        ensure!(written == format!("mount {mount}\n"), "mount {mount} left {written:?}");
    }
    wait_for_descriptors(&guest, "share", before)?;
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok(format!(
        "{IN_A_ROW} mounts in a row, guest up and down in {seconds:.1} s"
    ))
}

/// One daemon, one guest after the other.
fn guests(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let mut guest = Guest::new(lab, variant, directory, "echo \"$(cat /count)\" > /seen")?;
    let before = guest.open_descriptors(crate::guest::ROOT_TAG)?;
    let started = Instant::now();
    for count in 0..IN_A_ROW {
        fs::write(guest.root().join("count"), format!("{count}\n"))?;
        guest.run(BOOT_LIMIT).with_context(|| format!("guest {count}"))?;
        let seen = fs::read_to_string(guest.root().join("seen"))?;
        ensure!(seen == format!("{count}\n"), "guest {count} saw {seen:?}");
    }
    let seconds = started.elapsed().as_secs_f64();
    wait_for_descriptors(&guest, crate::guest::ROOT_TAG, before)?;
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok(format!(
        "{IN_A_ROW} guests in a row, {:.2} s each",
        seconds / IN_A_ROW as f64
    ))
}

fn wait_for_descriptors(guest: &Guest<'_>, tag: &str, before: Option<usize>) -> Result<()> {
    let deadline = Instant::now() + LEFT_LIMIT;
    loop {
        let now = guest.open_descriptors(tag)?;
        if now <= before {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the daemon of {tag} has {now:?} descriptors open after its guests, {before:?} before"
        );
        sleep(PAUSE);
    }
}

/// The guest is killed in the middle of requests: no process of it is left, and the next one is served.
fn crash(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let mut guest = Guest::new(lab, variant, directory, include_str!("../../../guest/crash.sh"))?;
    for _ in 0..2 {
        let mut console = guest.start()?;
        console.wait_for("innkeeper-guest: ready", BOOT_LIMIT)?;
        let children = console.children()?;
        ensure!(!children.is_empty(), "no process runs the guest's programs");
        console.kill()?;
        let deadline = Instant::now() + LEFT_LIMIT;
        while children.iter().any(|&child| runs(child)) {
            ensure!(
                Instant::now() < deadline,
                "processes of the killed guest still run: {children:?}"
            );
            sleep(PAUSE);
        }
        guest.check_daemons_live()?;
    }
    fs::write(guest.root().join("job"), root::BOOT)?;
    boot_in_order(&guest, variant)?;
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok("two guests killed, the third served".to_owned())
}

/// Whether the process is there and no mere zombie, which waits for the host's process 1.
fn runs(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_some_and(|state| !state.trim_start().starts_with('Z'))
}

/// The daemon of a guest is killed: all later calls fail and the share can be unmounted. Another is killed with requests on
/// their way, for which Linux waits for ever: the rest of the guest goes on. Then a new daemon serves a new guest.
fn daemon_killed(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    const JOB: &str = include_str!("../../../guest/uml_daemon_killed.sh");
    let share = directory.join("share");
    fs::create_dir(&share)?;
    let mut guest = Guest::new(lab, variant, directory, JOB)?;
    let works = guest.root().join("root-works");
    for writes in ["", "writes=1\n"] {
        fs::write(guest.root().join("job"), format!("{writes}{JOB}"))?;
        guest.share(&share, "share", Sharing::Plain)?;
        let mut console = guest.start()?;
        console.wait_for("innkeeper-guest: ready", BOOT_LIMIT)?;
        if !writes.is_empty() {
            wait_for_file(&share.join("endless"))?;
        }
        guest.kill_daemon("share")?;
        console.wait_for("innkeeper-guest: goes on", BOOT_LIMIT)?;
        ensure!(
            works.exists(),
            "the guest's root does not work without the other daemon"
        );
        fs::remove_file(&works)?;
        if !writes.is_empty() {
            console.kill()?;
            continue;
        }
        let printed = guest
            .end_of_job(console, BOOT_LIMIT)
            .with_context(|| format!("the guest printed:\n{}", guest.printed()))?;
        for expected in ["ls failed", "unmounted"] {
            ensure!(printed.contains(expected), "no {expected:?}:\n{printed}");
        }
        ensure!(
            !printed.contains("no error"),
            "a call succeeded without a daemon:\n{printed}"
        );
    }

    guest.share(&share, "share", Sharing::Plain)?;
    let job = "mkdir /tmp/share && mount -t virtiofs share /tmp/share && cat /tmp/share/before && umount /tmp/share";
    fs::write(guest.root().join("job"), job)?;
    let printed = guest.run(BOOT_LIMIT)?;
    ensure!(printed.contains("before"), "the new guest read other data:\n{printed}");
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok("errors in the first guest, the second went on, a new daemon serves the third".to_owned())
}

fn wait_for_file(path: &Path) -> Result<()> {
    let deadline = Instant::now() + LEFT_LIMIT;
    while !path.exists() {
        ensure!(Instant::now() < deadline, "the guest made no {}", path.display());
        sleep(PAUSE);
    }
    Ok(())
}

/// Names of any bytes go through the guest from one share to another.
fn names(lab: &Lab, variant: Variant, directory: &Path) -> Result<String> {
    let [source, target] = ["source", "target"].map(|name| directory.join(name));
    fs::create_dir(&source)?;
    fs::create_dir(&target)?;
    tree::names(&source)?;
    let mut guest = Guest::new(lab, variant, directory, TREE_JOB)?;
    guest.share(&source, "source", Sharing::Plain)?;
    guest.share(&target, "target", Sharing::Plain)?;
    guest.run(BOOT_LIMIT)?;
    let found = tree::differences(&source, &target)?;
    ensure!(found.is_empty(), "the copy differs: {found:#?}");
    guest.check_daemons_live()?;
    guest.finish()?;
    Ok("odd, long and deep names, equal".to_owned())
}
