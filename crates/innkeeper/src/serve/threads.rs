//! What each thread of a device may do, by its role.

use std::sync::Arc;

use backend::ThreadStart;
use confinement::{Action, Declaration, Error, Filters, Role, capabilities};
use rustix::thread::CapabilitySet;

/// The capabilities and system calls of threads.
#[derive(Clone, Debug)]
pub(crate) struct Threads {
    declaration: Arc<Declaration>,
    filters: Arc<Filters>,
    /// What the sandbox leaves of the declared capabilities.
    left: CapabilitySet,
}

impl Threads {
    /// For the threads of a device that declares this, in a sandbox that leaves these capabilities.
    pub(crate) fn new(declaration: Declaration, action: Action, left: CapabilitySet) -> Result<Self, Error> {
        Ok(Self {
            filters: Arc::new(Filters::new(&declaration, action)?),
            declaration: Arc::new(declaration),
            left,
        })
    }

    /// Confines the calling thread, which is not confined yet, and those that it starts from now on.
    pub(crate) fn confine(&self, role: Role) -> Result<(), Error> {
        capabilities::keep(self.declaration.capabilities_of(role) & self.left)?;
        self.filters.narrow(role)
    }

    /// For a new thread whose starter is not confined yet.
    pub(crate) fn confined(&self, role: Role) -> impl Fn() + Send + Sync + 'static {
        let threads = self.clone();
        move || or_end_the_thread(threads.confine(role))
    }

    /// For a new thread whose starter is confined, and which needs fewer system calls. Its capabilities are the starter's.
    pub(crate) fn narrowed(&self, role: Role) -> ThreadStart {
        let filters = Arc::clone(&self.filters);
        ThreadStart::new(move || or_end_the_thread(filters.narrow(role)))
    }
}

/// It serves nothing that it would serve unconfined.
fn or_end_the_thread(confined: Result<(), Error>) {
    if let Err(error) = confined {
        panic!("a thread cannot be confined: {error}");
    }
}
