//! A request to a FUSE server, as the tracer recorded it.

/// A request as the tracer saw it leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When, in the trace clock's unit.
    pub time: u64,
    /// Number of the mount's connection; 0 where the kernel does not tell.
    pub connection: u64,
    /// Number of the request in its connection; 0 where it is not known.
    pub unique: u64,
    /// Number of the operation.
    pub opcode: u32,
    /// The errno that it was answered, 0 for success, where the answer was seen.
    pub answered: Option<i32>,
}
