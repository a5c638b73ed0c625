//! The compared daemons: how each is started, where it runs, and which resources it uses.

pub(crate) mod contender;
pub(crate) mod names;
pub(crate) mod placement;
pub(crate) mod recipe;
pub(crate) mod start;
