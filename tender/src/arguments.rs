//! The command line, as the original tenders take it: options, then the image, then whatever the guest is told. Nothing here
//! touches the system.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use fulmar_core::limits::{COMMAND_LINE_BYTES_MAX, DEVICE_NAME_BYTES_MAX};

use crate::privilege::User;
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
    /// A socket of the network namespace that the taps are in, for a tender that is in another one.
    pub(crate) net_control: Option<i32>,
    /// hvt: whether the ring for frames is offered to the guest.
    pub(crate) net_ring: bool,
    /// Whom to become.
    pub(crate) user: Option<User>,
    /// Where to record how the guest fares.
    pub(crate) status_file: Option<OsString>,
    pub(crate) status_fd: Option<i32>,
    pub(crate) debug: DebugArguments,
    pub(crate) options: Vec<DeviceOption>,
    pub(crate) kernel: OsString,
    /// The guest's arguments, joined by spaces.
    pub(crate) command_line: Vec<u8>,
}

/// What is asked for to find a fault in a guest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct DebugArguments {
    /// The folder for a core file.
    pub(crate) core: Option<OsString>,
    /// The path of the socket at which a debugger is waited for.
    pub(crate) gdb: Option<OsString>,
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
    let mut arguments = RunArguments {
        memory_bytes: MEMORY_MIB << 20,
        exec_heap: false,
        kvm: None,
        net_control: None,
        net_ring: true,
        user: None,
        status_file: None,
        status_fd: None,
        debug: DebugArguments::default(),
        options: Vec::new(),
        kernel,
        command_line,
    };
    for option in options {
        let text = option.to_string_lossy().into_owned();
        arguments.take_option(&text, &option).map_err(|fault| Refusal::Option { option: text, fault })?;
    }
    Ok(Request::Run(arguments))
}

