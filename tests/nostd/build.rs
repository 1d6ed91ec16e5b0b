//! Nothing is linked but the program: no start files, no C library, no default libraries.

fn main() {
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-Wl,--gc-sections"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
