//! Machine code as the assembler made it.

use proptest::prelude::*;
use why::code::{Arm64, Code, Decoder, Does, Fate, Piece, Site, Way, X86_64};

const EPERM: i32 = 1;
const ENOMEM: i32 = 12;
const EINVAL: i32 = 22;
const AT: u64 = 0xffff_ffff_8100_0000;

fn does(decoder: &dyn Decoder, bytes: &[u8]) -> Does {
    let instruction = decoder.decode(bytes, AT).unwrap();
    assert!(usize::from(instruction.length) <= bytes.len());
    instruction.does
}

fn sites(decoder: &dyn Decoder, bytes: &[u8], errno: i32) -> Vec<Site> {
    let piece = Piece { address: AT, bytes };
    Code::decode(decoder, &[piece], &[]).sites(errno)
}

fn taken(offset: u64) -> Way {
    Way {
        address: AT + offset,
        taken: true,
    }
}

fn not_taken(offset: u64) -> Way {
    Way {
        address: AT + offset,
        taken: false,
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn x86_64_masks_leave_an_errno_or_nothing() {
    let masks = |bytes: &[u8], errno: i32| {
        let piece = Piece { address: AT, bytes };
        Code::decode(&X86_64, &[piece], &[]).masks(errno)
    };
    assert!(masks(&[0x19, 0xc0], EPERM), "sbb %eax,%eax");
    assert!(masks(&[0x48, 0x19, 0xc0], EPERM), "sbb %rax,%rax");
    assert!(!masks(&[0x19, 0xd0], EPERM), "sbb %edx,%eax");
    assert!(masks(&[0x83, 0xe0, 0xf4], ENOMEM), "and $-12,%eax");
    assert!(masks(&[0x48, 0x83, 0xe0, 0xf4], ENOMEM), "and $-12,%rax");
    assert!(masks(&[0x25, 0xf4, 0xff, 0xff, 0xff], ENOMEM), "and $0xfffffff4,%eax");
    assert!(!masks(&[0x83, 0xe0, 0x0c], ENOMEM), "and $12,%eax");
    assert!(!masks(&[0x21, 0xd0], ENOMEM), "and %edx,%eax");
}

#[test]
fn x86_64_loads_are_told_from_other_uses_of_the_number() {
    let minus_12: [&[u8]; 7] = [
        &[0x48, 0xc7, 0xc0, 0xf4, 0xff, 0xff, 0xff],       // mov $-12,%rax
        &[0xb8, 0xf4, 0xff, 0xff, 0xff],                   // mov $0xfffffff4,%eax
        &[0x41, 0xbd, 0xf4, 0xff, 0xff, 0xff],             // mov $0xfffffff4,%r13d
        &[0xc7, 0x44, 0x24, 0x04, 0xf4, 0xff, 0xff, 0xff], // movl $0xfffffff4,4(%rsp)
        &[0x48, 0xc7, 0x45, 0xf8, 0xf4, 0xff, 0xff, 0xff], // movq $-12,-8(%rbp)
        &[0x48, 0xb8, 0xf4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], // movabs $-12,%rax
        &[0xc7, 0x47, 0x04, 0xf4, 0xff, 0xff, 0xff],       // movl $0xfffffff4,4(%rdi)
    ];
    for bytes in minus_12 {
        assert_eq!(does(&X86_64, bytes), Does::Loads(-12), "{bytes:x?}");
    }
    let minus_1: [&[u8]; 2] = [&[0x83, 0xc8, 0xff], &[0x49, 0x83, 0xcc, 0xff]]; // or $-1,%eax and %r12
    for bytes in minus_1 {
        assert_eq!(does(&X86_64, bytes), Does::Loads(-1), "{bytes:x?}");
    }
    let others: [&[u8]; 4] = [
        &[0x83, 0x4f, 0x04, 0xff], // orl $-1,4(%rdi)
        &[0x83, 0xc8, 0xfe],       // or $-2,%eax
        &[0x83, 0xf8, 0xf4],       // cmp $-12,%eax
        &[0x66, 0xb8, 0xf4, 0xff], // mov $0xfff4,%ax
    ];
    for bytes in others {
        assert_eq!(does(&X86_64, bytes), Does::Goes, "{bytes:x?}");
    }
    assert_eq!(does(&X86_64, &[0xb8, 0x0c, 0, 0, 0]), Does::Loads(12));
    // movabs $0xfffffff4,%rax: positive in its 64 bits.
    let positive = [0x48, 0xb8, 0xf4, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    assert_eq!(does(&X86_64, &positive), Does::Loads(0xffff_fff4));
}

#[test]
fn x86_64_jumps_know_their_targets_and_calls_go_on() {
    let cases: [(&[u8], Does); 11] = [
        (&[0xeb, 0x0e], Does::Jumps(AT + 16)),
        (&[0xe9, 0xf6, 0xff, 0xff, 0xff], Does::Jumps(AT - 5)),
        (&[0x74, 0x09], Does::Branches(AT + 11)),
        (&[0x0f, 0x85, 0x00, 0x01, 0x00, 0x00], Does::Branches(AT + 0x106)),
        (&[0xe3, 0xfe], Does::Branches(AT)), // jrcxz
        (&[0xe8, 0x00, 0x00, 0x00, 0x00], Does::Calls(AT + 5)),
        (&[0xff, 0xd0], Does::Goes), // call *%rax
        (&[0xc3], Does::Ends),
        (&[0xff, 0xe0], Does::Ends),               // jmp *%rax
        (&[0x3e, 0xff, 0xe0], Does::JumpsByTable), // notrack jmp *%rax
        (&[0xff, 0x24, 0xc5, 0x00, 0x10, 0x00, 0x00], Does::JumpsByTable),
    ];
    for (bytes, expected) in cases {
        assert_eq!(does(&X86_64, bytes), expected, "{bytes:x?}");
    }
}

#[test]
fn arm64_loads_are_told_from_other_uses_of_the_number() {
    let cases: [(&[u32], Does); 8] = [
        (&[0x1280_0160], Does::Loads(-12)), // mov w0, #-12
        (&[0x9280_02a0], Does::Loads(-22)), // mov x0, #-22
        (&[0x1280_0013], Does::Loads(-1)),  // mov w19, #-1
        (&[0x5280_02c0], Does::Loads(22)),  // mov w0, #22
        // The same with movk w0, #1, lsl #16 behind; then with that of another register.
        (&[0x1280_0160, 0x72a0_0020], Does::Loads(0x1_fff4)),
        (&[0x1280_0160, 0x72a0_0021], Does::Loads(-12)),
        (&[0xd29f_fe80, 0xf2bf_ffe0, 0xf2df_ffe0, 0xf2ff_ffe0], Does::Loads(-12)),
        (&[0x5100_3000], Does::Goes), // sub w0, w0, #12
    ];
    for (code, expected) in cases {
        assert_eq!(does(&Arm64, &words(code)), expected, "{code:x?}");
    }
}

#[test]
fn arm64_jumps_know_their_targets_and_calls_go_on() {
    let cases: [(u32, Does); 17] = [
        (0x1400_0004, Does::Jumps(AT + 16)),
        (0x17ff_ffff, Does::Jumps(AT - 4)),
        (0x9400_0004, Does::Calls(AT + 16)),   // bl
        (0x54ff_ffc0, Does::Branches(AT - 8)), // b.eq
        (0x5400_004e, Does::Jumps(AT + 8)),    // b.al
        (0x3400_0060, Does::Branches(AT + 12)),
        (0xb5ff_ffa3, Does::Branches(AT - 12)),
        (0x3618_00a0, Does::Branches(AT + 20)), // tbz w0, #3
        (0xb747_ff60, Does::Branches(AT - 20)), // tbnz x0, #40
        (0xd65f_03c0, Does::Ends),              // ret
        (0xd65f_0bff, Does::Ends),              // retaa
        (0xd61f_0060, Does::Ends),              // br x3
        (0xd71f_0822, Does::Ends),              // braa
        (0xd69f_03e0, Does::Ends),              // eret
        (0xd63f_0060, Does::Goes),              // blr x3
        (0xd73f_0822, Does::Goes),              // blraa
        (0xd421_0000, Does::Goes),              // brk #0x800, a warning
    ];
    for (word, expected) in cases {
        assert_eq!(does(&Arm64, &word.to_le_bytes()), expected, "{word:#010x}");
    }
}

#[test]
fn a_merged_return_has_a_way_for_each_test() {
    let code = [
        0xf3, 0x0f, 0x1e, 0xfa, // endbr64
        0x48, 0x85, 0xff, // test %rdi,%rdi
        0x74, 0x09, // 7: je 12
        0x48, 0x83, 0xfe, 0x07, // cmp $7,%rsi
        0x77, 0x03, // d: ja 12
        0x31, 0xc0, 0xc3, // xor %eax,%eax; ret
        0xb8, 0xea, 0xff, 0xff, 0xff, // 12: mov $-22,%eax
        0xc3, // ret
    ];
    let expected = Site {
        address: AT + 0x12,
        ways: vec![taken(0x7), taken(0xd)],
        untested: false,
        fate: Fate::Returned,
        more: false,
    };
    assert_eq!(sites(&X86_64, &code, EINVAL), [expected]);
    assert_eq!(sites(&X86_64, &code, ENOMEM), []);
}

#[test]
fn arm64_functions_are_walked_likewise() {
    let code = words(&[
        0xb400_0080, // 0: cbz x0, 10
        0xf100_1c3f, // cmp x1, #7
        0x5400_0048, // 8: b.hi 10
        0xd65f_03c0, // ret
        0x1280_02a0, // 10: mov w0, #-22
        0xd65f_03c0, // ret
    ]);
    let found = sites(&Arm64, &code, EINVAL);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].address, found[0].untested), (AT + 0x10, false));
    assert_eq!(found[0].ways, [taken(0), taken(8)]);
}

