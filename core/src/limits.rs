//! Every bound of the system: a name, a number, a reason. Nothing elsewhere invents one.

/// Bytes of a name in its text form, the leading `:` of a root unikernel included.
/// A name is a file name (the fifo, the file of a block device), and file systems stop at 255.
pub const NAME_BYTES_MAX: usize = 250;

/// Bytes of one label of a name, as in DNS (RFC 1035 section 2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;

/// Bytes of a frame without its one diverted OCTET STRING: what a connection may make us hold.
pub const FRAME_HEAD_BYTES_MAX: usize = 64 * 1024;

/// An OCTET STRING longer than this is diverted to the spool instead of being held in memory.
pub const DIVERT_BYTES_MIN: usize = 1024;

/// Bytes of an image, uncompressed. A MirageOS unikernel is a few MB; the largest seen with debug symbols are below 100.
pub const IMAGE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Bytes of a state file of albatross that is imported. It has all images in it and is held in memory, there as here; the images
/// of a busy host are some hundred MB.
pub const STATE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Bytes of a unikernel's arguments record (devices, CPUs, argument vector) in its DER form.
/// Solo5 takes 8,191 bytes of command line; devices and CPUs add a few KiB.
pub const ARGUMENTS_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a guest command line without its NUL (Solo5 ABI).
pub const COMMAND_LINE_BYTES_MAX: usize = 8191;

/// Devices of one kind or both together that a Solo5 manifest can declare.
pub const DEVICES_MAX: usize = 63;

/// Bytes of a device name in a Solo5 manifest.
pub const DEVICE_NAME_BYTES_MAX: usize = 67;

/// Bytes of a network interface's name (`IFNAMSIZ` less its NUL, on Linux and on FreeBSD).
pub const INTERFACE_BYTES_MAX: usize = 15;

/// CPU ids run from 0 to this, exclusive.
pub const CPUS_MAX: usize = 1024;

/// Bridges that one policy can name.
pub const POLICY_BRIDGES_MAX: usize = 32;

/// Bridges that a host can offer; what is beyond is not listed. Hosts have a handful, and the list fits one message.
pub const HOST_BRIDGES_MAX: usize = 1024;

/// Bytes of a complete argument vector for a tender, NULs included: the arguments record, and for each device an option
/// with its name and a path or a MAC address.
pub const ARGV_BYTES_MAX: usize = 56 * 1024;

/// Bytes of a message between the two halves of `vmmd`. The largest is a launch plan; FreeBSD sends at most 128 KiB in
/// one piece on a `SOCK_SEQPACKET` socket.
pub const CHANNEL_BYTES_MAX: usize = 64 * 1024;

/// File descriptors that travel with one message between the halves: those of a launch are a console, an image and the
/// block devices. Systems take 250 or so.
pub const CHANNEL_FDS_MAX: usize = 2 + DEVICES_MAX;

/// Tender processes at a time: the unikernels of a full host.
pub const UNITS_MAX: usize = 4096;

/// Bytes of a record of how a guest fares, which its tender writes: a text, spaces, a newline (`docs/tender.md`). All of them are
/// so long, so that the filter of an spt tender lets through nothing else.
pub const STATUS_RECORD_BYTES: usize = 64;

/// Files that the host half of `vmmd` has open beside one for each unit: what comes with a launch, its taps, a few of its own.
pub const HOST_FILES_BASE: u64 = CHANNEL_FDS_MAX as u64 + DEVICES_MAX as u64 + 64;

/// Files that the host half has open at most: it watches each unit by one.
pub const HOST_FILES_MAX: u64 = HOST_FILES_BASE + UNITS_MAX as u64;

/// Files that the control half of `vmmd` has open at most: for each connection itself, what arrives there and what is sent there; the
/// fifos that it holds; what goes with a launch; what block devices are read from and written to; a few of its own.
pub const CONTROL_FILES_MAX: u64 =
    (3 * CONNECTIONS_MAX + FIFOS_HELD_MAX + CHANNEL_FDS_MAX + 4 * TRANSFERS_MAX as usize + 64) as u64;

