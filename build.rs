//! Hands the linker its script, for the kernel binary on the bare machine only.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/arch/x86_64/kernel.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    // Relocations are kept, so that a later boot can slide the image (KASLR) with what the linker knew.
    for argument in ["--no-pie", "-zmax-page-size=4096", "--build-id=none", "--emit-relocs", "--no-dynamic-linker"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rustc-link-arg-bins=-T{folder}/src/arch/x86_64/kernel.ld");
}
