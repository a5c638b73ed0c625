//! The path of an errno after it is loaded: whether it is returned in any case, or which tests decide that later.
//!
//! Compilers load an errno in advance, where the source sets a variable first, and overwrite it if all went well.
//! Then the failed test is not the one before the load, but the last one after which nothing overwrites the errno.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::effect::{Effect, Place};
use super::flow::{Code, Way};
use super::instruction::{Does, Instruction};

/// Steps that are followed; with more paths than this the fate is not known.
const STEPS_MAX: usize = 20_000;
/// Places on the stack that hold the value at the same time.
const SLOTS_MAX: usize = 4;
/// Where functions return what they return, both on x86-64 (rax) and on arm64 (x0).
const RESULT: Place = Place::Register(0);

/// What becomes of a value that was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It is returned, whatever comes.
    Returned,
    /// One of these tests decides whether it is returned: the last one that is run.
    Tested(Vec<Way>),
    /// It goes where it cannot be followed.
    Unknown,
}

/// Where the value is, and what it was compared with last.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    registers: u32,
    slots: Vec<i64>,
    compared: Option<i64>,
}

/// One instruction reached with the value in certain places.
struct Step {
    address: u64,
    next: Vec<(Turn, Next)>,
}

#[derive(Clone, Copy)]
struct Turn {
    taken: bool,
}

#[derive(Clone, Copy)]
enum Next {
    Step(usize),
    /// The function ends, with or without the value as what it returns.
    Ends(bool),
    /// Nothing comes back from there.
    Never,
}

/// Whether a value is returned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Paths {
    /// On all paths that end.
    All,
    /// Not on all.
    NotAll,
    /// No path ends.
    Endless,
}

/// Follows what the instruction at `site` loads; nothing if it is lost on every path.
pub(super) fn fate(code: &Code, site: u64, value: i64) -> Option<Fate> {
    let Some(found) = Walk::from(code, site, value) else {
        return Some(Fate::Unknown);
    };
    let returned = found.returned();
    if returned.first() == Some(&Paths::All) {
        return Some(Fate::Returned);
    }
    let mut tests = Vec::new();
    for step in &found.steps {
        let paths = |next: &Next| match next {
            Next::Step(step) => returned[*step],
            Next::Ends(true) => Paths::All,
            Next::Ends(false) => Paths::NotAll,
            Next::Never => Paths::Endless,
        };
        if !step.next.iter().any(|(_, next)| paths(next) == Paths::NotAll) {
            continue;
        }
        for (turn, _) in step.next.iter().filter(|(_, next)| paths(next) == Paths::All) {
            let way = Way {
                address: step.address,
                taken: turn.taken,
            };
            if !tests.contains(&way) {
                tests.push(way);
            }
        }
    }
    match (tests.is_empty(), found.escapes) {
        (false, _) => Some(Fate::Tested(tests)),
        (true, true) => Some(Fate::Unknown),
        (true, false) => None,
    }
}

struct Walk<'c> {
    code: &'c Code,
    value: i64,
    steps: Vec<Step>,
    known: BTreeMap<(u64, State), usize>,
    wanted: Vec<(usize, State)>,
    /// Some path writes it where it cannot be followed.
    escapes: bool,
}

impl<'c> Walk<'c> {
    fn from(code: &'c Code, site: u64, value: i64) -> Option<Self> {
        let load = code.at(site)?;
        let effect = load.effect?;
        let mut walk = Self {
            code,
            value,
            steps: Vec::new(),
            known: BTreeMap::new(),
            wanted: Vec::new(),
            escapes: false,
        };
        let state = State {
            registers: effect.registers,
            slots: effect.slot.into_iter().collect(),
            compared: None,
        };
        if state.is_lost() {
            return None;
        }
        walk.reach(site + u64::from(load.length), state)?;
        while let Some((step, state)) = walk.wanted.pop() {
            if walk.steps.len() > STEPS_MAX {
                return None;
            }
            let address = walk.steps[step].address;
            let next = walk.after(address, code.at(address)?, state)?;
            walk.steps[step].next = next;
        }
        Some(walk)
    }

