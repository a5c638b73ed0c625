//! The operands of a conditional jump: two values that the instruction before it compares.

use serde::{Deserialize, Serialize};

/// The smallest address of the kernel's own memory with five levels of page tables; with four it begins higher.
const KERNEL: u64 = 0xff00_0000_0000_0000;
const ERRNO_MAX: u64 = 4095;

/// An instruction that compares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Its address.
    pub address: u64,
    /// How it does.
    pub how: How,
    /// Of what.
    pub operands: [Operand; 2],
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// By their difference.
    Difference,
    /// By the bits that they have in common.
    Bits,
}

/// One of two values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operand {
    /// A number that stands in the instruction.
    Number {
        /// As the processor takes it, in the lower bytes.
        value: u64,
        /// How many bytes are compared.
        size: u8,
    },
    /// What a register or a place in memory holds.
    Held {
        /// As assemblers write it: `%eax`, `0x20(%rbx)`.
        name: String,
        /// How a probe of the kernel gets it (`kprobetrace.rst` of Linux): `%ax:u32`; nothing if it cannot.
        fetch: Option<String>,
        /// How many bytes it has.
        size: u8,
    },
}

impl Compared {
    /// What a probe at this instruction has to get.
    pub fn fetches(&self) -> impl Iterator<Item = &str> {
        self.operands.iter().filter_map(|operand| match operand {
            Operand::Held { fetch, .. } => fetch.as_deref(),
            Operand::Number { .. } => None,
        })
    }

    /// The values that a probe got, in the order of [`Self::fetches`], in words.
    #[must_use]
    pub fn tell(&self, values: &[u64]) -> String {
        let mut values = values.iter();
        let [one, other] = self.operands.each_ref().map(|operand| operand.tell(&mut values));
        match self.how {
            How::Difference => format!("{one} was compared with {other}"),
            How::Bits if self.operands[0] == self.operands[1] => format!("{one} was compared with 0"),
            How::Bits => format!("{one} was looked at for the bits of {other}"),
        }
    }
}

impl Operand {
    fn tell<'v>(&self, values: &mut impl Iterator<Item = &'v u64>) -> String {
        match self {
            Self::Number { value, size } => shown(*value, *size),
            Self::Held { name, fetch: None, .. } => name.clone(),
            Self::Held { name, size, .. } => match values.next() {
                Some(value) => format!("{name} ({})", shown(*value, *size)),
                None => name.clone(),
            },
        }
    }
}

/// A number of so many bytes as a person takes it: small ones below 0 are errnos and the like, large ones are addresses.
fn shown(value: u64, size: u8) -> String {
    let unused = 64 - 8 * u32::from(size.clamp(1, 8));
    let value = value << unused >> unused;
    let signed = (value << unused).cast_signed() >> unused;
    if size >= 4 && signed < 0 && signed.unsigned_abs() <= ERRNO_MAX {
        signed.to_string()
    } else if value >= KERNEL {
        format!("{value:#x}")
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(name: &str, size: u8) -> Operand {
        Operand::Held {
            name: name.to_owned(),
            fetch: Some("%ax".to_owned()),
            size,
        }
    }

    fn number(value: u64) -> Operand {
        Operand::Number { value, size: 4 }
    }

    fn tell(how: How, operands: [Operand; 2], values: &[u64]) -> String {
        Compared {
            address: 0,
            how,
            operands,
        }
        .tell(values)
    }

    #[test]
    fn values_are_told_beside_what_held_them() {
        assert_eq!(
            tell(How::Difference, [held("%rdx", 8), held("%rax", 8)], &[4096, 8]),
            "%rdx (4096) was compared with %rax (8)"
        );
        assert_eq!(
            tell(How::Bits, [held("%al", 1), held("%al", 1)], &[0, 0]),
            "%al (0) was compared with 0"
        );
        assert_eq!(
            tell(How::Bits, [held("%ecx", 4), number(2)], &[5]),
            "%ecx (5) was looked at for the bits of 2"
        );
        assert_eq!(
            tell(How::Difference, [held("%eax", 4), number(1)], &[]),
            "%eax was compared with 1"
        );
    }

    #[test]
    fn errnos_and_addresses_are_told_as_such() {
        assert_eq!(shown(0xffff_ffea, 4), "-22");
        assert_eq!(shown(0xffff_ffff_ffff_ffea, 8), "-22");
        assert_eq!(shown(0xffff_8880_0000_1000, 8), "0xffff888000001000");
        assert_eq!(shown(0xfe, 1), "254");
        assert_eq!(shown(u64::MAX, 2), "65535", "a number that the processor extends");
    }
}
