//! The path of an errno after it is loaded. Machine code as the assembler made it; each function loads -ENOMEM first.

use why::code::{Arm64, Code, Fate, Piece, Way, X86_64};

const ENOMEM: i32 = 12;
const AT: u64 = 0xffff_ffff_8100_0000;

fn fate(bytes: &[u8]) -> Fate {
    let piece = Piece { address: AT, bytes };
    Code::decode(&X86_64, &[piece], &[]).sites(ENOMEM)[0].fate.clone()
}

fn tested(offset: u64, taken: bool) -> Fate {
    Fate::Tested(vec![Way {
        address: AT + offset,
        taken,
    }])
}

#[test]
fn a_register_that_calls_keep_is_followed_through_them_and_through_tests_of_itself() {
    let code = [
        0xbb, 0xf4, 0xff, 0xff, 0xff, // 0: mov $-12,%ebx
        0xe8, 0xf6, 0xff, 0xff, 0xff, // call 0
        0x85, 0xc0, // test %eax,%eax
        0x74, 0x02, // c: je 10
        0x31, 0xdb, // xor %ebx,%ebx
        0x85, 0xdb, // 10: test %ebx,%ebx
        0x79, 0x04, // jns 18
        0x89, 0xd8, // mov %ebx,%eax
        0x5b, 0xc3, // pop %rbx; ret
        0xb8, 0x00, 0x00, 0x00, 0x00, 0xc3, // 18: mov $0,%eax; ret
    ];
    assert_eq!(fate(&code), tested(0xc, true));
}

#[test]
fn a_register_that_calls_do_not_keep_is_lost_in_them() {
    let code = [
        0xb8, 0xf4, 0xff, 0xff, 0xff, // 0: mov $-12,%eax
        0x48, 0x85, 0xff, // test %rdi,%rdi
        0x74, 0x05, // 8: je f
        0xe8, 0xf1, 0xff, 0xff, 0xff, // call 0
        0xc3, // f: ret
    ];
    assert_eq!(fate(&code), tested(0x8, true));
}

#[test]
fn a_conditional_move_decides() {
    let chosen = [
        0xba, 0xf4, 0xff, 0xff, 0xff, // mov $-12,%edx
        0x31, 0xc0, // xor %eax,%eax
        0x48, 0x85, 0xff, // test %rdi,%rdi
        0x0f, 0x44, 0xc2, 0xc3, // a: cmove %edx,%eax; ret
    ];
    assert_eq!(fate(&chosen), tested(0xa, true));
    let kept = [
        0xb8, 0xf4, 0xff, 0xff, 0xff, // mov $-12,%eax
        0x48, 0x85, 0xff, // test %rdi,%rdi
        0x0f, 0x44, 0xc2, 0xc3, // 8: cmove %edx,%eax; ret
    ];
    assert_eq!(fate(&kept), tested(0x8, false));
}

#[test]
fn a_place_on_the_stack_is_followed() {
    let code = [
        0xb8, 0xf4, 0xff, 0xff, 0xff, // 0: mov $-12,%eax
        0x89, 0x44, 0x24, 0x0c, // mov %eax,0xc(%rsp)
        0xe8, 0xf2, 0xff, 0xff, 0xff, // call 0
        0x48, 0x85, 0xff, // test %rdi,%rdi
        0x75, 0x08, // 11: jne 1b
        0xc7, 0x44, 0x24, 0x0c, 0x00, 0x00, 0x00, 0x00, // movl $0,0xc(%rsp)
        0x8b, 0x44, 0x24, 0x0c, // 1b: mov 0xc(%rsp),%eax
        0x48, 0x83, 0xc4, 0x18, 0xc3, // add $0x18,%rsp; ret
    ];
    assert_eq!(fate(&code), tested(0x11, true));
}

#[test]
fn the_test_for_an_errno_as_an_address_is_known_to_hold() {
    let code = [
        0x48, 0xc7, 0xc0, 0xf4, 0xff, 0xff, 0xff, // mov $-12,%rax
        0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, // cmp $-4096,%rax
        0x77, 0x02, // ja 11
        0x31, 0xc0, // xor %eax,%eax
        0xc3, // 11: ret
    ];
    assert_eq!(fate(&code), Fate::Returned);
}

