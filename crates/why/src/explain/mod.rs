//! The origin of an errno: the function that made it, the instruction that loaded it, and the result that the
//! function acted on.

pub mod alignment;
mod cause;
mod certainty;
pub mod host_log;
pub mod instruction;
mod loading;
pub mod origin;
mod remote;
pub mod request;
pub mod untraced;

pub use cause::{Cause, Explanation};
pub use certainty::Certainty;
pub use loading::Loading;