#[test]
fn what_is_run_in_any_case_is_walked_through_to_the_test_before_it() {
    let code = [
        0x74, 0x08, // 0: je a
        0x75, 0x0b, // 2: jne f
        0xb8, 0xff, 0xff, 0xff, 0xff, // 4: mov $-1,%eax
        0xc3, // 9: ret
        0xe8, 0x00, 0x00, 0x00, 0x00, // a: call
        0xeb, 0xf3, // f: jmp 4
    ];
    let found = sites(&X86_64, &code, EPERM);
    // Into 4 falls the second test, and f jumps there, where the same test jumps and a falls into from the first.
    assert_eq!(found[0].ways, [not_taken(0x2), taken(0x2), taken(0x0)]);
    assert!(!found[0].untested && !found[0].more);
}

#[test]
fn an_errno_loaded_before_any_test_is_told() {
    let code = [
        0xb8, 0xf4, 0xff, 0xff, 0xff, // mov $-12,%eax
        0x74, 0x02, // je 9
        0x31, 0xc0, // xor %eax,%eax
        0xc3, // 9: ret
    ];
    let found = sites(&X86_64, &code, ENOMEM);
    assert_eq!((found[0].ways.as_slice(), found[0].untested), ([].as_slice(), true));
}

#[test]
fn a_function_of_two_pieces_is_one() {
    let hot = [0x0f, 0x84, 0xfa, 0x0f, 0x00, 0x00, 0xc3]; // je 1000; ret
    let cold = [0xb8, 0xf4, 0xff, 0xff, 0xff, 0xe9, 0xfc, 0xef, 0xff, 0xff]; // mov $-12,%eax; jmp 6
    let pieces = [
        Piece {
            address: AT,
            bytes: &hot,
        },
        Piece {
            address: AT + 0x1000,
            bytes: &cold,
        },
    ];
    let code = Code::decode(&X86_64, &pieces, &[]);
    let found = code.sites(ENOMEM);
    assert!(code.whole());
    assert_eq!(
        (found[0].address, found[0].ways.as_slice()),
        (AT + 0x1000, [taken(0)].as_slice())
    );
}

