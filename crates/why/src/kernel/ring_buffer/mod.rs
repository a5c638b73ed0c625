//! The kernel's tracing ring buffer as `trace_pipe_raw` returns it: pages of records.
//!
//! Nothing here knows an offset. The kernel describes its pages in `events/header_page`, its records in
//! `events/header_event` and each event in its `format`. All three have changed between versions.

mod format;
mod page;

pub use format::{Events, Field, Format, FormatError, Layout};
pub use page::{Missed, Page, PageError, Record, Records};
