//! Chains that are completed together, and chains that are put back after they were kept.

use rstest::rstest;
use virtqueue::{Pending, Queue, QueueConfig};

use crate::world::{self, buffers};

fn keep_all(queue: &mut Queue) -> Vec<Pending> {
    let mut kept = Vec::new();
    let served = queue.serve(64, |chain| {
        let (pending, outcome) = chain.keep();
        kept.push(pending);
        outcome
    });
    let _interrupt = served.expect("an honest driver");
    kept
}

/// Over several laps of the ring, and with chains done alone between them.
#[rstest]
fn chains_are_put_back_and_completed_together_in_their_order(
    #[values(false, true)] packed: bool,
    #[values(false, true)] in_order: bool,
    #[values(4, 8)] size: u16,
) {
    let config = QueueConfig {
        in_order,
        ..world::config(packed, size)
    };
    let (_memory, mut driver, mut queue) = world::start(&config);
    for round in 0..20 {
        let before = (queue.position(), queue.work());
        let mut tokens = vec![driver.post(&[], &buffers(0, &[8])).expect("room")];
        for _ in 0..2 {
            let kept = keep_all(&mut queue);
            assert_eq!(kept.len(), 1);
            assert!(queue.put_back(&kept), "there is none behind it");
            assert_eq!(
                (queue.position(), queue.work(), queue.in_flight()),
                (before.0, before.1, 0)
            );
        }
        tokens.push(driver.post(&[], &buffers(1, &[8])).expect("room"));
        assert!(
            driver.kick_wanted(),
            "round {round}: the driver tells of the next chain"
        );
        let kept = keep_all(&mut queue);
        assert_eq!(kept.len(), 2);
        tokens.push(driver.post(&[], &buffers(2, &[8])).expect("room"));
        assert!(!queue.put_back(&kept), "one more has come");
        let mut kept = keep_all(&mut queue);
        assert_eq!(kept.len(), 3);
        let last = kept.split_off(2);
        let together: Vec<_> = kept.into_iter().zip([8, 5]).collect();
        assert!(driver.reap().expect("an honest device").is_none());
        queue.complete_together(&together);
        for pending in last {
            queue.complete(pending, 3);
        }
        let _wanted = queue.interrupt_wanted();
        for (token, written) in tokens.into_iter().zip([8, 5, 3]) {
            assert_eq!(driver.reap(), Ok(Some((token, written))));
        }
    }
}
