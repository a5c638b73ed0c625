//! The daemons that are compared: how each is started, where it runs, and what it uses.

pub(crate) mod contender;
pub(crate) mod names;
pub(crate) mod placement;
pub(crate) mod recipe;
pub(crate) mod start;
