//! The bodies of the fuzz targets `session` and `window` on pseudo-random bytes. They count descriptors and threads
//! of the process. Therefore one test runs both, alone in its process.

#[path = "../../../fuse/tests/arbitrary/requests/bytes.rs"]
mod bytes;
mod daemon;
#[path = "../../../fuse/tests/arbitrary/numbers.rs"]
mod numbers;
#[path = "../common/resources.rs"]
mod resources;
mod session;
mod window;

use numbers::Numbers;

fn inputs(seed: u64, count: u32) -> impl Iterator<Item = Vec<u8>> {
    let mut numbers = Numbers(seed);
    (0..count).map(move |_| {
        let words = 30 + numbers.next() % 100;
        numbers.bytes(words)
    })
}

#[test]
fn no_messages_and_no_mappings_break_the_daemon() {
    let (mut replies, mut answered) = (0, 0);
    for input in inputs(1, 40) {
        let outcome = session::run(&input);
        replies += outcome.replies;
        answered += outcome.answered;
    }
    assert!(
        replies > 1000 && answered > 10,
        "the messages are too random to show anything: {replies} replies, {answered} FUSE replies"
    );
    let (mut granted, mut refused) = (0, 0);
    for input in inputs(2, 40) {
        let outcome = window::run(&input);
        granted += outcome.granted;
        refused += outcome.refused;
    }
    assert!(
        granted > 300 && refused > 20,
        "the mappings are too random to show anything: {granted} granted, {refused} refused"
    );
}
