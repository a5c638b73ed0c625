//! Valid and malformed requests.

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::message::Header;

fn message(code: u32, payload: &[u8], files: usize) -> Message {
    let file = || std::fs::File::open("/dev/null").unwrap().into();
    Message {
        header: Header {
            request: code,
            flags: 1,
            size: payload.len() as u32,
        },
        payload: payload.to_vec(),
        files: (0..files).map(|_| file()).collect(),
    }
}

fn number(code: RequestCode, number: u64, files: usize) -> Result<Request, Malformed> {
    Request::parse(message(code as u32, number.as_bytes(), files))
}

#[test]
fn unknown_numbers_are_named() {
    assert_eq!(
        Request::parse(message(4711, &[], 0)).unwrap_err(),
        Malformed::Unknown(4711)
    );
}

#[test]
fn a_ring_has_1_to_32768_entries() {
    for (num, good) in [(0, false), (1, true), (32768, true), (32769, false), (65537, false)] {
        let state = VringState { index: 0, num };
        let request = Request::parse(message(RequestCode::SetVringNum as u32, state.as_bytes(), 0));
        assert_eq!(request.is_ok(), good, "num {num}");
    }
}

#[test]
fn bit_8_means_that_no_file_comes_along() {
    use RequestCode::SetVringCall;
    assert!(matches!(
        number(SetVringCall, 0x103, 0),
        Ok(Request::SetVringCall { index: 3, file: None })
    ));
    assert!(matches!(
        number(SetVringCall, 0x003, 1),
        Ok(Request::SetVringCall {
            index: 3,
            file: Some(_)
        })
    ));
    assert!(matches!(
        number(SetVringCall, 0x003, 0),
        Err(Malformed::Files {
            files: 0,
            expected: 1,
            ..
        })
    ));
    assert!(matches!(
        number(SetVringCall, 0x103, 1),
        Err(Malformed::Files {
            files: 1,
            expected: 0,
            ..
        })
    ));
    assert!(matches!(number(SetVringCall, 0x203, 1), Err(Malformed::Value { .. })));
}

#[test]
fn a_memory_table_needs_one_file_a_region() {
    let region = MemoryRegion {
        guest_address: 0,
        size: 4096,
        user_address: 1 << 40,
        mmap_offset: 0,
    };
    let table = [2_u32.as_bytes(), 0_u32.as_bytes(), region.as_bytes(), region.as_bytes()].concat();
    let parse = |files| Request::parse(message(RequestCode::SetMemoryTable as u32, &table, files));
    assert!(matches!(parse(2), Ok(Request::SetMemoryTable(regions)) if regions.len() == 2));
    assert!(matches!(
        parse(1),
        Err(Malformed::Files {
            files: 1,
            expected: 2,
            ..
        })
    ));
    assert!(matches!(
        parse(3),
        Err(Malformed::Files {
            files: 3,
            expected: 2,
            ..
        })
    ));
}

#[test]
fn removing_a_region_tolerates_its_file() {
    let region = [0_u64; 5];
    for (files, good) in [(0, true), (1, true), (2, false)] {
        let request = Request::parse(message(
            RequestCode::RemoveMemoryRegion as u32,
            region.as_bytes(),
            files,
        ));
        assert_eq!(request.is_ok(), good, "{files} files");
    }
}

#[test]
fn zeros_behind_a_payload_are_padding_and_other_bytes_are_an_error() {
    let region = [0_u64, 4096, 1 << 40, 0];
    let state = VringState { index: 1, num: 128 };
    let config = [36_u32, 4, 0];
    let (one, none) = (1_u32, 0_u32);
    let payloads: [(RequestCode, Vec<u8>, usize); 6] = [
        // User-Mode Linux 6.1: one region in a table of two.
        (
            RequestCode::SetMemoryTable,
            [one.as_bytes(), none.as_bytes(), region.as_bytes()].concat(),
            1,
        ),
        (RequestCode::SetFeatures, (1_u64 << 32).as_bytes().to_vec(), 0),
        (RequestCode::SetVringNum, state.as_bytes().to_vec(), 0),
        (RequestCode::GetFeatures, Vec::new(), 0),
        (RequestCode::SetBackendReqFd, Vec::new(), 1),
        (RequestCode::SetConfig, [config.as_bytes(), &[7; 4]].concat(), 0),
    ];
    for (code, payload, files) in payloads {
        let parse = |tail: &[u8]| Request::parse(message(code as u32, &[&payload, tail].concat(), files));
        let expected = payload.len();
        for length in [0, 1, 32] {
            assert!(parse(&vec![0; length]).is_ok(), "{code} with {length} zeros");
        }
        let refused = parse(&[0, 0, 1]).unwrap_err();
        let size = expected + 3;
        let request = code;
        assert_eq!(
            refused,
            Malformed::Size {
                request,
                size,
                expected
            }
        );
        if let Some(short) = expected.checked_sub(1) {
            let refused = Request::parse(message(code as u32, &payload[..short], files)).unwrap_err();
            assert!(matches!(refused, Malformed::Size { .. }), "{code}: {refused}");
        }
    }
}

