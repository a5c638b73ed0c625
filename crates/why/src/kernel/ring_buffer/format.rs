//! The kernel's own descriptions of pages, records and events.

use std::collections::BTreeMap;

/// What could not be understood in a description.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A line that every description of this kind has is not there.
    #[error("the kernel's description has no {0}")]
    Missing(&'static str),
    /// A value is outside of what can be read.
    #[error("the kernel's description gives {0} an impossible value")]
    Value(&'static str),
}

/// One field: where it lies in a payload and how to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name, without the bounds of an array.
    pub name: String,
    /// Distance in bytes from the start of the payload.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
    /// Whether the kernel calls it signed.
    pub signed: bool,
    /// Whether it holds length and offset of data elsewhere in the payload (`__data_loc`).
    pub located: bool,
}

impl Field {
    /// A line such as `field:int ret; offset:8; size:4; signed:1;`, with tabs between.
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.trim().strip_prefix("field:")?.split(';').map(str::trim);
        let declaration = parts.next()?;
        let word = declaration.split('[').next()?.split_whitespace().last()?;
        let mut field = Self {
            name: word.trim_start_matches('*').to_owned(),
            offset: 0,
            size: 0,
            signed: false,
            located: declaration.starts_with("__data_loc"),
        };
        // An array whose length is in the declaration of `__data_loc` stands before the name: `char[] name`.
        if field.located {
            field.name = declaration.split_whitespace().last()?.to_owned();
        }
        let mut placed = (false, false);
        for part in parts {
            let Some((key, value)) = part.split_once(':') else {
                continue;
            };
            match key {
                "offset" => (field.offset, placed.0) = (value.parse().ok()?, true),
                "size" => (field.size, placed.1) = (value.parse().ok()?, true),
                "signed" => field.signed = value == "1",
                _ => {}
            }
        }
        (placed == (true, true)).then_some(field)
    }

    /// The bytes of this field, or none where the payload is too short.
    #[must_use]
    pub fn bytes<'a>(&self, payload: &'a [u8]) -> Option<&'a [u8]> {
        payload.get(self.offset..self.offset.checked_add(self.size)?)
    }

    /// The value without a sign, of a field of 1, 2, 4 or 8 bytes.
    #[must_use]
    pub fn unsigned(&self, payload: &[u8]) -> Option<u64> {
        let bytes = self.bytes(payload)?;
        if !matches!(bytes.len(), 1 | 2 | 4 | 8) {
            return None;
        }
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        Some(u64::from_le_bytes(word))
    }

    /// The value with its sign extended from the field's own size.
    #[must_use]
    pub fn signed(&self, payload: &[u8]) -> Option<i64> {
        let value = self.unsigned(payload)?;
        let unused = 64 - 8 * u32::try_from(self.size).ok()?;
        Some((value << unused).cast_signed() >> unused)
    }

    /// The text of an array of characters up to its NUL; one of size 0 reaches to the end of the payload.
    #[must_use]
    pub fn text(&self, payload: &[u8]) -> Option<String> {
        let bytes = if self.located {
            let place = usize::try_from(self.unsigned(payload)?).ok()?;
            let (offset, length) = (place & 0xffff, place >> 16 & 0xffff);
            payload.get(offset..offset.checked_add(length)?)?
        } else if self.size == 0 {
            payload.get(self.offset..)?
        } else {
            self.bytes(payload)?
        };
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}

/// What an event's `format` file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Name of the event.
    pub name: String,
    /// Number by which its records are known (`common_type`).
    pub id: u64,
    fields: Vec<Field>,
}

impl Format {
    /// Reads an event's `format` file.
    ///
    /// # Errors
    /// The file has no name, number or field.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let value = |key| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let fields: Vec<_> = text.lines().filter_map(Field::parse).collect();
        if fields.is_empty() {
            return Err(FormatError::Missing("field"));
        }
        let id = value("ID:").ok_or(FormatError::Missing("ID"))?;
        Ok(Self {
            name: value("name:").ok_or(FormatError::Missing("name"))?.to_owned(),
            id: id.parse().map_err(|_| FormatError::Value("ID"))?,
            fields,
        })
    }

    /// The field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// The events that a reader knows, by number.
#[derive(Clone, Debug, Default)]
pub struct Events {
    by_id: BTreeMap<u64, Format>,
}

impl Events {
    /// Adds an event.
    pub fn add(&mut self, format: Format) {
        self.by_id.insert(format.id, format);
    }

    /// The event that wrote this payload. The common fields are the same in all events of one kernel.
    #[must_use]
    pub fn of(&self, payload: &[u8]) -> Option<&Format> {
        let kind = self.by_id.values().next()?.field("common_type")?;
        self.by_id.get(&kind.unsigned(payload)?)
    }
}

/// How pages and record headers are laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub(super) timestamp: Field,
    pub(super) commit: Field,
    pub(super) data: Field,
    pub(super) type_bits: u32,
    pub(super) delta_bits: u32,
    pub(super) padding: u32,
    pub(super) time_extend: u32,
    pub(super) time_stamp: u32,
    pub(super) data_max: u32,
}

impl Layout {
    /// Reads `events/header_page` and `events/header_event`.
    ///
    /// # Errors
    /// A line is missing, or says that a record's header is not one word of 32 bits.
    pub fn parse(header_page: &str, header_event: &str) -> Result<Self, FormatError> {
        let field = |name| {
            let mut fields = header_page.lines().filter_map(Field::parse);
            fields
                .find(|field| field.name == name)
                .ok_or(FormatError::Missing(name))
        };
        // `type_len    :    5 bits`, `padding     : type == 29`, `data max type_len  == 28`
        let number = |key: &'static str| {
            let line = header_event
                .lines()
                .map(str::trim)
                .find_map(|line| line.strip_prefix(key));
            let digits = line
                .ok_or(FormatError::Missing(key))?
                .trim_start_matches(|c: char| !c.is_ascii_digit());
            let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            digits[..end].parse::<u32>().map_err(|_| FormatError::Value(key))
        };
        let layout = Self {
            timestamp: field("timestamp")?,
            commit: field("commit")?,
            data: field("data")?,
            type_bits: number("type_len")?,
            delta_bits: number("time_delta")?,
            padding: number("padding")?,
            time_extend: number("time_extend")?,
            time_stamp: number("time_stamp")?,
            data_max: number("data max type_len")?,
        };
        let whole = layout.type_bits.checked_add(layout.delta_bits) == Some(32);
        if !whole || layout.type_bits == 0 || layout.delta_bits == 0 {
            return Err(FormatError::Value("type_len"));
        }
        Ok(layout)
    }
}
