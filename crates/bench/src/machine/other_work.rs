//! Other work on this machine during a measurement.
//!
//! It is the work of all processors, from /proc/stat, minus that of this process, its children and the measured
//! daemons. The load average is no substitute: it looks back a minute and counts the measured threads. /proc/stat
//! includes other containers, and, as stolen time, other virtual machines on the same host, which a sum over all
//! processes would miss.
//!
//! Interrupts are left out, because those of the disk are mostly ours. The kernel's own threads are included. Writing
//! back the data of a contender took them 2 to 4 % of a processor, which is why less than [`DISTURBING`] is no
//! warning.

use std::fs;
use std::io;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use rustix::param::clock_ticks_per_second;

use crate::error::Error;

/// Processors that others may take without a warning.
const DISTURBING: f64 = 0.1;
/// What the readings may be wrong by: they are rounded to hundredths of a second, and the kernel samples them every few milliseconds.
const UNCERTAIN: Duration = Duration::from_millis(50);

/// CPU time at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    at: Instant,
    /// Of all processors.
    all: Duration,
    /// Of this process, of its children that have ended, and of those that it measures.
    ours: Duration,
}

/// CPU time of others, and in which time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct OtherWork {
    used: Duration,
    elapsed: Duration,
}

impl Reading {
    /// `running`: CPU time of the daemons and mounts that run now.
    pub(crate) fn now(running: Duration) -> Result<Self, Error> {
        let failed = |what| Error::system::<io::Error>(what);
        let all = fs::read_to_string("/proc/stat").map_err(failed("read /proc/stat"))?;
        let own = fs::read_to_string("/proc/self/stat").map_err(failed("read /proc/self/stat"))?;
        Ok(Self {
            at: Instant::now(),
            all: of_all(&all),
            ours: of_process(&own) + running,
        })
    }

    /// What others did from this moment to a later one.
    pub(crate) fn until(&self, later: &Self) -> OtherWork {
        let all = later.all.saturating_sub(self.all);
        let ours = later.ours.saturating_sub(self.ours);
        OtherWork {
            used: all.saturating_sub(ours),
            elapsed: later.at - self.at,
        }
    }
}

impl OtherWork {
    /// How many processors others kept busy, if so many that figures may not repeat.
    pub(crate) fn disturbing(&self) -> Option<f64> {
        let processors = self.used.as_secs_f64() / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        (self.used > UNCERTAIN && processors > DISTURBING).then_some(processors)
    }
}

impl AddAssign for OtherWork {
    fn add_assign(&mut self, other: Self) {
        self.used += other.used;
        self.elapsed += other.elapsed;
    }
}

/// User, nice, system and stolen time of the first line of /proc/stat (proc_stat(5)). Guests are in the first two.
fn of_all(stat: &str) -> Duration {
    let line = stat.lines().next().unwrap_or_default();
    let fields = line.split_whitespace().skip(1).enumerate();
    ticks(
        fields
            .filter(|(index, _)| matches!(index, 0..=2 | 7))
            .map(|(_, field)| field),
    )
}

/// Of a process and its children that have ended: fields 14 to 17 of /proc/PID/stat (proc_pid_stat(5)). The second field may hold
/// spaces and parentheses.
fn of_process(stat: &str) -> Duration {
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    ticks(fields.split_whitespace().skip(11).take(4))
}

fn ticks<'a>(fields: impl Iterator<Item = &'a str>) -> Duration {
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / clock_ticks_per_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others(milliseconds: u64, elapsed: u64) -> OtherWork {
        OtherWork {
            used: Duration::from_millis(milliseconds),
            elapsed: Duration::from_millis(elapsed),
        }
    }

    #[test]
    fn time_of_the_machine_has_neither_idleness_nor_interrupts() {
        let second = clock_ticks_per_second();
        let line = |fields: [u64; 10]| {
            let fields: Vec<String> = fields.iter().map(|field| (field * second).to_string()).collect();
            format!("cpu  {}\ncpu0 1 2 3\n", fields.join(" "))
        };
        // user nice system idle iowait irq softirq steal guest guest_nice
        let stat = line([1, 20, 300, 7, 7, 7, 7, 4000, 1, 1]);
        assert_eq!(of_all(&stat), Duration::from_secs(4321));
    }

    #[test]
    fn a_process_is_charged_for_its_ended_children_whatever_its_name() {
        let second = clock_ticks_per_second();
        let times = [1, 20, 300, 4000].map(|time| (time * second).to_string()).join(" ");
        let stat = format!("7 (a) S 9 (b) R 1 2 3 4 5 6 7 8 9 10 {times} 20 0");
        assert_eq!(of_process(&stat), Duration::from_secs(4321));
    }

    #[test]
    fn what_is_measured_is_no_work_of_others() {
        let at = Instant::now();
        let reading = |seconds, all, ours| Reading {
            at: at + Duration::from_secs(seconds),
            all: Duration::from_secs(all),
            ours: Duration::from_secs(ours),
        };
        let other = reading(0, 100, 10).until(&reading(4, 107, 15));
        assert_eq!(other, others(2000, 4000));
        assert_eq!(other.disturbing(), Some(0.5));
        // The kernel's samples may miss some of ours.
        assert_eq!(reading(0, 0, 0).until(&reading(4, 3, 4)).disturbing(), None);
    }

    #[test]
    fn a_little_work_or_an_uncertain_reading_disturbs_nothing() {
        assert_eq!(others(399, 4000).disturbing(), None);
        assert_eq!(others(50, 10).disturbing(), None);
        assert_eq!(others(800, 4000).disturbing(), Some(0.2));
        assert_eq!(OtherWork::default().disturbing(), None);
        let mut sum = others(300, 1000);
        sum += others(100, 1000);
        assert_eq!(sum.disturbing(), Some(0.2));
    }

    #[test]
    fn this_process_is_no_other() {
        let before = Reading::now(Duration::ZERO).unwrap();
        let after = Reading::now(Duration::ZERO).unwrap();
        assert!(before.ours <= after.ours && before.all <= after.all);
    }
}
