//! What a process has read from and written to storage, by the kernel's taskstats (`Documentation/accounting/taskstats.rst`): who may
//! administer the network of the host is told that of every process, where `/proc/PID/io` tells it only to who may trace it.

use std::fmt;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::SockProtocol;
use nix::unistd::Pid;

use crate::netlink::{Socket, attributes, begin, push_attribute};

/// Numbers of `linux/taskstats.h`, which libc lacks: the request by a process id, and in the answer the id with its numbers, and these.
const CMD_GET: u8 = 1;
const CMD_ATTR_PID: u16 = 1;
const TYPE_AGGR_PID: u16 = 4;
const TYPE_STATS: u16 = 3;

/// Where `struct taskstats` has its `read_bytes` and `write_bytes`; it only grows at its end.
const READ_BYTES: usize = 248;
const WRITE_BYTES: usize = 256;

/// Header of a message of generic netlink.
const GENERIC_HEADER: usize = 4;

/// The kernel does not tell it to us: `ENOENT` where it was built without that, `EPERM` where we may not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotTold(Errno);

impl fmt::Display for NotTold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(errno) = self;
        write!(f, "what unikernels read and write is not measured: the kernel's taskstats cannot be asked ({errno})")
    }
}

impl std::error::Error for NotTold {}

/// The kernel's door for it.
#[derive(Debug)]
pub(crate) struct Taskstats {
    socket: Socket,
    family: u16,
}

impl Taskstats {
    /// Opens it, and tries whether we are told anything.
    pub(crate) fn open() -> Result<Self, NotTold> {
        Self::try_open().map_err(NotTold)
    }

    fn try_open() -> Result<Self, Errno> {
        let mut socket = Socket::open(SockProtocol::NetlinkGeneric)?;
        let control = u16::try_from(libc::GENL_ID_CTRL).unwrap_or_default();
        let command = u8::try_from(libc::CTRL_CMD_GETFAMILY).unwrap_or_default();
        let name = u16::try_from(libc::CTRL_ATTR_FAMILY_NAME).unwrap_or_default();
        let family = socket.ask(request(control, command, name, b"TASKSTATS\0"), read_family)?;
        let mut opened = Self { socket, family };
        opened.storage_bytes(Pid::this())?;
        Ok(opened)
    }

    /// Bytes that the first thread of a process has read from storage and written to it, in whole KiB. `ESRCH` when it has ended.
    pub(crate) fn storage_bytes(&mut self, pid: Pid) -> Result<(u64, u64), Errno> {
        let pid = pid.as_raw().to_ne_bytes();
        self.socket.ask(request(self.family, CMD_GET, CMD_ATTR_PID, &pid), read_storage_bytes)
    }
}

fn request(family: u16, command: u8, kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = begin(family, libc::NLM_F_ACK);
    // Version 1 of the command; two bytes are reserved.
    bytes.extend([command, 1, 0, 0]);
    push_attribute(&mut bytes, kind, value);
    bytes
}

/// The value of the attribute of this kind.
fn find(attributes_of: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(attributes_of).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

fn read_family(body: &[u8]) -> Option<u16> {
    let wanted = u16::try_from(libc::CTRL_ATTR_FAMILY_ID).ok()?;
    find(body.get(GENERIC_HEADER..)?, wanted)?.first_chunk().map(|id| u16::from_ne_bytes(*id))
}

fn read_storage_bytes(body: &[u8]) -> Option<(u64, u64)> {
    let stats = find(find(body.get(GENERIC_HEADER..)?, TYPE_AGGR_PID)?, TYPE_STATS)?;
    let number = |at: usize| stats.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
    Some((number(READ_BYTES)?, number(WRITE_BYTES)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(stats: &[u8]) -> Vec<u8> {
        let (mut body, mut nested) = (vec![2, 1, 0, 0], Vec::new());
        push_attribute(&mut nested, 1, &7_u32.to_ne_bytes());
        push_attribute(&mut nested, TYPE_STATS, stats);
        push_attribute(&mut body, TYPE_AGGR_PID, &nested);
        body
    }

    #[test]
    fn an_answer_is_read_as_far_as_it_is_whole() {
        let stats: Vec<u8> = (0..52_u64).flat_map(u64::to_ne_bytes).collect();
        let whole = answer(&stats);
        assert_eq!(read_storage_bytes(&whole), Some((31, 32)));
        for cut in 0..whole.len() {
            assert_eq!(read_storage_bytes(&whole[..cut]), None, "{cut}");
        }
        // Of an older kernel, which has no such numbers.
        assert_eq!(read_storage_bytes(&answer(&stats[..WRITE_BYTES + 7])), None);
        assert_eq!(read_family(&[1, 2, 0, 0, 6, 0, 1, 0, 31, 0, 0, 0]), Some(u16::from_ne_bytes([31, 0])));
        assert_eq!(read_family(&[1, 2, 0, 0, 6, 0, 2, 0, 31, 0, 0, 0]), None);
    }

    #[test]
    fn what_a_process_writes_to_a_disk_is_counted() {
        let mut taskstats = match Taskstats::open() {
            Ok(taskstats) => taskstats,
            Err(error) => {
                let test = "what_a_process_writes_to_a_disk_is_counted";
                return fulmar_tests::skips::skip(test, &error.to_string());
            }
        };
        // What the kernel shows a process of itself has to be the same, be the folder on a disk or in memory.
        let own = |key: &str| {
            let text = std::fs::read_to_string("/proc/thread-self/io").unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(key).map(str::to_owned)).unwrap();
            line.trim().parse::<u64>().unwrap()
        };
        let folder = fulmar_tests::system::make_folder("taskstats").unwrap();
        let this = nix::unistd::gettid();
        let (_, before) = taskstats.storage_bytes(this).unwrap();
        std::fs::write(folder.join("file"), vec![7; 1 << 20]).unwrap();
        let (read, written) = taskstats.storage_bytes(this).unwrap();
        assert_eq!((read, written), (own("read_bytes:") & !1023, own("write_bytes:") & !1023));
        assert!(written == before || written >= before + (1 << 20), "{before} {written}");
        std::fs::remove_dir_all(folder).unwrap();
        assert_eq!(taskstats.storage_bytes(Pid::from_raw(i32::MAX)), Err(Errno::ESRCH));
    }
}
