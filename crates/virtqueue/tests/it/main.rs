//! Device half against driver half, a model, another implementation, and hostile drivers.

mod arbitrary;
mod early;
mod hostile;
mod lost_memory;
mod model;
mod oracle;
mod smoke;
mod together;
mod world;
