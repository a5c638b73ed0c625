//! The table of one window: which part of which file is mapped where, and the steps to change it.
//!
//! A driver may map over existing mappings and unmap parts of them (VIRTIO 1.2 5.11.6.4). The front end maps only
//! where nothing is mapped, and unmaps only whole mappings (vhost-user "SHMEM_MAP", "SHMEM_UNMAP"). Therefore
//! overlapped mappings are unmapped whole, and their remainders are mapped again. In between, their range is
//! unavoidably empty. Linux always maps the same ranges, and cuts none.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use guestmem::{WindowError, WindowMapping};
use tracing::{debug, warn};

/// Changes a window, one whole mapping at a time.
pub(super) trait Mapper {
    /// Maps where nothing is mapped.
    fn map(&mut self, mapping: &WindowMapping) -> Result<(), WindowError>;
    /// Unmaps exactly one earlier mapping. `Refused` if the front end has no such mapping.
    fn unmap(&mut self, mapping: &WindowMapping) -> Result<(), WindowError>;
    /// Returns the outcome of the last call if that returned `Unanswered` or `CalledOff`. `Refused` if it had no
    /// effect.
    fn finish(&mut self) -> Result<(), WindowError>;
}

/// The mappings by offset, without overlaps, and the pending steps that precede any other change: a change may be
/// cancelled between any two of its steps.
#[derive(Debug, Default)]
pub(super) struct Table {
    mappings: BTreeMap<u64, WindowMapping>,
    /// The step whose outcome the front end has not reported.
    unfinished: Option<Step>,
    /// Mappings that exist and will be unmapped.
    leaving: Vec<WindowMapping>,
    /// Remainders of `leaving`, to be mapped again once that is unmapped.
    remainders: Vec<WindowMapping>,
    pub(super) counts: Counts,
}

#[derive(Debug)]
enum Step {
    /// If not `wanted`, the mapping is unmapped at once if it was made.
    Map {
        mapping: WindowMapping,
        wanted: bool,
    },
    Unmap,
}

/// Numbers of mappings made and removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) mapped: u64,
    pub(super) unmapped: u64,
}

impl Table {
    /// Maps `new`, in place of overlapped mappings.
    pub(super) fn map(&mut self, new: &WindowMapping, mapper: &mut impl Mapper) -> Result<(), WindowError> {
        self.settle(mapper)?;
        if self.shows(new) {
            return Ok(());
        }
        let removed = self.carve(new.offset, new.length);
        self.settle(mapper)?;
        let result = self.put(new.clone(), mapper);
        if result == Err(WindowError::Refused) {
            // After a refusal the guest continues to use the earlier mappings.
            self.remainders = removed;
            self.settle(mapper)?;
        }
        result
    }

    /// Unmaps a range.
    pub(super) fn unmap(&mut self, offset: u64, length: u64, mapper: &mut impl Mapper) -> Result<(), WindowError> {
        self.settle(mapper)?;
        self.carve(offset, length);
        self.settle(mapper)
    }

    /// Unmaps all mappings of `owner`. Even if the front end does not answer now, none of them counts as mapped
    /// later.
    pub(super) fn release(&mut self, owner: u64, mapper: &mut impl Mapper) -> Result<(), WindowError> {
        let (owned, others) = std::mem::take(&mut self.mappings)
            .into_iter()
            .partition(|(_, mapping)| mapping.owner == owner);
        self.mappings = others;
        self.leaving.extend(BTreeMap::into_values(owned));
        self.disown(|mapping| mapping.owner == owner);
        self.settle(mapper)
    }

    /// Unmaps everything. Even if the front end does not answer now, nothing counts as mapped later.
    pub(super) fn clear(&mut self, mapper: &mut impl Mapper) -> Result<(), WindowError> {
        self.leaving.extend(std::mem::take(&mut self.mappings).into_values());
        self.disown(|_| true);
        self.settle(mapper)
    }

    /// Forgets all mappings: the front end has dropped them. It may not have handled an unfinished request yet.
    pub(super) fn forget(&mut self) {
        self.counts.unmapped += (self.mappings.len() + self.leaving.len()) as u64;
        self.mappings.clear();
        self.leaving.clear();
        self.disown(|_| true);
    }

    /// Whether nothing is mapped, and no mapping is pending.
    pub(super) fn is_empty(&self) -> bool {
        self.mappings.is_empty() && self.leaving.is_empty() && self.remainders.is_empty() && self.unfinished.is_none()
    }

    /// The files of all mappings, pending ones too.
    pub(super) fn files(&self) -> impl Iterator<Item = &OwnedFd> {
        let unfinished = match &self.unfinished {
            Some(Step::Map { mapping, .. }) => Some(mapping),
            Some(Step::Unmap) | None => None,
        };
        let mappings = self.mappings.values().chain(&self.leaving).chain(&self.remainders);
        mappings.chain(unfinished).map(|mapping| &*mapping.file)
    }