/// Files that the console daemon has open at most: the fifo of each unikernel that runs, its connections, a few of its own.
pub const CONSOLE_FILES_MAX: u64 = (UNITS_MAX + CONSOLE_CONNECTIONS_MAX + 64) as u64;

/// Accounts (user ids) for tenders. More than processes: an account rests while its last process is being reaped.
pub const ACCOUNTS_MAX: u16 = 8192;

/// Bytes of a console line; what is beyond is cut off and marked. The peer's lines end between 512 and 1,023 bytes.
pub const CONSOLE_LINE_BYTES_MAX: usize = 1024;

/// Lines kept of one console, as the peer has it.
pub const CONSOLE_LINES_MAX: usize = 1024;

/// Bytes kept of one console, 9 for each line included: enough for [`CONSOLE_LINES_MAX`] lines of 119 bytes.
pub const CONSOLE_BYTES_MAX: usize = 128 * 1024;

/// Bytes kept of all consoles together: 512 of them can be full.
pub const CONSOLES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Consoles at a time: as many as a host has unikernels, and as many again that are gone.
pub const CONSOLES_MAX: usize = 8192;

/// Bytes of a console that are taken at a time before its subscribers are served. Each may be a line, and a subscriber
/// that keeps up must see them all: so fewer than [`CONSOLE_LINES_MAX`].
pub const CONSOLE_PUSH_BYTES_MAX: usize = 512;

/// Subscribers of one console, as the peer has it: the oldest goes when one more comes.
pub const CONSOLE_SUBSCRIBERS_MAX: usize = 6;

/// Connections that the console daemon serves at once.
pub const CONSOLE_CONNECTIONS_MAX: usize = 512;

/// Connections of one user at once to the console daemon, to that of statistics and to the event log each, unless it is root or the user
/// that the daemon runs as.
pub const DAEMON_CONNECTIONS_PER_USER_MAX: usize = 128;

/// Bytes of a message to the console daemon: a command of it is a name and a number.
pub const CONSOLE_FRAME_BYTES_MAX: usize = 1024;

/// Bytes of lines that wait for one slow subscriber, besides those that are still in the ring.
pub const CONSOLE_OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Bytes that wait for all clients of the console daemon together; what is not lines is lists of inactive consoles.
pub const CONSOLE_OUTPUTS_BYTES_MAX: usize = 2 * CONSOLE_CONNECTIONS_MAX * CONSOLE_OUTPUT_BYTES_MAX;

/// Time in which a message to the console daemon must be complete and its reply must be read, milliseconds.
pub const CONSOLE_TALK_MS_MAX: u64 = 10_000;

/// Connections that the statistics daemon serves at once.
pub const STATS_CONNECTIONS_MAX: usize = 512;

/// Unikernels that the statistics daemon watches.
pub const STATS_TARGETS_MAX: usize = UNITS_MAX;

/// Bytes of a message to the statistics daemon: of one that adds a unikernel with as many networks as it can have.
pub const STATS_FRAME_BYTES_MAX: usize = 8 * 1024;

/// Bytes that wait for one client of the statistics daemon, besides what it has yet to take of the last measurements.
pub const STATS_OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Time in which a message to the statistics daemon must be complete, and what was measured must be read, milliseconds.
pub const STATS_TALK_MS_MAX: u64 = 10_000;

/// Files that the statistics daemon has open at most: each unikernel's process, its connections, a few of its own.
pub const STATS_FILES_MAX: u64 = (STATS_TARGETS_MAX + STATS_CONNECTIONS_MAX + 64) as u64;

/// Bytes that wait for the statistics daemon to take them from `vmmd`. When there is no room for more its link ends; it comes again
/// and is told of everything.
pub const STATS_LINK_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a text in an event: the longest refusal. What is beyond is cut off.
pub const EVENT_TEXT_BYTES_MAX: usize = 640;