    /// What comes behind an instruction; nothing if that is not known.
    fn after(&mut self, address: u64, instruction: Instruction, state: State) -> Option<Vec<(Turn, Next)>> {
        let behind = address + u64::from(instruction.length);
        let (not_taken, taken) = (Turn { taken: false }, Turn { taken: true });
        let effect = instruction.effect?;
        let holds = effect
            .condition
            .and_then(|condition| condition.holds(self.value, state.compared?));
        let ends = Next::Ends(state.has(RESULT));
        Some(match instruction.does {
            Does::JumpsByTable => return None,
            Does::Ends => vec![(not_taken, ends)],
            Does::Jumps(target) => vec![(taken, self.jump(target, state)?)],
            Does::Branches(target) => {
                let mut next = Vec::new();
                if holds != Some(false) {
                    next.push((taken, self.jump(target, state.clone())?));
                }
                if holds != Some(true) {
                    next.push((not_taken, self.reach(behind, state)?));
                }
                next
            }
            Does::Stops => Vec::new(),
            Does::Loads(_) | Does::Calls(_) | Does::Goes => {
                self.escapes |= effect.elsewhere && effect.copy.is_some_and(|place| state.has(place));
                let mut next = Vec::new();
                if effect.condition.is_none() || holds != Some(false) {
                    next.push((taken, self.reach(behind, state.after(&effect)?)?));
                }
                if effect.condition.is_some() && holds != Some(true) {
                    next.push((not_taken, self.reach(behind, state)?));
                }
                next
            }
        })
    }

    fn jump(&mut self, target: u64, state: State) -> Option<Next> {
        if self.code.at(target).is_none() {
            // Out of the function: to code that all functions return through, with the result where it is.
            return Some(Next::Ends(state.has(RESULT)));
        }
        self.reach(target, state)
    }

    fn reach(&mut self, address: u64, state: State) -> Option<Next> {
        if self.code.at(address).is_none() {
            // Behind a call that never returns: a value that is lost in it is not missed.
            return self.code.whole().then_some(Next::Never);
        }
        let key = (address, state);
        if let Some(step) = self.known.get(&key) {
            return Some(Next::Step(*step));
        }
        let step = self.steps.len();
        self.steps.push(Step {
            address,
            next: Vec::new(),
        });
        self.known.insert(key.clone(), step);
        self.wanted.push((step, key.1));
        Some(Next::Step(step))
    }

    /// For each step what all paths from it have in common.
    fn returned(&self) -> Vec<Paths> {
        let reaching = |with: bool| {
            let ends = |step: &Step| {
                step.next
                    .iter()
                    .any(|(_, next)| matches!(next, Next::Ends(end) if *end == with))
            };
            let ends = self.steps.iter().enumerate().filter(|(_, step)| ends(step));
            self.before(ends.map(|(index, _)| index).collect())
        };
        let (with, without) = (reaching(true), reaching(false));
        let each = with.into_iter().zip(without);
        each.map(|reaches| match reaches {
            (_, true) => Paths::NotAll,
            (true, false) => Paths::All,
            (false, false) => Paths::Endless,
        })
        .collect()
    }

    /// For each step whether one of these is reached from it.
    fn before(&self, mut wanted: Vec<usize>) -> Vec<bool> {
        let mut before: Vec<Vec<usize>> = vec![Vec::new(); self.steps.len()];
        for (index, step) in self.steps.iter().enumerate() {
            for (_, next) in &step.next {
                if let Next::Step(next) = next {
                    before[*next].push(index);
                }
            }
        }
        let mut reached = vec![false; self.steps.len()];
        wanted.iter().for_each(|step| reached[*step] = true);
        while let Some(step) = wanted.pop() {
            for index in &before[step] {
                if !reached[*index] {
                    reached[*index] = true;
                    wanted.push(*index);
                }
            }
        }
        reached
    }
}

impl State {
    fn has(&self, place: Place) -> bool {
        match place {
            Place::Register(number) => self.registers >> number & 1 == 1,
            Place::Slot(slot) => self.slots.contains(&slot),
        }
    }

    fn is_lost(&self) -> bool {
        self.registers == 0 && self.slots.is_empty()
    }

    /// Where the value is behind an instruction; nothing if it is in too many places.
    fn after(&self, effect: &Effect) -> Option<Self> {
        let mut after = self.clone();
        let copied = effect.copy.is_some_and(|place| self.has(place));
        if copied {
            after.registers |= effect.registers;
        } else {
            after.registers &= !effect.registers;
        }
        if let Some(slot) = effect.slot {
            after.slots.retain(|known| *known != slot);
            if copied {
                after.slots.push(slot);
                after.slots.sort_unstable();
            }
        }
        if let Some((place, number)) = effect.compares {
            after.compared = self.has(place).then_some(number);
        } else if effect.flags {
            after.compared = None;
        }
        (after.slots.len() <= SLOTS_MAX).then_some(after)
    }
}
