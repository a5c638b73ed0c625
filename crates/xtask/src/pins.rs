//! Pinned versions for the real tests: every package, kernel, emulator and tool that no lock file pins.

/// Debian packages that boot a guest on this host, each with what it is for.
pub(crate) const BOOT_PACKAGES: &[(&str, &str)] = &[
    ("qemu-system-x86", "QEMU 7.2"),
    ("seabios", "its firmware"),
    ("busybox-static", "the guest's root"),
    ("kmod", "module lists for the guest kernels"),
];

/// Packages that only the tests need.
pub(crate) const TEST_PACKAGES: &[(&str, &str)] = &[
    ("debootstrap", "a home for QEMU 11.1"),
    ("gcc", "the linker of the tools built from source"),
    ("libc6-dev", "what it links"),
    ("notmuch", "mute-thread's tests run it"),
    ("mutt", "presses the key of mute-thread's macro"),
    ("tmux", "the terminal that mutt runs in"),
    ("uidmap", "maps of users and groups"),
    ("e2fsprogs", "ext4 images for tests"),
    ("xfsprogs", "XFS images for tests"),
    ("btrfs-progs", "btrfs images for tests"),
];

/// Packages that only the peer daemon needs to build.
pub(crate) const PEER_PACKAGES: &[(&str, &str)] = &[
    ("libseccomp-dev", "virtiofsd links it"),
    ("libcap-ng-dev", "virtiofsd links it"),
];

/// Packages that only the fuzz targets need to build.
pub(crate) const FUZZ_PACKAGES: &[(&str, &str)] = &[("g++", "the compiler of libFuzzer")];

/// A guest kernel, named by the Debian package that always depends on its newest build.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) part: &'static str,
    pub(crate) package: &'static str,
}

/// Has virtio-fs and virtio-pci built in: boots from a shared directory without an initramfs.
pub(crate) const KERNEL: Kernel = Kernel {
    part: "kernel-6.12",
    package: "linux-image-6.12-cloud-amd64",
};

/// Has both as modules: what `innkeeper boot` makes a small initramfs for.
pub(crate) const KERNEL_WITH_MODULES: Kernel = Kernel {
    part: "kernel-6.1",
    package: "linux-image-cloud-amd64",
};

/// The QEMU that the host's own packages install.
pub(crate) const HOST_QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// The newer QEMU: the release that ships it, and the suite beside it that holds the package.
pub(crate) const NEW_QEMU_RELEASE: &str = "trixie";
pub(crate) const NEW_QEMU_SUITE: &str = "trixie-backports";

/// User-Mode Linux 7.2, a guest without QEMU: its package, and the suites that may have it, the most settled first.
/// Earlier kernels end with a panic on processors whose registers need more room than theirs (AMX).
pub(crate) const UML_PACKAGE: &str = "user-mode-linux";
pub(crate) const UML_SUITES: &[&str] = &["forky", "sid"];

/// A program from crates.io, built once into the cache.
#[derive(Debug)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// Runs inside the guest, which has no C library.
    pub(crate) fixed: bool,
    /// Its speed matters more than the time its build takes.
    pub(crate) optimised: bool,
}

/// Licences, bans and sources of every dependency. Checks a graph of 200 crates in a second even without optimisation.
pub(crate) const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    fixed: false,
    optimised: false,
};
/// The test runner, for a machine that lacks it.
pub(crate) const CARGO_NEXTEST: Tool = Tool {
    name: "cargo-nextest",
    version: "0.9.143",
    fixed: false,
    optimised: false,
};
/// Builds and runs fuzz targets, for a machine that lacks it.
pub(crate) const CARGO_FUZZ: Tool = Tool {
    name: "cargo-fuzz",
    version: "0.13.2",
    fixed: false,
    optimised: false,
};
/// The POSIX suite that the guest runs on our mount.
pub(crate) const PJDFSTEST: Tool = Tool {
    name: "pjdfstest",
    version: "0.2.2",
    fixed: true,
    optimised: true,
};
/// The peer daemon, a baseline for `test --daemon`.
pub(crate) const VIRTIOFSD: Tool = Tool {
    name: "virtiofsd",
    version: "1.14.0",
    fixed: false,
    optimised: true,
};
