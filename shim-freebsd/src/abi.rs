//! What is agreed with FreeBSD's kernel on a 64-bit machine: numbers, and where a value stands in a structure. Structures are bytes
//! here, so what is read and written of them can be tested on any system. [`layout_check`] is all of this as a C program
//! that compiles only where FreeBSD's own headers say the same.

use std::fmt::Write as _;

/// A request to a device or a socket about `size` bytes: the kernel's number for it says how many they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Request(pub(crate) u32);

impl Request {
    /// Bytes of what it is about: thirteen bits of the number.
    pub(crate) const fn size(self) -> usize {
        (self.0 >> 16) as usize & 0x1fff
    }
}

/// A request about bytes that hold the length and the address of other bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PointingRequest {
    /// The request itself.
    pub(crate) request: Request,
    /// Where the length of the others stands.
    pub(crate) length: Field,
    /// Where their address stands.
    pub(crate) address: Field,
}

/// A value in a structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Field {
    /// Bytes before it.
    pub(crate) at: usize,
    /// Bytes of it.
    pub(crate) size: usize,
}

impl Field {
    /// Its bytes; none where the structure is cut short.
    pub(crate) fn bytes(self, structure: &[u8]) -> &[u8] {
        structure.get(self.at..self.at + self.size).unwrap_or_default()
    }

    /// The number without a sign that it is; 0 where the structure is cut short.
    pub(crate) fn number(self, structure: &[u8]) -> u64 {
        let bytes = self.bytes(structure);
        let mut wide = [0; 8];
        match wide.get_mut(..bytes.len()) {
            Some(low) => low.copy_from_slice(bytes),
            None => return 0,
        }
        // Both machines that are built for have the lowest byte first.
        u64::from_le_bytes(wide)
    }

    /// Puts bytes there, as many as it has room for.
    pub(crate) fn put(self, structure: &mut [u8], bytes: &[u8]) {
        if let Some(place) = structure.get_mut(self.at..self.at + self.size) {
            place.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        }
    }

    /// The field of a structure that is itself a field of another one.
    pub(crate) const fn within(self, outer: Self) -> Self {
        Self { at: outer.at + self.at, size: self.size }
    }

    /// The text up to its NUL.
    pub(crate) fn text(self, structure: &[u8]) -> &[u8] {
        self.bytes(structure).split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr, $c:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: $type = $value;)*
        /// Each number, as C has it.
        const NUMBERS: &[(&str, u64)] = &[$(($c, $value as u64)),*];
    };
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $c:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: Request = Request($value);)*
        /// Each request, as C has it.
        const REQUESTS: &[(&str, u32)] = &[$(($c, $value)),*];
    };
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $at:literal, $size:literal, $structure:literal, $c:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: Field = Field { at: $at, size: $size };)*
        /// Each field, as C has it.
        const FIELDS: &[(&str, &str, usize, usize)] = &[$(($structure, $c, $at, $size)),*];
    };
}

