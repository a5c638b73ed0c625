//! Contents of a window after mappings were added, overlapped and removed.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use driver::RangeError;
use rstest::rstest;

use super::{PAGE, PIECE, descriptors, pattern, start};

/// Which page of which file each page of the window is to show.
type Pages<'a> = [Option<(&'a [u8], u64)>];

fn assert_shows(client: &crate::daemon::Client, pages: &Pages<'_>) {
    for (page, expected) in (0..).zip(pages) {
        let mut bytes = vec![0; PAGE as usize];
        let loaded = client.memory().load(page * PAGE, &mut bytes);
        match expected {
            Some((file, at)) => {
                loaded.unwrap();
                assert!(bytes == file[(at * PAGE) as usize..][..PAGE as usize], "page {page}");
            }
            None => assert_eq!(loaded, Err(RangeError::NotMapped { offset: page * PAGE })),
        }
    }
}

#[rstest]
fn an_overlap_replaces_what_is_in_its_way_and_leaves_the_rest(#[values(false, true)] packed: bool) {
    let (daemon, mut client) = start(1, packed);
    let (a, b) = (pattern(8 * PAGE, 1), pattern(8 * PAGE, 2));
    fs::write(daemon.share().join("a"), &a).unwrap();
    fs::write(daemon.share().join("b"), &b).unwrap();
    let (node_a, node_b) = (client.node("a"), client.node("b"));
    let (a, b) = (|page| Some((&a[..], page)), |page| Some((&b[..], page)));

    client.map(node_a, 0, 0, 8 * PAGE, true).unwrap();
    client.map(node_b, 6 * PAGE, 3 * PAGE, 2 * PAGE, true).unwrap();
    assert_shows(&client, &[a(0), a(1), a(2), b(6), b(7), a(5), a(6), a(7), None]);
    // Over the end of one, a whole one, and the beginning of a third.
    client.map(node_b, 0, 2 * PAGE, 4 * PAGE, true).unwrap();
    assert_shows(&client, &[a(0), a(1), b(0), b(1), b(2), b(3), a(6), a(7), None]);
    // Parts are taken out of the middle, and over the border of two.
    client.unmap(&[(4 * PAGE, PAGE), (7 * PAGE, 3 * PAGE)]).unwrap();
    assert_shows(&client, &[a(0), a(1), b(0), b(1), None, b(3), a(6), None]);
    // Into the hole, and over both of its sides.
    client.map(node_a, 0, 3 * PAGE, 3 * PAGE, true).unwrap();
    assert_shows(&client, &[a(0), a(1), b(0), a(0), a(1), a(2), a(6), None]);
    client.unmap(&[(0, PIECE)]).unwrap();
    assert_shows(&client, &[None; 8]);
    assert_eq!(client.window().mapped(), client.window().unmapped());
}

#[rstest]
fn a_mapping_that_is_there_is_not_asked_for_again(#[values(false, true)] packed: bool) {
    let (daemon, mut client) = start(2, packed);
    fs::write(daemon.share().join("file"), pattern(PIECE, 1)).unwrap();
    let node = client.node("file");
    client.map(node, 0, PIECE, PIECE, false).unwrap();
    // Mapped for writing at the first touch, so that a store later on changes nothing.
    client.memory().store(PIECE, b"store").unwrap();
    client.map(node, 0, PIECE, PIECE, true).unwrap();
    client.map(node, 3 * PAGE, PIECE + 3 * PAGE, PAGE, true).unwrap();
    assert_eq!(client.window().asked(), 1);
    // Other pages of the same file are another mapping.
    client.map(node, 0, PIECE + PAGE, PAGE, true).unwrap();
    assert!(client.window().asked() > 1);
}

#[rstest]
fn a_program_is_mapped_for_writing_once_the_guest_writes(#[values(false, true)] packed: bool) {
    let (daemon, mut client) = start(1, packed);
    let path = daemon.share().join("program");
    fs::write(&path, pattern(PIECE, 1)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let node = client.node("program");
    client.map(node, 0, 0, PIECE, false).unwrap();
    let refused = client.memory().store(0, b"store");
    assert_eq!(refused, Err(RangeError::ReadOnly { offset: 0 }));
    client.map(node, 0, 0, PIECE, true).unwrap();
    client.memory().store(0, b"store").unwrap();
    assert_eq!(&fs::read(&path).unwrap()[..5], b"store");
}

#[rstest]
fn one_request_takes_out_many_ranges_or_none(#[values(false, true)] packed: bool) {
    let (daemon, mut client) = start(1, packed);
    fs::write(daemon.share().join("file"), pattern(PIECE, 1)).unwrap();
    let node = client.node("file");
    let count = 200;
    for page in 0..count {
        client.map(node, page * PAGE, 2 * page * PAGE, PAGE, true).unwrap();
    }
    let mut ranges: Vec<_> = (0..count).map(|page| (2 * page * PAGE, PAGE)).collect();
    for wrong in [
        (PIECE, PAGE),
        (0, PIECE + PAGE),
        (1, PAGE),
        (0, 0),
        (u64::MAX - 4095, PAGE),
    ] {
        ranges.push(wrong);
        assert_eq!(client.unmap(&ranges), Err(libc::EINVAL), "{wrong:?}");
        ranges.pop();
    }
    assert_eq!((client.memory().count() as u64, client.window().unmapped()), (count, 0));
    client.unmap(&ranges).unwrap();
    assert_eq!((client.memory().count(), client.window().unmapped()), (0, count));
    // What is empty already may be emptied, which Linux does not rely on.
    client.unmap(&ranges).unwrap();
    assert_eq!(client.window().unmapped(), count);
    client.unmap(&[]).unwrap();
}

#[rstest]
fn no_descriptor_is_left_behind(#[values(false, true)] packed: bool) {
    let (daemon, mut client) = start(2, packed);
    let share = daemon.share();
    let nodes: Vec<_> = (0..5)
        .map(|number| {
            let name = format!("file-{number}");
            fs::write(share.join(&name), pattern(PIECE, number)).unwrap();
            client.node(&name)
        })
        .collect();
    let before = descriptors(&share);
    for round in 0..50 {
        for (slot, node) in (0..).zip(&nodes) {
            let (offset, write) = (slot * 8 * PAGE, (round + slot) % 2 == 0);
            client.map(*node, round * PAGE, offset, 12 * PAGE, write).unwrap();
            client.map(*node, 0, PIECE + slot * PAGE, PAGE, write).unwrap();
        }
        assert!(
            descriptors(&share) <= before + nodes.len(),
            "all mappings of a node share a descriptor"
        );
        if round % 7 == 0 {
            client.unmap(&[(0, 2 * PIECE)]).unwrap();
            assert_eq!(descriptors(&share), before, "round {round}");
        }
    }
    client.unmap(&[(0, 2 * PIECE)]).unwrap();
    assert_eq!(descriptors(&share), before);
    assert_eq!(client.window().mapped(), client.window().unmapped());
}