/// Bytes of an event as it is stored: a name, and the taps of a unikernel that has all it can have.
pub const EVENT_BYTES_MAX: usize = 2048;

/// Bytes of the events that wait in `vmmd` for the event log: some ten thousand usual ones. Beyond, new ones are lost and counted.
pub const EVENTS_WAITING_BYTES_MAX: usize = 1024 * 1024;

/// Refusals that `vmmd` tells the event log in a minute; the rest are counted. A client that asks for nonsense all day must not
/// push everything else out of the log.
pub const EVENT_REFUSALS_PER_MINUTE_MAX: u64 = 120;

/// Bytes of the event log where nothing is said, MiB: half a million usual events.
pub const LOG_MB_DEFAULT: u64 = 64;

/// The most that may be said, MiB. All of it is read at the start, and by who wants the last events of a path in which little happens.
pub const LOG_MB_MAX: u64 = 1024;

/// Bytes of a configuration file: a handful of settings, with as much said about them as one likes. A privileged program reads it.
pub const SETTINGS_BYTES_MAX: usize = 16 * 1024;

/// Days that events are kept where nothing is said.
pub const LOG_DAYS_DEFAULT: u64 = 365;

/// Of the whole log a segment is one part in so many: by as much it falls short of its bound when the oldest one was removed.
pub const LOG_SEGMENTS_MAX: u64 = 16;

/// Of the time that events are kept a segment takes at most one part in so many.
pub const LOG_AGE_PARTS: u64 = 16;

/// Bytes of the log that are read at once for one reader.
pub const LOG_READ_BYTES: usize = 64 * 1024;

/// Connections that the event log serves at once.
pub const LOG_CONNECTIONS_MAX: usize = 512;

/// Bytes of a message to the event log: the longest is an event.
pub const LOG_FRAME_BYTES_MAX: usize = EVENT_BYTES_MAX + NAME_BYTES_MAX + 64;

/// Bytes that wait for one reader of the event log, besides those that are on the disk.
pub const LOG_OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Time in which a message to the event log must be complete and its reply must be read, milliseconds.
pub const LOG_TALK_MS_MAX: u64 = 10_000;

/// Time in which a reader for whom something waits must take some of it, milliseconds.
pub const LOG_STALL_MS_MAX: u64 = 60_000;

/// Files that the event log has open at most: its connections, a segment each, a few of its own.
pub const LOG_FILES_MAX: u64 = LOG_CONNECTIONS_MAX as u64 + 2 * LOG_SEGMENTS_MAX + LOG_AGE_PARTS + 64;

/// Writers whose last event the event log remembers, so that what comes twice is kept once.
pub const LOG_WRITERS_MAX: usize = 16;

/// Largest value of an INTEGER on the wire: the peer's native integers have 63 bits (`docs/wire.md`).
pub const WIRE_INT_MAX: i64 = (1 << 62) - 1;

/// Smallest value of an INTEGER on the wire.
pub const WIRE_INT_MIN: i64 = -(1 << 62);

/// Memory of one tender beside its guest's, MiB; charged to the root policy, which is the host's. Its program (1 MiB, most of it
/// shared by all), its own pages and the kernel's for it (half a MiB), and the ring for frames of an hvt guest (2 MiB).
pub const TENDER_MEMORY_MB: u64 = 4;

/// Of how much guest memory the page tables take one part: 8 bytes for each page of 4,096, twice under hvt.
pub const TENDER_TABLES_DIVISOR: u64 = 256;

/// Taps, one for each network of a unikernel, on this host at a time: four for each of [`UNIKERNELS_MAX`]. The kernel takes some
/// 60 KiB for each.
pub const TAPS_MAX: u64 = 16_384;

/// Taps for which the kernel takes a MiB.
pub const TAPS_PER_MB: u64 = 16;

