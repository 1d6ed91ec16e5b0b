//! The command line, as the original tenders take it: options, then the image, then whatever the guest is told. Nothing here
//! touches the system.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use fulmar_core::limits::{COMMAND_LINE_BYTES_MAX, DEVICE_NAME_BYTES_MAX};

use crate::refusal::{OptionFault, Refusal};
use crate::sys;

/// MiB of a guest that was given none.
const MEMORY_MIB: u64 = 512;
/// Largest sector: the next power of two does not fit the manifest's field.
const SECTOR_BYTES_MAX: u16 = 32768;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Help,
    Version,
    Run(RunArguments),
}

/// How to run which image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RunArguments {
    pub(crate) memory_bytes: u64,
    /// spt: heap and stack may be executed.
    pub(crate) exec_heap: bool,
    /// hvt: an open `/dev/kvm`, for a tender whose user may not open it.
    pub(crate) kvm: Option<i32>,
    pub(crate) options: Vec<DeviceOption>,
    pub(crate) kernel: OsString,
    /// The guest's arguments, joined by spaces.
    pub(crate) command_line: Vec<u8>,
}

/// An option that speaks of a device.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DeviceOption {
    /// As it was written, for messages.
    pub(crate) text: String,
    pub(crate) name: String,
    pub(crate) value: DeviceValue,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DeviceValue {
    /// A tap by name, or `@FD`.
    Net(OsString),
    NetMac([u8; 6]),
    Block(OsString),
    BlockSectorSize(u16),
}

/// Reads the words behind the program's name.
pub(crate) fn parse(words: Vec<OsString>) -> Result<Request, Refusal> {
    let is_option = |word: &&OsString| word.as_bytes().starts_with(b"-") && word.as_bytes() != b"--";
    let count = words.iter().take_while(is_option).count();
    // Whatever else is wrong, these two are answered.
    for word in &words[..count] {
        match word.as_bytes() {
            b"--help" => return Ok(Request::Help),
            b"--version" => return Ok(Request::Version),
            _ => {}
        }
    }
    let mut rest = words.into_iter();
    let options: Vec<OsString> = rest.by_ref().take(count).collect();
    let mut kernel = rest.next();
    if kernel.as_deref() == Some(OsStr::new("--")) {
        kernel = rest.next();
    }
    let kernel = kernel.ok_or(Refusal::KernelMissing)?;
    let command_line = rest.map(OsString::into_vec).collect::<Vec<_>>().join(&b' ');
    if command_line.len() > COMMAND_LINE_BYTES_MAX {
        return Err(Refusal::CommandLineLong);
    }
    let memory_bytes = MEMORY_MIB << 20;
    let mut arguments =
        RunArguments { memory_bytes, exec_heap: false, kvm: None, options: Vec::new(), kernel, command_line };
    for option in options {
        let text = option.to_string_lossy().into_owned();
        arguments.take_option(&text, &option).map_err(|fault| Refusal::Option { option: text, fault })?;
    }
    Ok(Request::Run(arguments))
}

impl RunArguments {
    fn take_option(&mut self, text: &str, option: &OsStr) -> Result<(), OptionFault> {
        let bytes = option.as_bytes();
        if let Some(number) = bytes.strip_prefix(b"--mem=") {
            let mib = decimal(number).filter(|mib| *mib > 0).ok_or(OptionFault::Memory)?;
            self.memory_bytes = mib.checked_mul(1 << 20).ok_or(OptionFault::Memory)?;
            return Ok(());
        }
        if bytes == b"--x-exec-heap" {
            self.exec_heap = true;
            return Ok(());
        }
        if let Some(value) = bytes.strip_prefix(b"--kvm=") {
            let form = OptionFault::Form { wanted: "--kvm=@FD" };
            self.kvm = Some(sys::fd_number(value).ok_or(form)?);
            return Ok(());
        }
        let (name, value) = if let Some(rest) = bytes.strip_prefix(b"--net:") {
            let (name, value) = split(rest, "--net:NAME=TAP")?;
            (name, DeviceValue::Net(value.to_owned()))
        } else if let Some(rest) = bytes.strip_prefix(b"--net-mac:") {
            let (name, value) = split(rest, "--net-mac:NAME=MAC")?;
            (name, DeviceValue::NetMac(mac(value.as_bytes()).ok_or(OptionFault::Mac)?))
        } else if let Some(rest) = bytes.strip_prefix(b"--block:") {
            let (name, value) = split(rest, "--block:NAME=PATH")?;
            (name, DeviceValue::Block(value.to_owned()))
        } else if let Some(rest) = bytes.strip_prefix(b"--block-sector-size:") {
            let (name, value) = split(rest, "--block-sector-size:NAME=BYTES")?;
            let bytes = decimal(value.as_bytes()).and_then(|bytes| u16::try_from(bytes).ok());
            let fits = |bytes: &u16| bytes.is_power_of_two() && (512..=SECTOR_BYTES_MAX).contains(bytes);
            (name, DeviceValue::BlockSectorSize(bytes.filter(fits).ok_or(OptionFault::SectorSize)?))
        } else {
            return Err(OptionFault::Unknown);
        };
        self.options.push(DeviceOption { text: text.to_owned(), name, value });
        Ok(())
    }
}

