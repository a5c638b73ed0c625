//! Which functions load which errno, by their code.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::instruction::Suspect;

/// Which functions load which errno, by their code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loading {
    /// An instruction of the function loads it.
    pub plainly: BTreeSet<(String, i32)>,
    /// Not all of the function's code is known, or an instruction of it masks a number to this one or 0.
    pub perhaps: BTreeSet<(String, i32)>,
    /// Where such a function seems to have made it another one may have: one of the same name that does not load it, or
    /// one that it calls and that cannot be traced.
    pub elsewhere: BTreeSet<(String, i32)>,
}

impl Loading {
    /// Adds what the code of all functions of one name says; `all` that each was read, and `unseen` that one which cannot be
    /// traced may make the errno inside of them.
    pub fn add(&mut self, pair: (String, i32), found: &[Suspect], all: bool, unseen: bool) {
        let loading = found.iter().filter(|suspect| suspect.loads()).count();
        if unseen || loading > 0 && (!all || loading < found.len()) {
            self.elsewhere.insert(pair.clone());
        }
        if loading > 0 {
            self.plainly.insert(pair);
        } else if !matches!(found, [suspect] if suspect.never_loads()) {
            self.perhaps.insert(pair);
        }
    }
}