#[test]
fn configuration_space_is_read_at_every_offset_in_every_size() {
    let parse = |offset: u32, size: u32, sent: usize| {
        let bytes = [offset.as_bytes(), size.as_bytes(), 0_u32.as_bytes(), &vec![7; sent]].concat();
        Request::parse(message(RequestCode::GetConfig as u32, &bytes, 0))
    };
    for offset in 0..256 {
        for size in 0..=256 {
            assert!(parse(offset, size, size as usize).is_ok(), "{size} bytes at {offset}");
        }
    }
    for (offset, size) in [(256, 1), (0, 257), (u32::MAX, u32::MAX), (u32::MAX, 1)] {
        let refused = parse(offset, size, 0).unwrap_err();
        assert!(
            matches!(refused, Malformed::Value { .. }),
            "{size} bytes at {offset}: {refused}"
        );
    }
    // What follows the header is room for the reply.
    for sent in [0, 39, 41] {
        assert!(parse(0, 40, sent).is_ok(), "{sent} bytes of room");
    }
}

#[test]
fn configuration_space_is_written_within_256_bytes() {
    let parse = |offset: u32, size: u32, sent: usize| {
        let bytes = [offset.as_bytes(), size.as_bytes(), 0_u32.as_bytes(), &vec![7; sent]].concat();
        Request::parse(message(RequestCode::SetConfig as u32, &bytes, 0))
    };
    assert!(parse(0, 256, 256).is_ok());
    assert!(matches!(parse(1, 256, 256), Err(Malformed::Value { .. })));
    assert!(matches!(parse(u32::MAX, u32::MAX, 0), Err(Malformed::Value { .. })));
    assert!(matches!(parse(0, 40, 39), Err(Malformed::Size { .. })));
    assert!(matches!(parse(0, 40, 41), Err(Malformed::Size { .. })));
}

#[test]
fn the_padding_of_a_record_in_flight_means_nothing() {
    let numbers = [&4096_u64.to_ne_bytes()[..], &[0; 8], &[2, 0], &128_u16.to_ne_bytes()].concat();
    let parse = |padding: &[u8], files| {
        let payload = [&numbers[..], padding].concat();
        Request::parse(message(RequestCode::SetInflight as u32, &payload, files))
    };
    for padding in [&[][..], &[7; 4], &[7, 7, 7, 7, 0, 0]] {
        let Ok(Request::SetInflight(inflight, _)) = parse(padding, 1) else {
            panic!("{padding:?}");
        };
        assert_eq!(
            (inflight.mmap_size, inflight.num_queues, inflight.queue_size),
            (4096, 2, 128)
        );
    }
    assert!(matches!(parse(&[0, 0, 0, 0, 1], 1), Err(Malformed::Size { .. })));
    assert!(matches!(parse(&[], 0), Err(Malformed::Files { .. })));
    for size in [0, 32769] {
        let inflight = Inflight {
            queue_size: size,
            ..Inflight::default()
        };
        let parse = |code, files| Request::parse(message(code as u32, inflight.as_bytes(), files));
        assert!(matches!(
            parse(RequestCode::SetInflight, 1),
            Err(Malformed::Value { .. })
        ));
        assert!(parse(RequestCode::GetInflight, 0).is_ok(), "it is answered");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_a_request_or_malformed(
        code in prop_oneof![0_u32..48, any::<u32>()],
        payload in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            proptest::collection::vec(Just(0_u8), 0..300),
            Just(vec![0; 8]),
            Just(vec![0; 40]),
        ],
        files in 0_usize..10,
    ) {
        match Request::parse(message(code, &payload, files)) {
            Err(Malformed::Unknown(number)) => prop_assert!(RequestCode::from_number(number).is_none()),
            _ => prop_assert!(RequestCode::from_number(code).is_some()),
        }
    }
}
