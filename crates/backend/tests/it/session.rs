//! A session as its owner uses it: run, queried and stopped.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

use backend::{Counts, Ended, Options, Session};
use driver::Guest;
use rstest::rstest;
use rustix::event::{EventfdFlags, eventfd};

use crate::echo::{ALONE, Client, Echo, PATIENT, PROMPT, options};

#[rstest]
fn each_queue_counts_what_it_does(#[values(false, true)] packed: bool) {
    const TEXT: &str = "sixteen bytes it";
    let device = Echo::new();
    let stop = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut session = Session::new(theirs, &device, Options::default());
    let watch = session.watch();
    thread::scope(|scope| {
        let running = scope.spawn(|| {
            let ended = session.run(stop.as_fd()).unwrap();
            (session, ended)
        });
        let mut client = Client(Guest::attach(ours, &options(packed)).unwrap());
        for (queue, times) in [(PROMPT, 5), (ALONE, 3)] {
            for _ in 0..times {
                client.submit(queue, TEXT);
                assert_eq!(client.wait(queue), TEXT);
            }
        }
        // What is served is counted behind the answer, and certainly ahead of the end of the queue.
        let base = client.0.stop(ALONE).unwrap();
        let counts = watch.counts();
        let alone = counts[usize::from(ALONE)];
        assert_eq!((alone.requests, alone.bytes, alone.errors), (3, 3 * 2 * 16, 0));
        assert!(alone.busy > Duration::ZERO);
        assert!(alone.interrupts > 0);
        assert!((1..=3).contains(&alone.kicks), "{alone:?}");
        assert_eq!(counts[usize::from(PATIENT)].requests, 0);

        client.0.start(ALONE, base).unwrap();
        client.submit(ALONE, TEXT);
        assert_eq!(client.wait(ALONE), TEXT);
        client.0.stop(ALONE).unwrap();
        assert_eq!(watch.counts()[usize::from(ALONE)].requests, 4, "runs are added up");

        rustix::io::write(&stop, &1_u64.to_ne_bytes()).unwrap();
        let (session, ended) = running.join().unwrap();
        assert_eq!(ended, Ended::Stopped);
        client.submit(PROMPT, TEXT);
        assert_eq!(client.wait(PROMPT), TEXT, "its queues go on");
        let status = session.status();
        assert_eq!(status.features, client.0.features());
        let running: Vec<_> = status.queues.iter().map(|queue| queue.running).collect();
        assert_eq!(running, [true, true, false, false]);
        assert_eq!(status.queues[3].counts, Counts::default());
        assert_eq!(device.seen.ends.load(SeqCst), 0);
        drop(session);
        assert_eq!(device.seen.ends.load(SeqCst), 1);
    });
}
