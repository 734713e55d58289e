//! The one binary: server, `ctl` and `utl`, by its first argument or by the name it was called with.

fn main() {}
