//! Values on the command line: devices, names, times. Pure: text in, value or a reason out.

use std::ops::RangeInclusive;

use fulmar_core::halves::is_zvol;
use fulmar_core::limits::{
    CPUS_MAX, DEVICE_NAME_BYTES_MAX, INTERFACE_BYTES_MAX, SECTOR_BYTES_DEFAULT, SECTOR_BYTES_MAX,
};
use fulmar_core::name::{Name, check_label};
use fulmar_core::time;

/// Bytes that a sector can have.
const SECTORS: RangeInclusive<i64> = SECTOR_BYTES_DEFAULT..=SECTOR_BYTES_MAX;

/// `DEVICE[:BRIDGE[=MAC]]`: a network interface of the image and where it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetOption {
    /// Its name in the image's manifest.
    pub device: String,
    /// The bridge on the host; that of the device's name where absent.
    pub bridge: Option<String>,
    /// Its MAC address; derived from the name where absent.
    pub mac: Option<[u8; 6]>,
}

/// `DEVICE[:HOSTDEVICE][@SECTOR]`: a block device of the image and what it is on the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockOption {
    /// Its name in the image's manifest.
    pub device: String,
    /// The host's block device, or the path of a zvol; that of the device's name where absent.
    pub host_device: Option<String>,
    /// Bytes of a sector.
    pub sector_bytes: Option<i64>,
}

/// Reads `DEVICE[:BRIDGE[=MAC]]`.
///
/// # Errors
/// What is wrong with it.
pub fn net(text: &str) -> Result<NetOption, String> {
    let (name, rest) = split(text, ':');
    let name = device(name).map_err(|reason| format!("{reason}; write DEVICE[:BRIDGE[=MAC]]"))?;
    let Some(rest) = rest else { return Ok(NetOption { device: name, bridge: None, mac: None }) };
    let (bridge_name, mac_text) = split(rest, '=');
    Ok(NetOption { device: name, bridge: Some(bridge(bridge_name)?), mac: mac_text.map(mac).transpose()? })
}

/// Reads `DEVICE[:HOSTDEVICE][@SECTOR]`.
///
/// # Errors
/// What is wrong with it.
pub fn block(text: &str) -> Result<BlockOption, String> {
    let (rest, sector) = split(text, '@');
    let (name, host_device) = split(rest, ':');
    let name = device(name).map_err(|reason| format!("{reason}; write DEVICE[:HOSTDEVICE][@SECTOR]"))?;
    if let Some(label) = host_device.filter(|label| !is_zvol(label)) {
        check_label(label.as_bytes()).map_err(|error| format!("block device '{label}' of the host: {error}"))?;
    }
    let sector_bytes = match sector {
        None => None,
        Some(digits) => match digits.parse::<u32>() {
            Ok(bytes) if bytes.is_power_of_two() && SECTORS.contains(&i64::from(bytes)) => Some(i64::from(bytes)),
            _ => {
                let (least, most) = (SECTORS.start(), SECTORS.end());
                return Err(format!("sector size '{digits}' is not a power of two from {least} to {most}"));
            }
        },
    };
    Ok(BlockOption { device: name, host_device: host_device.map(str::to_owned), sector_bytes })
}

/// Reads the name of a bridge on the host.
///
/// # Errors
/// What is wrong with it.
pub fn bridge(text: &str) -> Result<String, String> {
    let fits = (1..=INTERFACE_BYTES_MAX).contains(&text.len()) && text != "." && text != "..";
    if fits && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':') {
        return Ok(text.to_owned());
    }
    Err(format!("bridge '{text}' is not 1 to {INTERFACE_BYTES_MAX} visible characters without '/' and ':'"))
}

/// Reads the number of a CPU.
///
/// # Errors
/// What is wrong with it.
pub fn cpu(text: &str) -> Result<i64, String> {
    match text.parse::<u16>() {
        Ok(cpu) if usize::from(cpu) < CPUS_MAX => Ok(i64::from(cpu)),
        _ => Err(format!("'{text}' is no CPU: they have numbers from 0 to {}", CPUS_MAX - 1)),
    }
}

/// Reads the name of a unikernel.
///
/// # Errors
/// What is wrong with it.
pub fn unikernel(text: &str) -> Result<Name, String> {
    let name = Name::parse(text).map_err(|error| error.to_string())?;
    if name.is_path() {
        return Err("this is a path: a unikernel's name does not end with ':'".to_owned());
    }
    Ok(name)
}

