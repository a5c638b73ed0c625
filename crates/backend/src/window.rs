//! The window: what of which file the front end has mapped where, and how to change it.
//!
//! A driver may map over what is mapped and unmap parts of it (VIRTIO 1.2 5.11.6.4). The front end maps only where nothing is, and
//! unmaps only whole mappings (vhost-user "SHMEM_MAP", "SHMEM_UNMAP"). So mappings in the way are unmapped whole, and what should
//! be left of them is mapped again. In between their range is empty, which nobody can avoid; Linux maps ranges that are the same
//! every time, and cuts none.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use guestmem::{Window, WindowError, WindowMapping};
use rustix::event::{EventfdFlags, eventfd};
use tracing::{debug, warn};
use vhost_user::channel::{Channel, Wait};
use vhost_user::message::{SHARED_WRITABLE, SharedMapping};

/// How long the front end may take for one answer: it maps a file, no more.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What changes a window, one whole mapping at a time.
pub(crate) trait Mapper {
    /// Maps where nothing is mapped.
    fn map(&mut self, mapping: &WindowMapping) -> Result<(), WindowError>;
    /// Takes out exactly the mapping that was put in. `Refused`: the front end has no such mapping.
    fn unmap(&mut self, mapping: &WindowMapping) -> Result<(), WindowError>;
    /// What became of the last of these if it ended as `Unanswered` or `CalledOff`. `Refused`: nothing.
    fn finish(&mut self) -> Result<(), WindowError>;
}

/// What is mapped, by its offset, without overlaps; and what is still to be done before anything else, since a change may be called
/// off between any two steps of it.
#[derive(Debug, Default)]
pub(crate) struct Table {
    mappings: BTreeMap<u64, WindowMapping>,
    /// The front end did not say what became of this.
    unfinished: Option<Step>,
    /// Mapped still, and to be unmapped.
    leaving: Vec<WindowMapping>,
    /// Cut out of `leaving`, and to be mapped again once that is unmapped.
    remainders: Vec<WindowMapping>,
    counts: Counts,
}

#[derive(Debug)]
enum Step {
    /// Not `wanted`: to be unmapped at once if it was mapped.
    Map {
        mapping: WindowMapping,
        wanted: bool,
    },
    Unmap,
}

/// How many mappings there have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) mapped: u64,
    pub(crate) unmapped: u64,
}

impl Table {
    /// Puts `new` in, in place of what is in its way.
    pub(crate) fn map(&mut self, new: &WindowMapping, mapper: &mut impl Mapper) -> Result<(), WindowError> {
        self.settle(mapper)?;
        if self.shows(new) {
            return Ok(());
        }
        let removed = self.carve(new.offset, new.length);
        self.settle(mapper)?;
        let result = self.put(new.clone(), mapper);
        if result == Err(WindowError::Refused) {
            // A guest that is refused goes on using what it had.
            self.remainders = removed;
            self.settle(mapper)?;
        }
        result
    }

    /// Empties a range.
    pub(crate) fn unmap(&mut self, offset: u64, length: u64, mapper: &mut impl Mapper) -> Result<(), WindowError> {
        self.settle(mapper)?;
        self.carve(offset, length);
        self.settle(mapper)
    }

    /// Takes out all that `owner` has. Whether or not the front end answers now, nothing of it will be taken for mapped later.
    pub(crate) fn release(&mut self, owner: u64, mapper: &mut impl Mapper) -> Result<(), WindowError> {
        let (owned, others) = std::mem::take(&mut self.mappings)
            .into_iter()
            .partition(|(_, mapping)| mapping.owner == owner);
        self.mappings = others;
        self.leaving.extend(BTreeMap::into_values(owned));
        self.disown(|mapping| mapping.owner == owner);
        self.settle(mapper)
    }

    /// Empties all of it. Whether or not the front end answers now, nothing of it will be taken for mapped later.
    pub(crate) fn clear(&mut self, mapper: &mut impl Mapper) -> Result<(), WindowError> {
        self.leaving.extend(std::mem::take(&mut self.mappings).into_values());
        self.disown(|_| true);
        self.settle(mapper)
    }

    /// Forgets all mappings: the front end has dropped them. It may not have come to a request that is unfinished.
    pub(crate) fn forget(&mut self) {
        self.counts.unmapped += (self.mappings.len() + self.leaving.len()) as u64;
        self.mappings.clear();
        self.leaving.clear();
        self.disown(|_| true);
    }

    /// Whether nothing is mapped, or still to be.
    fn is_empty(&self) -> bool {
        self.mappings.is_empty() && self.leaving.is_empty() && self.remainders.is_empty() && self.unfinished.is_none()
    }

    /// Has no mapping of this kind made that is still to be made.
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

    /// Marks all mappings in a range as leaving, and what sticks out of it as remainders. Gives what was within.
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

