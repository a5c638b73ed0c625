//! The probe events of a session.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Events of a session's own probe on requests to FUSE servers, with `opcode` and `unique`: a request leaves; or the one that
/// has left by the kernel's own event has got its number.
pub(crate) const SENT: &str = "fuse_sent";
pub(crate) const NUMBERED: &str = "fuse_numbered";
/// The values that a probe of a session's own gets.
pub(crate) const GOT: [&str; 2] = ["one", "other"];

/// The functions whose return was probed: where such a one left no value, it returned no errno.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probed {
    /// None, or each return is written down.
    #[default]
    None,
    /// Every function.
    All,
    /// These.
    Only(BTreeSet<String>),
}

impl Probed {
    pub(crate) fn has(&self, function: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Only(functions) => functions.contains(function),
        }
    }
}