numbers! {
    /// Bytes of the name of an interface, its NUL included.
    NAME_SIZE: usize = 16, "IFNAMSIZ";
    /// Bytes of what most requests about an interface are about.
    IFREQ_SIZE: usize = 32, "sizeof(struct ifreq)";
    /// Bytes of one member of a group of interfaces.
    MEMBER_SIZE: usize = 16, "sizeof(struct ifg_req)";
    /// Bytes of the question for the members of a group.
    IFGROUPREQ_SIZE: usize = 40, "sizeof(struct ifgroupreq)";
    /// Bytes of a request to the driver of an interface.
    IFDRV_SIZE: usize = 40, "sizeof(struct ifdrv)";
    /// Bytes of what a bridge is told of a member.
    IFBREQ_SIZE: usize = 80, "sizeof(struct ifbreq)";
    /// Take a member into a bridge.
    BRDGADD: u64 = 0, "BRDGADD";
    /// The interface is up.
    IFF_UP: u16 = 1, "IFF_UP";
    /// Bytes of what is told of an interface.
    IFMIBDATA_SIZE: usize = 208, "sizeof(struct ifmibdata)";
    /// The kernel's own values, among all.
    CTL_KERN: i32 = 1, "CTL_KERN";
    /// The network's.
    CTL_NET: i32 = 4, "CTL_NET";
    /// The link layer's, among those.
    PF_LINK: i32 = 18, "PF_LINK";
    /// Those of interfaces of any kind, among those.
    NETLINK_GENERIC: i32 = 0, "NETLINK_GENERIC";
    /// Those of one interface each.
    IFMIB_IFDATA: i32 = 2, "IFMIB_IFDATA";
    /// What every interface has.
    IFDATA_GENERAL: i32 = 1, "IFDATA_GENERAL";
    /// Those of processes, among the kernel's.
    KERN_PROC: i32 = 14, "KERN_PROC";
    /// Of the process of one id.
    KERN_PROC_PID: i32 = 1, "KERN_PROC_PID";
    /// When the kernel was booted.
    KERN_BOOTTIME: i32 = 21, "KERN_BOOTTIME";
    /// Bytes of a time.
    TIMEVAL_SIZE: usize = 16, "sizeof(struct timeval)";
    /// Bytes of what is told of a process.
    KINFO_PROC_SIZE: usize = 1088, "sizeof(struct kinfo_proc)";
    /// Its state when it has ended and nobody has waited for it.
    SZOMB: u64 = 5, "SZOMB";
    /// Bytes of the sets of CPUs that are exchanged.
    CPUSET_SIZE: usize = 128, "sizeof(cpuset_t)";
    /// Bytes of what a virtual machine counts.
    VM_STATS_SIZE: usize = 544, "sizeof(struct vm_stats)";
    /// How many numbers are told at once.
    VM_STATS_MAX: u64 = 64, "MAX_VM_STATS";
    /// Bytes of what one of these numbers is.
    VM_STAT_DESC_SIZE: usize = 132, "sizeof(struct vm_stat_desc)";
    /// Limits of a process.
    RLIMIT_FSIZE: i32 = 1, "RLIMIT_FSIZE";
    /// The same.
    RLIMIT_CORE: i32 = 4, "RLIMIT_CORE";
    /// The same.
    RLIMIT_NOFILE: i32 = 8, "RLIMIT_NOFILE";
    /// The same.
    RLIMIT_VMEM: i32 = 10, "RLIMIT_VMEM";
}

requests! {
    /// Make an interface.
    SIOCIFCREATE2 = 0xc020_697c, "SIOCIFCREATE2";
    /// Remove an interface.
    SIOCIFDESTROY = 0x8020_6979, "SIOCIFDESTROY";
    /// Give an interface another name.
    SIOCSIFNAME = 0x8020_6928, "SIOCSIFNAME";
    /// Tell the flags of an interface.
    SIOCGIFFLAGS = 0xc020_6911, "SIOCGIFFLAGS";
    /// Set them.
    SIOCSIFFLAGS = 0x8020_6910, "SIOCSIFFLAGS";
    /// Tell the index of an interface.
    SIOCGIFINDEX = 0xc020_6920, "SIOCGIFINDEX";
    /// Ask the driver of an interface for a change.
    SIOCSDRVSPEC = 0x8028_697b, "SIOCSDRVSPEC";
    /// Tell the members of a group of interfaces.
    SIOCGIFGMEMB = 0xc028_698a, "SIOCGIFGMEMB";
    /// Tell what a virtual machine counts.
    VM_STATS = 0xc220_7632, "VM_STATS";
    /// Tell what one of these numbers is.
    VM_STAT_DESC = 0xc084_7633, "VM_STAT_DESC";
}

