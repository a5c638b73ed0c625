//! The file format of a recording, and the system calls in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::{Error, VERSION};
use crate::explain::Loading;
use crate::explain::instruction::Suspect;
use crate::kernel::btf::Functions;
use crate::kernel::hex::from_hex;
use crate::kernel::symbols::Symbols;
use crate::kernel::tracefs::{self, Probed};
use crate::observe::failure::Failure;
use crate::trace::{Reader, Syscall, Which};

/// What was seen of a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recording {
    pub(super) version: u32,
    /// Release of the kernel.
    pub kernel: String,
    /// Its build id, as hexadecimal digits.
    #[serde(default)]
    pub build: Option<String>,
    /// The failed calls, as the command saw them.
    pub failures: Vec<Failure>,
    /// Whether it was seen what functions returned.
    pub has_returns: bool,
    pub(super) header: [String; 2],
    pub(super) formats: Vec<String>,
    pub(super) symbols: Symbols,
    pub(super) functions: Functions,
    /// Functions that load the errno of a call that they ran in: of those that made it and what ran inside of them, or of all
    /// where it is not seen which those are; none if the kernel's code could not be read.
    pub(super) loading: Option<Loading>,
    /// Whose returns were probed.
    pub(super) probed: Probed,
    /// Functions whose instructions were probed, and addresses at which the kernel let none be.
    #[serde(default)]
    pub(super) suspects: Vec<Suspect>,
    #[serde(default)]
    pub(super) refused: Vec<u64>,
    /// Not all that the kernel wrote is here.
    pub(super) cut: bool,
    /// Pages of each processor, as hexadecimal digits.
    pub(super) pages: BTreeMap<u32, Vec<String>>,
}

impl Recording {
    /// Reads a file that [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// It is no such file, or one of another version.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_str(text)?;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        Ok(serde_json::from_str(text)?)
    }

    /// The recording as text.
    ///
    /// # Errors
    /// None that is known.
    pub fn to_json(&self) -> Result<String, Error> {
        Ok(serde_json::to_string(self)?)
    }

    /// The system calls that were recorded, with their functions, in the order of their returns.
    ///
    /// # Errors
    /// The kernel's descriptions cannot be understood.
    pub fn syscalls(&self) -> Result<Vec<Syscall>, Error> {
        let (layout, events) = tracefs::understand(&self.header, &self.formats)?;
        let reader = Reader {
            layout: &layout,
            events: &events,
            symbols: &self.symbols,
            functions: &self.functions,
            probed: &self.probed,
        };
        let pages: Vec<Vec<u8>> = self.pages.values().flatten().map(|page| from_hex(page)).collect();
        let mut syscalls = reader.syscalls(pages.iter().map(Vec::as_slice), which(self.has_returns));
        for syscall in &mut syscalls {
            syscall.lost |= self.cut;
        }
        Ok(syscalls)
    }
}

/// The calls that an answer takes: where nobody knows what functions returned, also some that succeeded.
pub(super) fn which(has_returns: bool) -> Which {
    if has_returns { Which::Failed } else { Which::All }
}
