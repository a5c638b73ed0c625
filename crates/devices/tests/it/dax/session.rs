//! The end of sessions and connections empties the window, and a front end that does not answer delays no other.

use std::fs;
use std::path::Path;
use std::time::Duration;

use driver::Answers;
use rstest::rstest;

use super::{PAGE, PIECE, begin, descriptors, pattern, start};
use crate::daemon::Client;

/// What ends a session.
#[derive(Clone, Copy, Debug)]
enum End {
    Destroy,
    NewInit,
    Reset,
    Disconnect,
}

fn map_some(client: &mut Client, share: &Path) {
    fs::write(share.join("file"), pattern(PIECE, 1)).unwrap();
    let node = client.node("file");
    for page in 0..20 {
        client.map(node, page * PAGE, page * 3 * PAGE, 2 * PAGE, true).unwrap();
    }
    assert_eq!(client.memory().count(), 20);
}

#[rstest]
fn the_end_of_a_session_empties_the_window(
    #[values(false, true)] packed: bool,
    #[values(End::Destroy, End::NewInit, End::Reset, End::Disconnect)] end: End,
) {
    let (daemon, mut client) = start(1, packed);
    let share = daemon.share();
    let before = descriptors(&share);
    map_some(&mut client, &share);
    match end {
        End::Destroy => {
            client.ask(driver::fs::Requests::destroy).unwrap();
            assert_eq!((client.memory().count(), client.window().unmapped()), (0, 20));
            assert_eq!(client.map(1, 0, 0, PAGE, false), Err(libc::ENOTCONN));
            client.init_dax();
        }
        End::NewInit => {
            client.init_dax();
            assert_eq!((client.memory().count(), client.window().unmapped()), (0, 20));
        }
        End::Reset => {
            let base = client.guest.stop(1).unwrap();
            // The front end empties the window by itself, and asks for nothing.
            client.window().clear().unwrap();
            client.guest.frontend().reset_device().unwrap();
            assert_eq!(client.window().asked(), 20);
            client.guest.start(1, base).unwrap();
            client.init_dax();
        }
        End::Disconnect => {
            drop(client);
            client = begin(&daemon, packed);
        }
    }
    assert_eq!(descriptors(&share), before, "the files are closed");
    // The guest starts anew, and what it maps is what it sees.
    map_some(&mut client, &share);
    assert_eq!(
        client.load(3 * PAGE, PAGE),
        pattern(PIECE, 1)[PAGE as usize..][..PAGE as usize]
    );
}

/// Sends a SETUPMAPPING, and returns once the front end has heard of it.
fn map_unanswered(client: &mut Client, node: u64, offset: u64) -> driver::fs::Request {
    client.window().answer(Answers::Never);
    let asked = client.window().asked();
    let request = client.requests.set_up_mapping(node, 0, offset, PAGE, true);
    client.guest.queues[1]
        .submit(&request.readable, request.reply_space)
        .unwrap();
    let mut tries = 0..30_000;
    while client.window().asked() == asked {
        assert!(tries.next().is_some(), "the front end is never asked");
        std::thread::sleep(Duration::from_millis(1));
    }
    request
}

#[rstest]
fn a_front_end_that_goes_without_an_answer_is_followed_by_the_next(#[values(false, true)] packed: bool) {
    let (daemon, mut client) = start(1, packed);
    let share = daemon.share();
    let before = descriptors(&share);
    for _ in 0..3 {
        map_some(&mut client, &share);
        let node = client.node("file");
        map_unanswered(&mut client, node, PIECE - PAGE);
        drop(client);
        client = begin(&daemon, packed);
        assert_eq!(descriptors(&share), before);
    }
    map_some(&mut client, &share);
}

#[rstest]
fn a_queue_is_stopped_while_the_front_end_owes_an_answer(#[values(false, true)] packed: bool) {
    let (daemon, mut client) = start(1, packed);
    map_some(&mut client, &daemon.share());
    let node = client.node("file");
    let request = map_unanswered(&mut client, node, PIECE - PAGE);
    // A VMM waits for this with all of its threads, so the answer cannot come before.
    let base = client.guest.stop(1).unwrap();
    assert!(client.guest.queues[1].poll().unwrap().is_none(), "the request waits");
    client.guest.start(1, base).unwrap();
    client.window().answer(Answers::Serve);
    let (_, written, bytes) = client.guest.queues[1].wait().unwrap();
    assert!(driver::fs::reply(&request, written, &bytes).unwrap().is_ok());
    assert_eq!(client.load(PIECE - PAGE, PAGE), pattern(PAGE, 1));
    client.unmap(&[(0, PIECE)]).unwrap();
    assert_eq!(client.memory().count(), 0);
    assert_eq!(client.window().mapped(), client.window().unmapped());
}