    /// Does what is still to be done.
    fn settle(&mut self, mapper: &mut impl Mapper) -> Result<(), WindowError> {
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
                // A front end drops all mappings by itself when the device is reset, and need not tell.
                Err(WindowError::Refused) => debug!(offset = mapping.offset, "the front end had unmapped this before"),
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
                    warn!(offset, length, %error, "part of the window is lost to the guest");
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

/// What of `mapping` lies between two offsets of the window, of which neither is outside of it.
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

/// The windows of one connection, one for each shared memory region of the device.
#[derive(Debug)]
pub(crate) struct Windows {
    shared: Arc<Shared>,
    regions: Vec<Arc<RegionWindow>>,
}

/// What all windows of a connection have in common.
#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    /// Device and inode of every file that was mapped since all windows were last clear. Apart from `inner`, which is locked while
    /// the front end is asked.
    files: Mutex<HashSet<(u64, u64)>>,
    /// Readable while nobody may wait for the front end, since the front end waits for us.
    hurry: OwnedFd,
    /// How many are in a hurry.
    hurried: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    /// One for each region.
    tables: Vec<(u8, Table)>,
    /// `None` once the connection has ended.
    channel: Option<Channel>,
}

/// The window of one region, changed over the channel.
#[derive(Debug)]
struct RegionWindow {
    shared: Arc<Shared>,
    /// Its place among the tables.
    position: usize,
    size: u64,
    /// Who may have mappings. Apart from the table: most owners that are released have none.
    owners: Mutex<HashSet<u64>>,
}

impl Windows {
    /// Windows for regions of these ids and sizes.
    pub(crate) fn new(regions: &[(u8, u64)], channel: Channel) -> Result<Self, rustix::io::Errno> {
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                tables: regions.iter().map(|(id, _)| (*id, Table::default())).collect(),
                channel: Some(channel),
            }),
            files: Mutex::default(),
            hurry: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            hurried: AtomicU64::new(0),
        });
        let window = |(position, (_, size)): (usize, &(u8, u64))| {
            Arc::new(RegionWindow {
                shared: Arc::clone(&shared),
                position,
                size: *size,
                owners: Mutex::default(),
            })
        };
        let regions = regions.iter().enumerate().map(window).collect();
        Ok(Self { shared, regions })
    }

    /// What a device sees of them, by the ids of their regions.
    pub(crate) fn by_region(&self) -> Vec<(u8, Arc<dyn Window>)> {
        let inner = self.shared.lock();
        let ids = inner.tables.iter().map(|(id, _)| *id);
        let windows = self.regions.iter().map(|window| Arc::clone(window) as Arc<dyn Window>);
        ids.zip(windows).collect()
    }

    /// Runs `act` while nobody waits for an answer of the front end, which waits for `act`. A request that is under way is called
    /// off, and goes on when it is made again.
    pub(crate) fn in_a_hurry<T>(&self, act: impl FnOnce() -> T) -> T {
        let Shared { hurry, hurried, .. } = &*self.shared;
        if hurried.fetch_add(1, Ordering::SeqCst) == 0 {
            let _full_is_readable_too = rustix::io::write(hurry, &1_u64.to_ne_bytes());
        }
        let result = act();
        if hurried.fetch_sub(1, Ordering::SeqCst) == 1 {
            let _empty_is_what_is_wanted = rustix::io::read(hurry, &mut [0; 8]);
        }
        result
    }

    /// Whether a window has, or had, a part of this file.
    pub(crate) fn shows(&self, file: &OwnedFd) -> bool {
        identity(file).is_some_and(|identity| self.shared.files().contains(&identity))
    }

    /// The front end asks for another channel, behind which nothing is mapped.
    pub(crate) fn use_channel(&self, channel: Channel) {
        let mut inner = self.shared.lock();
        inner.forget();
        inner.channel = Some(channel);
    }

    /// The front end has dropped all mappings, as it does when the device is reset.
    pub(crate) fn forget(&self) {
        self.shared.lock().forget();
    }

    /// Takes out all mappings and gives the channel up, for another to make windows of it.
    pub(crate) fn give_up(&self) -> Option<Channel> {
        for window in &self.regions {
            // What is not unmapped now the front end refuses to map over.
            let _logged = window.clear();
        }
        self.shared.lock().channel.take()
    }

    /// The connection has ended.
    pub(crate) fn close(&self) {
        let mut inner = self.shared.lock();
        inner.channel = None;
        inner.forget();
        for (region, table) in &inner.tables {
            let Counts { mapped, unmapped } = table.counts;
            debug!(region, mapped, unmapped, "shared memory closed");
        }
    }
}

impl Shared {
    fn files(&self) -> MutexGuard<'_, HashSet<(u64, u64)>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget(&mut self) {
        self.tables.iter_mut().for_each(|(_, table)| table.forget());
    }
}