#[test]
fn what_cannot_be_followed_is_told() {
    // A jump by a table may lead anywhere, and so may what an instruction cut off would have done.
    let table = [0x3e, 0xff, 0xe0, 0xb8, 0xea, 0xff, 0xff, 0xff, 0xc3];
    assert!(sites(&X86_64, &table, EINVAL)[0].more);
    let cut = [0x74, 0x00, 0xb8, 0xea, 0xff, 0xff, 0xff, 0x48, 0xc7];
    assert!(sites(&X86_64, &cut, EINVAL)[0].more);
    let arm64 = words(&[0x1280_02a0, 0xd65f_03c0]);
    assert!(sites(&Arm64, &arm64[..7], EINVAL)[0].more);
}

#[test]
fn a_loop_of_jumps_ends() {
    let code = [
        0xeb, 0x05, // 0: jmp 7
        0xb8, 0xea, 0xff, 0xff, 0xff, // 2: mov $-22,%eax
        0x75, 0xf9, // 7: jne 2
        0xc3, // ret
    ];
    let found = sites(&X86_64, &code, EINVAL);
    assert_eq!(
        (found[0].ways.as_slice(), found[0].untested),
        ([taken(7)].as_slice(), false)
    );
    // Without an end it returns nothing.
    let code = [0xeb, 0x05, 0xb8, 0xea, 0xff, 0xff, 0xff, 0xeb, 0xf9];
    assert_eq!(sites(&X86_64, &code, EINVAL), []);
}

