//! Lets the linker of every unikernel find `solo5.ld`.
fn main() {
    println!("cargo:rerun-if-changed=solo5.ld");
    println!("cargo:rustc-link-search={}", env!("CARGO_MANIFEST_DIR"));
}
