//! All observations of one command, in one file: it can be explained elsewhere, later, without privilege.

mod answers;
mod data;
mod error;
mod from_session;
mod kernel_code;
mod run;

pub use answers::Found;
pub use data::Recording;
pub use error::Error;
pub use run::{Refused, Run, Subject, Wanted, run};