#[test]
fn ways_are_bounded() {
    let mut code: Vec<u8> = Vec::new();
    let jumps = 200_u32;
    for left in (0..jumps).rev() {
        code.extend([0x0f, 0x84]);
        code.extend((left * 6 + 1).to_le_bytes());
    }
    code.extend([0xc3, 0xb8, 0xea, 0xff, 0xff, 0xff, 0xc3]);
    let found = sites(&X86_64, &code, EINVAL);
    assert!(found[0].more && found[0].ways.len() < 200, "{}", found[0].ways.len());
}

#[test]
fn what_is_compared_is_told_as_assemblers_write_it_and_as_probes_get_it() {
    let told = |bytes: &[u8]| {
        let compared = X86_64.compared(bytes, AT).unwrap();
        let fetches: Vec<_> = compared.fetches().map(str::to_owned).collect();
        (compared.tell(&[21, 22]), fetches.join(" "))
    };
    let said = |text: &str, fetches: &str| (text.to_owned(), fetches.to_owned());
    // cmp $0x14,%eax
    assert_eq!(
        told(&[0x83, 0xf8, 0x14]),
        said("%eax (21) was compared with 20", "%ax:u32")
    );
    // cmp -0x8(%rbp),%r10w
    assert_eq!(
        told(&[0x66, 0x44, 0x3b, 0x55, 0xf8]),
        said("%r10w (21) was compared with -0x8(%rbp) (22)", "%r10:u16 -8(%bp):u16")
    );
    // testb $0x2,(%rdi)
    assert_eq!(
        told(&[0xf6, 0x07, 0x02]),
        said("(%rdi) (21) was looked at for the bits of 2", "+0(%di):u8")
    );
    // cmp %rax,0x10(%rip)
    assert_eq!(
        told(&[0x48, 0x39, 0x05, 0x10, 0x00, 0x00, 0x00]),
        said(
            "0xffffffff81000017 (21) was compared with %rax (22)",
            "@0xffffffff81000017:u64 %ax:u64"
        )
    );
    // cmp $0x0,%gs:0x10(%rax); test %ah,%ah; cmp %rcx,(%rax,%rdx,8)
    assert_eq!(
        told(&[0x65, 0x83, 0x78, 0x10, 0x00]),
        said("%gs:0x10(%rax) was compared with 0", "")
    );
    assert_eq!(told(&[0x84, 0xe4]), said("%ah was compared with 0", ""));
    assert_eq!(
        told(&[0x48, 0x39, 0x0c, 0xd0]),
        said("(%rax,%rdx,8) was compared with %rcx (21)", "%cx:u64")
    );
    // cmp $-515,%eax; cmp $-1,%ax; cmpq $0,-0x7d5f0000(,%rax,8); test %r8b,%r8b
    assert_eq!(
        told(&[0x3d, 0xfd, 0xfd, 0xff, 0xff]),
        said("%eax (21) was compared with -515", "%ax:u32")
    );
    assert_eq!(
        told(&[0x66, 0x83, 0xf8, 0xff]),
        said("%ax (21) was compared with 65535", "%ax:u16")
    );
    assert_eq!(
        told(&[0x48, 0x83, 0x3c, 0xc5, 0x00, 0x00, 0xa1, 0x82, 0x00]),
        said("0xffffffff82a10000(,%rax,8) was compared with 0", "")
    );
    assert_eq!(
        told(&[0x45, 0x84, 0xc0]),
        said("%r8b (21) was compared with 0", "%r8:u8 %r8:u8")
    );
    assert_eq!(X86_64.compared(&[0x29, 0xc0], AT), None, "sub changes what it compares");
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), near_end: bool) {
        let address = if near_end { u64::MAX - 100 } else { AT };
        for decoder in [&X86_64 as &dyn Decoder, &Arm64] {
            let code = Code::decode(decoder, &[Piece { address, bytes: &bytes }], &[]);
            for errno in [EPERM, EINVAL, i32::MIN, 0] {
                for site in code.sites(errno) {
                    prop_assert!(site.address.wrapping_sub(address) < 400);
                }
            }
        }
    }

    /// Small jumps among few instructions make every kind of knot.
    #[test]
    fn any_knot_of_jumps_is_walked_to_an_end(jumps in prop::collection::vec((any::<bool>(), -20_i8..20), 0..40)) {
        let mut bytes: Vec<u8> = jumps.iter().flat_map(|(always, to)| [if *always { 0xeb } else { 0x74 }, to.cast_unsigned()]).collect();
        bytes.extend([0xb8, 0xea, 0xff, 0xff, 0xff, 0xc3]);
        prop_assert_eq!(sites(&X86_64, &bytes, EINVAL).len(), 1);
    }
}