/// Splits `NAME=VALUE`.
fn split<'a>(rest: &'a [u8], wanted: &'static str) -> Result<(String, &'a OsStr), OptionFault> {
    let form = OptionFault::Form { wanted };
    let Some(at) = rest.iter().position(|byte| *byte == b'=') else { return Err(form) };
    let (name, value) = (&rest[..at], &rest[at + 1..]);
    let good = !name.is_empty() && name.len() <= DEVICE_NAME_BYTES_MAX && name.iter().all(u8::is_ascii_alphanumeric);
    if !good || value.is_empty() {
        return Err(form);
    }
    Ok((String::from_utf8_lossy(name).into_owned(), OsStr::from_bytes(value)))
}

/// A number of decimal digits and nothing else.
fn decimal(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Six fields of one or two hexadecimal digits.
fn mac(text: &[u8]) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut fields = text.split(|byte| *byte == b':');
    for byte in &mut mac {
        let field = fields.next().filter(|field| (1..=2).contains(&field.len()))?;
        let field =
            std::str::from_utf8(field).ok().filter(|field| field.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(field, 16).ok()?;
    }
    fields.next().is_none().then_some(mac)
}

/// Whether a device option's value means a file descriptor, and which.
pub(crate) fn fd(value: &OsStr) -> Option<i32> {
    sys::fd_number(value.as_bytes())
}

/// The text of `--help`.
pub(crate) fn usage(program: &str) -> String {
    format!(
        "usage: {program} [ CORE OPTIONS ] [ MODULE OPTIONS ] [ -- ] KERNEL [ ARGS ]
KERNEL is the filename of the unikernel to run, or @FD for one that is open already.
ARGS are optional arguments passed to the unikernel.
Core options:
  [ --mem=512 ] (guest memory in MB)
  [ --kvm=@NN ] (hvt: use the open /dev/kvm of file descriptor @NN)
  [ --x-exec-heap ] (spt: heap and stack may be executed)
  --help (display this help)
  --version (display version information)
Compiled-in modules: core block net
block: 
  --block:NAME=PATH (attach block device or file at PATH as block storage NAME)
  [ --block-sector-size:NAME=512 ] (bytes of a sector of NAME)
net: 
  --net:NAME=IFACE | @NN (attach tap at IFACE, or open as file descriptor @NN, as network NAME)
  [ --net-mac:NAME=HWADDR ] (set HWADDR for network NAME)
Called as solo5-hvt or solo5-spt it runs images of that kind, else either.
Example: {program} --mem=32 --net:service=tap0 web.hvt --ipv4=10.0.0.2/24
"
    )
}

#[cfg(test)]
mod tests {
    //! Command lines, good and bad.
    use super::*;

    fn parse(words: &[&str]) -> Result<Request, Refusal> {
        super::parse(words.iter().map(OsString::from).collect())
    }

    fn run(words: &[&str]) -> RunArguments {
        match parse(words) {
            Ok(Request::Run(arguments)) => arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_full_line() {
        let words =
            ["--mem=32", "--net:service=tap0", "--net-mac:service=2:0:0:0:0:1f", "--block:s=/d", "--", "k", "a", "-b"];
        let arguments = run(&words);
        assert_eq!(arguments.memory_bytes, 32 << 20);
        assert_eq!(arguments.kernel, "k");
        assert_eq!(arguments.command_line, b"a -b");
        assert_eq!(arguments.options[0].value, DeviceValue::Net("tap0".into()));
        assert_eq!(arguments.options[1].value, DeviceValue::NetMac([2, 0, 0, 0, 0, 0x1f]));
        assert_eq!(arguments.options[2].name, "s");
    }

    #[test]
    fn what_follows_the_image_is_the_guests() {
        assert_eq!(run(&["k", "--help", "--mem=0"]).command_line, b"--help --mem=0");
        assert_eq!(run(&["k"]).memory_bytes, 512 << 20);
    }

    #[test]
    fn help_and_version_come_first() {
        assert_eq!(parse(&["--nonsense", "--help"]).unwrap(), Request::Help);
        assert_eq!(parse(&["--mem=0", "--version", "k"]).unwrap(), Request::Version);
    }

    #[test]
    fn wrong_lines_say_what_is_wrong() {
        for (words, wanted) in [
            (&["--mem=4"][..], "Missing KERNEL operand"),
            (&["--mem=0", "k"], "--mem"),
            (&["--mem=x", "k"], "--mem"),
            (&["--mem=-1", "k"], "--mem"),
            (&["--mem=99999999999999999999", "k"], "--mem"),
            (&["--bogus", "k"], "no such option"),
            (&["--net:a-b=t", "k"], "--net:NAME=TAP"),
            (&["--net:=t", "k"], "--net:NAME=TAP"),
            (&["--net:a", "k"], "--net:NAME=TAP"),
            (&["--net-mac:a=1:2:3:4:5", "k"], "six hexadecimal bytes"),
            (&["--net-mac:a=1:2:3:4:5:6:7", "k"], "six hexadecimal bytes"),
            (&["--net-mac:a=1:2:3:4:5:+6", "k"], "six hexadecimal bytes"),
            (&["--block-sector-size:a=513", "k"], "Block size must"),
            (&["--block-sector-size:a=66048", "k"], "Block size must"),
        ] {
            let text = parse(words).unwrap_err().to_string();
            assert!(text.contains(wanted), "{words:?}: {text}");
        }
        let long = "x".repeat(COMMAND_LINE_BYTES_MAX + 1);
        assert!(parse(&["k", &long]).is_err());
        assert!(parse(&["k", &long[1..]]).is_ok());
    }
}
