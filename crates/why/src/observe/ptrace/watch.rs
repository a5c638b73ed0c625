//! Listeners for calls while they happen.

/// Is told of the command's calls as they happen; the thread that a call is of is stopped meanwhile.
pub trait Watch {
    /// These threads are there, and make no calls before this returns: one that has not executed the command yet, or those
    /// of a process that was attached to, which may be told of in several parts and at first be none.
    fn started(&mut self, threads: &[i32]);
    /// A thread is about to enter the call of this number.
    fn entered(&mut self, thread: i32, number: u64);
    /// A thread has returned from its call.
    fn left(&mut self, thread: i32, failed: bool);
    /// A thread is no more; its last call never returned.
    fn ended(&mut self, thread: i32);
}

impl Watch for () {
    fn started(&mut self, _: &[i32]) {}
    fn entered(&mut self, _: i32, _: u64) {}
    fn left(&mut self, _: i32, _: bool) {}
    fn ended(&mut self, _: i32) {}
}