#[test]
fn the_check_of_the_stack_and_a_common_return_do_not_matter() {
    let code = [
        0xb8, 0xf4, 0xff, 0xff, 0xff, // 0: mov $-12,%eax
        0x48, 0x8b, 0x54, 0x24, 0x08, // mov 8(%rsp),%rdx
        0x65, 0x48, 0x2b, 0x14, 0x25, 0x28, 0x00, 0x00, 0x00, // sub %gs:0x28,%rdx
        0x75, 0x0a, // jne 1f
        0x48, 0x83, 0xc4, 0x10, 0x5b, // add $0x10,%rsp; pop %rbx
        0xe9, 0xfb, 0x0f, 0x00, 0x00, // jmp 101a
        0xe8, 0xdc, 0xff, 0xff, 0xff, // 1f: call 0
    ];
    assert_eq!(fate(&code), Fate::Returned);
}

#[test]
fn a_loop_on_the_way_is_walked_once() {
    let code = [
        0xbb, 0xf4, 0xff, 0xff, 0xff, // 0: mov $-12,%ebx
        0xe8, 0xf6, 0xff, 0xff, 0xff, // 5: call 0
        0x85, 0xc0, // test %eax,%eax
        0x75, 0xf7, // jne 5
        0x89, 0xd8, 0xc3, // mov %ebx,%eax; ret
    ];
    assert_eq!(fate(&code), Fate::Returned);
}

#[test]
fn what_goes_into_memory_or_by_a_table_is_not_known() {
    let stored = [0xc7, 0x47, 0x04, 0xf4, 0xff, 0xff, 0xff, 0xc3]; // movl $-12,4(%rdi); ret
    let copied = [0xb9, 0xf4, 0xff, 0xff, 0xff, 0x89, 0x4f, 0x04, 0xc3]; // mov $-12,%ecx; mov %ecx,4(%rdi); ret
    let table = [0xb8, 0xf4, 0xff, 0xff, 0xff, 0x3e, 0xff, 0xe0]; // mov $-12,%eax; notrack jmp *%rax
    for code in [&stored[..], &copied, &table] {
        assert_eq!(fate(code), Fate::Unknown, "{code:x?}");
    }
}

#[test]
fn what_is_never_returned_is_no_site() {
    let argument = [0xbf, 0xf4, 0xff, 0xff, 0xff, 0xe8, 0xf6, 0xff, 0xff, 0xff, 0xc3]; // mov $-12,%edi; call 0; ret
    let piece = Piece {
        address: AT,
        bytes: &argument,
    };
    assert_eq!(Code::decode(&X86_64, &[piece], &[]).sites(ENOMEM), []);
}

#[test]
fn behind_a_call_that_never_returns_is_other_code() {
    let code = [
        0xb8, 0xf4, 0xff, 0xff, 0xff, // 0: mov $-12,%eax
        0x74, 0x01, // je 8
        0xc3, // ret
        0xe8, 0xf3, 0x0f, 0x00, 0x00, // 8: call 1000
        0xc3, // ret
    ];
    let piece = Piece {
        address: AT,
        bytes: &code,
    };
    assert_eq!(fate(&code), tested(0x5, false));
    let endless = Code::decode(&X86_64, &[piece], &[AT + 0x1000]);
    assert_eq!(endless.sites(ENOMEM)[0].fate, Fate::Returned);
}

#[test]
fn arm64_values_are_not_followed() {
    let bytes = [0x60, 0x01, 0x80, 0x12, 0xc0, 0x03, 0x5f, 0xd6]; // mov w0, #-12; ret
    let piece = Piece {
        address: AT,
        bytes: &bytes,
    };
    assert_eq!(Code::decode(&Arm64, &[piece], &[]).sites(ENOMEM)[0].fate, Fate::Unknown);
}
