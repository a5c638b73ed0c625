//! Output of the figures: a table, a picture, and JSON.

pub(crate) mod plot;
pub(crate) mod report;
pub(crate) mod table;
