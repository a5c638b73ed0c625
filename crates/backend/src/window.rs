//! The windows of a connection, one per shared memory region: the device changes them over the channel to the front
//! end.

mod seen;
mod table;

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use guestmem::{Window, WindowError, WindowMapping};
use rustix::event::{EventfdFlags, eventfd};
use tracing::{debug, warn};
use vhost_user::channel::{Channel, Wait};
use vhost_user::message::{SHARED_WRITABLE, SharedMapping};

use self::seen::{SeenFiles, identity_of};
use self::table::{Counts, Mapper, Table};

/// Maximum time for one answer of the front end, which only maps a file.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The windows of one connection, one for each shared memory region of the device.
#[derive(Debug)]
pub(crate) struct Windows {
    shared: Arc<Shared>,
    regions: Vec<Arc<RegionWindow>>,
}

/// State shared by all windows of a connection.
#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    /// The files that are mapped, and some that were. Separate from `inner`, which is locked during requests to the front
    /// end.
    files: Mutex<SeenFiles>,
    /// Readable while no thread may wait for the front end, because the front end waits for us.
    hurry: OwnedFd,
    /// Number of running calls of [`Windows::in_a_hurry`].
    hurried: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    /// One table per region.
    tables: Vec<(u8, Table)>,
    /// `None` once the connection has ended.
    channel: Option<Channel>,
}

/// The window of one region, changed over the channel.
#[derive(Debug)]
struct RegionWindow {
    shared: Arc<Shared>,
    /// Index of its table.
    position: usize,
    size: u64,
    /// Owners that may have mappings. Separate from the table, because most owners that are released have none.
    owners: Mutex<HashSet<u64>>,
}

impl Windows {
    /// Makes windows for regions of these ids and sizes.
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

    /// The windows as a device uses them, by region id.
    pub(crate) fn by_region(&self) -> Vec<(u8, Arc<dyn Window>)> {
        let inner = self.shared.lock();
        let ids = inner.tables.iter().map(|(id, _)| *id);
        let windows = self.regions.iter().map(|window| Arc::clone(window) as Arc<dyn Window>);
        ids.zip(windows).collect()
    }

    /// Runs `act` while no thread waits for the front end, because the front end waits for `act`. A request in flight
    /// is cancelled, and continues when it is made again.
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

    /// Whether a part of this file is, or was, mapped in a window.
    pub(crate) fn shows(&self, file: &OwnedFd) -> bool {
        identity_of(file).is_some_and(|identity| self.shared.files().contains(identity))
    }

    /// Replaces the channel. The front end has nothing mapped for the new one.
    pub(crate) fn use_channel(&self, channel: Channel) {
        let mut inner = self.shared.lock();
        inner.forget();
        inner.channel = Some(channel);
    }

    /// Forgets all mappings: the front end has dropped them, as it does when the device is reset.
    pub(crate) fn forget(&self) {
        self.shared.lock().forget();
    }

    /// Unmaps everything and returns the channel, for new windows.
    pub(crate) fn give_up(&self) -> Option<Channel> {
        for window in &self.regions {
            // The front end refuses to map over mappings that remain now.
            let _logged = window.clear();
        }
        self.shared.lock().channel.take()
    }

    /// Closes the windows: the connection has ended.
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
    fn files(&self) -> MutexGuard<'_, SeenFiles> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The files that are mapped, or will be.
    fn mapped(&self) -> impl Iterator<Item = &OwnedFd> {
        self.tables.iter().flat_map(|(_, table)| table.files())
    }

    fn forget(&mut self) {
        self.tables.iter_mut().for_each(|(_, table)| table.forget());
    }
}

impl RegionWindow {
    fn owners(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `change` if the range lies in the window and the connection is open. An outstanding answer of another
    /// region's table is read first, because the channel delivers it only once.
    fn change(
        &self,
        offset: u64,
        length: u64,
        change: impl FnOnce(&mut Table, &mut OverChannel<'_>) -> Result<(), WindowError>,
    ) -> Result<(), WindowError> {
        self.change_locked(&mut self.shared.lock(), (offset, length), change)
    }

    fn change_locked(
        &self,
        inner: &mut Inner,
        (offset, length): (u64, u64),
        change: impl FnOnce(&mut Table, &mut OverChannel<'_>) -> Result<(), WindowError>,
    ) -> Result<(), WindowError> {
        match offset.checked_add(length) {
            Some(end) if length > 0 && end <= self.size => {}
            _ => return Err(WindowError::OutOfRange),
        }
        let Inner { tables, channel } = inner;
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
            unfinished.filter(|(position, (_, table))| *position != self.position && table.is_unfinished());
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
        // This comes first, because the front end may announce the mapping as memory before it answers.
        let identity = identity_of(&mapping.file).ok_or(WindowError::Refused)?;
        let mut inner = self.shared.lock();
        self.shared.files().insert(identity, inner.mapped());
        self.owners().insert(mapping.owner);
        self.change_locked(&mut inner, (mapping.offset, mapping.length), |table, mapper| {
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
            debug!(owner, %error, "some mappings remain for now");
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