    /// Whether the outcome of a step is unknown.
    pub(super) fn is_unfinished(&self) -> bool {
        self.unfinished.is_some()
    }

    /// Cancels pending mappings of this kind.
    fn disown(&mut self, kind: impl Fn(&WindowMapping) -> bool) {
        self.remainders.retain(|rest| !kind(rest));
        if let Some(Step::Map { mapping, wanted }) = &mut self.unfinished {
            *wanted &= !kind(mapping);
        }
    }

    /// Whether `new` would change nothing.
    fn shows(&self, new: &WindowMapping) -> bool {
        let below = self.mappings.range(..=new.offset).next_back();
        below.is_some_and(|(_, old)| {
            Arc::ptr_eq(&old.file, &new.file)
                && end(old) >= end(new)
                && new.offset - old.offset == new.file_offset.wrapping_sub(old.file_offset)
                && (old.writable || !new.writable)
        })
    }

    /// Marks all mappings in a range as leaving, and their parts outside it as remainders. Returns the parts inside.
    fn carve(&mut self, offset: u64, length: u64) -> Vec<WindowMapping> {
        let range = offset..offset + length;
        let first = self.mappings.range(..offset).next_back();
        let first = first
            .filter(|(_, mapping)| end(mapping) > offset)
            .map(|(&start, _)| start);
        let starts: Vec<u64> = first
            .into_iter()
            .chain(self.mappings.range(range.clone()).map(|(&start, _)| start))
            .collect();
        let mut removed = Vec::with_capacity(starts.len());
        for start in starts {
            let Some(old) = self.mappings.remove(&start) else {
                continue;
            };
            removed.extend(part(&old, range.start.max(old.offset), range.end.min(end(&old))));
            self.remainders.extend(part(&old, old.offset, range.start));
            self.remainders.extend(part(&old, range.end, end(&old)));
            self.leaving.push(old);
        }
        removed
    }

    /// Performs the pending steps.
    pub(super) fn settle(&mut self, mapper: &mut impl Mapper) -> Result<(), WindowError> {
        if let Some(step) = &self.unfinished {
            let done = match mapper.finish() {
                Ok(()) => true,
                Err(WindowError::Refused) => false,
                Err(error) => return Err(error),
            };
            match step {
                Step::Map { mapping, wanted } if done => {
                    self.counts.mapped += 1;
                    if *wanted {
                        self.mappings.insert(mapping.offset, mapping.clone());
                    } else {
                        self.leaving.push(mapping.clone());
                    }
                }
                Step::Map { .. } => {}
                Step::Unmap => self.counts.unmapped += 1,
            }
            self.unfinished = None;
        }
        while let Some(mapping) = self.leaving.pop() {
            match mapper.unmap(&mapping) {
                Ok(()) => {}
                // A front end drops all mappings by itself when the device is reset, and need not report it.
                Err(WindowError::Refused) => debug!(offset = mapping.offset, "the front end had already unmapped this"),
                Err(error) => {
                    self.unfinished = Some(Step::Unmap);
                    return Err(error);
                }
            }
            self.counts.unmapped += 1;
        }
        while let Some(rest) = self.remainders.pop() {
            let (offset, length) = (rest.offset, rest.length);
            match self.put(rest, mapper) {
                Err(error @ WindowError::Refused) => {
                    warn!(offset, length, %error, "the guest cannot access part of the window any more");
                }
                result => result?,
            }
        }
        Ok(())
    }

    fn put(&mut self, new: WindowMapping, mapper: &mut impl Mapper) -> Result<(), WindowError> {
        let result = mapper.map(&new);
        match result {
            Ok(()) => {
                self.counts.mapped += 1;
                self.mappings.insert(new.offset, new);
            }
            Err(WindowError::Refused) => {}
            Err(_) => {
                self.unfinished = Some(Step::Map {
                    mapping: new,
                    wanted: true,
                });
            }
        }
        result
    }
}

fn end(mapping: &WindowMapping) -> u64 {
    mapping.offset + mapping.length
}

/// The part of `mapping` between two offsets of the window, both inside it.
fn part(mapping: &WindowMapping, start: u64, end: u64) -> Option<WindowMapping> {
    (start < end).then(|| WindowMapping {
        owner: mapping.owner,
        file: Arc::clone(&mapping.file),
        file_offset: mapping.file_offset + (start - mapping.offset),
        offset: start,
        length: end - start,
        writable: mapping.writable,
    })
}

#[cfg(test)]
mod tests;
