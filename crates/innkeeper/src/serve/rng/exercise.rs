//! What `innkeeper check rng` does: it reads, at once and at a rate, into memory of each kind.

use std::fs::File;

use driver::{Error, Guest, Options};
use virtqueue::Buffer;

use crate::serve::exercise::{Exercise, Pass, Steps};

/// Where memory is that is no RAM, and its size.
const WINDOW: u64 = 1 << 40;
const PAGE: u64 = 4096;

/// See the module.
pub(super) fn exercise() -> Exercise {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    Exercise {
        passes: vec![
            Pass {
                name: "no limit",
                options: words(&["--source", devices::rng::DEFAULT_SOURCE]),
                may_be_refused: false,
                guest: |steps| read(steps, true),
            },
            Pass {
                name: "with a rate",
                options: words(&["--rate", "1K"]),
                may_be_refused: false,
                guest: |steps| read(steps, false),
            },
        ],
        needs: |_| Vec::new(),
    }
}

/// More than a second's worth of the rate, so that the last request waits.
fn read(steps: &mut Steps, packed: bool) -> Result<(), Error> {
    let options = Options {
        queues: 1,
        packed,
        shrinkable: true,
        ..Options::default()
    };
    let mut guest = steps.connect(&options)?;
    for bytes in [64, 512, 512] {
        let (written, _) = guest.queues[0].call(&[], bytes)?;
        steps.succeeded(format!("read {written} of {bytes} bytes"));
    }
    let base = guest.stop(0)?;
    guest.start(0, base)?;
    steps.succeeded("pause");
    if guest.take_memory_away().is_ok() {
        guest.give_memory_back()?;
        steps.succeeded("take memory away and give it back");
    }
    read_to_window(steps, &mut guest)?;
    if rustix::fs::ftruncate(guest.ram(), 0).is_ok() {
        guest.queues[0].kick()?;
        steps.succeeded("lose memory");
    }
    Ok(())
}

/// A file that another device maps into the guest is memory for this one too.
fn read_to_window(steps: &mut Steps, guest: &mut Guest) -> Result<(), Error> {
    let path = steps.directory.join("window");
    let opened = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path);
    let Ok(file) = opened.and_then(|file| file.set_len(PAGE).map(|()| file)) else {
        return Ok(());
    };
    guest.map_file(WINDOW, PAGE, file)?;
    let queue = &mut guest.queues[0];
    let buffer = Buffer {
        address: WINDOW,
        length: 64,
    };
    // Even the table of descriptors may lie there.
    queue.ring().post_indirect(WINDOW + PAGE / 2, &[], &[buffer])?;
    queue.kick()?;
    queue.wait()?;
    steps.succeeded("read into a mapped file");
    guest.unmap_file(WINDOW, PAGE)
}
