//! The bodies of the fuzz targets `session` and `window` on pseudo-random bytes. They count descriptors and threads
//! of the process. Therefore one test runs both, alone in its process.

#[path = "../../../fuse/tests/arbitrary/requests/bytes.rs"]
mod bytes;
mod daemon;
mod session;
mod window;

/// The next of a sequence of numbers that only look random (splitmix64), so that a failure repeats.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut number = *state;
    number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

fn inputs(seed: u64, count: u32) -> impl Iterator<Item = Vec<u8>> {
    let mut state = seed;
    (0..count).map(move |_| {
        let words = 30 + next(&mut state) % 100;
        (0..words).flat_map(|_| next(&mut state).to_le_bytes()).collect()
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
