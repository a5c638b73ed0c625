//! Operands of comparing instructions, and how a probe reads them.

use iced_x86::{Instruction as Decoded, Mnemonic, OpKind, Register};

use crate::kernel::code::compared::{Compared, How, Operand};

pub(super) fn compared(decoded: &Decoded) -> Option<Compared> {
    let how = match decoded.mnemonic() {
        Mnemonic::Cmp => How::Difference,
        Mnemonic::Test => How::Bits,
        _ => return None,
    };
    Some(Compared {
        address: decoded.ip(),
        how,
        operands: [operand(decoded, 0)?, operand(decoded, 1)?],
    })
}

fn operand(decoded: &Decoded, operand: u32) -> Option<Operand> {
    match decoded.op_kind(operand) {
        OpKind::Register => {
            let register = decoded.op_register(operand);
            let size = size(decoded, operand)?;
            Some(Operand::Held {
                name: name(register),
                fetch: fetched(register).map(|whole| format!("{whole}:u{}", 8 * size)),
                size,
            })
        }
        OpKind::Memory => {
            let size = size(decoded, operand).filter(|size| (1..=8).contains(size))?;
            Some(Operand::Held {
                name: memory(decoded),
                fetch: place(decoded).map(|place| format!("{place}:u{}", 8 * size)),
                size,
            })
        }
        _ => Some(Operand::Number {
            value: decoded.try_immediate(operand).ok()?,
            // It is compared with the other one, as so many bytes.
            size: size(decoded, 0)?,
        }),
    }
}

/// How many bytes of a register or of memory are looked at.
fn size(decoded: &Decoded, operand: u32) -> Option<u8> {
    let size = match decoded.op_kind(operand) {
        OpKind::Register => decoded.op_register(operand).size(),
        _ => decoded.memory_size().size(),
    };
    u8::try_from(size).ok()
}

fn name(register: Register) -> String {
    let name = format!("%{register:?}").to_lowercase();
    // `%r8b` to others.
    match name.strip_prefix("%r").and_then(|rest| rest.strip_suffix('l')) {
        Some(number) => format!("%r{number}b"),
        None => name,
    }
}

/// A general register, by the kernel's name for all of it; not the second byte of one, which has no name there.
fn fetched(register: Register) -> Option<String> {
    let second_byte = [Register::AH, Register::BH, Register::CH, Register::DH].contains(&register);
    let whole = register.full_register();
    if second_byte || !whole.is_gpr64() {
        return None;
    }
    let name = name(whole);
    // `%ax` of `%rax`, and `%r8` as it is.
    let short = name
        .strip_prefix("%r")
        .filter(|rest| rest.starts_with(|letter: char| letter.is_alphabetic()));
    Some(short.map_or(name.clone(), |short| format!("%{short}")))
}

/// As in `0x20(%rbx,%rcx,8)`.
fn memory(decoded: &Decoded) -> String {
    let segment = match decoded.segment_prefix() {
        Register::None => String::new(),
        segment => format!("{}:", name(segment)),
    };
    let displacement = decoded.memory_displacement64();
    let index = match decoded.memory_index() {
        Register::None => String::new(),
        index => format!(",{},{}", name(index), decoded.memory_index_scale()),
    };
    if decoded.is_ip_rel_memory_operand() || decoded.memory_base() == Register::None {
        let index = if index.is_empty() { index } else { format!("({index})") };
        return format!("{segment}{displacement:#x}{index}");
    }
    let displacement = displacement.cast_signed();
    let sign = if displacement < 0 { "-" } else { "" };
    let offset = match displacement.unsigned_abs() {
        0 => String::new(),
        offset => format!("{offset:#x}"),
    };
    let base = name(decoded.memory_base());
    format!("{segment}{sign}{offset}({base}{index})")
}

/// How a probe gets what is in memory: from an address, or from a distance to what a register holds.
fn place(decoded: &Decoded) -> Option<String> {
    if decoded.segment_prefix() != Register::None || decoded.memory_index() != Register::None {
        return None;
    }
    let displacement = decoded.memory_displacement64();
    if decoded.is_ip_rel_memory_operand() {
        return Some(format!("@{displacement:#x}"));
    }
    let base = fetched(decoded.memory_base()).filter(|_| decoded.memory_base().is_gpr64())?;
    Some(format!("{:+}({base})", displacement.cast_signed()))
}
