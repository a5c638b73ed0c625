//! Stores that another process, on the other side of a share, must see without any system call in between.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::{Spot, Wait};
use crate::error::Error;
use crate::mapping::Mapping;
use crate::say;

/// How long `await` sleeps between two looks.
const NAP: Duration = Duration::from_millis(1);

/// Stores the text, says `stored`, and keeps the mapping until standard input ends.
pub(crate) fn store(spot: &Spot) -> Result<(), Error> {
    let mapping = map(spot)?;
    mapping
        .store(spot.offset, spot.text.as_bytes())
        .map_err(failure("store into", spot))?;
    say("stored")?;
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    Ok(())
}

/// Says `waiting` once the page is touched, and `seen` once the text is there.
pub(crate) fn wait(wait: &Wait) -> Result<(), Error> {
    let spot = &wait.spot;
    let mapping = map(spot)?;
    let mut found = vec![0; spot.text.len()];
    mapping
        .load(spot.offset, &mut found)
        .map_err(failure("load from", spot))?;
    say("waiting")?;
    let start = Instant::now();
    while found != spot.text.as_bytes() {
        if start.elapsed() >= Duration::from_secs(wait.limit) {
            return Err(Error::Late {
                path: spot.file.clone(),
                offset: spot.offset,
                text: spot.text.clone(),
                seconds: wait.limit,
            });
        }
        thread::sleep(NAP);
        mapping
            .load(spot.offset, &mut found)
            .map_err(failure("load from", spot))?;
    }
    say("seen")
}

fn map(spot: &Spot) -> Result<Mapping, Error> {
    if spot.text.is_empty() {
        return Err(Error::Usage("TEXT must not be empty".to_owned()));
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&spot.file)
        .map_err(failure("open", spot))?;
    let end = spot.offset.saturating_add(spot.text.len() as u64);
    let length = file.metadata().map_err(failure("stat", spot))?.len();
    if end > length {
        return Err(Error::Foreign {
            path: spot.file.clone(),
            reason: format!("holds {length} bytes, which do not reach to {end:#x}"),
        });
    }
    Mapping::new(file.as_fd(), spot.offset..end).map_err(failure("map", spot))
}

fn failure(act: &'static str, spot: &Spot) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File {
        act,
        path: spot.file.clone(),
        source,
    }
}
