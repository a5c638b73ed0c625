//! DAX against a local mmap: mappings set up and removed per second, and a file of 256 MiB read from start to end. It
//! is read through the window, in mappings of 2 MiB as a guest sets them up, and through one mmap of a local process.
//!
//! The file is in the page cache. Steady: all of it is mapped and was touched before. Touched: all of it is mapped,
//! and page faults count. Mapped: nothing is mapped, and mapping counts as well. Both contenders read by the same
//! loop and take turns, so that a busy machine affects both; the result is the median of the rounds' ratios.
//!
//! Everything runs on one processor. Only one of guest, daemon and front end runs at a time while the others wait for
//! it. How long a machine takes to wake another processor is not measured here (see `perf bench sched pipe`).
//!
//! The last pass has no threshold: at 10 GiB a second 2 MiB are read in 200 microseconds, so that one request per 2
//! MiB is visible, whatever it does. GETATTR, a request that does next to nothing, is printed for comparison.
//!
//! `cargo bench -p devices`; fails if reading through the window, steady or touched, is not 0.90 times as fast as
//! through mmap.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use devices::fs::{FsDevice, FsOptions};
use driver::fs::{ROOT, Request, Requests, field_u64};
use driver::{AddressRange, Guest, Options};
use fuse::passthrough::{self, Passthrough};
use fuse::server::Server;
use rustix::event::{EventfdFlags, eventfd};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What Linux maps at once.
const PIECE: u64 = 2 << 20;
const PIECES: u64 = 128;
const LENGTH: u64 = PIECES * PIECE;
/// The reader's buffer, which stays in the processor's cache.
const BUFFER: usize = 64 << 10;
const ROUNDS: usize = 41;
const ROUND_TRIPS: u64 = 1000;
const WANTED: f64 = 0.90;

fn main() -> Result<ExitCode> {
    // Threads inherit it.
    let mut one = CpuSet::new();
    one.set(sched_getcpu());
    sched_setaffinity(None, &one)?;
    let directory = tempfile::tempdir()?;
    let share = directory.path().join("share");
    std::fs::create_dir(&share)?;
    let path = share.join("file");
    let expected = fill(&path)?;

    let socket = directory.path().join("socket");
    let listener = UnixListener::bind(&socket)?;
    let options = FsOptions {
        tag: "share".into(),
        request_queues: 1,
        window_size: LENGTH,
        ..FsOptions::default()
    };
    let fs = Passthrough::new(&share, passthrough::Options::default())?;
    let device = FsDevice::new(options, Server::new(fs))?;
    let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
    thread::scope(|scope| {
        let daemon = scope.spawn(|| backend::serve(&listener, &device, backend::Options::default(), stop.as_fd()));
        let result = compare(&socket, &path, expected);
        rustix::io::write(&stop, &1_u64.to_ne_bytes())?;
        daemon.join().map_err(|_| "the daemon panicked")??;
        result
    })
}

/// Makes the file, and gives the sum of its words.
fn fill(path: &Path) -> Result<u64> {
    let mut file = File::create(path)?;
    let mut sum = 0_u64;
    let mut word = 1_u64;
    for _ in 0..LENGTH / BUFFER as u64 {
        let mut bytes = Vec::with_capacity(BUFFER);
        while bytes.len() < BUFFER {
            word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            sum = sum.wrapping_add(word);
            bytes.extend(word.to_ne_bytes());
        }
        file.write_all(&bytes)?;
    }
    // Nothing is to be written back while others are measured.
    file.sync_all()?;
    Ok(sum)
}

fn compare(socket: &Path, path: &Path, expected: u64) -> Result<ExitCode> {
    println!("{:50}  median (best, worst) of {ROUNDS} rounds", "");
    for (packed, ring) in [(false, "split"), (true, "packed")] {
        let mut guest = Mapper::connect(socket, packed)?;
        let rounds = (0..=ROUNDS).map(|_| guest.round_trips()).collect::<Result<Vec<_>>>()?;
        let column = |which: usize| sorted(rounds.iter().map(|round| round[which]));
        report(&format!("GETATTR a second, {ring}"), &column(0), 0);
        report(
            &format!("SETUPMAPPING and REMOVEMAPPING a second, {ring}"),
            &column(1),
            0,
        );
    }
    let mut guest = Mapper::connect(socket, true)?;
    let file = File::open(path)?;
    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        // Who begins changes as well.
        let (window, mmap) = if round % 2 == 0 {
            let window = guest.passes()?;
            (window, local_passes(&file)?)
        } else {
            let mmap = local_passes(&file)?;
            (guest.passes()?, mmap)
        };
        if [window.sum, mmap.sum] != [expected; 2] {
            return Err("the file reads otherwise than it was written".into());
        }
        rounds.push([window.speeds, mmap.speeds]);
    }
    let [steady, touched, _] =
        [("steady", 0), ("touched", 1), ("mapped", 2)].map(|(name, which)| compare_speeds(name, &rounds, which));
    if steady.min(touched) >= WANTED {
        return Ok(ExitCode::SUCCESS);
    }
    println!("MISSED: {WANTED:.2} wanted");
    Ok(ExitCode::FAILURE)
}

/// Prints one pass of all rounds. Gives how fast the window is, in units of mmap's speed.
fn compare_speeds(name: &str, rounds: &[[[f64; 3]; 2]], which: usize) -> f64 {
    let column = |who: usize| sorted(rounds.iter().map(|round| round[who][which]));
    report(&format!("GiB a second through the window, {name}"), &column(0), 2);
    report(&format!("GiB a second through mmap, {name}"), &column(1), 2);
    let ratios = sorted(rounds.iter().map(|[window, mmap]| window[which] / mmap[which]));
    report(&format!("window / mmap, {name}"), &ratios, 2);
    ratios[ratios.len() / 2]
}