/// Reads the name of a block device.
///
/// # Errors
/// What is wrong with it.
pub fn block_device(text: &str) -> Result<Name, String> {
    let name = Name::parse(text).map_err(|error| error.to_string())?;
    if name.is_path() {
        return Err("this is a path: a block device's name does not end with ':'".to_owned());
    }
    Ok(name)
}

/// Reads the name of a unikernel or of a path, which ends with `:`.
///
/// # Errors
/// What is wrong with it.
pub fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|error| error.to_string())
}

/// Reads a path; its last `:` may be missing.
///
/// # Errors
/// What is wrong with it.
pub fn path(text: &str) -> Result<Name, String> {
    let text = if text.is_empty() || text.ends_with(':') { text.to_owned() } else { format!("{text}:") };
    Name::parse(&text).map_err(|error| error.to_string())
}

/// Reads a time as RFC 3339 has it, or a date alone (midnight UTC), into milliseconds since 1970.
///
/// # Errors
/// What is wrong with it.
pub fn since(text: &str) -> Result<i64, String> {
    rfc_3339(text).ok_or_else(|| {
        format!("'{text}' is no time: write 2026-11-21, 2026-11-21T03:21:46Z or 2026-11-21T03:21:46.5+01:00")
    })
}

fn rfc_3339(text: &str) -> Option<i64> {
    if !text.is_ascii() {
        return None;
    }
    let (date, clock) =
        text.split_at_checked(10).map(|(date, rest)| (date, if rest.is_empty() { "T00:00:00Z" } else { rest }))?;
    let date = fields(date, '-', [4, 2, 2])?;
    let clock = clock.strip_prefix(['T', 't', ' '])?;
    let (clock, rest) = clock.split_at_checked(8)?;
    let clock = fields(clock, ':', [2, 2, 2])?;
    let (milliseconds, zone) = match rest.strip_prefix('.') {
        None => (0, rest),
        Some(rest) => {
            let end = rest.find(|character: char| !character.is_ascii_digit())?;
            let (digits, zone) = rest.split_at_checked(end)?;
            if digits.is_empty() {
                return None;
            }
            (format!("{digits}00").get(..3)?.parse::<i64>().ok()?, zone)
        }
    };
    let utc = time::parse(format!("{date}{clock}Z").as_bytes())?.checked_add(milliseconds)?;
    utc.checked_sub(zone_ms(zone)?)
}

/// The digits of groups with a sign between them.
fn fields(text: &str, sign: char, widths: [usize; 3]) -> Option<String> {
    let mut parts = text.split(sign);
    let mut digits = String::new();
    for width in widths {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        digits.push_str(part);
    }
    parts.next().is_none().then_some(digits)
}

fn zone_ms(zone: &str) -> Option<i64> {
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => return Some(0),
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let digits = fields(&format!("{rest}:00"), ':', [2, 2, 2])?;
    let (hours, rest) = digits.split_at_checked(2)?;
    let (hours, minutes) = (hours.parse::<i64>().ok()?, rest.get(..2)?.parse::<i64>().ok()?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000)
}

fn device(text: &str) -> Result<String, String> {
    let fits = (1..=DEVICE_NAME_BYTES_MAX).contains(&text.len());
    if fits && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(text.to_owned());
    }
    Err(format!("device '{text}' is not 1 to {DEVICE_NAME_BYTES_MAX} letters and digits"))
}

