//! BTF made by hand, broken BTF, and this kernel's own if it has one.

use proptest::prelude::*;
use why::btf::{BtfError, Functions, Returns};

/// Types: 1 int, 2 long, 3 _Bool, 4 pointer to void, 5 typedef of 1, 6 typedef of itself, 7.. prototypes and functions.
fn btf() -> Vec<u8> {
    let mut strings = vec![0];
    let mut name = |text: &str| {
        let at = u32::try_from(strings.len()).unwrap();
        strings.extend_from_slice(text.as_bytes());
        strings.push(0);
        at
    };
    let mut words = vec![
        name("int"),
        1 << 24,
        4,
        1 << 24 | 32,
        name("long"),
        1 << 24,
        8,
        1 << 24 | 64,
    ];
    words.extend([name("_Bool"), 1 << 24, 1, 4 << 24 | 8, 0, 2 << 24, 0]);
    words.extend([name("pid_t"), 8 << 24, 1, name("loop"), 8 << 24, 6]);
    let functions = [
        ("a_int", 1),
        ("a_long", 2),
        ("a_bool", 3),
        ("a_pointer", 4),
        ("a_typedef", 5),
        ("a_loop", 6),
    ];
    let more = [("a_void", 0), ("twice", 0), ("twice", 1), ("beyond", 999)];
    for (number, (function, returns)) in functions.into_iter().chain(more).enumerate() {
        let prototype = 7 + 2 * u32::try_from(number).unwrap();
        words.extend([0, 13 << 24, returns, name(function), 12 << 24, prototype]);
    }
    let (types, strings_length) = (4 * words.len() as u32, strings.len() as u32);
    let header = [0x0001_eb9f, 24, 0, types, types, strings_length];
    let mut bytes: Vec<u8> = header
        .iter()
        .chain(&words)
        .flat_map(|word| word.to_le_bytes())
        .collect();
    bytes.extend(strings);
    bytes
}

#[test]
fn each_kind_of_return_is_told() {
    let functions = Functions::parse(&btf(), &[]).unwrap();
    let returns = |name| functions.returns(name);
    assert_eq!(returns("a_int"), Some(Returns::Int));
    assert_eq!(returns("a_int.isra.0"), Some(Returns::Int));
    assert_eq!(returns("a_long"), Some(Returns::Long));
    assert_eq!(returns("a_bool"), Some(Returns::Bool));
    assert_eq!(returns("a_pointer"), Some(Returns::Pointer));
    assert_eq!(returns("a_typedef"), Some(Returns::Int));
    assert_eq!(returns("a_void"), Some(Returns::Nothing));
    assert_eq!(returns("twice"), Some(Returns::Ambiguous));
    assert_eq!(returns("a_loop"), Some(Returns::Other), "a typedef of itself ends");
    assert_eq!(returns("beyond"), Some(Returns::Other));
    assert_eq!(returns("unknown"), None);
}

/// One function that returns the kernel's type 1, an int; the types of [`btf`] end with 26.
fn module() -> Vec<u8> {
    let strings = b"\0a_module\0";
    let kernel = btf();
    let kernel_strings = u32::from_le_bytes(kernel[20..24].try_into().unwrap());
    let words = [0, 13 << 24, 1, kernel_strings + 1, 12 << 24, 27];
    let header = [0x0001_eb9f, 24, 0, 24, 24, strings.len() as u32];
    let words = header.iter().chain(&words).flat_map(|word| word.to_le_bytes());
    words.chain(*strings).collect()
}

#[test]
fn types_and_strings_of_a_module_follow_those_of_the_kernel() {
    let functions = Functions::parse(&btf(), &[module(), b"junk".to_vec(), module()]).unwrap();
    assert_eq!(functions.returns("a_module"), Some(Returns::Int));
    assert_eq!(functions.returns("a_bool"), Some(Returns::Bool));
}

#[test]
fn only_what_can_hold_an_errno_gives_one() {
    assert_eq!(
        Returns::Int.errno(0xffff_fff3),
        Some(13),
        "an int is zero-extended in the register"
    );
    assert_eq!(Returns::Int.errno(0x1234_5678_ffff_fff3), Some(13));
    assert_eq!(Returns::Long.errno(0xffff_fff3), None);
    assert_eq!(Returns::Pointer.errno((-2i64).cast_unsigned()), Some(2));
    assert_eq!(Returns::Pointer.errno(0), None, "NULL by itself is no error");
    assert_eq!(Returns::Int.errno((-4096i64).cast_unsigned()), None);
    for none in [Returns::Nothing, Returns::Bool, Returns::Other, Returns::Ambiguous] {
        assert_eq!(none.errno((-2i64).cast_unsigned()), None);
    }
}

#[test]
fn this_kernels_functions_are_told_where_it_has_btf() {
    let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
        return;
    };
    let functions = Functions::parse(&bytes, &[]).unwrap();
    assert!(functions.count() > 10_000, "{}", functions.count());
    assert_eq!(functions.returns("ns_capable"), Some(Returns::Bool));
    assert_eq!(functions.returns("vfs_read"), Some(Returns::Long));
    assert_eq!(functions.returns("vfs_statx"), Some(Returns::Int));
    assert_eq!(functions.returns("kfree"), Some(Returns::Nothing));
}

#[test]
fn what_is_cut_off_is_an_error() {
    let whole = btf();
    assert_eq!(Functions::parse(&[], &[]).unwrap_err(), BtfError::Header);
    for length in 2..whole.len() {
        assert!(Functions::parse(&whole[..length], &[]).is_err(), "{length}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(at in 0usize..400, byte in any::<u8>(), noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = btf();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = Functions::parse(&bytes, &[]);
        let _ = Functions::parse(&[&bytes[..at], &noise].concat(), &[]);
    }
}

#[test]
fn hints_are_of_functions_that_can_return_an_errno_where_this_kernel_has_btf() {
    /// The one answers for calls that are not there; the other leaves the errno in a socket for a later call.
    const WITHOUT: [&str; 2] = ["do_syscall_64", "tcp_reset"];
    let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
        return;
    };
    let types = Functions::parse(&bytes, &[]).unwrap();
    let never = |name: &&str| {
        matches!(
            types.returns(name),
            Some(Returns::Nothing | Returns::Bool | Returns::Other)
        )
    };
    let wrong: Vec<_> = why::hints::functions()
        .filter(never)
        .filter(|name| !WITHOUT.contains(name))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
