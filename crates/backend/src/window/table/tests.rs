//! The table against a map of single pages, through a front end that enforces vhost-user's rules.

use std::fs::File;
use std::os::fd::OwnedFd;

use proptest::prelude::*;

use super::*;

const PAGES: u64 = 24;

/// A front end that maps only where nothing is and unmaps only whole mappings. Maps what it is not told to refuse.
#[derive(Default)]
struct FrontEnd {
    mapped: Vec<WindowMapping>,
    /// Refuses the mapping when this comes to 0.
    until_refusal: Option<u32>,
    /// Calls a request off when this comes to 0. The request is done all the same.
    until_called_off: Option<u32>,
    owed: bool,
    maps: u64,
    unmaps: u64,
}

impl Mapper for FrontEnd {
    fn map(&mut self, new: &WindowMapping) -> Result<(), WindowError> {
        assert!(
            self.mapped
                .iter()
                .all(|old| end(old) <= new.offset || end(new) <= old.offset),
            "{new:?} overlaps"
        );
        if let Some(left) = self.until_refusal.as_mut() {
            if *left == 0 {
                self.until_refusal = None;
                return Err(WindowError::Refused);
            }
            *left -= 1;
        }
        self.maps += 1;
        self.mapped.push(new.clone());
        self.answer()
    }

    fn unmap(&mut self, gone: &WindowMapping) -> Result<(), WindowError> {
        let found = self
            .mapped
            .iter()
            .position(|old| (old.offset, old.length) == (gone.offset, gone.length));
        self.mapped
            .swap_remove(found.expect("only whole mappings are unmapped"));
        self.unmaps += 1;
        self.answer()
    }

    fn finish(&mut self) -> Result<(), WindowError> {
        assert!(std::mem::take(&mut self.owed), "an answer is due");
        Ok(())
    }
}

/// Which page of which file the guest sees in a page of the window, and whether it may write.
type Page = Option<(*const OwnedFd, u64, bool)>;

impl FrontEnd {
    fn answer(&mut self) -> Result<(), WindowError> {
        self.owed = self.until_called_off == Some(0);
        self.until_called_off = self.until_called_off.and_then(|left| left.checked_sub(1));
        if self.owed { Err(WindowError::CalledOff) } else { Ok(()) }
    }

    /// Does what a lane does that is called off: it tries again.
    fn persist(&mut self, mut change: impl FnMut(&mut Self) -> Result<(), WindowError>) -> Result<(), WindowError> {
        let mut result = change(self);
        while result == Err(WindowError::CalledOff) {
            result = change(self);
        }
        self.until_called_off = None;
        result
    }

    fn pages(&self) -> Vec<Page> {
        let mut pages = vec![None; PAGES as usize];
        for mapping in &self.mapped {
            paint(&mut pages, mapping);
        }
        pages
    }
}