fields! {
    /// The name of the interface that is meant.
    IFR_NAME = 0, 16, "ifreq", "ifr_name";
    /// The lower half of its flags.
    IFR_FLAGS = 16, 2, "ifreq", "ifr_flags";
    /// Its index.
    IFR_INDEX = 16, 2, "ifreq", "ifr_index";
    /// The address of its new name.
    IFR_DATA = 16, 8, "ifreq", "ifr_data";
    /// The name of the group that is meant.
    IFGR_NAME = 0, 16, "ifgroupreq", "ifgr_name";
    /// Bytes of all its members.
    IFGR_LEN = 16, 4, "ifgroupreq", "ifgr_len";
    /// Where they go.
    IFGR_GROUPS = 24, 8, "ifgroupreq", "ifgr_groups";
    /// The name of the interface that is meant.
    IFD_NAME = 0, 16, "ifdrv", "ifd_name";
    /// What its driver shall do.
    IFD_CMD = 16, 8, "ifdrv", "ifd_cmd";
    /// Bytes of what goes with that.
    IFD_LEN = 24, 8, "ifdrv", "ifd_len";
    /// Where they are.
    IFD_DATA = 32, 8, "ifdrv", "ifd_data";
    /// The member of a bridge that is meant.
    IFBR_IFSNAME = 0, 16, "ifbreq", "ifbr_ifsname";
    /// The name of the interface.
    IFMD_NAME = 0, 16, "ifmibdata", "ifmd_name";
    /// Its flags.
    IFMD_FLAGS = 20, 4, "ifmibdata", "ifmd_flags";
    /// How many packets wait to be sent.
    IFMD_SND_LEN = 24, 4, "ifmibdata", "ifmd_snd_len";
    /// How many may.
    IFMD_SND_MAXLEN = 28, 4, "ifmibdata", "ifmd_snd_maxlen";
    /// How many had to go.
    IFMD_SND_DROPS = 32, 4, "ifmibdata", "ifmd_snd_drops";
    /// Its counters.
    IFMD_DATA = 56, 152, "ifmibdata", "ifmd_data";
    /// The largest packet, in its counters.
    IFI_MTU = 8, 4, "if_data", "ifi_mtu";
    /// Its speed.
    IFI_BAUDRATE = 16, 8, "if_data", "ifi_baudrate";
    /// A counter.
    IFI_IPACKETS = 24, 8, "if_data", "ifi_ipackets";
    /// A counter.
    IFI_IERRORS = 32, 8, "if_data", "ifi_ierrors";
    /// A counter.
    IFI_OPACKETS = 40, 8, "if_data", "ifi_opackets";
    /// A counter.
    IFI_OERRORS = 48, 8, "if_data", "ifi_oerrors";
    /// A counter.
    IFI_COLLISIONS = 56, 8, "if_data", "ifi_collisions";
    /// A counter.
    IFI_IBYTES = 64, 8, "if_data", "ifi_ibytes";
    /// A counter.
    IFI_OBYTES = 72, 8, "if_data", "ifi_obytes";
    /// A counter.
    IFI_IMCASTS = 80, 8, "if_data", "ifi_imcasts";
    /// A counter.
    IFI_OMCASTS = 88, 8, "if_data", "ifi_omcasts";
    /// A counter.
    IFI_IQDROPS = 96, 8, "if_data", "ifi_iqdrops";
    /// A counter.
    IFI_OQDROPS = 104, 8, "if_data", "ifi_oqdrops";
    /// Seconds.
    TV_SEC = 0, 8, "timeval", "tv_sec";
    /// Microseconds on top.
    TV_USEC = 8, 8, "timeval", "tv_usec";
    /// How many bytes the kernel has told.
    KI_STRUCTSIZE = 0, 4, "kinfo_proc", "ki_structsize";
    /// The id of the process.
    KI_PID = 72, 4, "kinfo_proc", "ki_pid";
    /// Its address space, bytes.
    KI_SIZE = 256, 8, "kinfo_proc", "ki_size";
    /// What of it is in memory, pages.
    KI_RSSIZE = 264, 8, "kinfo_proc", "ki_rssize";
    /// Its program, pages.
    KI_TSIZE = 280, 8, "kinfo_proc", "ki_tsize";
    /// Its data, pages.
    KI_DSIZE = 288, 8, "kinfo_proc", "ki_dsize";
    /// Its stack, pages.
    KI_SSIZE = 296, 8, "kinfo_proc", "ki_ssize";
    /// How often a page was copied because it was written.
    KI_COW = 324, 4, "kinfo_proc", "ki_cow";
    /// How long it has run, microseconds.
    KI_RUNTIME = 328, 8, "kinfo_proc", "ki_runtime";
    /// When it started, by the clock on the wall.
    KI_START = 336, 16, "kinfo_proc", "ki_start";
    /// Its state.
    KI_STAT = 388, 1, "kinfo_proc", "ki_stat";
    /// What it has used.
    KI_RUSAGE = 608, 144, "kinfo_proc", "ki_rusage";
    /// Its time in user mode, in what it has used.
    RU_UTIME = 0, 16, "rusage", "ru_utime";
    /// Its time in the kernel.
    RU_STIME = 16, 16, "rusage", "ru_stime";
    /// The first of fourteen numbers, eight bytes each.
    RU_MAXRSS = 32, 8, "rusage", "ru_maxrss";
    /// The last of them.
    RU_NIVCSW = 136, 8, "rusage", "ru_nivcsw";
    /// The number of the first that is wanted.
    VM_STATS_INDEX = 4, 4, "vm_stats", "index";
    /// How many were told.
    VM_STATS_ENTRIES = 8, 4, "vm_stats", "num_entries";
    /// They.
    VM_STATS_BUFFER = 32, 512, "vm_stats", "statbuf";
    /// The number that is meant.
    VM_STAT_DESC_INDEX = 0, 4, "vm_stat_desc", "index";
    /// What it is.
    VM_STAT_DESC_TEXT = 4, 128, "vm_stat_desc", "desc";
}

