use super::range::{check, list};
use super::subordinate::{granted, name};
use super::*;

fn range(inside: u32, outside: u32, count: u32) -> IdRange {
    IdRange { inside, outside, count }
}

#[test]
fn a_range_is_read_with_any_delimiter() {
    for text in [":0:1000:1:", "/0/1000/1/", ",0,1000,1,", "é0é1000é1é"] {
        assert_eq!(text.parse(), Ok(range(0, 1000, 1)), "{text}");
    }
    assert_eq!(
        ":1:4294967294:1:".parse(),
        Ok(range(1, 4_294_967_294, 1)),
        "the last id there is"
    );
}

#[test]
fn what_is_no_range_is_refused_with_the_reason() {
    for (text, part) in [
        ("", "write it as"),
        ("0:1000:1", "write it as"),
        (":0:1000:1", "write it as"),
        (":0:1000:", "write it as"),
        (":0:1000:1:1:", "write it as"),
        (":0:1000:1/", "write it as"),
        ("::1000:1:", "`` is no number"),
        (":+1:1000:1:", "`+1` is no number"),
        (":0:4294967296:1:", "`4294967296` is no number"),
        (":0:1000:0:", "COUNT is at least 1"),
        (":4294967295:1000:1:", "go beyond 4294967294"),
        (":0:4294967200:100:", "go beyond 4294967294"),
    ] {
        let why = text.parse::<IdRange>().unwrap_err();
        assert!(why.contains(part), "{text}: {why}");
    }
}

#[test]
fn no_id_is_mapped_twice() {
    let whole = [range(0, 1000, 1), range(1, 100_000, 999), range(1000, 100_999, 1)];
    assert_eq!(check(&whole), Ok(()));
    let inside = check(&[range(0, 1000, 10), range(9, 2000, 1)]);
    assert_eq!(inside, Err("two ranges have id 9 of the guest".into()));
    let outside = check(&[range(0, 1000, 1), range(1, 999, 2)]);
    assert_eq!(outside, Err("two ranges have id 1000 of the host".into()));
    let many: Vec<_> = (0..341).map(|id| range(id, id, 1)).collect();
    assert!(check(&many).unwrap_err().contains("at most 340"));
}

#[test]
fn a_map_has_the_process_itself() {
    let refused = checked("--uid-map", &[range(0, 100_000, 10)], 1000);
    let Err(Error::Map { why, .. }) = refused else {
        panic!("it cannot act as itself")
    };
    assert!(why.contains("1000"), "{why}");
    assert!(matches!(
        checked("--uid-map", &[range(0, 1000, 1)], 1000),
        Ok(Some(Side::Itself(_)))
    ));
    assert!(matches!(
        checked("--uid-map", &[range(0, 990, 20)], 1000),
        Ok(Some(Side::Ranges(_)))
    ));
}

#[test]
fn grants_are_found_by_name_and_by_number() {
    let table = "# comment\nother:1:2\nuser:100000:65536\n\n1000:300000:10\nuser:broken\nuser:7\n";
    assert_eq!(granted(table, 1000, Some("user")), [(100_000, 65536), (300_000, 10)]);
    assert_eq!(granted(table, 1000, None), [(300_000, 10)]);
    assert_eq!(granted(table, 1, None), []);
    let passwd = "root:x:0:0::/root:/bin/sh\nuser:x:1000:100::/:/bin/sh\nbroken\n";
    assert_eq!(name(passwd, 1000), Some("user"));
    assert_eq!(name(passwd, 100), None);
}

/// As rootless containers have it.
#[test]
fn the_root_of_the_guest_is_the_user_and_grants_follow() {
    assert_eq!(with_own(1000, vec![]), None);
    assert_eq!(with_own(1000, vec![(100_000, 0)]), None);
    let ranges = with_own(1000, vec![(100_000, 65536), (300_000, 10)]).unwrap();
    assert_eq!(
        ranges,
        [range(0, 1000, 1), range(1, 100_000, 65536), range(65537, 300_000, 10)]
    );
    assert_eq!(list(&ranges), "0-65546");
    assert_eq!(list(&[range(5, 0, 1), range(0, 9, 2)]), "0-1, 5");
    let huge = with_own(1000, vec![(0, u32::MAX), (5, 5)]).unwrap();
    assert_eq!(huge, [range(0, 1000, 1), range(1, 0, u32::MAX - 1)]);
}
