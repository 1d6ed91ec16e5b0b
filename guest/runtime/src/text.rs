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

    /// The bytes so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
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

/// Numbers that fit into the one above.
macro_rules! pieces {
    ($($number:ty),*) => {$(
        impl Piece for $number {
            fn add_to(&self, text: &mut Text) {
                (*self as u64).add_to(text);
            }
        }
    )*};
}

pieces!(u8, u16, u32, usize);

impl Piece for i32 {
    fn add_to(&self, text: &mut Text) {
        if *self < 0 {
            text.push(b"-");
        }
        self.unsigned_abs().add_to(text);
    }
}

/// A number in hexadecimal digits: `0x1f`.
#[derive(Clone, Copy)]
pub struct Hex(pub u64);

impl Piece for Hex {
    fn add_to(&self, text: &mut Text) {
        text.push(b"0x");
        let digits = (64 - self.0.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            text.push(&[hex_digit((self.0 >> (4 * digit)) as u8)]);
        }
    }
}

/// An address of the Internet: `10.0.0.2`.
#[derive(Clone, Copy)]
pub struct Ipv4(pub [u8; 4]);

impl Piece for Ipv4 {
    fn add_to(&self, text: &mut Text) {
        let [first, rest @ ..] = self.0;
        first.add_to(text);
        for byte in rest {
            text.push(b".");
            byte.add_to(text);
        }
    }
}

/// An address of a network card: `02:00:00:00:00:07`.
#[derive(Clone, Copy)]
pub struct Mac(pub [u8; 6]);

impl Piece for Mac {
    fn add_to(&self, text: &mut Text) {
        for (index, byte) in self.0.into_iter().enumerate() {
            if index > 0 {
                text.push(b":");
            }
            text.push(&[hex_digit(byte >> 4), hex_digit(byte)]);
        }
    }
}

/// The digit of the low four bits.
fn hex_digit(bits: u8) -> u8 {
    match bits & 15 {
        small @ ..10 => b'0' + small,
        large => b'a' - 10 + large,
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
