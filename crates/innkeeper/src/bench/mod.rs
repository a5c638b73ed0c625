//! `innkeeper bench`: drives daemons straight over the ring, with no kernel in the way, and compares them.

mod arguments;
mod contender;
mod drive;
mod error;
mod host;
mod measure;
mod message;
mod random;
mod scratch;
mod session;
mod steps;
mod table;
mod workload;

use std::io::{IsTerminal, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

pub(crate) use arguments::Bench;
pub(crate) use error::Error;

use contender::{Contender, Recipe};
use measure::{Round, Rounds};
use scratch::{Scratch, Sizes, own_directory};
use session::{Connection, Session};
use table::Measured;
use workload::Workload;

use crate::signals::{ENDING, Signals};

/// Not counted, before the rounds of each workload.
const WARM_UP: Duration = Duration::from_millis(50);

/// Measures all that was asked for. Answers the exit status.
pub(crate) fn run(args: &Bench) -> Result<u8, crate::error::Error> {
    crate::limits::raise_open_files(None)?;
    let interrupt = Interrupt::watch()?;
    match measure(args, &interrupt) {
        Ok(()) => Ok(0),
        // Whatever went wrong after a signal went wrong because of it.
        Err(_) if interrupt.signal() != 0 => Ok(128 + u8::try_from(interrupt.signal()).unwrap_or(0)),
        Err(error) => Err(error.into()),
    }
}

fn measure(args: &Bench, interrupt: &Interrupt) -> Result<(), Error> {
    let recipes = args.recipes();
    let sizes = Sizes {
        files: args.files,
        entries: args.entries,
        data: u64::from(args.data_mib) << 20,
    };
    // The host is a contender like the daemons, with a directory of its own to write to.
    let scratch = Scratch::make(&args.directory, sizes, recipes.len() + 1)?;
    let mut sides = recipes
        .iter()
        .enumerate()
        .map(|(index, recipe)| Side::daemon(recipe, index, &scratch, args))
        .collect::<Result<Vec<_>, Error>>()?;
    sides.push(Side::Host {
        index: recipes.len(),
        queues: args.queues,
    });
    let mut names: Vec<String> = recipes.iter().map(|recipe| recipe.name.clone()).collect();
    names.push("host".into());

    print!("{}", introduction(args, &recipes, &sides));
    print!("{}", table::heading());
    for workload in args.workloads() {
        let measured = measure_one(workload, &mut sides, &scratch, args, interrupt)?;
        print!("{}", table::lines(&measured, &names));
        std::io::stdout().flush().map_err(Error::system("print the table"))?;
    }
    Ok(())
}

/// All rounds of one workload, the contenders taking turns.
fn measure_one(
    workload: Workload,
    sides: &mut [Side],
    scratch: &Scratch,
    args: &Bench,
    interrupt: &Interrupt,
) -> Result<Measured, Error> {
    let mut runners = sides
        .iter_mut()
        .map(|side| side.prepare(workload, scratch))
        .collect::<Result<Vec<_>, Error>>()?;
    let mut all = vec![Rounds::default(); runners.len()];
    for runner in &mut runners {
        runner.round(WARM_UP, &interrupt.flag)?;
    }
    for number in 0..args.rounds {
        for (runner, rounds) in runners.iter_mut().zip(&mut all) {
            progress(&format!(
                "{workload}: round {} of {}, {}",
                number + 1,
                args.rounds,
                runner.name()
            ));
            rounds.0.push(runner.round(args.round_time(), &interrupt.flag)?);
            interrupt.check()?;
        }
    }
    progress("");
    Ok(Measured { workload, rounds: all })
}

/// What is compared.
#[derive(Debug)]
enum Side {
    Daemon {
        contender: Contender,
        session: Box<Session>,
    },
    Host {
        index: usize,
        queues: u16,
    },
}

/// A side, ready for the rounds of one workload.
enum Runner<'a> {
    Daemon {
        contender: &'a Contender,
        session: &'a mut Session,
        seats: Vec<Vec<drive::Seat>>,
    },
    Host(Vec<host::Worker>),
}

