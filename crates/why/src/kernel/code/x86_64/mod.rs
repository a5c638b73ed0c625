//! x86-64, decoded by the crate iced-x86.

mod operands;
mod values;

use iced_x86::{Code, Decoder as Iced, DecoderOptions, Instruction as Decoded, Mnemonic, OpKind, Register};

use crate::kernel::code::compared::Compared;
use crate::kernel::code::instruction::{Decoder, Does, Instruction};

/// x86-64 in its 64-bit mode.
#[derive(Clone, Copy, Debug, Default)]
pub struct X86_64;

impl Decoder for X86_64 {
    fn decode(&self, bytes: &[u8], address: u64) -> Option<Instruction> {
        let decoded = first(bytes, address)?;
        Some(Instruction {
            length: u8::try_from(decoded.len()).ok()?,
            does: does(&decoded),
            mask: mask(&decoded),
            effect: Some(values::effect(&decoded)),
        })
    }

    fn compared(&self, bytes: &[u8], address: u64) -> Option<Compared> {
        operands::compared(&first(bytes, address)?)
    }
}

/// The first instruction.
fn first(bytes: &[u8], address: u64) -> Option<Decoded> {
    let decoded = Iced::with_ip(64, bytes, address, DecoderOptions::NONE).decode();
    (!decoded.is_invalid()).then_some(decoded)
}

fn does(decoded: &Decoded) -> Does {
    match decoded.mnemonic() {
        Mnemonic::Call if decoded.op0_kind() == OpKind::NearBranch64 => Does::Calls(decoded.near_branch_target()),
        Mnemonic::Jmp => match decoded.op0_kind() {
            OpKind::NearBranch64 => Does::Jumps(decoded.near_branch_target()),
            // A jump by register may be one to another function or one by a table; compilers mark the latter.
            OpKind::Memory if decoded.memory_index() != Register::None => Does::JumpsByTable,
            _ if decoded.segment_prefix() == Register::DS => Does::JumpsByTable,
            _ => Does::Ends,
        },
        Mnemonic::Ret | Mnemonic::Retf | Mnemonic::Iretq | Mnemonic::Sysretq | Mnemonic::Sysexitq => Does::Ends,
        Mnemonic::Mov | Mnemonic::Or => loaded(decoded).map_or(Does::Goes, Does::Loads),
        _ if decoded.op0_kind() == OpKind::NearBranch64 => Does::Branches(decoded.near_branch_target()),
        _ => Does::Goes,
    }
}

/// A register is all ones or 0 behind `sbb` with itself, and behind `and` what that leaves of a number.
fn mask(decoded: &Decoded) -> Option<i64> {
    match decoded.mnemonic() {
        Mnemonic::Sbb if decoded.op0_register() == decoded.op1_register() => Some(-1),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an int is the lower half of the register"
        )]
        Mnemonic::And => Some(i64::from((decoded.try_immediate(1).ok()? as u32).cast_signed())),
        _ => None,
    }
}

/// The number that is put into a register or into a variable.
fn loaded(decoded: &Decoded) -> Option<i64> {
    let value = decoded.try_immediate(1).ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an int is the lower half of the register"
    )]
    let half = i64::from((value as u32).cast_signed());
    let register = decoded.op0_kind() == OpKind::Register;
    match decoded.code() {
        Code::Mov_r32_imm32 | Code::Mov_rm32_imm32 => Some(half),
        Code::Mov_r64_imm64 | Code::Mov_rm64_imm32 => Some(value.cast_signed()),
        // This is how compilers load -1 in few bytes.
        Code::Or_rm32_imm8 | Code::Or_rm64_imm8 if register && half == -1 => Some(-1),
        _ => None,
    }
}
