use std::ops::Range;

use tempfile::TempDir;

use super::*;

const MIB: u64 = 1 << 20;

/// One way in which a file is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// Write leaves out the last byte and claims that it did not.
    LostByte,
    /// Write stops early and says so.
    ShortWrite,
    /// Read stops one byte early.
    ShortRead,
    /// What a truncation cut off is there again when the file grows.
    KeptTail,
    /// The mapping shows what the file held when it was made.
    StaleMapping,
    /// What is stored through the mapping is never in the file.
    LostStore,
    /// The last page of the mapping is not zero behind the end of the file.
    DirtyLastPage,
    /// Punch says that it did, and does not.
    LostPunch,
    /// A collapse leaves the length as it was.
    KeptLength,
    /// A copy takes its bytes from one place before its source.
    ShiftedCopy,
    /// Fsync fails.
    RefusedSync,
}

/// A real file that has a flaw, or none, and whose length must stay a multiple of the granule.
struct Faulty {
    file: RealFile,
    flaw: Option<Flaw>,
    granule: u64,
    /// What truncations cut off, and where.
    tail: (u64, Vec<u8>),
    /// What the mapping showed when it was made.
    snapshot: Option<Vec<u8>>,
    _directory: TempDir,
}

impl Faulty {
    fn new(flaw: Option<Flaw>, granule: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            file: RealFile::create(&directory.path().join("file")).unwrap(),
            flaw,
            granule,
            tail: (0, Vec::new()),
            snapshot: None,
            _directory: directory,
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn all(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.file.length().unwrap() as usize];
        assert_eq!(self.file.read(0, &mut bytes).unwrap(), bytes.len());
        bytes
    }

    fn check_granule(&self) {
        let length = self.file.length().unwrap();
        assert!(length.is_multiple_of(self.granule), "{length} of {}", self.granule);
    }
}

