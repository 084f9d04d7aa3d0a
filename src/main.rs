//! The kernel binary: on the developer's machine it only says how to start it.
fn main() {
    println!("This is the kernel; start it with: cargo run");
}
