//! `innkeeper bench`: drives daemons straight over the ring, with no kernel in the way, has tools work on mounts of them, and
//! compares them.

mod arguments;
mod contender;
mod drive;
mod error;
mod figures;
mod host;
mod measure;
mod message;
mod placement;
mod plot;
mod random;
mod report;
mod scratch;
mod session;
mod steps;
mod syscalls;
mod table;
mod tools;
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
use drive::Tally;
use figures::Start;
use measure::{Round, Rounds};
use placement::Processors;
use report::{Description, Report};
use scratch::{Scratch, Sizes, own_directory};
use session::{Connection, Session};
use syscalls::Syscalls;
use tools::{Missing, Tool, Workshop};
use workload::{Figure, Task, Unit, Workload};

use process::signals::{ENDING, Signals};

/// Not counted, before the rounds of each workload.
const WARM_UP: Duration = Duration::from_millis(50);
/// Of the round in which system calls are counted, at most.
const COUNTED: Duration = Duration::from_millis(100);

/// Measures all that was asked for. Answers the exit status.
pub(crate) fn run(args: &Bench) -> Result<u8, Error> {
    process::limits::raise_open_files(None)?;
    let interrupt = Interrupt::watch()?;
    match measure(args, &interrupt) {
        Ok(All::Measured) => Ok(0),
        Ok(All::ButMissing) if args.tasks.is_empty() => Ok(0),
        Ok(All::ButMissing) => Ok(1),
        // Whatever went wrong after a signal went wrong because of it.
        Err(_) if interrupt.signal() != 0 => Ok(128 + u8::try_from(interrupt.signal()).unwrap_or(0)),
        Err(error) => Err(error),
    }
}

/// Whether all that was asked for was measured.
enum All {
    Measured,
    ButMissing,
}

fn measure(args: &Bench, interrupt: &Interrupt) -> Result<All, Error> {
    let recipes = args.recipes();
    let mut tasks = args.tasks();
    let tools: Vec<Tool> = tasks.iter().filter_map(Task::tool).collect();
    let (tools, missing) = tools::available(&tools);
    for missing in &missing {
        warn(missing);
    }
    tasks.retain(|task| task.tool().is_none_or(|tool| tools.contains(&tool)));
    let sizes = Sizes {
        files: args.files,
        entries: args.entries,
        data: u64::from(args.data_mib) << 20,
        known: if tasks.contains(&Task::Figure(Figure::Memory)) {
            args.known_files
        } else {
            0
        },
    };
    let sizes = if tasks.iter().any(|task| task.tool().is_none()) {
        sizes
    } else {
        Sizes::LEAST
    };
    progress("making files");
    // The host is a contender like the daemons, with a directory of its own to write to.
    let scratch = Scratch::make(&args.directory, sizes, recipes.len() + 1, &interrupt.flag)?;
    interrupt.check()?;
    let start = Start {
        recipes: &recipes,
        scratch: &scratch,
        connection: Connection {
            queues: args.queues,
            packed: args.packed,
        },
        processors: &Processors::bind(args.placement, args.queues)?,
        stop: &interrupt.flag,
    };
    let mut sides = Vec::new();
    for (index, recipe) in recipes.iter().enumerate() {
        sides.push(Side::daemon(recipe, index, start)?);
    }
    sides.push(Side::Host {
        index: recipes.len(),
        queues: args.queues,
    });
    let described = sides
        .iter()
        .zip(&recipes)
        .map(|(side, recipe)| side.describe(recipe, args.queues));
    let host = Description {
        name: "host".into(),
        command: None,
        ring: None,
        queues: args.queues,
    };
    let mut report = Report::new(
        start.processors.allowed(),
        args.rounds,
        args.seconds_per_round,
        described.chain([host]).collect(),
    );
    let syscalls = Syscalls::new();
    let mut rates = 0;
    let mut workshop = None;

    say(&table::introduction(&report.contenders))?;
    for task in tasks {
        match task {
            Task::Rate(workload) => {
                let rounds = measure_one(workload, &mut sides, &scratch, args, syscalls.as_ref().ok(), interrupt)?;
                if rates == 0 {
                    say(&table::heading(
                        args.rounds,
                        args.seconds_per_round,
                        syscalls.as_ref().err(),
                    ))?;
                }
                rates += 1;
                say(&table::lines(report.add(
                    workload.to_string(),
                    workload.kind.unit(),
                    &rounds,
                )))?;
            }
            Task::Tool(tool) => {
                let workshop = match &workshop {
                    Some(workshop) => workshop,
                    None => {
                        progress("making files for tools");
                        let made = Workshop::make(start, args.tree_files, &tools)?;
                        say(&table::tools_heading(args.rounds))?;
                        workshop.insert(made)
                    }
                };
                let rounds = workshop.measure(tool, args.rounds, &report.contenders)?;
                say(&table::tool_lines(report.add(tool.to_string(), Unit::Runs, &rounds)))?;
            }
            Task::Figure(figure) => {
                progress("starting, idling and looking up");
                let all = match figure {
                    Figure::Ready => vec![start.ready(args.rounds)?],
                    Figure::Memory => start.memory()?,
                    Figure::Idle => vec![figures::idle(
                        &sides.iter().filter_map(Side::contender).collect::<Vec<_>>(),
                    )],
                };
                progress("");
                for values in &all {
                    report.add_figure(values);
                    say(&table::figure(values, &report.contenders))?;
                }
            }
        }
        interrupt.check()?;
    }
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    if let Some(path) = &args.plot {
        report::write(path, &plot::draw(&report))?;
    }
    Ok(if missing.is_empty() {
        All::Measured
    } else {
        All::ButMissing
    })
}