impl Target for Faulty {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(offset, buffer)?;
        Ok(if self.has(Flaw::ShortRead) {
            count.saturating_sub(1)
        } else {
            count
        })
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let count = match self.flaw {
            Some(Flaw::LostByte) => self.file.write(offset, &bytes[..bytes.len() - 1])? + 1,
            Some(Flaw::ShortWrite) => self.file.write(offset, &bytes[..bytes.len().div_ceil(2)])?,
            _ => self.file.write(offset, bytes)?,
        };
        if self.flaw.is_none() {
            self.check_granule();
        }
        Ok(count)
    }

    fn load(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.load(offset, buffer)?;
        let length = self.length()?;
        if self.has(Flaw::StaleMapping) {
            let snapshot = match self.snapshot.take() {
                Some(snapshot) => snapshot,
                None => self.all(),
            };
            for (at, byte) in (offset as usize..).zip(buffer.iter_mut()) {
                *byte = snapshot.get(at).copied().unwrap_or(*byte);
            }
            self.snapshot = Some(snapshot);
        }
        if self.has(Flaw::DirtyLastPage) {
            for (_, byte) in (offset..).zip(buffer).filter(|&(at, _)| at >= length) {
                *byte = 1;
            }
        }
        Ok(())
    }

    fn store(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.has(Flaw::LostStore) {
            return Ok(());
        }
        if let Some(snapshot) = &mut self.snapshot {
            snapshot[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        self.file.store(offset, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn unmap(&mut self) {
        self.snapshot = None;
        self.file.unmap();
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let before = self.all();
        self.file.truncate(length)?;
        self.check_granule();
        if self.has(Flaw::KeptTail) {
            if length < before.len() as u64 {
                self.tail = (length, before[length as usize..].to_vec());
            } else if self.tail.0 == before.len() as u64 {
                let kept = self.tail.1.len().min(length as usize - before.len());
                let _ = self.file.write(self.tail.0, &self.tail.1[..kept])?;
            }
        }
        Ok(())
    }

    fn change(&mut self, change: Change, range: Range<u64>) -> io::Result<()> {
        if change == Change::Punch && self.has(Flaw::LostPunch) {
            return Ok(());
        }
        let length = self.length()?;
        self.file.change(change, range)?;
        self.check_granule();
        if change == Change::Collapse && self.has(Flaw::KeptLength) {
            self.file.truncate(length)?;
        }
        Ok(())
    }

    fn copy(&mut self, from: u64, to: u64, length: u64) -> io::Result<()> {
        let from = if self.has(Flaw::ShiftedCopy) {
            from.saturating_sub(1)
        } else {
            from
        };
        self.file.copy(from, to, length)?;
        if !self.has(Flaw::ShiftedCopy) {
            self.check_granule();
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.has(Flaw::RefusedSync) {
            return Err(rustix::io::Errno::IO.into());
        }
        self.file.sync()
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file.reopen()
    }
}

fn plan(operations: u64, seed: u64, limit: u64, granule: u64) -> Plan {
    Plan {
        operations,
        seed,
        limit,
        granule,
    }
}

fn operation(kind: Kind, range: Range<u64>) -> Operation {
    Operation { kind, range, source: 7 }
}

/// Does just these operations on a file with a flaw.
fn script(flaw: Option<Flaw>, operations: &[Operation]) -> Result<Summary, Error> {
    let plan = plan(operations.len() as u64, 5, MIB, 1);
    let mut next = operations.iter().cloned();
    perform(&plan, &mut Faulty::new(flaw, 1), Vec::new(), &mut |_| {
        next.next().unwrap()
    })
}

/// Fails unless `operations` are done well on a good file, and the one numbered `caught` shows the flaw.
fn catches(flaw: Flaw, caught: u64, operations: &[Operation]) -> Error {
    script(None, operations).unwrap();
    let error = script(Some(flaw), operations).unwrap_err();
    let (Error::Different { number, seed, .. } | Error::Refused { number, seed, .. }) = &error else {
        panic!("{error}")
    };
    assert_eq!((*number, *seed), (caught, 5), "{error}");
    error
}

#[test]
fn a_lost_byte_is_told_with_operation_offset_bytes_and_seed() {
    let error = catches(
        Flaw::LostByte,
        2,
        &[
            operation(Kind::Write, 0..0x1235),
            operation(Kind::Read, 0..0x1235),
            operation(Kind::Sync, 0..0),
        ],
    );
    assert!(
        error
            .to_string()
            .starts_with("operation 2 (read 0x0..0x1235): 4660 bytes at 0x0 where 4661"),
        "{error}"
    );

    let error = catches(
        Flaw::LostByte,
        3,
        &[
            operation(Kind::Truncate, 0..0x2000),
            operation(Kind::Write, 0..3),
            operation(Kind::Read, 0..8),
        ],
    );
    let mut expected = [0; 3];
    Generator::new(7).fill(&mut expected);
    let text = error.to_string();
    let difference = format!(
        "at 0x2 expected {:02x}0000000000 found 000000000000 (1 of 8 bytes differ)",
        expected[2]
    );
    assert!(text.contains(&difference), "{text}");
    assert!(text.contains("seed 5") && text.contains("2 write 0x0..0x3"), "{text}");
}

#[test]
fn short_writes_and_reads_are_seen_at_once() {
    catches(Flaw::ShortWrite, 1, &[operation(Kind::Write, 0..100)]);
    catches(
        Flaw::ShortRead,
        2,
        &[operation(Kind::Write, 0..100), operation(Kind::Read, 50..100)],
    );
}

#[test]
fn a_tail_that_comes_back_after_a_truncation_is_seen() {
    let operations = [
        operation(Kind::Write, 0..0x3000),
        operation(Kind::Truncate, 0..0x1001),
        operation(Kind::Truncate, 0..0x3000),
        operation(Kind::MapRead, 0x1000..0x1100),
    ];
    let error = catches(Flaw::KeptTail, 4, &operations);
    assert!(error.to_string().contains("at 0x1001 expected 00"), "{error}");
}

#[test]
fn a_mapping_that_shows_old_bytes_is_seen() {
    let operations = [
        operation(Kind::Truncate, 0..0x2000),
        operation(Kind::MapRead, 0..0x2000),
        operation(Kind::Write, 0x800..0x1800),
        operation(Kind::MapRead, 0x1000..0x1010),
    ];
    catches(Flaw::StaleMapping, 4, &operations);
}

#[test]
fn a_store_that_never_reaches_the_file_is_seen() {
    let operations = [
        operation(Kind::Truncate, 0..0x2000),
        operation(Kind::MapWrite, 0xfff..0x1001),
        operation(Kind::Read, 0..0x2000),
    ];
    catches(Flaw::LostStore, 3, &operations);
}

#[test]
fn bytes_behind_the_end_in_the_last_page_are_seen() {
    let operations = [
        operation(Kind::Truncate, 0..0x1001),
        operation(Kind::MapRead, 0x1000..0x2000),
    ];
    catches(Flaw::DirtyLastPage, 2, &operations);
}

#[test]
fn a_hole_that_was_not_punched_is_seen() {
    let operations = [
        operation(Kind::Write, 0..0x3000),
        operation(Kind::Punch, 0x10..0x2100),
        operation(Kind::Sync, 0..0),
        operation(Kind::Read, 0x2000..0x2200),
    ];
    let error = catches(Flaw::LostPunch, 4, &operations);
    assert!(error.to_string().contains("at 0x2000 expected 00"), "{error}");
}

#[test]
fn a_copy_of_other_bytes_is_seen() {
    let operations = [
        operation(Kind::Write, 0..0x1000),
        operation(Kind::Copy, 0x2000..0x2800),
        operation(Kind::Read, 0x2000..0x2800),
    ];
    catches(Flaw::ShiftedCopy, 3, &operations);
}

#[test]
fn an_operation_that_is_refused_ends_the_run() {
    let error = catches(
        Flaw::RefusedSync,
        2,
        &[operation(Kind::Write, 0..9), operation(Kind::Sync, 0..0)],
    );
    assert!(error.to_string().starts_with("operation 2 (fsync) failed"), "{error}");
}

#[test]
fn a_wrong_length_is_seen_by_fstat_and_when_the_whole_file_is_compared() {
    let mut operations = vec![operation(Kind::Write, 0..0x4000), operation(Kind::Collapse, 0..0x1000)];
    operations.resize(INTERVAL as usize + 9, operation(Kind::Read, 0..10));
    let error = catches(Flaw::KeptLength, INTERVAL, &operations);
    assert!(
        error.to_string().contains("the file is 0x4000 long and not 0x3000"),
        "{error}"
    );

    operations[2] = operation(Kind::Stat, 0..0);
    catches(Flaw::KeptLength, 3, &operations);
}

#[test]
fn random_sequences_find_each_flaw() {
    let flaws = [
        Flaw::LostByte,
        Flaw::ShortWrite,
        Flaw::ShortRead,
        Flaw::KeptTail,
        Flaw::StaleMapping,
        Flaw::LostStore,
        Flaw::DirtyLastPage,
        Flaw::LostPunch,
        Flaw::KeptLength,
        Flaw::ShiftedCopy,
        Flaw::RefusedSync,
    ];
    for flaw in flaws {
        for seed in 1..=3 {
            let plan = plan(1000, seed, MIB, 1);
            let done = execute(&plan, &mut Faulty::new(Some(flaw), 1));
            let error = done.expect_err(&format!("{flaw:?} with seed {seed}"));
            let (Error::Different { number, .. } | Error::Refused { number, .. }) = error else {
                panic!("{flaw:?}: {error}")
            };
            assert!((1..=1000).contains(&number), "{flaw:?}");
        }
    }
}

#[test]
fn the_length_is_a_multiple_of_the_granule_after_every_operation() {
    for (granule, limit, operations) in [
        (1, MIB, 1000),
        (3, 3 * 50_000, 1000),
        (4096, MIB, 1000),
        (2 * MIB, 16 * MIB, 200),
    ] {
        for seed in 1..=2 {
            let summary = execute(&plan(operations, seed, limit, granule), &mut Faulty::new(None, granule)).unwrap();
            assert_eq!(summary.counts.iter().sum::<u64>(), operations);
        }
    }
}

#[test]
fn a_file_system_without_an_operation_is_not_asked_for_it_and_the_summary_says_so() {
    let missing = [Kind::Collapse, Kind::Copy];
    let mut chooser = Chooser::new(1, MIB, 1, 4096, &missing);
    assert!((0..10_000).all(|_| !missing.contains(&chooser.next(10_000).kind)));
    let text = Summary::new(missing.to_vec()).to_string();
    assert!(text.ends_with("; not supported here: collapse, copy)"), "{text}");
}

#[test]
fn operations_fit_the_file_and_copies_do_not_overlap() {
    let mut chooser = Chooser::new(1, MIB, 1, 4096, &[]);
    for length in (0..40_000).map(|step| step % 1000 * 1047 % (MIB + 1)) {
        let Operation { kind, range, source } = chooser.next(length);
        let text = format!("{kind:?} {range:?} of {length}");
        match kind {
            Kind::Read => assert!(range.end <= length + 4096 && !range.is_empty(), "{text}"),
            Kind::MapRead => assert!(
                range.end <= length.next_multiple_of(4096) && !range.is_empty(),
                "{text}"
            ),
            Kind::MapWrite | Kind::Punch => assert!(range.end <= length && !range.is_empty(), "{text}"),
            Kind::Collapse => assert!(range.end < length && !range.is_empty(), "{text}"),
            Kind::Insert => assert!(
                range.start < length && range.end - range.start + length <= MIB,
                "{text}"
            ),
            Kind::Copy => {
                let count = range.end - range.start;
                assert!(source + count <= length, "{text}");
                assert!(
                    source + count <= range.start || range.end <= source,
                    "{text} from {source}"
                );
            }
            Kind::Write | Kind::Zero | Kind::Allocate => assert!(range.end <= MIB && !range.is_empty(), "{text}"),
            Kind::Truncate => assert!(range.end <= MIB, "{text}"),
            Kind::Stat | Kind::Sync | Kind::Flush | Kind::Unmap | Kind::Reopen => {}
        }
    }
}

#[test]
fn the_table_of_kinds_is_in_the_order_of_their_declaration() {
    for (index, &(kind, weight, _)) in Kind::ALL.iter().enumerate() {
        assert_eq!(kind as usize, index);
        assert!(weight > 0);
    }
}
