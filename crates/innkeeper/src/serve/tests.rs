//! What follows from the list of devices.

mod stopped_calls;

use std::fs;
use std::path::Path;

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    served: Served,
}

/// docs/confinement.md has the tables of every declaration as it is.
#[test]
fn the_page_of_confinement_has_what_each_device_declares() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/confinement.md");
    let page = fs::read_to_string(page).unwrap();
    for line in [
        &[
            "innkeeper",
            "share",
            "/",
            "--socket-path",
            "s",
            "--dax",
            "auto",
            "--allow-trusted-xattr",
            "--allow-security-labels",
            "--allow-chattr",
        ][..],
        &["innkeeper", "blk", "/image", "--socket-path", "s"],
        &["innkeeper", "rng", "--socket-path", "s"],
        &[
            "innkeeper",
            "vsock",
            "--guest-cid",
            "3",
            "--uds-path",
            "/run/v",
            "--socket-path",
            "s",
        ],
        &["innkeeper", "net", "--socket-path", "s", "--tap", "tap0"],
        &["innkeeper", "net", "--socket-path", "s", "--passt"],
    ] {
        let declaration = Line::parse_from(line).served.service().declaration().unwrap();
        let table = declaration.to_string();
        assert!(page.contains(table.trim()), "docs/confinement.md lacks this:\n{table}");
    }
}
