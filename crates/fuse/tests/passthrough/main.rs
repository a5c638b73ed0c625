//! The passthrough file system on real directories, called directly through the `FileSystem` trait.

mod broken;
mod budget;
mod create;
mod credentials;
mod dax;
mod directory;
mod idmap;
mod image;
mod io;
mod names;
mod nodes;
mod projects;
mod share;
mod snapshots;
mod waiting;
mod xattr;
