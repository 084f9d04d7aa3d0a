//! The host tool behind `cargo run`.
fn main() {}