/// The members of a group of interfaces.
pub(crate) const GROUP_MEMBERS: PointingRequest =
    PointingRequest { request: SIOCGIFGMEMB, length: IFGR_LEN, address: IFGR_GROUPS };

/// What the driver of an interface shall do.
pub(crate) const DRIVER: PointingRequest =
    PointingRequest { request: SIOCSDRVSPEC, length: IFD_LEN, address: IFD_DATA };

/// A new name: it has no length, its NUL ends it. The length that there is none of lies where nothing is.
pub(crate) const RENAME: PointingRequest =
    PointingRequest { request: SIOCSIFNAME, length: Field { at: IFREQ_SIZE, size: 0 }, address: IFR_DATA };

/// The headers that have all this.
const HEADERS: &[&str] = &[
    "sys/param.h",
    "sys/types.h",
    "sys/socket.h",
    "sys/sockio.h",
    "sys/sysctl.h",
    "sys/time.h",
    "sys/resource.h",
    "sys/proc.h",
    "sys/user.h",
    "sys/cpuset.h",
    "stddef.h",
    "net/ethernet.h",
    "net/if.h",
    "net/if_mib.h",
    "net/if_bridgevar.h",
    "machine/vmm.h",
    "machine/vmm_dev.h",
];

/// A C program of assertions: it compiles where the headers agree with what stands here.
#[must_use]
pub fn layout_check() -> String {
    let mut c = String::new();
    // Writing to a text cannot fail.
    for header in HEADERS {
        let _ = writeln!(c, "#include <{header}>");
    }
    for (name, value) in NUMBERS {
        let _ = writeln!(c, "_Static_assert({name} == {value}ULL, \"{name}\");");
    }
    for (name, value) in REQUESTS {
        let _ = writeln!(c, "_Static_assert((unsigned long){name} == {value}UL, \"{name}\");");
    }
    for (structure, field, at, size) in FIELDS {
        let whole = format!("struct {structure}");
        let _ = writeln!(c, "_Static_assert(offsetof({whole}, {field}) == {at}, \"place of {structure}.{field}\");");
        let _ =
            writeln!(c, "_Static_assert(sizeof((({whole} *)0)->{field}) == {size}, \"size of {structure}.{field}\");");
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_lie() {
        let mut bytes = [0; 8];
        TV_SEC.put(&mut bytes, &0x0102_0304_0506_0708_u64.to_le_bytes());
        assert_eq!(TV_SEC.number(&bytes), 0x0102_0304_0506_0708);
        assert_eq!(Field { at: 1, size: 2 }.number(&bytes), 0x0607);
        assert_eq!(Field { at: 7, size: 2 }.number(&bytes), 0, "cut short");
        assert_eq!(TV_USEC.within(KI_START), Field { at: 344, size: 8 });
        assert_eq!(Field { at: 0, size: 8 }.text(b"tap7\0xyz"), b"tap7");
    }

    #[test]
    fn a_request_says_how_much_it_is_about() {
        for (request, size) in [
            (SIOCIFDESTROY, IFREQ_SIZE),
            (SIOCSIFNAME, IFREQ_SIZE),
            (SIOCGIFFLAGS, IFREQ_SIZE),
            (SIOCSIFFLAGS, IFREQ_SIZE),
            (SIOCGIFINDEX, IFREQ_SIZE),
            (SIOCIFCREATE2, IFREQ_SIZE),
            (SIOCSDRVSPEC, IFDRV_SIZE),
            (SIOCGIFGMEMB, IFGROUPREQ_SIZE),
            (VM_STATS, VM_STATS_SIZE),
            (VM_STAT_DESC, VM_STAT_DESC_SIZE),
        ] {
            assert_eq!(request.size(), size, "{request:x?}");
        }
    }

    #[test]
    fn the_layout_check_has_every_number_and_field() {
        let c = layout_check();
        let asserted = c.lines().filter(|line| line.starts_with("_Static_assert")).count();
        assert_eq!(asserted, NUMBERS.len() + REQUESTS.len() + 2 * FIELDS.len());
        assert!(c.contains("_Static_assert(offsetof(struct kinfo_proc, ki_pid) == 72, "), "{c}");
    }
}