/// Guest memory that may be asked for, MiB (hvt maps 4 GiB at most, Solo5 ABI).
pub const MEMORY_MB_MAX: i64 = 4096;

/// The same for a virtual machine of bhyve, MiB: 1 TiB, more than a host that it would run on has.
pub const MACHINE_MEMORY_MB_MAX: i64 = 1 << 20;

/// Processors of a virtual machine of bhyve: as many as `vmm` gives one at most where nobody has raised that.
pub const MACHINE_PROCESSORS_MAX: i64 = 16;

/// Networks and disks of a virtual machine of bhyve together: the slots of its bus, without those of the bridge and the serial line.
pub const MACHINE_DEVICES_MAX: usize = 30;

/// Bytes of the path of a zvol: that of a dataset, with the folder of all.
pub const ZVOL_BYTES_MAX: usize = 255;

/// Bytes of the name of a partition, as GRUB has them (`msdos1`, `gpt2`).
pub const PARTITION_BYTES_MAX: usize = 32;

/// How long what loads the kernel of a virtual machine may take, milliseconds: as the peer gives it. Nobody else is served meanwhile.
pub const MACHINE_LOAD_MS: u64 = 1_000;

/// Unikernels that `vmmd` keeps.
pub const UNIKERNELS_MAX: usize = 4096;

/// Unikernels that are being replaced at once: each needs a place beside the one that it replaces.
pub const REPLACEMENTS_MAX: usize = 64;

/// Places for unikernels.
pub const SLOTS_MAX: usize = UNIKERNELS_MAX + REPLACEMENTS_MAX;

/// Policies that `vmmd` keeps, the root policy included.
pub const POLICIES_MAX: usize = 4096;

/// Certificates of a chain, the leaf included and the CA's own not: what verifies signatures takes 6 above the leaf. The peer takes
/// fewer than 10 in all.
pub const CHAIN_CERTIFICATES_MAX: usize = 7;

/// Policies of a chain: of all its certificates but the leaf.
pub const CHAIN_POLICIES_MAX: usize = CHAIN_CERTIFICATES_MAX - 1;

/// Connections that the TLS end serves at once.
pub const TLS_CONNECTIONS_MAX: usize = 512;

/// Of these from one address; of IPv6, from one network of 64 bits, which is what one host can have.
pub const TLS_CONNECTIONS_PER_ADDRESS_MAX: usize = 128;

/// Of these from the certificates of one domain, the first label of its path; the root is not bounded.
pub const TLS_CONNECTIONS_PER_DOMAIN_MAX: usize = 128;

/// Connections of the TLS end to `vmmd` at once: the rest is for clients on the host.
pub const TLS_VMMD_CONNECTIONS_MAX: usize = CONNECTIONS_MAX / 2;

/// Of these for one domain.
pub const TLS_VMMD_CONNECTIONS_PER_DOMAIN_MAX: usize = TLS_VMMD_CONNECTIONS_MAX / 4;

/// Block devices that clients of one domain set and dump by the TLS end at once: a quarter of what the host does at once.
pub const TLS_TRANSFERS_PER_DOMAIN_MAX: usize = TRANSFERS_MAX as usize / 4;

/// Files that the TLS end has open at most: for each connection itself and its conversation with a daemon, a few of its own.
pub const TLS_FILES_MAX: u64 = 2 * TLS_CONNECTIONS_MAX as u64 + 64;

/// Time in which a client must have proved who it is, milliseconds.
pub const TLS_HANDSHAKE_MS_MAX: u64 = 10_000;

/// Time in which a client must take some of what is sent to it, milliseconds.
pub const TLS_STALL_MS_MAX: u64 = 60_000;

/// Time in which a list of revoked certificates must have come, milliseconds.
pub const TLS_LIST_MS_MAX: u64 = 60_000;

