//! Return types of functions, from the kernel's own type information (BTF).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
/// Typedefs and qualifiers are followed this far; a cycle must not hold a reader.
const CHAIN_MAX: usize = 32;

/// What a function returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Returns {
    /// Nothing: what its register holds is its neighbour's.
    Nothing,
    /// A truth value: never an errno.
    Bool,
    /// An address, or an errno as one.
    Pointer,
    /// A signed number of 32 bits or less.
    Int,
    /// A signed number of 64 bits.
    Long,
    /// An unsigned number of 64 bits: sometimes an errno as one (mmap), more often a number.
    Unsigned,
    /// A smaller unsigned number, an enum or a struct: no errno.
    Other,
    /// Functions of this name return different things.
    Ambiguous,
}

impl Returns {
    /// The errno in the return register (positive, 1 to 4095), if what is returned can hold one.
    #[must_use]
    pub fn errno(self, register: u64) -> Option<i32> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an int is the lower half of the register"
        )]
        let value = match self {
            Self::Int => i64::from(register as u32 as i32),
            Self::Long | Self::Pointer => register.cast_signed(),
            Self::Nothing | Self::Bool | Self::Unsigned | Self::Other | Self::Ambiguous => return None,
        };
        (-4095..0).contains(&value).then(|| i32::try_from(-value).ok())?
    }
}

/// What is wrong with type information.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// The header is not one of BTF.
    #[error("not BTF of this byte order")]
    Header,
    /// A section lies outside of the file.
    #[error("a section of the BTF lies outside it")]
    Section,
    /// A type is cut off or of a kind that is not known.
    #[error("cannot read the BTF's type {0}")]
    Type(usize),
}

/// The functions of a kernel and what they return.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Functions {
    by_name: BTreeMap<String, Returns>,
}

impl Functions {
    /// Reads `/sys/kernel/btf/vmlinux`, and those of modules beside it, each in one pass and in time linear in its size.
    ///
    /// A module's types are numbered on from those of the kernel, and so are its strings. What a module returns whose
    /// information cannot be read stays unknown.
    ///
    /// # Errors
    /// The kernel's bytes are not BTF, or are cut off.
    pub fn parse(kernel: &[u8], modules: &[Vec<u8>]) -> Result<Self, BtfError> {
        let (types, strings) = sections(kernel)?;
        let mut functions = Self::default();
        let mut all = Types::default();
        all.add(types)?;
        let (own_types, own_strings) = (all.0.len(), strings.len());
        let mut text = strings.to_vec();
        functions.add(&all, 0, &text);
        for module in modules {
            all.0.truncate(own_types);
            text.truncate(own_strings);
            let Ok((types, strings)) = sections(module) else {
                continue;
            };
            if all.add(types).is_ok() {
                text.extend_from_slice(strings);
                functions.add(&all, own_types, &text);
            }
        }
        Ok(functions)
    }

    /// Adds the functions among the types from `first` on.
    fn add(&mut self, types: &Types, first: usize, strings: &[u8]) {
        let new = types.0.iter().skip(first);
        for function in new.filter(|kind| kind.kind == KIND_FUNC) {
            let Some(name) = text(strings, function.name) else {
                continue;
            };
            let returns = types.returns(function, strings).unwrap_or(Returns::Other);
            let known = self.by_name.entry(name.to_owned()).or_insert(returns);
            if *known != returns {
                *known = Returns::Ambiguous;
            }
        }
    }

    /// What a function returns. Copies that the compiler made (`name.isra.0`) return what the function does.
    #[must_use]
    pub fn returns(&self, name: &str) -> Option<Returns> {
        let base = name.split('.').next().unwrap_or(name);
        self.by_name.get(base).copied()
    }

    /// Whether a function can return an errno: by its type, or since nobody knows its type.
    #[must_use]
    pub fn may_fail(&self, name: &str) -> bool {
        let returns = self.returns(name);
        !matches!(returns, Some(Returns::Nothing | Returns::Bool | Returns::Other))
    }

