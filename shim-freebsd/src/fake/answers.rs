//! What the fake kernel says of interfaces, processes and virtual machines: the bytes that the real one would.

use nix::errno::Errno;

use super::{Device, FakeKernel, State};
use crate::abi::{self, Field, PointingRequest, Request};

fn put(field: Field, structure: &mut [u8], number: u64) {
    field.put(structure, &number.to_le_bytes());
}

fn put_time(field: Field, structure: &mut [u8], microseconds: u64) {
    put(abi::TV_SEC.within(field), structure, microseconds / 1_000_000);
    put(abi::TV_USEC.within(field), structure, microseconds % 1_000_000);
}

fn text(field: Field, structure: &[u8]) -> String {
    String::from_utf8(field.text(structure).to_vec()).unwrap()
}

impl FakeKernel {
    pub(super) fn answer(&self, device: &Device, request: Request, data: &mut [u8]) -> Result<(), Errno> {
        assert_eq!(data.len(), request.size());
        let mut state = self.state_mut();
        match (request, device) {
            // It was open before it was removed.
            (abi::VM_STATS | abi::VM_STAT_DESC, Device::Machine(name)) if !state.machines.contains(name) => {
                return Err(Errno::ENXIO);
            }
            (abi::VM_STATS, Device::Machine(_)) => {
                tell_counters(&state, data);
                return Ok(());
            }
            (abi::VM_STAT_DESC, Device::Machine(_)) => {
                let index = abi::VM_STAT_DESC_INDEX.number(data);
                abi::VM_STAT_DESC_TEXT.put(data, format!("counter {index}\0").as_bytes());
                return Ok(());
            }
            (abi::VM_STATS | abi::VM_STAT_DESC, _) => return Err(Errno::ENOTTY),
            (abi::SIOCIFCREATE2, _) => {
                assert_eq!(text(abi::IFR_NAME, data), "tap");
                let name = state.make_tap()?;
                abi::IFR_NAME.put(data, name.as_bytes());
                return Ok(());
            }
            _ => {}
        }
        let name = text(abi::IFR_NAME, data);
        let place = state.interfaces.iter().position(|it| it.name == name).ok_or(Errno::ENXIO)?;
        match request {
            abi::SIOCGIFFLAGS => put(abi::IFR_FLAGS, data, state.interfaces[place].flags.into()),
            abi::SIOCSIFFLAGS => state.interfaces[place].flags = abi::IFR_FLAGS.number(data).try_into().unwrap(),
            abi::SIOCGIFINDEX => put(abi::IFR_INDEX, data, state.interfaces[place].index.into()),
            abi::SIOCIFDESTROY => {
                state.interfaces.remove(place);
                state.taps.retain(|_, tap| *tap != name);
            }
            other => panic!("{other:?}"),
        }
        Ok(())
    }

    pub(super) fn answer_pointing(
        &self,
        request: PointingRequest,
        data: &mut [u8],
        pointed: &mut [u8],
    ) -> Result<(), Errno> {
        assert_eq!(data.len(), request.request.size());
        let mut state = self.state_mut();
        match request {
            abi::RENAME => {
                let (from, to) = (text(abi::IFR_NAME, data), text(abi::IFR_NAME, pointed));
                if state.interfaces.iter().any(|it| it.name == to) {
                    return Err(Errno::EEXIST);
                }
                state.interfaces.iter_mut().find(|it| it.name == from).ok_or(Errno::ENXIO)?.name = to.clone();
                if let Some(tap) = state.taps.values_mut().find(|it| **it == from) {
                    *tap = to;
                }
            }
            abi::DRIVER => {
                assert_eq!((abi::IFD_CMD.number(data), pointed.len()), (abi::BRDGADD, abi::IFBREQ_SIZE));
                let (bridge, member) = (text(abi::IFD_NAME, data), text(abi::IFBR_IFSNAME, pointed));
                let member = state.interfaces.iter_mut().find(|it| it.name == member).ok_or(Errno::ENOENT)?;
                member.bridge = Some(bridge);
            }
            abi::GROUP_MEMBERS => {
                let group = text(abi::IFGR_NAME, data);
                let members: Vec<_> = state.interfaces.iter().filter(|it| it.group == group).collect();
                let size = members.len() * abi::MEMBER_SIZE;
                // A group is there as long as anybody is in it.
                if members.is_empty() {
                    return Err(Errno::ENOENT);
                }
                if !pointed.is_empty() && pointed.len() < size {
                    return Err(Errno::EINVAL);
                }
                for (place, member) in pointed.chunks_exact_mut(abi::MEMBER_SIZE).zip(&members) {
                    abi::IFR_NAME.put(place, member.name.as_bytes());
                }
                put(abi::IFGR_LEN, data, size as u64);
            }
            other => panic!("{other:?}"),
        }
        Ok(())
    }

    pub(super) fn tell(&self, path: &[i32], value: &mut [u8]) -> Result<usize, Errno> {
        let state = self.state();
        match *path {
            [abi::CTL_KERN, abi::KERN_BOOTTIME] => {
                put_time(Field { at: 0, size: abi::TIMEVAL_SIZE }, value, state.booted);
                Ok(abi::TIMEVAL_SIZE)
            }
            [abi::CTL_KERN, abi::KERN_PROC, abi::KERN_PROC_PID, pid] => {
                let process = state.processes.get(&pid).ok_or(Errno::ESRCH)?;
                put(abi::KI_STRUCTSIZE, value, abi::KINFO_PROC_SIZE as u64);
                put(abi::KI_PID, value, pid.try_into().unwrap());
                put_time(abi::KI_START, value, state.booted + process.started);
                put(abi::KI_STAT, value, if process.zombie.is_some() { abi::SZOMB } else { 3 });
                Ok(state.info_size)
            }
            [abi::CTL_NET, abi::PF_LINK, abi::NETLINK_GENERIC, abi::IFMIB_IFDATA, index, abi::IFDATA_GENERAL] => {
                let interface = state.interfaces.iter().find(|it| i32::from(it.index) == index).ok_or(Errno::ENOENT)?;
                abi::IFMD_NAME.put(value, interface.name.as_bytes());
                for (number, place) in (1..).zip(0..11) {
                    let field = Field { at: abi::IFI_IPACKETS.at + 8 * place, size: 8 };
                    put(field.within(abi::IFMD_DATA), value, number);
                }
                Ok(abi::IFMIBDATA_SIZE)
            }
            _ => Err(Errno::ENOENT),
        }
    }
}

/// As many from the one that is asked for as there are, and as have room.
fn tell_counters(state: &State, data: &mut [u8]) {
    let first = usize::try_from(abi::VM_STATS_INDEX.number(data)).unwrap();
    let told = state.counters.saturating_sub(first).min(usize::try_from(abi::VM_STATS_MAX).unwrap());
    put(abi::VM_STATS_ENTRIES, data, told as u64);
    for place in 0..told {
        let field = Field { at: abi::VM_STATS_BUFFER.at + 8 * place, size: 8 };
        put(field, data, (1000 + first + place) as u64);
    }
}