/// Bytes that wait within the TLS of one connection, in each direction.
pub const TLS_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes of a list of revoked certificates: some 25,000 of them.
pub const REVOCATION_LIST_BYTES_MAX: usize = 1024 * 1024;

/// Lists of revoked certificates of one domain, each of another key.
pub const REVOCATION_LISTS_PER_DOMAIN_MAX: usize = 32;

/// Bytes of the lists of one domain together.
pub const REVOCATION_BYTES_PER_DOMAIN_MAX: u64 = 4 * REVOCATION_LIST_BYTES_MAX as u64;

/// Bytes of all lists together: they are held in memory.
pub const REVOCATION_BYTES_MAX: u64 = 64 * REVOCATION_LIST_BYTES_MAX as u64;

/// Logins and refusals that the TLS end tells the event log in a minute; the rest are counted.
pub const TLS_EVENTS_PER_MINUTE_MAX: u64 = 120;

/// Block devices that `vmmd` keeps.
pub const BLOCKS_MAX: usize = 4096;

/// Size of a block device, MiB: its bytes must fit the offsets of files.
pub const BLOCK_MB_MAX: i64 = i64::MAX >> 20;

/// Bytes of a sector of a block device where nothing is said.
pub const SECTOR_BYTES_DEFAULT: i64 = 512;

/// Largest sector, bytes: the next power of two does not fit the manifest's field (Solo5 ABI).
pub const SECTOR_BYTES_MAX: i64 = 32768;

/// Block devices that are being set and dumped at once. Each has one piece in memory and the state of a compressor.
pub const TRANSFERS_MAX: u16 = 8;

/// Bytes of such a piece, and of a chunk of a compressed dump: the peer cannot take longer ones.
pub const CONTENT_PIECE_BYTES: usize = 64 * 1024;

/// Bytes of a chunk of a dump that is not compressed, as the peer has it.
pub const CHUNK_BYTES: usize = 4096;

/// Time in which a client must send or take [`CONTENT_PIECE_BYTES`], milliseconds, however steadily it does so: others wait
/// for its place.
pub const CONTENT_PIECE_MS_MAX: u64 = 60_000;

/// What follows a block device's name in the name of its file. No name of anything contains `_`, so what another program
/// keeps in the same folder is never taken for one of ours.
pub const BLOCK_FILE_SUFFIX: &str = "_disk";

/// The same of the file in which a new content arrives, until it takes the place of the old one.
pub const BLOCK_ASIDE_SUFFIX: &str = "_new";

/// The same of the file of a block device that is being removed, until its record is gone durably.
pub const BLOCK_RETIRED_SUFFIX: &str = "_gone";

/// The same, before a number, of a file that no record names and that has something in it. It has to be short: together they are no
/// longer than [`BLOCK_FILE_SUFFIX`].
pub const BLOCK_UNCLAIMED_SUFFIX: &str = "_un";

/// Files of one name that are kept without a record: two digits' worth. What would be one more stops the start rather than be lost.
pub const BLOCK_UNCLAIMED_MAX: u8 = 99;

/// Connections that `vmmd` serves at once.
pub const CONNECTIONS_MAX: usize = 256;

/// Connections of one user at once, unless it is root or the user that `vmmd` runs as. The rest stays for others.
pub const CONNECTIONS_PER_USER_MAX: usize = 64;

/// Time in which a message that has begun must make progress, and a reply must be read, milliseconds.
pub const PROGRESS_MS_MAX: u64 = 10_000;

/// Bytes of a message that are progress; the last ones always are. So a message without an image has [`PROGRESS_MS_MAX`] in all, and
/// an image comes at 100 kbit/s or faster.
pub const PROGRESS_BYTES_MIN: u64 = 128 * 1024;

/// Time that a connection may stay open with nothing asked, milliseconds.
pub const IDLE_MS_MAX: u64 = 60_000;

/// Bytes of the longest reply that is held: 4,096 usual unikernels take 1 MB.
pub const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Replies that are too long for a connection's own buffer and are held at once; further ones wait.
pub const LONG_REPLIES_MAX: usize = 4;

