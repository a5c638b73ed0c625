//! AArch64: decodes the instructions that load numbers and those that jump (Arm Architecture Reference Manual, C4.1).

use super::compared::Compared;
use super::instruction::{Decoder, Does, Instruction};

/// AArch64, which Linux calls arm64.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arm64;

const LENGTH: u8 = 4;
/// A number of 64 bits takes one MOVZ or MOVN and three MOVK.
const KEEPS: usize = 3;

impl Decoder for Arm64 {
    fn decode(&self, bytes: &[u8], address: u64) -> Option<Instruction> {
        let (word, rest) = first(bytes)?;
        Some(Instruction {
            length: LENGTH,
            does: does(word, rest, address),
            mask: None,
            effect: None,
        })
    }

    /// Not known: there is nothing yet on this processor that would ask.
    fn compared(&self, _: &[u8], _: u64) -> Option<Compared> {
        None
    }
}

fn first(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*word), rest))
}

fn does(word: u32, rest: &[u8], address: u64) -> Does {
    if let Some(value) = loaded(word, rest) {
        return Does::Loads(value);
    }
    let to = |lowest, bits| address.wrapping_add_signed(offset(word, lowest, bits));
    match word {
        // B and BL.
        _ if word >> 26 == 0b00_0101 => Does::Jumps(to(0, 26)),
        _ if word >> 26 == 0b10_0101 => Does::Calls(to(0, 26)),
        // B.cond and BC.cond. Of the conditions 14 and 15 are no conditions.
        _ if word >> 24 == 0x54 && word & 0xf >= 14 => Does::Jumps(to(5, 19)),
        _ if word >> 24 == 0x54 => Does::Branches(to(5, 19)),
        // CBZ and CBNZ, TBZ and TBNZ.
        _ if word >> 25 & 0x3f == 0b01_1010 => Does::Branches(to(5, 19)),
        _ if word >> 25 & 0x3f == 0b01_1011 => Does::Branches(to(5, 14)),
        // BR, RET, ERET and their kin with pointer authentication; BLR (bits 24 to 21 are 1) goes on.
        _ if word >> 25 == 0b110_1011 && !matches!(word >> 21 & 0xf, 0b0001 | 0b1001) => Does::Ends,
        _ => Does::Goes,
    }
}

/// What MOVN or MOVZ loads, with the MOVK of the same register behind it.
fn loaded(word: u32, rest: &[u8]) -> Option<i64> {
    /// Opcode of a move of 16 bits, among the bits that all of them share.
    const fn opcode(word: u32) -> Option<u32> {
        if word >> 23 & 0x3f == 0b10_0101 {
            Some(word >> 29 & 3)
        } else {
            None
        }
    }
    let (wide, register) = (word >> 31 == 1, word & 0x1f);
    let piece = |word: u32| (u64::from(word >> 5 & 0xffff), word >> 21 & 3);
    let (bits, place) = piece(word);
    let mut value = match opcode(word)? {
        0 => !(bits << (16 * place)),
        2 => bits << (16 * place),
        _ => return None,
    };
    let mut rest = rest;
    for _ in 0..KEEPS {
        let Some((next, behind)) = first(rest) else { break };
        if opcode(next) != Some(3) || next & 0x1f != register || (next >> 31 == 1) != wide {
            break;
        }
        let (bits, place) = piece(next);
        value = value & !(0xffff << (16 * place)) | bits << (16 * place);
        rest = behind;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an int is the lower half of the register"
    )]
    let half = value as u32;
    Some(if wide {
        value.cast_signed()
    } else {
        i64::from(half.cast_signed())
    })
}

/// A signed field counted in words, as bytes.
fn offset(word: u32, lowest: u32, bits: u32) -> i64 {
    let field = word << (32 - lowest - bits);
    i64::from(field.cast_signed() >> (32 - bits)) * 4
}
