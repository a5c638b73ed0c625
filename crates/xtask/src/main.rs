//! Sets up, demonstrates and tests innkeeper.

fn main() {}
