//! Effects of x86-64 instructions on values.

use iced_x86::{
    ConditionCode, Instruction as Decoded, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, UsedMemory,
};

use crate::kernel::code::effect::{Condition, Effect, Place};

/// Registers that a called function need not keep (System V ABI, AMD64, 3.2.1): rax, rcx, rdx, rsi, rdi, r8 to r11.
const NOT_KEPT: u32 = 0b1111_1100_0111;

pub(super) fn effect(decoded: &Decoded) -> Effect {
    if decoded.mnemonic() == Mnemonic::Call {
        return Effect {
            registers: NOT_KEPT,
            flags: true,
            ..Effect::default()
        };
    }
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(decoded);
    let written = info.used_registers().iter().filter(|used| writes(used.access()));
    let registers = written.filter_map(|used| number(used.register()));
    let mut memory = info.used_memory().iter().filter(|used| writes(used.access()));
    let memory = memory.next().map(slot);
    Effect {
        registers: registers.fold(0, |registers, number| registers | 1 << number),
        slot: memory.flatten(),
        elsewhere: memory == Some(None),
        copy: copy(decoded),
        condition: condition(decoded),
        compares: compares(decoded),
        flags: decoded.rflags_modified() != 0,
    }
}

fn writes(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
    )
}

/// The number of the general register that this is all or a part of, but for the stack pointer.
fn number(register: Register) -> Option<u8> {
    let full = register.full_register();
    if full.is_gpr64() && full != Register::RSP {
        u8::try_from(full.number()).ok()
    } else {
        None
    }
}

fn slot(memory: &UsedMemory) -> Option<i64> {
    (memory.base() == Register::RSP && memory.index() == Register::None).then(|| memory.displacement().cast_signed())
}

/// Where an operand of 32 or 64 bits is.
fn place(decoded: &Decoded, operand: u32) -> Option<Place> {
    match decoded.op_kind(operand) {
        OpKind::Register => {
            let register = decoded.op_register(operand);
            let wide = register.is_gpr32() || register.is_gpr64();
            number(register).filter(|_| wide).map(Place::Register)
        }
        OpKind::Memory => {
            let wide = matches!(decoded.memory_size().size(), 4 | 8);
            let on_stack = decoded.memory_base() == Register::RSP && decoded.memory_index() == Register::None;
            (wide && on_stack).then(|| Place::Slot(decoded.memory_displacement64().cast_signed()))
        }
        _ => None,
    }
}

fn copy(decoded: &Decoded) -> Option<Place> {
    match decoded.mnemonic() {
        Mnemonic::Mov | Mnemonic::Movsxd => place(decoded, 1),
        Mnemonic::Cdqe => Some(Place::Register(0)),
        _ if is_conditional_move(decoded) => place(decoded, 1),
        _ => None,
    }
}

fn compares(decoded: &Decoded) -> Option<(Place, i64)> {
    let first = place(decoded, 0);
    match decoded.mnemonic() {
        Mnemonic::Test if place(decoded, 1) == first => Some((first?, 0)),
        Mnemonic::Cmp => {
            let number = decoded.try_immediate(1).ok()?;
            #[expect(clippy::cast_possible_truncation, reason = "numbers of 32 bits are compared as such")]
            let half = i64::from((number as u32).cast_signed());
            // Sign-extended from 32 bits, numbers keep their order, the unsigned one too.
            let wide = decoded.op0_register().is_gpr64() || decoded.memory_size().size() == 8;
            Some((first?, if wide { number.cast_signed() } else { half }))
        }
        _ => None,
    }
}

fn is_conditional_move(decoded: &Decoded) -> bool {
    use Mnemonic::{
        Cmova, Cmovae, Cmovb, Cmovbe, Cmove, Cmovg, Cmovge, Cmovl, Cmovle, Cmovne, Cmovno, Cmovnp, Cmovns, Cmovo,
        Cmovp, Cmovs,
    };
    matches!(
        decoded.mnemonic(),
        Cmova
            | Cmovae
            | Cmovb
            | Cmovbe
            | Cmove
            | Cmovg
            | Cmovge
            | Cmovl
            | Cmovle
            | Cmovne
            | Cmovno
            | Cmovnp
            | Cmovns
            | Cmovo
            | Cmovp
            | Cmovs
    )
}

/// Of instructions that do something else if it does not hold; `setcc` writes in any case.
fn condition(decoded: &Decoded) -> Option<Condition> {
    if !decoded.is_jcc_short_or_near() && !is_conditional_move(decoded) {
        return None;
    }
    Some(match decoded.condition_code() {
        ConditionCode::None => return None,
        ConditionCode::e => Condition::Equal,
        ConditionCode::ne => Condition::NotEqual,
        ConditionCode::l => Condition::Less,
        ConditionCode::ge => Condition::NotLess,
        ConditionCode::le => Condition::LessOrEqual,
        ConditionCode::g => Condition::Greater,
        ConditionCode::b => Condition::Below,
        ConditionCode::ae => Condition::NotBelow,
        ConditionCode::be => Condition::BelowOrEqual,
        ConditionCode::a => Condition::Above,
        // The sign of the difference: what is compared here are small numbers or 0.
        ConditionCode::s => Condition::Less,
        ConditionCode::ns => Condition::NotLess,
        _ => Condition::Other,
    })
}