/// Passes over the file.
struct Passes {
    /// GiB a second: steady, touched, mapped.
    speeds: [f64; 3],
    /// What the words of the file come to.
    sum: u64,
}

impl Passes {
    fn new([steady, touched, mapped]: [Duration; 3], sum: u64) -> Self {
        let speed = |time: Duration| LENGTH as f64 / time.as_secs_f64() / f64::from(1 << 30);
        Self {
            speeds: [steady, touched, mapped].map(speed),
            sum,
        }
    }
}

fn local_passes(file: &File) -> Result<Passes> {
    let mut buffer = vec![0; BUFFER];
    let local = || -> Result<AddressRange> {
        let range = AddressRange::reserve(LENGTH)?;
        range.map(0, LENGTH, file.as_fd(), 0, false)?;
        Ok(range)
    };
    let begin = Instant::now();
    let range = local()?;
    read(&range, 0..LENGTH, &mut buffer)?;
    let mapped = begin.elapsed();
    let steady = read(&range, 0..LENGTH, &mut buffer)?;
    let sum = sum(&range, &mut buffer)?;
    drop(range);
    let touched = read(&local()?, 0..LENGTH, &mut buffer)?;
    Ok(Passes::new([steady, touched, mapped], sum))
}

/// The reader: copies all of it into a small buffer, one bufferful after the other.
fn read(memory: &AddressRange, range: Range<u64>, buffer: &mut [u8]) -> Result<Duration> {
    let begin = Instant::now();
    for offset in range.step_by(BUFFER) {
        memory.load(offset, buffer)?;
        black_box(&buffer);
    }
    Ok(begin.elapsed())
}

fn sum(memory: &AddressRange, buffer: &mut [u8]) -> Result<u64> {
    let mut sum = 0_u64;
    for offset in (0..LENGTH).step_by(BUFFER) {
        memory.load(offset, buffer)?;
        for word in buffer.as_chunks().0 {
            sum = sum.wrapping_add(u64::from_ne_bytes(*word));
        }
    }
    Ok(sum)
}

/// All rounds but the first, which fills caches.
fn sorted(rounds: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut rounds: Vec<_> = rounds.skip(1).collect();
    rounds.sort_by(f64::total_cmp);
    rounds
}

fn report(name: &str, sorted: &[f64], digits: usize) {
    let (median, best, worst) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1], sorted[0]);
    println!("{name:50}{median:8.digits$} ({best:.digits$}, {worst:.digits$})");
}

/// A guest that maps the file.
struct Mapper {
    guest: Guest,
    requests: Requests,
    node: u64,
}

impl Mapper {
    fn connect(socket: &Path, packed: bool) -> Result<Self> {
        let options = Options {
            packed,
            ..Options::default()
        };
        let mut mapper = Self {
            guest: Guest::connect(socket, &options)?,
            requests: Requests::new(rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()),
            node: 0,
        };
        let init = mapper.requests.init(45, 1 << 26); // FUSE_MAP_ALIGNMENT
        mapper.ask(&init)?;
        let lookup = mapper.requests.lookup(ROOT, b"file");
        mapper.node = field_u64(&mapper.ask(&lookup)?, 0);
        Ok(mapper)
    }

    fn ask(&mut self, request: &Request) -> Result<Vec<u8>> {
        let (written, bytes) = self.guest.queues[1].call(&request.readable, request.reply_space)?;
        let reply = driver::fs::reply(request, written, &bytes)?;
        Ok(reply.map_err(std::io::Error::from_raw_os_error)?.to_vec())
    }

    fn memory(&self) -> Result<&AddressRange> {
        Ok(self.guest.window().ok_or("the device has no window")?.memory())
    }

    fn map(&mut self, piece: u64) -> Result<()> {
        let offset = piece * PIECE;
        let request = self.requests.set_up_mapping(self.node, offset, offset, PIECE, false);
        self.ask(&request).map(drop)
    }

    fn unmap_all(&mut self) -> Result<()> {
        let request = self.requests.remove_mappings(self.node, &[(0, LENGTH)]);
        self.ask(&request).map(drop)
    }

    /// As a guest does: a piece is mapped when it is first touched. "Touched" alone has all of them mapped before.
    fn passes(&mut self) -> Result<Passes> {
        let mut buffer = vec![0; BUFFER];
        let begin = Instant::now();
        for piece in 0..PIECES {
            self.map(piece)?;
            read(self.memory()?, piece * PIECE..(piece + 1) * PIECE, &mut buffer)?;
        }
        let mapped = begin.elapsed();
        let steady = read(self.memory()?, 0..LENGTH, &mut buffer)?;
        let sum = sum(self.memory()?, &mut buffer)?;
        self.unmap_all()?;
        (0..PIECES).try_for_each(|piece| self.map(piece))?;
        let touched = read(self.memory()?, 0..LENGTH, &mut buffer)?;
        self.unmap_all()?;
        Ok(Passes::new([steady, touched, mapped], sum))
    }

    /// How many of both in a second, one at a time: GETATTR; mappings set up and taken out again.
    fn round_trips(&mut self) -> Result<[f64; 2]> {
        let begin = Instant::now();
        for _ in 0..ROUND_TRIPS {
            let request = self.requests.getattr(ROOT);
            self.ask(&request)?;
        }
        let getattr = begin.elapsed();
        let begin = Instant::now();
        for round in 0..ROUND_TRIPS {
            let piece = round % PIECES;
            self.map(piece)?;
            let request = self.requests.remove_mappings(self.node, &[(piece * PIECE, PIECE)]);
            self.ask(&request)?;
        }
        Ok([getattr, begin.elapsed()].map(|time| ROUND_TRIPS as f64 / time.as_secs_f64()))
    }
}
