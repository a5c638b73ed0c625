//! One page of the ring buffer and the records in it.

use super::format::Layout;

/// Set in `commit` when events before this page were lost (`RB_MISSED_EVENTS`).
const MISSED_EVENTS: u64 = 1 << 31;
/// Set in `commit` when their number stands behind the data (`RB_MISSED_STORED`).
const MISSED_STORED: u64 = 1 << 30;
/// An absolute time stamp has 59 bits; the rest comes from the page's.
const STAMP_BITS: u32 = 59;

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The page ends within its header.
    #[error("the page of {0} bytes is shorter than its header")]
    Short(usize),
    /// The page says that it holds more than there is.
    #[error("the page claims {length} bytes of records, but has room for {room}")]
    Length {
        /// What the page says, in bytes.
        length: u64,
        /// What is there, in bytes.
        room: usize,
    },
    /// A record reaches over the end of the page's data or is shorter than its own header.
    #[error("the record at byte {0} of the page's data does not fit")]
    Record(usize),
}

/// What was lost right before a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// Nothing.
    Nothing,
    /// Some events; the kernel had no room to say how many.
    Some,
    /// That many events.
    Count(u64),
}

/// A page whose header was checked.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    layout: &'a Layout,
    time: u64,
    data: &'a [u8],
    missed: Missed,
}

impl<'a> Page<'a> {
    /// Checks the header of a page.
    ///
    /// # Errors
    /// The page is too short for its header or for what it says that it holds.
    pub fn parse(layout: &'a Layout, bytes: &'a [u8]) -> Result<Self, PageError> {
        let short = PageError::Short(bytes.len());
        let time = layout.timestamp.unsigned(bytes).ok_or(short)?;
        let commit = layout.commit.unsigned(bytes).ok_or(short)?;
        let room = bytes.get(layout.data.offset..).ok_or(short)?;
        let length = commit & !(MISSED_EVENTS | MISSED_STORED);
        let split = usize::try_from(length).ok().and_then(|at| room.split_at_checked(at));
        let (data, behind) = split.ok_or(PageError::Length {
            length,
            room: room.len(),
        })?;
        let missed = match (commit & MISSED_EVENTS != 0, commit & MISSED_STORED != 0) {
            (false, _) => Missed::Nothing,
            (true, false) => Missed::Some,
            (true, true) => behind
                .first_chunk()
                .map_or(Missed::Some, |count| Missed::Count(u64::from_le_bytes(*count))),
        };
        Ok(Self {
            layout,
            time,
            data,
            missed,
        })
    }

    /// What was lost before this page.
    #[must_use]
    pub fn missed(&self) -> Missed {
        self.missed
    }

    /// How many bytes of the page mean something: its header, its records and the number of lost events behind them.
    #[must_use]
    pub fn extent(&self) -> usize {
        self.layout.data.offset + self.data.len() + if self.missed == Missed::Nothing { 0 } else { 8 }
    }

    /// The records, oldest first. After an error there are none.
    #[must_use]
    pub fn records(&self) -> Records<'a> {
        Records {
            layout: self.layout,
            data: self.data,
            at: 0,
            time: self.time,
        }
    }
}

/// One record: when it was written and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Time in the trace clock's unit (nanoseconds with the default clock).
    pub time: u64,
    /// What the event's `format` describes.
    pub payload: &'a [u8],
}

/// The records of one page.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    layout: &'a Layout,
    data: &'a [u8],
    at: usize,
    time: u64,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, PageError>;

    fn next(&mut self) -> Option<Self::Item> {
        // Every round goes at least one word forward, so that no page keeps a reader for ever.
        while self.at < self.data.len() {
            let start = self.at;
            match self.step() {
                Some(Step::Record(record)) => return Some(Ok(record)),
                Some(Step::Nothing) => {}
                None => {
                    self.at = self.data.len();
                    return Some(Err(PageError::Record(start)));
                }
            }
        }
        None
    }
}

enum Step<'a> {
    Record(Record<'a>),
    Nothing,
}

impl<'a> Records<'a> {
    fn step(&mut self) -> Option<Step<'a>> {
        let header = self.word()?;
        let kind = header & ((1 << self.layout.type_bits) - 1);
        let delta = u64::from(header >> self.layout.type_bits);
        if kind == self.layout.padding {
            if delta == 0 {
                self.at = self.data.len();
                return Some(Step::Nothing);
            }
            let length = self.word()?;
            self.time = self.time.wrapping_add(delta);
            self.take(length.checked_sub(4)?)?;
            return Some(Step::Nothing);
        }
        if kind == self.layout.time_extend {
            let high = u64::from(self.word()?) << self.layout.delta_bits;
            self.time = self.time.wrapping_add(high | delta);
            return Some(Step::Nothing);
        }
        if kind == self.layout.time_stamp {
            let low = (1 << STAMP_BITS) - 1;
            let stamp = u64::from(self.word()?) << self.layout.delta_bits | delta;
            self.time = self.time & !low | stamp & low;
            return Some(Step::Nothing);
        }
        let length = match kind {
            0 => self.word()?.checked_sub(4)?,
            words if words <= self.layout.data_max => words.checked_mul(4)?,
            _ => return None,
        };
        self.time = self.time.wrapping_add(delta);
        let payload = self.take(length)?;
        Some(Step::Record(Record {
            time: self.time,
            payload,
        }))
    }

    fn word(&mut self) -> Option<u32> {
        let word = self.data.get(self.at..)?.first_chunk()?;
        self.at += 4;
        Some(u32::from_le_bytes(*word))
    }

    /// Takes that many bytes. Records are aligned to words.
    fn take(&mut self, length: u32) -> Option<&'a [u8]> {
        let length = usize::try_from(length).ok()?;
        let bytes = self.data.get(self.at..self.at.checked_add(length)?)?;
        self.at += length.checked_next_multiple_of(4)?;
        Some(bytes)
    }
}