fn paint(pages: &mut [Page], mapping: &WindowMapping) {
    for page in 0..mapping.length {
        pages[(mapping.offset + page) as usize] =
            Some((Arc::as_ptr(&mapping.file), mapping.file_offset + page, mapping.writable));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Map {
        file: usize,
        file_offset: u64,
        offset: u64,
        length: u64,
        writable: bool,
        refusal: Option<u32>,
        called_off: Option<u32>,
    },
    Unmap {
        offset: u64,
        length: u64,
        called_off: Option<u32>,
    },
    Release {
        file: usize,
        called_off: Option<u32>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let range = (0..PAGES).prop_flat_map(|offset| (Just(offset), 1..=PAGES - offset));
    let refusal = prop_oneof![4 => Just(None), 1 => (0_u32..3).prop_map(Some)];
    let called_off = prop_oneof![2 => Just(None), 1 => (0_u32..5).prop_map(Some)];
    prop_oneof![
        3 => (0_usize..3, 0_u64..6, range.clone(), any::<bool>(), refusal, called_off.clone()).prop_map(
            |(file, file_offset, (offset, length), writable, refusal, called_off)| Step::Map {
                file, file_offset, offset, length, writable, refusal, called_off,
            }
        ),
        1 => (range, called_off.clone())
            .prop_map(|((offset, length), called_off)| Step::Unmap { offset, length, called_off }),
        1 => (0_usize..3, called_off).prop_map(|(file, called_off)| Step::Release { file, called_off }),
    ]
}

proptest! {
    #[test]
    fn the_guest_sees_what_it_asked_for_whatever_overlaps(steps in proptest::collection::vec(step(), 1..60)) {
        let files: Vec<_> = (0..3).map(|_| Arc::new(OwnedFd::from(File::open("/dev/null").unwrap()))).collect();
        let (mut table, mut front_end) = (Table::default(), FrontEnd::default());
        for step in steps {
            let mut expected = front_end.pages();
            match step {
                Step::Map { file, file_offset, offset, length, writable, refusal, called_off } => {
                    let new = WindowMapping { owner: file as u64, file: Arc::clone(&files[file]), file_offset, offset, length, writable };
                    front_end.until_refusal = refusal;
                    front_end.until_called_off = called_off;
                    let before = front_end.maps;
                    let result = front_end.persist(|front_end| table.map(&new, front_end));
                    let refused = refusal.is_some() && front_end.until_refusal.is_none();
                    front_end.until_refusal = None;
                    if refused {
                        // The new mapping or a remainder was refused: no page shows anything but what it was or was to be.
                        let mut wanted = expected.clone();
                        paint(&mut wanted, &new);
                        for ((page, old), new) in front_end.pages().iter().zip(&expected).zip(&wanted) {
                            prop_assert!(page.is_none() || page == old || page == new);
                        }
                        if refusal == Some(0) && before == front_end.maps {
                            prop_assert_eq!(result, Err(WindowError::Refused));
                        }
                        continue;
                    }
                    prop_assert_eq!(result, Ok(()));
                    paint(&mut expected, &new);
                    // A range that is writable already may stay so when it is asked for read-only.
                    for (page, expected) in front_end.pages().iter().zip(&mut expected) {
                        if let (Some((_, _, true)), Some((_, _, allowed @ false))) = (page, expected.as_mut()) {
                            *allowed = true;
                        }
                    }
                }
                Step::Unmap { offset, length, called_off } => {
                    front_end.until_called_off = called_off;
                    prop_assert_eq!(front_end.persist(|front_end| table.unmap(offset, length, front_end)), Ok(()));
                    expected[offset as usize..(offset + length) as usize].fill(None);
                }
                Step::Release { file, called_off } => {
                    front_end.until_called_off = called_off;
                    prop_assert_eq!(front_end.persist(|front_end| table.release(file as u64, front_end)), Ok(()));
                    let gone = Arc::as_ptr(&files[file]);
                    for page in &mut expected {
                        *page = page.filter(|(file, ..)| *file != gone);
                    }
                }
            }
            prop_assert_eq!(front_end.pages(), expected);
        }
        table.unmap(0, PAGES, &mut front_end).unwrap();
        prop_assert!(front_end.mapped.is_empty());
        prop_assert_eq!(front_end.maps, front_end.unmaps);
        prop_assert_eq!(table.counts, Counts { mapped: front_end.maps, unmapped: front_end.unmaps });
        prop_assert!(files.iter().all(|file| Arc::strong_count(file) == 1), "no descriptor is held on to");
    }
}

fn mapping(file: &Arc<OwnedFd>, offset: u64, length: u64, writable: bool) -> WindowMapping {
    WindowMapping {
        owner: 0,
        file: Arc::clone(file),
        file_offset: offset,
        offset,
        length,
        writable,
    }
}

#[test]
fn what_is_mapped_writable_is_not_mapped_again() {
    let file = Arc::new(OwnedFd::from(File::open("/dev/null").unwrap()));
    let (mut table, mut front_end) = (Table::default(), FrontEnd::default());
    table.map(&mapping(&file, 0, 8, true), &mut front_end).unwrap();
    table.map(&mapping(&file, 0, 8, true), &mut front_end).unwrap();
    table.map(&mapping(&file, 2, 4, false), &mut front_end).unwrap();
    assert_eq!((front_end.maps, front_end.unmaps), (1, 0));
}

#[test]
fn a_refused_upgrade_leaves_the_read_only_mapping() {
    let file = Arc::new(OwnedFd::from(File::open("/dev/null").unwrap()));
    let (mut table, mut front_end) = (Table::default(), FrontEnd::default());
    table.map(&mapping(&file, 0, 8, false), &mut front_end).unwrap();
    let before = front_end.pages();
    front_end.until_refusal = Some(0);
    let upgrade = table.map(&mapping(&file, 0, 8, true), &mut front_end);
    assert_eq!(upgrade, Err(WindowError::Refused));
    assert_eq!(front_end.pages(), before);
}