/// Time in which such a reply must be read wholly, milliseconds.
pub const LONG_REPLY_MS_MAX: u64 = 60_000;

/// Bytes of all images that arrive or are handed out compressed at once.
pub const SPOOL_BYTES_MAX: u64 = 4 * IMAGE_BYTES_MAX;

/// Bytes of the images that arrive from one user at once: two of the largest. Of the user that `vmmd` runs as, whom the TLS end belongs to,
/// they are counted for each domain; root is not bounded.
pub const SPOOL_BYTES_PER_USER_MAX: u64 = 2 * IMAGE_BYTES_MAX;

/// Bytes of all images that are kept, each counted once: 256 of the largest, many thousands of usual ones.
pub const IMAGES_BYTES_MAX: u64 = 256 * IMAGE_BYTES_MAX;

/// Bytes of the disk that images leave free: for the journal, which is written anew beside itself. On a small disk it is a part of it:
/// see [`DISK_RESERVE_PART`].
pub const DISK_RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// Of a disk no more than one in so many bytes is kept free.
pub const DISK_RESERVE_PART: u64 = 16;

/// Fifos whose writing end `vmmd` holds until the console daemon reads them. Beyond, the first output may be lost.
pub const FIFOS_HELD_MAX: usize = 64;

/// Bytes of all unikernels' arguments together: usual ones take 100 to 300.
pub const ARENA_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Launches that the host half is asked for at once when many unikernels are to start.
pub const LAUNCHES_MAX: u16 = 16;

/// Images that may go and wait until no other is being stored; beyond, all images are looked through.
pub const RELEASES_MAX: usize = 16;

/// Time between SIGTERM and SIGKILL, milliseconds. A unikernel has nothing to flush; this is for its last words.
pub const STOP_MS_MAX: u64 = 5_000;

/// Time between two signs of life of the control half to the host half, and so to a service manager's watchdog, milliseconds.
pub const SERVING_MS: u64 = 2_000;

/// When `vmmd` is asked to end: the time for the replies and records that are under way, milliseconds. What is not acknowledged by then
/// is not done, or done and not acknowledged, as when a client hangs up.
pub const FINISH_MS_MAX: u64 = 3_000;

/// And then for the event log to hear of it, milliseconds.
pub const FAREWELL_MS_MAX: u64 = 500;

/// When the control half was asked to end and has not by then, milliseconds, the host half kills it.
pub const END_MS_MAX: u64 = 10_000;

/// A run shorter than this, in milliseconds, is followed by a rest.
pub const RUN_MS_MIN: u64 = 10_000;

/// The first rest, milliseconds; each further one is twice as long.
pub const REST_MS_MIN: u64 = 1_000;

/// The longest rest, milliseconds.
pub const REST_MS_MAX: u64 = 300_000;

/// Place in the order of start of a unikernel that names none (the peer's default).
pub const STARTUP_DEFAULT: i64 = 50;