impl RegionWindow {
    fn owners(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `change` if the range lies in the window and the connection lives. What another region's table waits to hear of is
    /// settled first, since the channel tells it once.
    fn change(
        &self,
        offset: u64,
        length: u64,
        change: impl FnOnce(&mut Table, &mut OverChannel<'_>) -> Result<(), WindowError>,
    ) -> Result<(), WindowError> {
        match offset.checked_add(length) {
            Some(end) if length > 0 && end <= self.size => {}
            _ => return Err(WindowError::OutOfRange),
        }
        let mut inner = self.shared.lock();
        let Inner { tables, channel } = &mut *inner;
        let channel = channel.as_mut().ok_or(WindowError::Unanswered)?;
        let mut mapper = OverChannel {
            region: 0,
            channel,
            wait: Wait {
                limit: ANSWER_LIMIT,
                stop: Some(self.shared.hurry.as_fd()),
            },
        };
        let unfinished = tables.iter_mut().enumerate();
        let unfinished =
            unfinished.filter(|(position, (_, table))| *position != self.position && table.unfinished.is_some());
        for (_, (region, table)) in unfinished {
            mapper.region = *region;
            table.settle(&mut mapper)?;
        }
        let (region, table) = &mut tables[self.position];
        mapper.region = *region;
        change(table, &mut mapper)
    }
}

impl Window for RegionWindow {
    fn size(&self) -> u64 {
        self.size
    }

    fn map(&self, mapping: &WindowMapping) -> Result<(), WindowError> {
        // First, since the front end may announce the mapping as memory before it answers.
        let identity = identity(&mapping.file).ok_or(WindowError::Refused)?;
        self.shared.files().insert(identity);
        self.owners().insert(mapping.owner);
        self.change(mapping.offset, mapping.length, |table, mapper| {
            table.map(mapping, mapper)
        })
    }

    fn unmap(&self, offset: u64, length: u64) -> Result<(), WindowError> {
        self.change(offset, length, |table, mapper| table.unmap(offset, length, mapper))
    }

    fn release(&self, owner: u64) {
        if !self.owners().remove(&owner) {
            return;
        }
        let released = self.change(0, self.size, |table, mapper| table.release(owner, mapper));
        if let Err(error) = released {
            debug!(owner, %error, "not all is unmapped yet");
        }
    }

    fn clear(&self) -> Result<(), WindowError> {
        self.owners().clear();
        self.change(0, self.size, |table, mapper| table.clear(mapper))
            .inspect_err(|error| debug!(%error, "shared memory not cleared yet"))?;
        let inner = self.shared.lock();
        if inner.tables.iter().all(|(_, table)| table.is_empty()) {
            self.shared.files().clear();
        }
        let (region, table) = &inner.tables[self.position];
        let Counts { mapped, unmapped } = table.counts;
        debug!(region, mapped, unmapped, "shared memory cleared");
        Ok(())
    }
}

fn identity(file: &OwnedFd) -> Option<(u64, u64)> {
    let stat = rustix::fs::fstat(file).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

struct OverChannel<'c> {
    region: u8,
    channel: &'c mut Channel,
    wait: Wait<'c>,
}

impl Mapper for OverChannel<'_> {
    fn map(&mut self, mapping: &WindowMapping) -> Result<(), WindowError> {
        let answer = self
            .channel
            .map(&shared(self.region, mapping), mapping.file.as_fd(), self.wait);
        answer.map_err(|error| told("map", &error))
    }

    fn unmap(&mut self, mapping: &WindowMapping) -> Result<(), WindowError> {
        let answer = self.channel.unmap(&shared(self.region, mapping), self.wait);
        answer.map_err(|error| told("unmap", &error))
    }

    fn finish(&mut self) -> Result<(), WindowError> {
        let answer = self.channel.finish(self.wait);
        answer
            .map_err(|error| told("finish a change", &error))?
            .ok_or(WindowError::Refused)
    }
}

fn shared(region: u8, mapping: &WindowMapping) -> SharedMapping {
    SharedMapping {
        region,
        padding: [0; 7],
        file_offset: mapping.file_offset,
        offset: mapping.offset,
        length: mapping.length,
        flags: if mapping.writable { SHARED_WRITABLE } else { 0 },
    }
}

fn told(action: &str, error: &vhost_user::Error) -> WindowError {
    match error {
        vhost_user::Error::RefusedByFrontend { .. } => {
            debug!(%error, "cannot {action}");
            WindowError::Refused
        }
        vhost_user::Error::CalledOff => WindowError::CalledOff,
        error => {
            warn!(%error, "cannot {action} in shared memory");
            WindowError::Unanswered
        }
    }
}

#[cfg(test)]
mod tests;
