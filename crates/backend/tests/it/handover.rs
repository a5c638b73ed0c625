//! A session moves from process to process under load, unnoticed by its guest.

use std::collections::BTreeMap;
use std::io::stdin;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

use backend::{Ended, NotSaved, Options, Saved, Session};
use driver::{Guest, Queue};
use rstest::rstest;
use rustix::event::{EventfdFlags, eventfd};
use vhost_user::message::MAX_FILES;
use vhost_user::socket::{Socket, Timeout};

use crate::echo::{ALONE, Echo, PATIENT, PROMPT, options};

/// Messages between the processes: some of the descriptors, all numbers, how many requests were served, and that it is time.
const FILES: u32 = 1;
const NUMBERS: u32 = 2;
const STOP: u32 = 3;
/// Requests of a queue on their way at a time.
const DEPTH: u64 = 16;

fn give(socket: &Socket, saved: Saved, served: u64) {
    let (numbers, files) = saved.into_parts();
    for some in files.chunks(MAX_FILES) {
        let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
        socket.send(FILES, 0, &[], &some).unwrap();
    }
    socket
        .send(NUMBERS, 0, &[&served.to_le_bytes(), &numbers], &[])
        .unwrap();
}

/// What the other process gives; and how many requests it has served.
fn take(socket: &mut Socket) -> (Saved, u64) {
    let mut files: Vec<OwnedFd> = Vec::new();
    loop {
        let message = socket.receive(Timeout(None)).unwrap().expect("the other process lives");
        if message.header.request == FILES {
            files.extend(message.files);
            continue;
        }
        assert_eq!(message.header.request, NUMBERS);
        let (served, numbers) = message.payload.split_first_chunk().unwrap();
        return (Saved::from_parts(numbers, files).unwrap(), u64::from_le_bytes(*served));
    }
}

fn served(session: &Session<'_>) -> impl Fn() -> u64 + use<> {
    let watch = session.watch();
    move || watch.counts().iter().map(|counts| counts.requests).sum()
}

/// The other process: its standard input is the socket.
#[test]
#[ignore = "another test starts it in a process of its own"]
fn successor() {
    let mut socket = Socket::new(stdin().as_fd().try_clone_to_owned().unwrap());
    let (saved, _) = take(&mut socket);
    let device = Echo::new();
    let mut session = Session::resume(saved, &device, Options::default()).unwrap();
    let served = served(&session);
    assert_eq!(session.run(stdin().as_fd()).unwrap(), Ended::Stopped);
    let order = socket.receive(Timeout(None)).unwrap().unwrap();
    assert_eq!(order.header.request, STOP);
    let saved = session.stop().unwrap();
    give(&socket, saved, served());
}

fn start_successor() -> (Child, Socket) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "handover::successor", "--ignored"])
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    (child, Socket::new(ours))
}

/// Keeps a queue busy until it is told to stop, and sees each request answered once. Gives how many there were.
fn load(queue: &mut Queue, answered: &AtomicU64, stop: &AtomicBool) -> u64 {
    let (mut sent, mut waiting) = (0_u64, BTreeMap::new());
    loop {
        while waiting.len() < DEPTH as usize && !stop.load(SeqCst) {
            let ticket = queue.submit(&sent.to_le_bytes(), 8).unwrap();
            assert!(waiting.insert(ticket, sent).is_none());
            sent += 1;
        }
        if waiting.is_empty() {
            assert!(queue.poll().unwrap().is_none(), "an answer that nobody waits for");
            return sent;
        }
        let (ticket, _, bytes) = queue.wait().unwrap();
        let number = waiting.remove(&ticket).expect("an answer to a request, and the first");
        assert_eq!(bytes, number.to_le_bytes());
        answered.fetch_add(1, SeqCst);
    }
}

/// Returns when so many more requests are answered.
fn wait_for_more(answered: &AtomicU64) {
    let enough = answered.load(SeqCst) + 500;
    while answered.load(SeqCst) < enough {
        thread::yield_now();
    }
}

#[rstest]
fn no_request_is_lost_or_repeated(#[values(false, true)] packed: bool) {
    let device = Echo::new();
    let stop = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut session = Session::new(theirs, &device, Options::default());
    let served_here = served(&session);
    let (answered, end) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let running = scope.spawn(|| {
            assert_eq!(session.run(stop.as_fd()).unwrap(), Ended::Stopped);
            session
        });
        let mut guest = Guest::attach(ours, &options(packed)).unwrap();
        let mut queues = std::mem::take(&mut guest.queues);
        let loads = [ALONE, PROMPT].map(|index| {
            let mut queue = queues.remove(usize::from(index));
            let (answered, end) = (&answered, &end);
            scope.spawn(move || load(&mut queue, answered, end))
        });
        wait_for_more(&answered);
        rustix::io::write(&stop, &1_u64.to_ne_bytes()).unwrap();
        let mut saved = running.join().unwrap().stop().unwrap();
        let mut all_served = served_here();
        for _ in 0..4 {
            let (mut child, mut socket) = start_successor();
            give(&socket, saved, 0);
            wait_for_more(&answered);
            socket.send(STOP, 0, &[], &[]).unwrap();
            let served;
            (saved, served) = take(&mut socket);
            all_served += served;
            assert!(child.wait().unwrap().success());
        }
        // Back where it came from: the front end still has its connection.
        let mut session = Session::resume(saved, &device, Options::default()).unwrap();
        let served_at_last = served(&session);
        let status = session.status();
        let runs: Vec<_> = status.queues.iter().map(|queue| queue.running).collect();
        assert_eq!(
            (status.features, runs),
            (guest.features(), vec![true, true, true, false])
        );
        wait_for_more(&answered);
        end.store(true, SeqCst);
        let sent: u64 = loads.map(|load| load.join().unwrap()).into_iter().sum();
        rustix::io::read(&stop, &mut [0; 8]).unwrap();
        let never = stop.as_fd();
        scope.spawn(move || {
            assert_eq!(session.run(never).unwrap(), Ended::Gone);
            assert_eq!(all_served + served_at_last(), sent, "each request is served once");
        });
        guest.stop(PATIENT).unwrap();
        guest.stop(ALONE).unwrap();
        guest.stop(PROMPT).unwrap();
        drop(guest);
    });
}

#[test]
fn what_is_no_saved_session_is_refused() {
    let device = Echo::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let stop = eventfd(1, EventfdFlags::CLOEXEC).unwrap();
    let mut session = Session::new(theirs, &device, Options::default());
    let _open = ours;
    assert_eq!(session.run(stop.as_fd()).unwrap(), Ended::Stopped);
    let (numbers, files) = session.stop().unwrap().into_parts();
    let copies = || files.iter().map(|file| file.try_clone().unwrap()).collect::<Vec<_>>();
    for length in 0..numbers.len() {
        assert_eq!(Saved::from_parts(&numbers[..length], copies()).unwrap_err(), NotSaved);
    }
    assert_eq!(Saved::from_parts(&numbers, Vec::new()).unwrap_err(), NotSaved);
    let longer = [&numbers[..], &[0; 8]].concat();
    assert_eq!(Saved::from_parts(&longer, copies()).unwrap_err(), NotSaved);
    let saved = Saved::from_parts(&numbers, copies()).unwrap();
    assert!(Session::resume(saved, &device, Options::default()).is_ok());
}
