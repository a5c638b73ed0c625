//! A file tree with everything that a copy can get wrong, and the check that a copy got it right.

mod compare;
mod generate;

pub(crate) use compare::differences;
pub(crate) use generate::{generate, names};