/// Says what is not measured, while the others are.
fn warn(missing: &Missing) {
    let names: Vec<String> = missing.tools.iter().map(Tool::to_string).collect();
    process::say::say(format_args!(
        "not measured: {}, since {}",
        names.join(", "),
        missing.reason
    ));
}

/// Prints what is known already, so that a reader has something to read.
fn say(text: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout();
    let said = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    said.map_err(Error::system("print the table"))
}

/// All rounds of one workload, the contenders taking turns.
fn measure_one(
    workload: Workload,
    sides: &mut [Side],
    scratch: &Scratch,
    args: &Bench,
    syscalls: Option<&Syscalls>,
    interrupt: &Interrupt,
) -> Result<Vec<Rounds>, Error> {
    let mut runners = sides
        .iter_mut()
        .map(|side| side.prepare(workload, scratch))
        .collect::<Result<Vec<_>, Error>>()?;
    let mut all = vec![Rounds::default(); runners.len()];
    for runner in &mut runners {
        runner.round(WARM_UP.min(args.round_time()), &interrupt.flag)?;
    }
    for number in 0..args.rounds {
        for (runner, rounds) in runners.iter_mut().zip(&mut all) {
            progress(&format!(
                "{workload}: round {} of {}, {}",
                number + 1,
                args.rounds,
                runner.name()
            ));
            rounds.all.push(runner.round(args.round_time(), &interrupt.flag)?);
            interrupt.check()?;
        }
    }
    // Afterwards: what counts them makes each a little slower.
    if let Some(syscalls) = syscalls {
        for (runner, rounds) in runners.iter_mut().zip(&mut all) {
            let limit = COUNTED.min(args.round_time());
            rounds.syscalls = Some(runner.count(syscalls, limit, &interrupt.flag)?);
        }
    }
    progress("");
    Ok(all)
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
        seats: drive::Seats,
    },
    Host(Vec<host::Worker>),
}

impl Side {
    fn daemon(recipe: &Recipe, index: usize, start: Start<'_>) -> Result<Self, Error> {
        let (contender, stream) = start.daemon(recipe)?;
        let session = Session::mount(stream, start.connection, start.scratch.sizes, index)
            .map_err(|error| contender.blame(error))?;
        Ok(Self::Daemon {
            contender,
            session: Box::new(session),
        })
    }

    fn contender(&self) -> Option<&Contender> {
        match self {
            Self::Daemon { contender, .. } => Some(contender),
            Self::Host { .. } => None,
        }
    }

    fn describe(&self, recipe: &Recipe, queues: u16) -> Description {
        let (ring, served) = match self {
            Self::Daemon { session, .. } if session.packed => (Some("packed"), session.lanes.len() as u16),
            Self::Daemon { session, .. } => (Some("split"), session.lanes.len() as u16),
            Self::Host { .. } => (None, queues),
        };
        Description {
            name: recipe.name.clone(),
            command: Some(recipe.describe(queues)),
            ring,
            queues: served,
        }
    }

    fn prepare(&mut self, workload: Workload, scratch: &Scratch) -> Result<Runner<'_>, Error> {
        match self {
            Self::Daemon { contender, session } => Ok(Runner::Daemon {
                seats: drive::seats(session, workload, scratch)?,
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
        let before = self.cpu_time();
        let tally = self.drive(limit, stop)?;
        Ok(Round::new(&tally, self.cpu_time().saturating_sub(before)))
    }

    /// System calls an operation.
    fn count(&mut self, syscalls: &Syscalls, limit: Duration, stop: &AtomicBool) -> Result<f64, Error> {
        let failed = Error::system::<std::io::Error>;
        let threads = match self {
            Self::Daemon { contender, .. } => contender.threads(),
            Self::Host(_) => vec![0],
        };
        let counter = syscalls.count(&threads).map_err(failed("count system calls"))?;
        let tally = self.drive(limit, stop)?;
        let count = counter.end().map_err(failed("read how many system calls there were"))?;
        Ok(count as f64 / tally.operations.max(1) as f64)
    }

    fn cpu_time(&self) -> Duration {
        match self {
            Self::Daemon { contender, .. } => contender.cpu_time(),
            Self::Host(_) => own_cpu_time(),
        }
    }

    fn drive(&mut self, limit: Duration, stop: &AtomicBool) -> Result<Tally, Error> {
        match self {
            Self::Daemon {
                contender,
                session,
                seats,
            } => drive::drive(session, seats, limit, stop).map_err(|error| contender.blame(error)),
            Self::Host(workers) => host::run(workers, limit, stop),
        }
    }
}

fn own_cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
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