impl RunArguments {
    fn take_option(&mut self, text: &str, option: &OsStr) -> Result<(), OptionFault> {
        let bytes = option.as_bytes();
        if self.take_core_option(bytes)? {
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

    /// The descriptors that are spoken of, some perhaps more than once.
    pub(crate) fn fds(&self) -> impl Iterator<Item = i32> {
        let of_device = |option: &DeviceOption| match &option.value {
            DeviceValue::Net(value) | DeviceValue::Block(value) => fd(value),
            DeviceValue::NetMac(_) | DeviceValue::BlockSectorSize(_) => None,
        };
        let devices = self.options.iter().filter_map(of_device);
        let status_file = self.status_file.as_deref().and_then(fd);
        let others = [self.status_fd, status_file, fd(&self.kernel), self.kvm, self.net_control];
        others.into_iter().flatten().chain(devices)
    }

    /// Takes an option that speaks of no device; `false` if this is none of them.
    fn take_core_option(&mut self, option: &[u8]) -> Result<bool, OptionFault> {
        let path = |value: &[u8], wanted| match value {
            b"" => Err(OptionFault::Plain { wanted }),
            value => Ok(Some(OsStr::from_bytes(value).to_owned())),
        };
        let (key, value) = match option.iter().position(|byte| *byte == b'=') {
            Some(at) => (&option[..at], &option[at + 1..]),
            None => (option, &b""[..]),
        };
        match (key, option == key) {
            (b"--mem", false) => {
                let mib = decimal(value).filter(|mib| *mib > 0).ok_or(OptionFault::Memory)?;
                self.memory_bytes = mib.checked_mul(1 << 20).ok_or(OptionFault::Memory)?;
            }
            (b"--x-exec-heap", true) => self.exec_heap = true,
            (b"--no-net-ring", true) => self.net_ring = false,
            (b"--kvm", false) => {
                let form = OptionFault::Plain { wanted: "--kvm=@FD" };
                self.kvm = Some(sys::fd_number(value).ok_or(form)?);
            }
            (b"--net-control", false) => {
                let form = OptionFault::Plain { wanted: "--net-control=@FD" };
                self.net_control = Some(sys::fd_number(value).ok_or(form)?);
            }
            (b"--user", false) => self.user = Some(user(value).ok_or(OptionFault::UserForm)?),
            (b"--exit-status-file", false) => self.status_file = path(value, "--exit-status-file=PATH or @FD")?,
            (b"--status-fd", false) => {
                let number = decimal(value).and_then(|number| i32::try_from(number).ok());
                self.status_fd = Some(number.ok_or(OptionFault::Plain { wanted: "--status-fd=FD" })?);
            }
            (b"--dumpcore", false) => self.debug.core = path(value, "--dumpcore=DIR")?,
            (b"--gdb", false) => self.debug.gdb = path(value, "--gdb=SOCKET")?,
            (b"--gdb", true) | (b"--gdb-port", _) => return Err(OptionFault::GdbPort),
            _ => return Ok(false),
        }
        Ok(true)
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

/// `UID` or `UID:GID`.
fn user(text: &[u8]) -> Option<User> {
    let id = |text| decimal(text).and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX);
    let mut fields = text.splitn(2, |byte| *byte == b':');
    let user = id(fields.next()?)?;
    let group = fields.next().map_or(Some(user), id)?;
    Some(User { user, group })
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
  [ --user=UID | UID:GID ] (whom to become when started by root; nobody if not given)
  [ --exit-status-file=PATH | @FD ] (record how the guest fares in this file)
  [ --status-fd=FD ] (the same, a record each time, to an open file descriptor)
  [ --kvm=@FD ] (hvt: use the open /dev/kvm of a file descriptor)
  [ --x-exec-heap ] (spt: heap and stack may be executed)
  --help (display this help)
  --version (display version information)
Compiled-in modules: core block net gdb dumpcore
block: 
  --block:NAME=PATH | @FD (attach block device or file at PATH, or open as FD, as block storage NAME)
  [ --block-sector-size:NAME=512 ] (bytes of a sector of NAME)
net: 
  --net:NAME=IFACE | @FD (attach tap at IFACE, or open as file descriptor FD, as network NAME)
  [ --net-mac:NAME=HWADDR ] (set HWADDR for network NAME)
  [ --net-control=@FD ] (a socket of the taps' network namespace, for a tender in another one)
  [ --no-net-ring ] (hvt: do not offer the guest a ring for its frames)
gdb, dumpcore (under a name that ends in -debug only): 
  [ --gdb=SOCKET ] (hvt: wait for a debugger at this unix socket before the guest runs)
  [ --dumpcore=DIR ] (write the guest's memory to a file there when it aborts or faults, and on SIGUSR1)
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
    fn options_of_our_own() {
        let arguments = run(&["--user=7", "--no-net-ring", "--exit-status-file=/s", "--status-fd=9", "k"]);
        assert_eq!(arguments.user, Some(User { user: 7, group: 7 }));
        assert_eq!((arguments.net_ring, arguments.status_fd), (false, Some(9)));
        assert_eq!(arguments.status_file, Some("/s".into()));
        assert_eq!(run(&["--user=7:8", "k"]).user, Some(User { user: 7, group: 8 }));
        let debug = run(&["--gdb=/g", "--dumpcore=/d", "k"]).debug;
        assert_eq!((debug.gdb, debug.core), (Some("/g".into()), Some("/d".into())));
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
            (&["--user=root", "k"], "--user=UID"),
            (&["--user=4294967295", "k"], "--user=UID"),
            (&["--user=1:", "k"], "--user=UID"),
            (&["--user", "k"], "no such option"),
            (&["--status-fd=x", "k"], "--status-fd=FD"),
            (&["--exit-status-file=", "k"], "--exit-status-file=PATH"),
            (&["--no-net-ring=1", "k"], "no such option"),
            (&["--gdb", "k"], "--gdb=SOCKET"),
            (&["--gdb-port=1234", "k"], "--gdb=SOCKET"),
            (&["--dumpcore=", "k"], "--dumpcore=DIR"),
        ] {
            let text = parse(words).unwrap_err().to_string();
            assert!(text.contains(wanted), "{words:?}: {text}");
        }
        let long = "x".repeat(COMMAND_LINE_BYTES_MAX + 1);
        assert!(parse(&["k", &long]).is_err());
        assert!(parse(&["k", &long[1..]]).is_ok());
    }
}
