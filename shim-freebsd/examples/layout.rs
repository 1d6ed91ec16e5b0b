//! Prints the C program that compiles only where FreeBSD's headers agree with the shim: `.ci/freebsd` compiles it.

fn main() {
    print!("{}", fulmar_shim_freebsd::layout_check());
}