const _: () = assert!(NAME_BYTES_MAX + BLOCK_FILE_SUFFIX.len() <= 255);
const _: () = assert!(BLOCK_ASIDE_SUFFIX.len() <= BLOCK_FILE_SUFFIX.len());
const _: () = assert!(BLOCK_RETIRED_SUFFIX.len() <= BLOCK_FILE_SUFFIX.len());
const _: () = assert!(BLOCK_UNCLAIMED_SUFFIX.len() + 2 <= BLOCK_FILE_SUFFIX.len() && BLOCK_UNCLAIMED_MAX < 100);
const _: () = assert!(ARGUMENTS_BYTES_MAX + DIVERT_BYTES_MIN + NAME_BYTES_MAX < FRAME_HEAD_BYTES_MAX);
const _: () = assert!(COMMAND_LINE_BYTES_MAX < ARGUMENTS_BYTES_MAX);
const _: () = assert!(ARGUMENTS_BYTES_MAX + DEVICES_MAX * (DEVICE_NAME_BYTES_MAX + 512) < ARGV_BYTES_MAX);
const _: () = assert!(ARGV_BYTES_MAX + DEVICES_MAX * (INTERFACE_BYTES_MAX + 1) + CPUS_MAX / 8 + 64 < CHANNEL_BYTES_MAX);
const _: () = assert!(HOST_BRIDGES_MAX * (INTERFACE_BYTES_MAX + 1) + CPUS_MAX / 8 + 64 < CHANNEL_BYTES_MAX);
const _: () = assert!(UNITS_MAX < ACCOUNTS_MAX as usize);
const _: () = assert!(POLICIES_MAX <= u16::MAX as usize);
const _: () = assert!(CHAIN_POLICIES_MAX <= u16::BITS as usize);
const _: () = assert!(SLOTS_MAX <= u16::MAX as usize);
const _: () = assert!(BLOCKS_MAX <= u16::MAX as usize);
const _: () = assert!(CHUNK_BYTES + NAME_BYTES_MAX + 64 < CONTENT_PIECE_BYTES);
const _: () = assert!((TRANSFERS_MAX as usize) < CONNECTIONS_PER_USER_MAX);
const _: () = assert!(PROGRESS_MS_MAX <= CONTENT_PIECE_MS_MAX);
const _: () = assert!(ARGUMENTS_BYTES_MAX <= ARENA_BYTES_MAX);
const _: () = assert!(FINISH_MS_MAX + FAREWELL_MS_MAX < END_MS_MAX);
const _: () = assert!(REST_MS_MIN <= REST_MS_MAX && REST_MS_MIN > 0);
const _: () =
    assert!(CONSOLE_PUSH_BYTES_MAX < CONSOLE_LINES_MAX && CONSOLES_MAX * CONSOLE_LINE_BYTES_MAX < CONSOLES_BYTES_MAX);
const _: () = assert!(
    DAEMON_CONNECTIONS_PER_USER_MAX < CONSOLE_CONNECTIONS_MAX
        && DAEMON_CONNECTIONS_PER_USER_MAX < STATS_CONNECTIONS_MAX
        && DAEMON_CONNECTIONS_PER_USER_MAX < LOG_CONNECTIONS_MAX
);
const _: () = assert!(
    DEVICES_MAX * (DEVICE_NAME_BYTES_MAX + INTERFACE_BYTES_MAX + 8) + NAME_BYTES_MAX + 128 < STATS_FRAME_BYTES_MAX
);
const _: () =
    assert!(2 * STATS_FRAME_BYTES_MAX < STATS_LINK_BYTES_MAX && STATS_LINK_BYTES_MAX <= STATS_OUTPUT_BYTES_MAX);
const _: () = assert!(EVENT_TEXT_BYTES_MAX + NAME_BYTES_MAX + 64 < EVENT_BYTES_MAX);
const _: () = assert!(DEVICES_MAX * (INTERFACE_BYTES_MAX + 2) + NAME_BYTES_MAX + 64 < EVENT_BYTES_MAX);
const _: () = assert!(4 * LOG_FRAME_BYTES_MAX < LOG_READ_BYTES && 4 * LOG_FRAME_BYTES_MAX < LOG_OUTPUT_BYTES_MAX);
const _: () = assert!(CONNECTIONS_PER_USER_MAX < CONNECTIONS_MAX && CONNECTIONS_MAX <= u16::MAX as usize);
const _: () = assert!(FRAME_HEAD_BYTES_MAX < REPLY_BYTES_MAX);
const _: () = assert!((FRAME_HEAD_BYTES_MAX as u64) < PROGRESS_BYTES_MIN);
const _: () = assert!(SPOOL_BYTES_PER_USER_MAX < SPOOL_BYTES_MAX && SPOOL_BYTES_MAX < IMAGES_BYTES_MAX);
