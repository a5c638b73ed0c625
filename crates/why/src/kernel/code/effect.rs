//! The effect of an instruction on the values of a function, as far as needed to follow one value.

/// What one instruction writes and decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Registers that it writes, the lowest bit for number 0.
    pub registers: u32,
    /// The place on the stack that it writes, in bytes above the stack pointer.
    pub slot: Option<i64>,
    /// It writes to memory elsewhere.
    pub elsewhere: bool,
    /// Where what it writes is a copy of, if it is one.
    pub copy: Option<Place>,
    /// The condition under which it writes or jumps.
    pub condition: Option<Condition>,
    /// What it compares with which number.
    pub compares: Option<(Place, i64)>,
    /// It leaves flags of its own.
    pub flags: bool,
}

/// Where a value can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the general register of this number.
    Register(u8),
    /// On the stack, this many bytes above the stack pointer.
    Slot(i64),
}

/// What a jump asks of the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Both are equal.
    Equal,
    /// The first is less, of signed numbers.
    Less,
    /// The first is less or equal, of signed numbers.
    LessOrEqual,
    /// The first is less, of unsigned numbers.
    Below,
    /// The first is less or equal, of unsigned numbers.
    BelowOrEqual,
    /// They are not equal.
    NotEqual,
    /// The opposite of [`Self::Less`].
    NotLess,
    /// The opposite of [`Self::LessOrEqual`].
    Greater,
    /// The opposite of [`Self::Below`].
    NotBelow,
    /// The opposite of [`Self::BelowOrEqual`].
    Above,
    /// Something else.
    Other,
}

impl Condition {
    /// Whether it holds after a comparison of these numbers.
    #[must_use]
    pub fn holds(self, first: i64, second: i64) -> Option<bool> {
        let below = first.cast_unsigned() < second.cast_unsigned();
        Some(match self {
            Self::Equal => first == second,
            Self::NotEqual => first != second,
            Self::Less => first < second,
            Self::NotLess => first >= second,
            Self::LessOrEqual => first <= second,
            Self::Greater => first > second,
            Self::Below => below,
            Self::NotBelow => !below,
            Self::BelowOrEqual => below || first == second,
            Self::Above => !below && first != second,
            Self::Other => return None,
        })
    }
}
