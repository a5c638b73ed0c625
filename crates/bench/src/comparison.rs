//! All measurements, one after another, each printed as soon as it is known.

use std::io;

use process::interrupt::Interrupt;

use crate::arguments::Bench;
use crate::daemon::placement::Processors;
use crate::daemon::recipe::Recipe;
use crate::daemon::start::Start;
use crate::error::Error;
use crate::figures;
use crate::machine::syscalls::Syscalls;
use crate::measure::Unit;
use crate::progress::{print, progress};
use crate::ring::session::Connection;
use crate::ring::workload::Workload;
use crate::scratch::{Scratch, Sizes};
use crate::show::plot;
use crate::show::report::{self, Description, Report};
use crate::show::table::{self, Table};
use crate::side::Side;
use crate::task::{Figure, Task};
use crate::tools::tool::Tool;
use crate::tools::{Missing, Workshop, available};
use crate::turns::Turns;

/// Whether all that was asked for was measured.
pub(crate) enum All {
    Measured,
    ButMissing,
}

/// Starts the daemons, measures, prints, and writes what is to be written.
pub(crate) fn compare(args: &Bench, interrupt: &Interrupt) -> Result<All, Error> {
    let recipes = args.recipes();
    let mut tasks = args.tasks();
    let tools: Vec<Tool> = tasks.iter().filter_map(Task::tool).collect();
    let (tools, missing) = available(&tools);
    for missing in &missing {
        warn(missing);
    }
    tasks.retain(|task| task.tool().is_none_or(|tool| tools.contains(&tool)));
    progress("making files");
    // The host is a contender like the daemons, with a directory of its own to write to.
    let scratch = Scratch::make(&args.directory, sizes(args, &tasks), recipes.len() + 1, &interrupt.flag)?;
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
    let mut comparison = Comparison::begin(args, interrupt, start, tools)?;
    print(&table::introduction(&comparison.report.contenders))?;
    for task in tasks {
        match task {
            Task::Rate(workload) => comparison.rate(workload)?,
            Task::Tool(tool) => comparison.tool(tool)?,
            Task::Figure(figure) => comparison.figure(figure)?,
        }
        interrupt.check()?;
    }
    print(&table::doubtful(&comparison.report.workloads))?;
    if let Some(path) = &args.json {
        comparison.report.write(path)?;
    }
    if let Some(path) = &args.plot {
        report::write(path, &plot::draw(&comparison.report))?;
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

/// No more files than the tasks need.
fn sizes(args: &Bench, tasks: &[Task]) -> Sizes {
    if tasks.iter().all(|task| task.tool().is_some()) {
        return Sizes::LEAST;
    }
    Sizes {
        files: args.files,
        entries: args.entries,
        data: u64::from(args.data_mib) << 20,
        known: if tasks.contains(&Task::Figure(Figure::Memory)) {
            args.known_files
        } else {
            0
        },
    }
}

/// Running daemons, and what they were measured to do.
struct Comparison<'a> {
    args: &'a Bench,
    interrupt: &'a Interrupt,
    start: Start<'a>,
    sides: Vec<Side>,
    report: Report,
    table: Table,
    /// Or why system calls are not counted.
    syscalls: io::Result<Syscalls>,
    /// Whether the table of rates has its heading.
    headed: bool,
    tools: Vec<Tool>,
    /// Made for the first tool.
    workshop: Option<Workshop<'a>>,
}

impl<'a> Comparison<'a> {
    fn begin(args: &'a Bench, interrupt: &'a Interrupt, start: Start<'a>, tools: Vec<Tool>) -> Result<Self, Error> {
        let mut sides = Vec::new();
        for (index, recipe) in start.recipes.iter().enumerate() {
            sides.push(Side::daemon(recipe, index, start)?);
        }
        sides.push(Side::Host {
            index: start.recipes.len(),
            queues: args.queues,
        });
        let report = Report::new(
            start.processors.allowed(),
            args.rounds,
            args.seconds_per_round,
            described(&sides, start.recipes, args.queues),
        );
        Ok(Self {
            args,
            interrupt,
            start,
            sides,
            table: Table::new(&report.contenders),
            report,
            syscalls: Syscalls::new(),
            headed: false,
            tools,
            workshop: None,
        })
    }

    fn rate(&mut self, workload: Workload) -> Result<(), Error> {
        let turns = Turns {
            rounds: self.args.rounds,
            time: self.args.round_time(),
        };
        let syscalls = self.syscalls.as_ref().ok();
        let taken = turns.take(workload, &mut self.sides, self.start.scratch, syscalls, self.interrupt)?;
        if !self.headed {
            self.headed = true;
            print(&self.table.heading(
                self.args.rounds,
                self.args.seconds_per_round,
                self.syscalls.as_ref().err(),
            ))?;
        }
        let measured = self.report.add(workload.to_string(), workload.kind.unit(), &taken);
        print(&self.table.lines(measured))
    }

    fn tool(&mut self, tool: Tool) -> Result<(), Error> {
        let workshop = match &self.workshop {
            Some(workshop) => workshop,
            None => {
                progress("making files for tools");
                let made = Workshop::make(self.start, self.args.tree_files, &self.tools)?;
                print(&self.table.tools_heading(self.args.rounds))?;
                self.workshop.insert(made)
            }
        };
        let taken = workshop.measure(tool, self.args.rounds, &self.report.contenders)?;
        let measured = self.report.add(tool.to_string(), Unit::Runs, &taken);
        print(&self.table.tool_lines(measured))
    }

    fn figure(&mut self, figure: Figure) -> Result<(), Error> {
        progress("starting, idling and looking up");
        let all = match figure {
            Figure::Ready => vec![figures::ready(self.start, self.args.rounds)?],
            Figure::Memory => figures::memory(self.start)?,
            Figure::Idle => {
                let daemons: Vec<_> = self.sides.iter().filter_map(Side::contender).collect();
                vec![figures::idle(&daemons)]
            }
        };
        progress("");
        for values in &all {
            self.report.add_figure(values);
            print(&table::figure(values, &self.report.contenders))?;
        }
        Ok(())
    }
}

/// All sides as the report has them: daemons in the order of their recipes, then the host.
fn described(sides: &[Side], recipes: &[Recipe], queues: u16) -> Vec<Description> {
    let daemons = sides
        .iter()
        .zip(recipes)
        .map(|(side, recipe)| side.describe(recipe, queues));
    let host = Description {
        name: "host".into(),
        command: None,
        ring: None,
        queues,
    };
    daemons.chain([host]).collect()
}
