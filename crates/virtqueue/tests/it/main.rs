//! Device half against driver half, against a model, against another implementation, and against attackers.

mod arbitrary;
mod early;
mod hostile;
mod lost_memory;
mod model;
mod oracle;
mod smoke;
mod world;
