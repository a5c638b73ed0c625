//! Random requests against an array of sectors.

use devices::blk::Engine;
use proptest::prelude::*;

use crate::driver::{Daemon, Disk, FLUSH, IN, OK, OUT, SECTOR, WRITE_ZEROES, header, options, segment};

/// Sectors of the disk.
const SECTORS: usize = 64;

#[derive(Clone, Debug)]
enum Step {
    Read { sector: usize, sectors: usize },
    Write { sector: usize, sectors: usize, byte: u8 },
    Zero { sector: usize, sectors: usize, unmap: bool },
    Flush,
    Writeback(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let range = (0..SECTORS, 0..=SECTORS).prop_map(|(sector, sectors)| (sector, sectors.min(SECTORS - sector)));
    prop_oneof![
        4 => range.clone().prop_map(|(sector, sectors)| Step::Read { sector, sectors }),
        4 => (range.clone(), any::<u8>()).prop_map(|((sector, sectors), byte)| Step::Write { sector, sectors, byte }),
        2 => (range, any::<bool>()).prop_map(|((sector, sectors), unmap)| Step::Zero { sector, sectors, unmap }),
        1 => Just(Step::Flush),
        1 => any::<bool>().prop_map(Step::Writeback),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// VIRTIO 1.1 2.6.4.1: however requests are cut into descriptors.
    #[test]
    fn the_disk_is_an_array_of_sectors(
        steps in prop::collection::vec(step(), 1..40),
        packed: bool,
        threads: bool,
        direct: bool,
        indirect: bool,
        // The longest request fits in a ring of 1024.
        cut in prop_oneof![35..100_u32, 500..5000_u32, Just(1 << 16)],
    ) {
        let mut model = vec![0x5a; SECTORS * SECTOR];
        let disk = Disk::new(&model);
        let mut served = disk.options(if threads { Engine::Threads } else { Engine::Auto });
        served.image.direct = direct;
        let daemon = Daemon::new(served);
        let mut client = daemon.connect(&::driver::Options {
            descriptor_bytes: cut,
            indirect,
            ..options(packed)
        });
        for step in &steps {
            match *step {
                Step::Read { sector, sectors } => {
                    let space = (sectors * SECTOR) as u32 + 1;
                    let (written, mut bytes) = client.0.queues[0].call(&header(IN, sector as u64), space).unwrap();
                    prop_assert_eq!(written, space);
                    prop_assert_eq!(bytes.pop(), Some(OK));
                    prop_assert!(bytes == model[sector * SECTOR..][..sectors * SECTOR], "{:?}", step);
                }
                Step::Write { sector, sectors, byte } => {
                    let data = vec![byte; sectors * SECTOR];
                    let request = [header(OUT, sector as u64), data.clone()].concat();
                    prop_assert_eq!(client.0.queues[0].call(&request, 1).unwrap(), (1, vec![OK]));
                    model[sector * SECTOR..][..data.len()].copy_from_slice(&data);
                }
                Step::Zero { sector, sectors, unmap } => {
                    let range = segment(sector as u64, sectors as u32, unmap.into());
                    let request = [header(WRITE_ZEROES, 0), range].concat();
                    prop_assert_eq!(client.0.queues[0].call(&request, 1).unwrap(), (1, vec![OK]));
                    model[sector * SECTOR..][..sectors * SECTOR].fill(0);
                }
                Step::Flush => {
                    prop_assert_eq!(client.0.queues[0].call(&header(FLUSH, 0), 1).unwrap(), (1, vec![OK]));
                }
                Step::Writeback(on) => client.set_writeback(on),
            }
        }
        prop_assert!(disk.bytes() == model);
    }
}
