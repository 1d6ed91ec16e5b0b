//! The console: bytes, best effort, no answer.

/// Writes bytes to the console. The host may drop them.
pub fn write(bytes: &[u8]) {
    crate::tender::write(bytes);
}