    /// The same, of these functions alone.
    #[must_use]
    pub fn only<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Self {
        let known = names.into_iter().filter_map(|name| {
            let base = name.split('.').next().unwrap_or(name);
            Some((base.to_owned(), self.returns(name)?))
        });
        Self {
            by_name: known.collect(),
        }
    }

    /// How many functions are known.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_name.len()
    }
}

/// The sections of types and of strings.
fn sections(bytes: &[u8]) -> Result<(&[u8], &[u8]), BtfError> {
    let word = |at: usize| bytes.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word));
    let magic = bytes.first_chunk().map(|magic| u16::from_le_bytes(*magic));
    if magic != Some(MAGIC) {
        return Err(BtfError::Header);
    }
    // The header's length, then offset and length of types and strings, the offsets from the header's end.
    let section = |at: usize| {
        let start = usize::try_from(word(4)?)
            .ok()?
            .checked_add(usize::try_from(word(at)?).ok()?)?;
        bytes.get(start..start.checked_add(usize::try_from(word(at + 4)?).ok()?)?)
    };
    section(8).zip(section(16)).ok_or(BtfError::Section)
}

fn text(strings: &[u8], at: u32) -> Option<&str> {
    let rest = strings.get(usize::try_from(at).ok()?..)?;
    let end = rest.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(&rest[..end]).ok().filter(|text| !text.is_empty())
}

struct Type {
    name: u32,
    kind: u32,
    /// Size in bytes or number of another type, by kind.
    value: u32,
    /// Of an int: encoding, offset and bits.
    int: u32,
}

/// All types, numbered from 1; 0 is void.
#[derive(Default)]
struct Types(Vec<Type>);

impl Types {
    fn add(&mut self, section: &[u8]) -> Result<(), BtfError> {
        let all = &mut self.0;
        let mut at = 0;
        while at < section.len() {
            let bad = BtfError::Type(all.len() + 1);
            let word = |at: usize| section.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word));
            let header = (word(at), word(at + 4), word(at + 8));
            let (Some(name), Some(info), Some(value)) = header else {
                return Err(bad);
            };
            let (kind, count) = (info >> 24 & 0x1f, info & 0xffff);
            let behind = match kind {
                KIND_INT | 14 | 17 => 4,
                3 => 12,
                4 | 5 | 15 | 19 => 12 * count,
                6 | KIND_FUNC_PROTO => 8 * count,
                KIND_PTR | 7..=KIND_FUNC | 16 | 18 => 0,
                _ => return Err(bad),
            };
            let int = if kind == KIND_INT { word(at + 12).ok_or(bad)? } else { 0 };
            all.push(Type { name, kind, value, int });
            at += 12 + usize::try_from(behind).map_err(|_| bad)?;
        }
        if at == section.len() {
            Ok(())
        } else {
            Err(BtfError::Type(all.len()))
        }
    }

    fn get(&self, number: u32) -> Option<&Type> {
        self.0.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    fn returns(&self, function: &Type, strings: &[u8]) -> Option<Returns> {
        let prototype = self.get(function.value).filter(|kind| kind.kind == KIND_FUNC_PROTO)?;
        let mut number = prototype.value;
        for _ in 0..CHAIN_MAX {
            if number == 0 {
                return Some(Returns::Nothing);
            }
            let found = self.get(number)?;
            match found.kind {
                // Typedef, volatile, const, restrict and type tag: what is behind them counts.
                8..=11 | 18 => number = found.value,
                KIND_PTR => return Some(Returns::Pointer),
                KIND_INT => return Some(integer(found, strings)),
                _ => return Some(Returns::Other),
            }
        }
        None
    }
}

fn integer(int: &Type, strings: &[u8]) -> Returns {
    let (encoding, bits) = (int.int >> 24 & 0xf, int.int & 0xff);
    if encoding & 4 != 0 || text(strings, int.name) == Some("_Bool") {
        return Returns::Bool;
    }
    match (encoding & 1 != 0, bits) {
        (true, 64) => Returns::Long,
        (true, 32) => Returns::Int,
        (false, 64) => Returns::Unsigned,
        _ => Returns::Other,
    }
}
