//! Random access to a file through a window much smaller than the file.

use std::fs;
use std::os::unix::fs::FileExt;

use rstest::rstest;

use super::{PAGE, PIECE, pattern, start};
use crate::numbers::Numbers;

/// The window has this many places, and the file eight times as many pieces of this length.
const PLACES: u64 = 16;
const LENGTH: u64 = 2 * PIECE / PLACES;
const PIECES: u64 = 8 * PLACES;
const ACCESSES: u32 = 4000;

#[rstest]
fn random_reads_and_writes_of_a_file_eight_times_the_window_compare_equal(
    #[values(false, true)] packed: bool,
    #[values(1, 2)] seed: u64,
) {
    let (daemon, mut client) = start(2, packed);
    let path = daemon.share().join("file");
    let mut model = pattern(PIECES * LENGTH, seed);
    fs::write(&path, &model).unwrap();
    let on_host = fs::File::options().read(true).write(true).open(&path).unwrap();
    let node = client.node("file");
    let handle = client.open(node, libc::O_RDWR);
    // Which piece the guest has in which place.
    let mut places = [None; PLACES as usize];
    let mut numbers = Numbers(seed);
    for access in 0..ACCESSES {
        let mut random = |below| numbers.next() % below;
        let piece = random(PIECES);
        let write = random(2) == 0;
        let place = places.iter().position(|held| *held == Some(piece));
        let place = place.unwrap_or_else(|| {
            let place = random(PLACES) as usize;
            // Guests may take out what was there, or not.
            if places[place].is_some() && random(2) == 0 {
                client.unmap(&[(place as u64 * LENGTH, LENGTH)]).unwrap();
            }
            client
                .map(node, piece * LENGTH, place as u64 * LENGTH, LENGTH, write)
                .unwrap();
            places[place] = Some(piece);
            place
        });
        let at = random(LENGTH);
        let length = 1 + random((LENGTH - at).min(2 * PAGE));
        let (in_window, in_file) = (place as u64 * LENGTH + at, piece * LENGTH + at);
        let held = &mut model[in_file as usize..][..length as usize];
        let data = pattern(length, random(u64::MAX));
        match (write, random(8)) {
            (true, 0) => {
                on_host.write_all_at(&data, in_file).unwrap();
                held.copy_from_slice(&data);
            }
            (true, 1) => {
                client
                    .ask(|requests| requests.write(node, handle, in_file, &data))
                    .unwrap();
                held.copy_from_slice(&data);
            }
            (true, _) => {
                client.memory().store(in_window, &data).unwrap();
                held.copy_from_slice(&data);
            }
            (false, 0) => {
                let read = client.ask(|requests| requests.read(node, handle, in_file, length as u32));
                assert!(read.unwrap() == *held, "access {access} by a request at {in_file:#x}");
            }
            (false, _) => assert!(
                client.load(in_window, length) == *held,
                "access {access} at {in_file:#x}"
            ),
        }
    }
    assert!(fs::read(&path).unwrap() == model);
    assert_eq!(client.memory().count(), places.iter().flatten().count());
    client.ask(driver::fs::Requests::destroy).unwrap();
    assert_eq!(client.memory().count(), 0);
    assert_eq!(client.window().mapped(), client.window().unmapped());
    assert!(client.window().mapped() > 8 * PLACES, "the window was turned over");
}