fn mac(text: &str) -> Result<[u8; 6], String> {
    let wrong = || format!("MAC address '{text}' is not six pairs of hexadecimal digits with ':' between them");
    let mut address = [0; 6];
    let mut parts = text.split(':');
    for place in &mut address {
        let part = parts.next().ok_or_else(wrong)?;
        if part.len() != 2 || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        *place = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    if parts.next().is_some() {
        return Err(wrong());
    }
    if address.first().is_some_and(|first| first & 1 == 1) {
        return Err(format!("MAC address '{text}' is a group address: its second digit must be even"));
    }
    Ok(address)
}

fn split(text: &str, sign: char) -> (&str, Option<&str>) {
    text.split_once(sign).map_or((text, None), |(before, after)| (before, Some(after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nets() {
        let option = |device: &str, bridge: Option<&str>, mac| NetOption {
            device: device.to_owned(),
            bridge: bridge.map(str::to_owned),
            mac,
        };
        for (text, wanted) in [
            ("service0", option("service0", None, None)),
            ("service0:br0", option("service0", Some("br0"), None)),
            ("Service:br-lan.1", option("Service", Some("br-lan.1"), None)),
            ("service:br0=02:00:00:0A:0b:0c", option("service", Some("br0"), Some([2, 0, 0, 10, 11, 12]))),
        ] {
            assert_eq!(net(text).unwrap(), wanted, "{text}");
        }
        for (text, reason) in [
            ("", "device ''"),
            (":br0", "device ''"),
            ("service-0", "device 'service-0'"),
            ("service=02:00:00:00:00:01", "write DEVICE[:BRIDGE[=MAC]]"),
            ("service:", "bridge ''"),
            ("service:a-bridge-of-16ch", "bridge 'a-bridge-of-16ch'"),
            ("service:a/b", "bridge 'a/b'"),
            ("service:a b", "bridge 'a b'"),
            ("service:..", "bridge '..'"),
            ("service:br0=", "MAC address ''"),
            ("service:br0=02:00:00:00:00", "MAC address"),
            ("service:br0=02:00:00:00:00:01:02", "MAC address"),
            ("service:br0=02:00:00:00:00:+1", "MAC address"),
            ("service:br0=2:0:0:0:0:1", "MAC address"),
            ("service:br0=01:00:00:00:00:01", "group address"),
        ] {
            assert!(net(text).unwrap_err().contains(reason), "{text}: {}", net(text).unwrap_err());
        }
        assert!(net(&"x".repeat(68)).is_err());
    }

    #[test]
    fn blocks() {
        let option = |device: &str, host: Option<&str>, sector_bytes| BlockOption {
            device: device.to_owned(),
            host_device: host.map(str::to_owned),
            sector_bytes,
        };
        for (text, wanted) in [
            ("storage", option("storage", None, None)),
            ("storage:disk-1", option("storage", Some("disk-1"), None)),
            ("storage@4096", option("storage", None, Some(4096))),
            ("storage:disk1@512", option("storage", Some("disk1"), Some(512))),
        ] {
            assert_eq!(block(text).unwrap(), wanted, "{text}");
        }
        for (text, reason) in [
            ("", "device ''"),
            ("a_b", "device 'a_b'"),
            ("storage:", "a label is empty"),
            ("storage:../x", "'/'"),
            ("storage:a:b", "':'"),
            ("storage@", "sector size ''"),
            ("storage@100", "sector size '100'"),
            ("storage@513", "sector size '513'"),
            ("storage@-512", "sector size '-512'"),
            ("storage@2097152", "sector size '2097152'"),
        ] {
            assert!(block(text).unwrap_err().contains(reason), "{text}: {}", block(text).unwrap_err());
        }
    }

    #[test]
    fn cpus() {
        assert_eq!(cpu("0"), Ok(0));
        assert_eq!(cpu("1023"), Ok(1023));
        for text in ["", "-1", "1024", "1.5", "x", "99999999999"] {
            assert!(cpu(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_and_paths() {
        assert_eq!(unikernel("Hello").unwrap().as_str(), ":hello");
        assert!(unikernel("foo:").unwrap_err().contains("path"));
        assert!(unikernel("../x").is_err());
        for (text, wanted) in [("foo", "foo:"), ("foo:", "foo:"), (":", ":"), (":foo", "foo:"), ("a:b", "a:b:")] {
            assert_eq!(path(text).unwrap().as_str(), wanted);
        }
        assert!(path("").is_err());
        assert!(path("a::b").is_err());
    }

    #[test]
    fn times() {
        let base = since("2026-11-21T03:21:46Z").unwrap();
        assert_eq!(base, 1_795_231_306_000);
        for (text, offset) in [
            ("2026-11-21t03:21:46z", 0),
            ("2026-11-21 03:21:46+00:00", 0),
            ("2026-11-21T03:21:46.698Z", 698),
            ("2026-11-21T03:21:46.5Z", 500),
            ("2026-11-21T03:21:46.123456789Z", 123),
            ("2026-11-21T05:21:46+02:00", 0),
            ("2026-11-20T23:51:46-03:30", 0),
        ] {
            assert_eq!(since(text).unwrap() - base, offset, "{text}");
        }
        assert_eq!(since("2026-11-21").unwrap(), since("2026-11-21T00:00:00Z").unwrap());
        for text in [
            "",
            "now",
            "2026-11-21T",
            "2026-11-31",
            "2026-02-29",
            "2026-11-21T03:21:46",
            "2026-11-21T03:21:46.Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T03:21:46+24:00",
            "2026-11-21T03:21:46+1:00",
            "20261121",
            "2026-11-21Z",
            "\u{661}026-11-21",
        ] {
            assert!(since(text).is_err(), "{text}");
        }
    }
}
