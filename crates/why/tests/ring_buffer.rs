//! Pages of a real kernel (6.18, x86-64: two writes to `trace_marker`, half a second apart) and pages that no kernel
//! writes.

use proptest::prelude::*;
use why::ring_buffer::{Events, Format, Layout, Missed, Page, PageError};

const PAGE: &[u8] = include_bytes!("data/print_cpu0.raw");
const PRINT: &str = include_str!("data/print_format");
const HEADER_PAGE: &str = include_str!("data/header_page");
const HEADER_EVENT: &str = include_str!("data/header_event");

fn layout() -> Layout {
    Layout::parse(HEADER_PAGE, HEADER_EVENT).unwrap()
}

/// A page with this commit word and these words of data.
fn page(commit: u64, words: &[u32]) -> Vec<u8> {
    let mut bytes = [1000u64.to_le_bytes(), commit.to_le_bytes()].concat();
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

fn header(kind: u32, delta: u32) -> u32 {
    kind | delta << 5
}

fn times(words: &[u32]) -> Vec<Result<u64, PageError>> {
    let (layout, bytes) = (layout(), page(4 * words.len() as u64, words));
    let page = Page::parse(&layout, &bytes).unwrap();
    page.records().map(|record| record.map(|record| record.time)).collect()
}

#[test]
fn a_real_page_gives_its_texts_and_times() {
    let mut events = Events::default();
    events.add(Format::parse(PRINT).unwrap());
    let layout = layout();
    let page = Page::parse(&layout, PAGE).unwrap();
    assert_eq!(page.missed(), Missed::Nothing);
    let records: Vec<_> = page.records().map(Result::unwrap).collect();
    let texts: Vec<_> = records
        .iter()
        .map(|record| {
            let event = events.of(record.payload).unwrap();
            assert_eq!(event.name, "print");
            event.field("buf").unwrap().text(record.payload).unwrap()
        })
        .collect();
    assert_eq!(texts, ["first\n".to_owned(), format!("second {}\n", "x".repeat(200))]);
    let between = records[1].time - records[0].time;
    // The second write came after a pause of 0.2 s: its distance does not fit 27 bits and stands in a time extend.
    assert!((200_000_000..1_000_000_000).contains(&between), "{between} ns");
}

#[test]
fn fields_are_where_the_format_says() {
    let text = "name: x\nID: 7\nformat:\n\tfield:unsigned short common_type;\toffset:2;\tsize:2;\tsigned:0;\n\
                \tfield:int ret;\toffset:4;\tsize:4;\tsigned:1;\n\
                \tfield:__data_loc char[] path;\toffset:8;\tsize:4;\tsigned:0;\n";
    let format = Format::parse(text).unwrap();
    let payload = [0, 0, 7, 0, 0xf3, 0xff, 0xff, 0xff, 12, 0, 3, 0, b'a', b'b', 0];
    assert_eq!(format.field("ret").unwrap().signed(&payload), Some(-13));
    assert_eq!(format.field("ret").unwrap().unsigned(&payload), Some(0xffff_fff3));
    assert_eq!(format.field("path").unwrap().text(&payload).as_deref(), Some("ab"));
    assert_eq!(format.field("ret").unwrap().signed(&payload[..7]), None);
    assert_eq!(format.field("path").unwrap().text(&payload[..13]), None);
    let mut events = Events::default();
    events.add(format);
    assert_eq!(events.of(&payload).map(|event| event.id), Some(7));
    assert_eq!(events.of(&[0, 0, 8, 0]), None);
}

#[test]
fn lost_events_are_told_with_their_number_where_the_kernel_stored_it() {
    let layout = layout();
    let missed = |commit, words: &[u32]| Page::parse(&layout, &page(commit, words)).unwrap().missed();
    let word = header(1, 1);
    assert_eq!(missed(8, &[word, 0]), Missed::Nothing);
    assert_eq!(missed(8 | 1 << 31, &[word, 0]), Missed::Some);
    assert_eq!(missed(8 | 3 << 30, &[word, 0, 42, 0]), Missed::Count(42));
    assert_eq!(missed(8 | 3 << 30, &[word, 0]), Missed::Some, "no room for the number");
}

#[test]
fn time_extends_stamps_and_discarded_records_move_the_clock() {
    assert_eq!(
        times(&[header(30, 5), 1, header(1, 2), 0]),
        [Ok(1000 + (1 << 27) + 5 + 2)]
    );
    assert_eq!(times(&[header(31, 5), 1, header(1, 2), 0]), [Ok((1 << 27) + 5 + 2)]);
    assert_eq!(times(&[header(29, 3), 8, 0, header(1, 4), 0]), [Ok(1007)]);
    assert_eq!(
        times(&[header(1, 1), 0, header(29, 0), u32::MAX]),
        [Ok(1001)],
        "padding to the end"
    );
}

#[test]
fn records_that_do_not_fit_are_errors_and_end_the_page() {
    assert_eq!(
        times(&[header(1, 1), 0, header(2, 1), 0]),
        [Ok(1001), Err(PageError::Record(8))]
    );
    assert_eq!(
        times(&[header(0, 1), 3, 0]),
        [Err(PageError::Record(0))],
        "a length below its own word"
    );
    assert_eq!(times(&[header(0, 1), u32::MAX, 0]), [Err(PageError::Record(0))]);
    assert_eq!(times(&[header(29, 1), 0]), [Err(PageError::Record(0))]);
    assert_eq!(times(&[header(30, 1)]), [Err(PageError::Record(0))]);
}

#[test]
fn a_page_that_claims_more_than_it_has_is_refused() {
    let layout = layout();
    assert_eq!(Page::parse(&layout, &[0; 15]).unwrap_err(), PageError::Short(15));
    let bytes = page(8, &[0]);
    assert_eq!(
        Page::parse(&layout, &bytes).unwrap_err(),
        PageError::Length { length: 8, room: 4 }
    );
    let bytes = page(u64::MAX, &[0]);
    assert!(matches!(Page::parse(&layout, &bytes), Err(PageError::Length { .. })));
}

proptest! {
    #[test]
    fn no_page_panics_or_gives_more_records_than_words(
        commit in prop_oneof![0u64..64, any::<u64>()],
        words in prop::collection::vec(prop_oneof![any::<u32>(), (0u32..32).prop_map(|kind| header(kind, 1)), 0u32..16], 0..16),
        cut in 0usize..4,
    ) {
        let layout = layout();
        let mut bytes = page(commit, &words);
        bytes.truncate(bytes.len() - cut);
        if let Ok(page) = Page::parse(&layout, &bytes) {
            prop_assert!(page.records().count() <= words.len() + 1);
        }
    }

    #[test]
    fn no_description_panics(page in "[a-z_: ;\\t\\n0-9]{0,80}", number in any::<usize>(), bits in any::<u32>()) {
        let _ = Format::parse(&page);
        let _ = Layout::parse(&page, &page);
        let _ = Layout::parse(HEADER_PAGE, &HEADER_EVENT.replace("5 bits", &format!("{bits} bits")));
        let far = HEADER_PAGE.replace("offset:16", &format!("offset:{number}"));
        let layout = Layout::parse(&far, HEADER_EVENT).unwrap();
        let _ = Page::parse(&layout, PAGE).map(|page| page.records().count());
        let located = format!("name: x\nID: 1\n\tfield:__data_loc char[] a;\toffset:{number};\tsize:{bits};\tsigned:0;\n");
        if let Ok(format) = Format::parse(&located) {
            prop_assert!(format.field("a").is_none_or(|a| a.text(PAGE).is_none_or(|text| text.len() <= 3 * PAGE.len())));
            prop_assert!(format.field("a").is_none_or(|a| a.size <= 8 || a.signed(PAGE).is_none()));
        }
    }
}