impl Side {
    fn daemon(recipe: &Recipe, index: usize, scratch: &Scratch, args: &Bench) -> Result<Self, Error> {
        let (contender, stream) = Contender::start(recipe, &scratch.share(), &scratch.socket(index), args.queues)?;
        let connection = Connection {
            queues: args.queues,
            packed: args.packed,
        };
        let session =
            Session::mount(stream, connection, scratch.sizes, index).map_err(|error| contender.blame(error))?;
        Ok(Self::Daemon {
            contender,
            session: Box::new(session),
        })
    }

    fn prepare(&mut self, workload: Workload, scratch: &Scratch) -> Result<Runner<'_>, Error> {
        match self {
            Self::Daemon { contender, session } => Ok(Runner::Daemon {
                seats: drive::seats(session, workload, scratch.sizes.data),
                contender,
                session,
            }),
            Self::Host { index, queues } => {
                let share = scratch.share();
                let own = share.join(own_directory(*index));
                host::workers(&share, &own, scratch.sizes, workload, *queues).map(Runner::Host)
            }
        }
    }
}

impl Runner<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Daemon { contender, .. } => &contender.name,
            Self::Host(_) => "host",
        }
    }

    fn round(&mut self, limit: Duration, stop: &AtomicBool) -> Result<Round, Error> {
        match self {
            Self::Daemon {
                contender,
                session,
                seats,
            } => {
                let before = contender.cpu_time();
                let tally = drive::drive(session, seats, limit, stop).map_err(|error| contender.blame(error))?;
                Ok(Round::new(&tally, contender.cpu_time().saturating_sub(before)))
            }
            Self::Host(workers) => {
                let before = own_cpu_time();
                let tally = host::run(workers, limit, stop)?;
                Ok(Round::new(&tally, own_cpu_time().saturating_sub(before)))
            }
        }
    }
}

fn own_cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// What is compared, and how.
fn introduction(args: &Bench, recipes: &[Recipe], sides: &[Side]) -> String {
    let mut text = format!(
        "Rings driven by one process, replies awaited asleep; medians of {} rounds of {} s in turns.\n",
        args.rounds, args.seconds_per_round
    );
    for (recipe, side) in recipes.iter().zip(sides) {
        if let Side::Daemon { session, .. } = side {
            let ring = if session.packed { "packed" } else { "split" };
            text.push_str(&format!(
                "{}: {}, {} request queue(s): {}\n",
                recipe.name,
                ring,
                session.lanes.len(),
                recipe.describe(args.queues)
            ));
        }
    }
    text.push_str("host: the same system calls by this process\n\n");
    text
}

/// Rewrites the line of progress on a terminal.
fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}

/// A signal that asks for the end: remembered, so that everything is cleared away in order.
#[derive(Debug)]
struct Interrupt {
    flag: Arc<AtomicBool>,
    signal: Arc<AtomicI32>,
}

impl Interrupt {
    /// To be called before the first thread.
    fn watch() -> Result<Self, Error> {
        let signals = Signals::take(&ENDING).map_err(Error::system("wait for signals"))?;
        let this = Self {
            flag: Arc::default(),
            signal: Arc::default(),
        };
        let (flag, signal) = (Arc::clone(&this.flag), Arc::clone(&this.signal));
        thread::spawn(move || {
            if let Ok(number) = signals.wait() {
                signal.store(number, Relaxed);
                flag.store(true, Relaxed);
            }
        });
        Ok(this)
    }

    fn signal(&self) -> i32 {
        self.signal.load(Relaxed)
    }

    fn check(&self) -> Result<(), Error> {
        if self.flag.load(Relaxed) {
            return Err(Error::Interrupted);
        }
        Ok(())
    }
}
