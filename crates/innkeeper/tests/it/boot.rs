use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{assert_refused, complaint, innkeeper};

fn boot(root: &Path, options: &[&str]) -> Output {
    innkeeper(["boot"])
        .arg(root)
        .args(options)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A root that can be looked at but not booted, with as much of a kernel as innkeeper reads.
fn root_with_kernel() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let mut image = vec![0; 0x400];
    image[0x202..0x208].copy_from_slice(b"HdrS\x0f\x02");
    image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    image[0x300..0x304].copy_from_slice(b"6.1 ");
    fs::create_dir(root.path().join("boot")).unwrap();
    fs::write(root.path().join("boot/vmlinuz-6.1"), image).unwrap();
    root
}

/// A program in place of QEMU.
fn qemu(directory: &Path, script: &str) -> String {
    let path = directory.join("qemu");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_is_missing_is_told_in_a_sentence() {
    let root = root_with_kernel();
    let path = root.path();
    let qemu = qemu(path, "exit 0");
    assert_refused(
        &boot(&path.join("missing"), &[]),
        125,
        &["no such directory", "create it"],
    );
    let share = format!("{}/missing:tag", path.display());
    assert_refused(&boot(path, &["--share", &share]), 125, &["no such directory"]);
    let output = innkeeper(["boot"])
        .arg(path)
        .env("PATH", path.join("missing"))
        .output()
        .unwrap();
    assert_refused(
        &output,
        125,
        &["cannot find qemu-system-x86_64 in PATH", "install it", "--qemu"],
    );
    assert_refused(
        &boot(path, &["--qemu", "/missing/qemu"]),
        125,
        &["cannot find /missing/qemu", "--qemu"],
    );
    assert_refused(
        &boot(path, &["--qemu", &qemu]),
        125,
        &["neither /sbin/init nor /init", "--append init="],
    );
    assert_refused(
        &boot(path, &["--qemu", &qemu, "--kernel", "/missing/k"]),
        125,
        &["cannot read the kernel /missing/k"],
    );
    assert_refused(
        &boot(path, &["--qemu", &qemu, "--kernel", &qemu]),
        125,
        &["is not a Linux kernel", "--kernel"],
    );
    let empty = tempfile::tempdir().unwrap();
    assert_refused(
        &boot(empty.path(), &["--qemu", &qemu]),
        125,
        &["no kernel vmlinuz-*", "--kernel"],
    );
    let twice = ["--qemu", &qemu, "--share", "/:rootfs"];
    assert_refused(&boot(path, &twice), 125, &["more than one share"]);
}

#[test]
fn a_qemu_that_dies_at_once_is_quoted() {
    let root = root_with_kernel();
    let qemu = qemu(root.path(), "echo 'qemu: no such machine' >&2; exit 3");
    let output = boot(root.path(), &["--qemu", &qemu, "--append", "init=/bin/sh"]);
    assert_refused(
        &output,
        125,
        &[
            "QEMU ended before the guest did (exit status 3)",
            "qemu: no such machine",
        ],
    );
}

#[test]
fn the_log_of_errors_is_made_and_never_behind_a_link() {
    let root = root_with_kernel();
    let qemu = qemu(root.path(), "exit 3");
    let (log, link) = (root.path().join("errors.log"), root.path().join("link"));
    std::os::unix::fs::symlink("precious", &link).unwrap();
    let boot = |log: &Path| {
        let to = log.to_str().unwrap();
        let options = [
            "--qemu",
            &qemu,
            "--append",
            "init=/bin/sh",
            "--log-errors=json",
            "--log-errors-to",
            to,
        ];
        boot(root.path(), &options)
    };
    assert_refused(&boot(&link), 125, &["the path has a symbolic link"]);
    assert!(!root.path().join("precious").exists());
    assert_refused(&boot(&log), 125, &["QEMU ended before the guest did"]);
    assert_eq!(fs::read(&log).unwrap(), b"");
}

#[test]
fn a_kernel_without_virtio_fs_is_told_in_a_sentence() {
    let root = root_with_kernel();
    let modules = root.path().join("lib/modules/6.1");
    fs::create_dir_all(&modules).unwrap();
    fs::write(modules.join("modules.builtin"), "kernel/virtio_pci.ko\n").unwrap();
    fs::write(modules.join("modules.dep"), "").unwrap();
    let qemu = qemu(root.path(), "exit 0");
    let output = boot(root.path(), &["--qemu", &qemu, "--", "true"]);
    assert_refused(&output, 125, &["kernel 6.1 has no virtiofs", "--kernel"]);
}

#[test]
fn a_signal_ends_boot_and_its_qemu() {
    let root = root_with_kernel();
    let pid_file = root.path().join("pid");
    let script = format!(
        "case \"$*\" in *earlyprintk*) exit 1; esac; echo $$ > {}; exec sleep 1000",
        pid_file.display()
    );
    let qemu = qemu(root.path(), &script);
    for (signal, status) in [
        (Signal::TERM, Some(143)),
        (Signal::INT, Some(130)),
        (Signal::KILL, None),
    ] {
        let mut child = innkeeper(["boot"])
            .arg(root.path())
            .args(["--qemu", &qemu, "--append", "init=/bin/sh"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = || fs::read_to_string(&pid_file).ok().filter(|text| text.ends_with('\n'));
        let qemu_pid = std::iter::repeat_with(started).find_map(|text| {
            std::thread::yield_now();
            text
        });
        let qemu_pid = Pid::from_raw(qemu_pid.unwrap().trim().parse().unwrap()).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), status);
        // Dead, or dying as the kernel has promised; what it waits for here is only the kernel.
        while fs::read_to_string(format!("/proc/{}/stat", qemu_pid.as_raw_nonzero()))
            .is_ok_and(|stat| !stat.contains(") Z "))
        {
            std::thread::yield_now();
        }
        fs::remove_file(&pid_file).unwrap();
    }
}

#[test]
fn a_wrong_command_line_has_status_2() {
    for (options, part) in [
        (&["--memory", "1T"][..], "512M or 2G"),
        (&["--cpus", "0"], "1..=255"),
        (&["--share", "/srv"], "DIR:TAG"),
        (&["--initrd", "/i", "--", "true"], "cannot be used with"),
    ] {
        let output = boot(Path::new("/"), options);
        let said = complaint(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
}

/// Why the tests below do not run by themselves; `cargo xtask test` sets the variables and runs them.
const PARTS: &str = "set by cargo xtask test: INNKEEPER_TEST_ROOT (a busybox root), INNKEEPER_TEST_KERNEL (virtio-fs built \
                     in), INNKEEPER_TEST_KERNEL_WITH_MODULES";

/// A root for one guest, and the kernels to boot it with.
struct Parts {
    root: TempDir,
    kernels: [PathBuf; 2],
}

impl Parts {
    fn get() -> Self {
        let path = |name| PathBuf::from(env::var_os(name).unwrap_or_else(|| panic!("{name} is not set; {PARTS}")));
        let root = tempfile::tempdir().unwrap();
        let mut copy = std::process::Command::new("cp");
        copy.arg("-a")
            .arg(path("INNKEEPER_TEST_ROOT").join("."))
            .arg(root.path());
        assert!(copy.status().unwrap().success());
        Self {
            root,
            kernels: [
                path("INNKEEPER_TEST_KERNEL"),
                path("INNKEEPER_TEST_KERNEL_WITH_MODULES"),
            ],
        }
    }

    fn boot(&self, kernel: &Path, options: &[&str], input: &[u8]) -> Output {
        let mut child = innkeeper(["boot"])
            .arg(self.root.path())
            .arg("--kernel")
            .arg(kernel)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        // A guest that ends without reading breaks the pipe.
        let _ = writer.join().unwrap();
        output
    }
}

#[test]
#[ignore = "needs QEMU and the kernels of cargo xtask setup"]
fn a_command_has_its_streams_and_its_status() {
    let parts = Parts::get();
    let mut input: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    input.extend(b"\r\n\x04\x1a");
    for kernel in &parts.kernels {
        let output = parts.boot(kernel, &["--", "sh", "-c", "cat; echo oops >&2; exit 77"], &input);
        assert_eq!(output.status.code(), Some(77), "{}", complaint(&output));
        assert!(
            output.stdout == input,
            "{} bytes came back of {}",
            output.stdout.len(),
            input.len()
        );
        assert_eq!(complaint(&output), "oops");
    }
}

#[test]
#[ignore = "needs QEMU and the kernels of cargo xtask setup"]
fn a_command_that_is_killed_or_missing_has_a_shells_status() {
    let parts = Parts::get();
    let kernel = &parts.kernels[0];
    assert_eq!(
        parts.boot(kernel, &["--", "sh", "-c", "kill -9 $$"], b"").status.code(),
        Some(137)
    );
    let missing = parts.boot(kernel, &["--", "no-such-command"], b"");
    assert_eq!(missing.status.code(), Some(127));
    assert!(
        complaint(&missing).contains("cannot run no-such-command"),
        "{}",
        complaint(&missing)
    );
    assert_eq!(parts.boot(kernel, &["--", "/etc"], b"").status.code(), Some(126));
}

#[test]
#[ignore = "needs QEMU and the kernels of cargo xtask setup"]
fn the_roots_init_runs_without_disk_and_the_ring_is_what_was_asked_for() {
    let parts = Parts::get();
    let job =
        "mount | grep virtiofs; cut -c35 /sys/bus/virtio/devices/virtio0/features; echo made > /made; ls -d /plan";
    fs::write(parts.root.path().join("job"), job).unwrap();
    for (kernel, way) in parts
        .kernels
        .iter()
        .zip(["and no initramfs", "and an initramfs of innkeeper's own"])
    {
        for (ring, bit) in [("split", "0"), ("packed", "1")] {
            let output = parts.boot(kernel, &["--ring", ring, "--num-queues", "4"], b"");
            let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
            assert_eq!(output.status.code(), Some(0), "{said}");
            assert!(String::from_utf8_lossy(&output.stderr).contains(way));
            assert!(
                said.contains(&format!("rootfs on / type virtiofs (rw,relatime)\n{bit}\n")),
                "{said}"
            );
            assert_eq!(fs::read(parts.root.path().join("made")).unwrap(), b"made\n");
            assert!(!parts.root.path().join("plan").exists(), "the root is not littered");
        }
    }
}

#[test]
#[ignore = "needs QEMU and the kernels of cargo xtask setup"]
fn a_further_share_is_mounted_by_its_tag_and_readonly_holds() {
    let parts = Parts::get();
    let more = tempfile::tempdir().unwrap();
    fs::write(more.path().join("file"), "shared").unwrap();
    let share = format!("{}:more", more.path().display());
    let script = "mount -t virtiofs more /tmp; cat /tmp/file; touch /tmp/x; touch /x";
    let output = parts.boot(
        &parts.kernels[0],
        &["--readonly", "--share", &share, "--", "sh", "-c", script],
        b"",
    );
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("shared"),
        "{}",
        complaint(&output)
    );
    assert!(
        complaint(&output).contains("Read-only file system"),
        "{}",
        complaint(&output)
    );
    assert!(!more.path().join("x").exists() && !parts.root.path().join("x").exists());
}

#[test]
#[ignore = "needs QEMU and the kernels of cargo xtask setup"]
fn a_guest_that_panics_is_a_failure_with_its_reason() {
    let parts = Parts::get();
    let output = parts.boot(&parts.kernels[0], &["--append", "init=/no-such-init quiet"], b"");
    assert_eq!(output.status.code(), Some(125));
    assert!(
        complaint(&output).contains("the guest's kernel panicked: Kernel panic"),
        "{}",
        complaint(&output)
    );
}
