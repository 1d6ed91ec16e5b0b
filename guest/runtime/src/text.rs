//! Lines of text without `core::fmt`.

/// Bytes of a line, at most; what is longer is cut.
const LINE_BYTES_MAX: usize = 240;

/// A line that is being put together.
pub struct Text {
    bytes: [u8; LINE_BYTES_MAX],
    len: usize,
}

/// What can be part of a line.
pub trait Piece {
    /// Adds it to the line.
    fn add_to(&self, text: &mut Text);
}

impl Text {
    /// An empty line.
    #[must_use]
    pub fn new() -> Text {
        Text { bytes: [0; LINE_BYTES_MAX], len: 0 }
    }

    /// Adds bytes, as many as there is room for.
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = *byte;
                self.len += 1;
            }
        }
    }

    /// Ends the line and sends it to the console in one piece.
    pub fn say(mut self) {
        let end = self.len.min(LINE_BYTES_MAX - 1);
        if let Some(place) = self.bytes.get_mut(end) {
            *place = b'\n';
        }
        if let Some(line) = self.bytes.get(..=end) {
            crate::console::write(line);
        }
    }
}

impl Default for Text {
    fn default() -> Text {
        Text::new()
    }
}

impl Piece for &[u8] {
    fn add_to(&self, text: &mut Text) {
        text.push(self);
    }
}

impl Piece for &str {
    fn add_to(&self, text: &mut Text) {
        text.push(self.as_bytes());
    }
}

impl Piece for u64 {
    fn add_to(&self, text: &mut Text) {
        let mut digits = [b'0'; 20];
        let (mut rest, mut first) = (*self, digits.len());
        for (index, place) in digits.iter_mut().enumerate().rev() {
            if rest == 0 && first < 20 {
                break;
            }
            *place = b'0' + (rest % 10) as u8;
            rest /= 10;
            first = index;
        }
        text.push(digits.get(first..).unwrap_or_default());
    }
}

impl Piece for u32 {
    fn add_to(&self, text: &mut Text) {
        u64::from(*self).add_to(text);
    }
}

/// Says one line on the console, made of strings, bytes and numbers: `say!("I have ", count, " MiB")`.
#[macro_export]
macro_rules! say {
    ($($piece:expr),* $(,)?) => {{
        let mut text = $crate::Text::new();
        $($crate::Piece::add_to(&$piece, &mut text);)*
        text.say();
    }};
}
