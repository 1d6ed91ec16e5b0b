//! What a daemon that faces other hosts reaches when it is taken over: the real `vmmd_tls` and `vmmd_influx` make the calls that this
//! test chooses, with all that holds them and without Landlock. `docs/security.md` says what is left then; this shows it.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fulmar_tests::namespace::inside;
use fulmar_tests::pki::Issuer;
use fulmar_tests::puppet::{Argument, Puppet, Refused};
use fulmar_tests::siege::{Siege, control_half, pid_of};
use fulmar_tests::skips::skip;
use fulmar_tests::system::{is_gone, programs, wait_until};
use fulmar_tests::tenants::Tenants;
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Uid;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// What a daemon says at its start where the kernel has no Landlock.
const WITHOUT: &str = "Landlock: not in this kernel, files are held by users alone";

/// By what is refused: Landlock, and the permissions of files; the table of calls.
const DENIED: Result<u64, Refused> = Err(Refused::Said(Errno::EACCES));
const ENDED: Result<u64, Refused> = Err(Refused::Ended(Signal::SIGSYS));

/// Calls that no table of these programs has, or not with this argument: programs, processes, names of files, other hosts.
const NEVER: [(libc::c_long, [u64; 2]); 12] = [
    (libc::SYS_execve, [0, 0]),
    (libc::SYS_fork, [0, 0]),
    (libc::SYS_kill, [1, 0]),
    (libc::SYS_ptrace, [0, 1]),
    (libc::SYS_pidfd_open, [1, 0]),
    (libc::SYS_process_vm_readv, [1, 0]),
    (libc::SYS_renameat2, [0, 0]),
    (libc::SYS_mkdirat, [0, 0]),
    (libc::SYS_fchmodat, [0, 0]),
    (libc::SYS_listen, [0, 1]),
    (libc::SYS_socket, [libc::AF_PACKET as u64, libc::SOCK_RAW as u64]),
    (libc::SYS_bpf, [0, 0]),
];

/// A process that ends with its test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs this on a thread of its own. For what is started there the kernel answers this call so.
fn where_the_kernel_says(call: libc::c_long, errno: Errno, body: impl FnOnce() + Send) {
    let run = || {
        let (rules, says) =
            (BTreeMap::from([(call, Vec::new())]), SeccompAction::Errno((errno as i32).cast_unsigned()));
        let machine = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, says, machine);
        seccompiler::apply_filter(&BpfProgram::try_from(filter.unwrap()).unwrap()).unwrap();
        body();
    };
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// What there is to be stolen.
struct Secrets {
    /// Of root alone, as `/etc/shadow`.
    of_root: PathBuf,
    /// Of the user that the daemon is, and none of its business: where each has a user of its own, permissions are in the way too.
    of_user: PathBuf,
    /// Of everybody.
    of_all: PathBuf,
    /// What the control half keeps.
    journal: PathBuf,
    /// Its socket.
    socket: PathBuf,
}

impl Secrets {
    fn make(siege: &Siege) -> Self {
        let (folder, user) = (siege.system.folder(), uid_of(control_half(siege.vmmd)));
        let make = |name: &str, owner: u32, mode: u32| {
            let path = folder.join(name);
            fs::write(&path, "secret").unwrap();
            chown(&path, Some(owner), Some(owner)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let secrets = Self {
            of_root: make("of-root", 0, 0o600),
            of_user: make("of-user", user, 0o600),
            of_all: make("of-all", 0, 0o644),
            journal: siege.system.state().join("journal"),
            socket: siege.system.socket("vmmd.sock"),
        };
        assert!(secrets.journal.exists() && secrets.socket.exists());
        secrets
    }

    fn all(&self) -> [&Path; 5] {
        [&self.of_root, &self.of_user, &self.of_all, &self.journal, Path::new("/proc/self/environ")]
    }

    /// Whether it reaches nothing of all this.
    fn expect_out_of_reach(&self, puppet: &Puppet) {
        for path in self.all() {
            for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR | libc::O_TRUNC] {
                assert_eq!(puppet.open(path, flags), DENIED, "{} {flags:o}", path.display());
            }
        }
        let folders = [&self.of_all, &self.journal, &self.socket].map(|path| path.parent().unwrap());
        for folder in folders.into_iter().chain(["/tmp", "/etc", "/proc", "/"].map(Path::new)) {
            assert_eq!(puppet.open(folder, libc::O_RDONLY | libc::O_DIRECTORY), DENIED, "{}", folder.display());
            let new = puppet.open(&folder.join("fulmar-new"), libc::O_WRONLY | libc::O_CREAT);
            assert!(new.is_err() && new != ENDED, "{}", folder.display());
        }
    }
}

fn uid_of(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// A port of this host that somebody listens on, and who is not to be disturbed.
fn bystander() -> (TcpListener, SocketAddrV4) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("not of IPv4") };
    listener.set_nonblocking(true).unwrap();
    (listener, address)
}

/// The descriptors of a process that are sockets.
fn sockets(pid: u32) -> Vec<u64> {
    let is_socket = |fd: &u64| {
        fs::read_link(format!("/proc/{pid}/fd/{fd}")).is_ok_and(|link| link.to_string_lossy().starts_with("socket:"))
    };
    let names = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    names.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).filter(is_socket).collect()
}

/// Has it turn each of its sockets into one to somebody else. It has one to a client, and one that it listens on. What the last attempt at
/// each came to.
fn turn_sockets(puppet: &Puppet, pid: u32, to: SocketAddrV4) -> Vec<Result<u64, Refused>> {
    let unspecified = [0; 16];
    let turn = |fd| {
        let number = Argument::Number;
        let _ = puppet.call(libc::SYS_shutdown, &[number(fd), number(2)]);
        let _ = puppet.call(libc::SYS_connect, &[number(fd), Argument::Bytes(&unspecified), number(16)]);
        puppet.connect(fd, to)
    };
    sockets(pid).into_iter().map(turn).collect()
}

fn is_root(test: &str) -> bool {
    let is = Uid::effective().is_root();
    if !is {
        skip(test, "a daemon cannot be taken over here, run it as root");
    }
    is
}

/// Whether these daemons have Landlock.
fn has_landlock(test: &str, log: &str) -> bool {
    let has = !log.contains(WITHOUT);
    if !has {
        skip(test, "no Landlock in this kernel");
    }
    has
}

fn pid_of_tls(tenants: &Tenants) -> u32 {
    tenants.siege.system.pid("vmmd_tls").unwrap()
}

#[test]
fn a_tls_end_that_was_taken_over_reaches_its_certificates_and_no_other_file_or_host() {
    let test = "a_tls_end_that_was_taken_over_reaches_its_certificates_and_no_other_file_or_host";
    if !is_root(test) {
        return;
    }
    let Some(tenants) = Tenants::begin(test) else { return };
    if !has_landlock(test, &tenants.log()) {
        return;
    }
    let secrets = Secrets::make(&tenants.siege);
    let (listener, address) = bystander();
    let pid = pid_of_tls(&tenants);
    let before = sockets(pid).len();
    let client = TcpStream::connect(tenants.address).unwrap();
    assert!(wait_until(|| sockets(pid).len() > before));
    let puppet = Puppet::take(pid_of(pid));
    // What is its own.
    assert!(puppet.open(&tenants.file("server.key"), libc::O_RDONLY).is_ok());
    assert!(puppet.open(&tenants.file("revoked/new"), libc::O_WRONLY | libc::O_CREAT).is_ok());
    assert_eq!(puppet.open(&tenants.file("server.key"), libc::O_WRONLY), DENIED);
    assert_eq!(puppet.open(&tenants.file("new"), libc::O_WRONLY | libc::O_CREAT), DENIED);
    secrets.expect_out_of_reach(&puppet);
    let names = [&secrets.socket, &tenants.file("revoked/moved")];
    let [from, to] = names.map(|path| [path.as_os_str().as_encoded_bytes(), &[0]].concat());
    let at = Argument::Number(i64::from(libc::AT_FDCWD).cast_unsigned());
    let moved = puppet.call(libc::SYS_renameat, &[at, Argument::Bytes(&from), at, Argument::Bytes(&to)]);
    assert!(matches!(moved, Err(Refused::Said(Errno::EACCES | Errno::EXDEV))), "{moved:?}");
    assert!(secrets.socket.exists());
    // A socket that it has can be connected anew: the table of calls does not see to whom.
    let turned = turn_sockets(&puppet, pid, address);
    assert!(turned.contains(&DENIED) && turned.iter().all(Result::is_err), "{turned:?}");
    assert!(listener.accept().is_err());
    drop((puppet, client));
    tenants.siege.system.stop().unwrap();
}

#[test]
fn calls_that_are_not_in_its_table_end_a_tls_end() {
    let test = "calls_that_are_not_in_its_table_end_a_tls_end";
    if !is_root(test) {
        return;
    }
    let Some(mut tenants) = Tenants::begin(test) else { return };
    for (call, arguments) in NEVER.into_iter().chain([(libc::SYS_socket, [libc::AF_INET as u64, 1])]) {
        let puppet = Puppet::take(pid_of(pid_of_tls(&tenants)));
        assert_eq!(puppet.call(call, &arguments.map(Argument::Number)), ENDED, "{call} {arguments:?}");
        drop(puppet);
        tenants.siege.system.end("vmmd_tls", Signal::SIGKILL).unwrap();
        tenants.address = tenants.start_tls("127.0.0.1").unwrap();
    }
    tenants.end();
}

/// A `vmmd_influx` that reports by TCP to this port, and what it says.
fn start_influx(siege: &Siege, to: &str) -> (Ends, PathBuf) {
    let (config, log) = (siege.system.folder().join("influx.toml"), siege.system.folder().join("influx.log"));
    let text =
        format!("run = {:?}\n[tcp]\naddress = \"{to}\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n", siege.system.run());
    fs::write(&config, text).unwrap();
    let mut command = Command::new(programs().join("vmmd_influx"));
    command.arg("--config").arg(&config).stdin(Stdio::null()).stderr(fs::File::create(&log).unwrap());
    let influx = Ends(command.spawn().unwrap());
    let said = |text| fs::read_to_string(&log).unwrap().contains(text);
    assert!(wait_until(|| said("tcp: connected to") && said("reporting")));
    (influx, log)
}

#[test]
fn an_influx_that_was_taken_over_reaches_no_file_and_no_port_but_that_which_it_reports_to() {
    let test = "an_influx_that_was_taken_over_reaches_no_file_and_no_port_but_that_which_it_reports_to";
    if !is_root(test) {
        return;
    }
    let Some(siege) = Siege::begin(test) else { return };
    let secrets = Secrets::make(&siege);
    let (database, elsewhere) = (bystander(), bystander());
    let (influx, log) = start_influx(&siege, &database.1.to_string());
    if !has_landlock(test, &fs::read_to_string(log).unwrap()) {
        return;
    }
    let pid = influx.0.id();
    let user = uid_of(pid);
    assert_ne!(user, 0);
    let puppet = Puppet::take(pid_of(pid));
    secrets.expect_out_of_reach(&puppet);
    // Nobody has named a host: nothing of what names are looked up by either, nor the configuration, whose secrets it has read.
    for path in ["/etc/resolv.conf", "/etc/hosts", siege.system.folder().join("influx.toml").to_str().unwrap()] {
        assert_eq!(puppet.open(Path::new(path), libc::O_RDONLY), DENIED, "{path}");
    }
    let turned = turn_sockets(&puppet, pid, elsewhere.1);
    assert!(turned.contains(&DENIED) && turned.iter().all(Result::is_err), "{turned:?}");
    let socket = |kind: i32| {
        let arguments = [libc::AF_INET, kind, 0].map(|it| Argument::Number(u64::from(it.cast_unsigned())));
        puppet.call(libc::SYS_socket, &arguments).unwrap()
    };
    assert_eq!(puppet.connect(socket(libc::SOCK_STREAM), elsewhere.1), DENIED);
    assert_eq!(
        puppet.with_address(libc::SYS_bind, socket(libc::SOCK_STREAM), SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)),
        DENIED
    );
    assert!(puppet.connect(socket(libc::SOCK_STREAM), database.1).is_ok());
    // No kernel that was tried restricts this; the document says so.
    assert!(puppet.connect(socket(libc::SOCK_DGRAM), elsewhere.1).is_ok());
    assert!(elsewhere.0.accept().is_err());
    drop((puppet, influx));
    for (call, arguments) in NEVER {
        let (influx, _) = start_influx(&siege, &database.1.to_string());
        let puppet = Puppet::take(pid_of(influx.0.id()));
        assert_eq!(puppet.call(call, &arguments.map(Argument::Number)), ENDED, "{call} {arguments:?}");
    }
    siege.system.stop().unwrap();
}

/// Has the file that a daemon names be this one: as ACME clients do it, by a link that takes the place of the one before.
fn link(target: &Path, place: &Path) {
    let new = place.with_extension("new");
    symlink(target, &new).unwrap();
    fs::rename(new, place).unwrap();
}

#[test]
fn certificates_are_read_again_wherever_links_led_at_the_start() {
    let test = "certificates_are_read_again_wherever_links_led_at_the_start";
    let Some(mut tenants) = Tenants::begin(test) else { return };
    if !has_landlock(test, &tenants.log()) {
        return;
    }
    tenants.siege.system.end("vmmd_tls", Signal::SIGTERM).unwrap();
    let folder = tenants.siege.system.folder().to_path_buf();
    let folders = ["live", "archive", "folders/first", "folders/second", "elsewhere"].map(|name| folder.join(name));
    let [live, archive, first, second, elsewhere] = &folders;
    for made in &folders {
        fs::create_dir_all(made).unwrap();
    }
    // The certificate and the CA lie together in a folder by way of a link, the key where a link leads from `live`.
    let current = folder.join("folders/current");
    let write = |to: &Path, tenants: &Tenants| {
        tenants.write_files();
        for name in ["ca.pem", "server.pem", "server.key"] {
            fs::rename(tenants.file(name), to.join(name)).unwrap();
        }
    };
    write(first, &tenants);
    link(first, &current);
    fs::rename(first.join("server.key"), archive.join("key1")).unwrap();
    link(&archive.join("key1"), &live.join("key"));
    let (files, revoked) =
        ([current.join("ca.pem"), current.join("server.pem"), live.join("key")], tenants.file("revoked"));
    let named =
        ["--ca", "--cert", "--key"].iter().zip(&files).flat_map(|(option, file)| [option.as_ref(), file.as_os_str()]);
    let further = ["--revoked".as_ref(), revoked.as_os_str(), "--ip".as_ref(), "127.0.0.1".as_ref()];
    let options: Vec<&OsStr> = named.chain(further).chain(["--port".as_ref(), "0".as_ref()]).collect();
    tenants.address = tenants.siege.system.start_tls(&options).unwrap();
    tenants.expect_service();
    let reload = |tenants: &Tenants, line: &str| {
        let count = tenants.log().matches(line).count();
        kill(pid_of(pid_of_tls(tenants)), Signal::SIGHUP).unwrap();
        assert!(wait_until(|| tenants.log().matches(line).count() > count), "{}", tenants.log());
    };
    // All anew, by renaming links: another folder beside the one before, another file beside the one before.
    tenants.ca = Issuer::root("another");
    tenants.server = tenants.ca.server();
    write(second, &tenants);
    link(second, &current);
    fs::rename(second.join("server.key"), archive.join("key2")).unwrap();
    link(&archive.join("key2"), &live.join("key"));
    reload(&tenants, "the certificates were read again");
    tenants.expect_service();
    // Where nothing led at the start nothing is reached, and that is said. It serves as before.
    fs::rename(archive.join("key2"), elsewhere.join("key")).unwrap();
    link(&elsewhere.join("key"), &live.join("key"));
    reload(&tenants, "where it has come to lie in another folder than at the start, start vmmd_tls anew");
    tenants.end();
}

/// `vmmd_influx` reports to a host by its name: it reads by what names are looked up and no other file, and ends where it could not.
#[test]
fn an_influx_whose_files_of_names_are_replaced_says_so_and_ends() {
    let test = "an_influx_whose_files_of_names_are_replaced_says_so_and_ends";
    if !is_root(test) {
        return;
    }
    inside(test, || {
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let Some(siege) = Siege::begin(test) else { return };
        let hosts = siege.system.folder().join("hosts");
        let show = |text: &str| {
            fs::write(&hosts, text).unwrap();
            mount(Some(&hosts), "/etc/hosts", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        };
        show("127.0.0.1 database.example\n");
        let (_database, address) = bystander();
        let (mut influx, log) = start_influx(&siege, &format!("database.example:{}", address.port()));
        let said = || fs::read_to_string(&log).unwrap();
        if !has_landlock(test, &said()) {
            return;
        }
        let pid = influx.0.id();
        std::thread::scope(|scope| {
            // Who leads a process is its tracer until it ends itself.
            let look = || {
                let puppet = Puppet::take(pid_of(pid));
                assert!(puppet.open(Path::new("/etc/hosts"), libc::O_RDONLY).is_ok());
                assert_eq!(puppet.open(Path::new("/etc/hosts"), libc::O_WRONLY), DENIED);
                Secrets::make(&siege).expect_out_of_reach(&puppet);
                assert_eq!(puppet.open(Path::new("/etc/passwd"), libc::O_RDONLY), DENIED);
            };
            scope.spawn(look).join().unwrap();
        });
        let _ = influx.0.wait();
        let (mut influx, log) = start_influx(&siege, &format!("database.example:{}", address.port()));
        fs::rename(&hosts, hosts.with_extension("old")).unwrap();
        show("127.0.0.2 database.example\n");
        let status = influx.0.wait().unwrap();
        let said = fs::read_to_string(&log).unwrap();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("/etc/hosts was replaced, and names would be looked up without it"), "{said}");
        (0..2).for_each(|_| umount("/etc/hosts").unwrap());
        siege.system.stop().unwrap();
    });
}

/// What all daemons say that have begun to say something here.
fn logs(siege: &Siege) -> Vec<(&'static str, String)> {
    ["vmmd", "vmmd_console", "vmmd_log", "vmmd_stats", "vmmd_tls"].map(|name| (name, siege.system.log(name))).to_vec()
}

#[test]
fn without_landlock_daemons_say_so_and_are_held_by_their_users_and_tables() {
    let test = "without_landlock_daemons_say_so_and_are_held_by_their_users_and_tables";
    if !is_root(test) {
        return;
    }
    where_the_kernel_says(libc::SYS_landlock_create_ruleset, Errno::ENOSYS, || {
        let Some(mut tenants) = Tenants::begin(test) else { return };
        tenants.siege.start_log();
        tenants.siege.system.start_stats(&[]).unwrap();
        let (database, elsewhere) = (bystander(), bystander());
        let (influx, log) = start_influx(&tenants.siege, &database.1.to_string());
        let said = logs(&tenants.siege).into_iter().chain([("vmmd_influx", fs::read_to_string(log).unwrap())]);
        for (name, log) in said {
            assert_eq!(log.matches(WITHOUT).count(), 1, "{name}: {log}");
        }
        tenants.expect_service();
        let secrets = Secrets::make(&tenants.siege);
        for pid in [pid_of_tls(&tenants), influx.0.id()] {
            let puppet = Puppet::take(pid_of(pid));
            // By its user.
            for flags in [libc::O_RDONLY, libc::O_WRONLY] {
                assert_eq!(puppet.open(&secrets.of_root, flags), DENIED);
            }
            assert_eq!(puppet.open(&secrets.of_all, libc::O_WRONLY), DENIED);
            // What that user may, it may: where each daemon has one of its own this is its own.
            for path in [&secrets.of_user, &secrets.of_all, &secrets.journal] {
                assert!(puppet.open(path, libc::O_RDONLY).is_ok(), "{}", path.display());
            }
            assert!(!turn_sockets(&puppet, pid, elsewhere.1).contains(&DENIED));
            assert!(wait_until(|| elsewhere.0.accept().is_ok()));
            // By its table.
            assert_eq!(puppet.call(libc::SYS_execve, &[]), ENDED);
        }
        tenants.siege.system.stop().unwrap();
    });
}

#[test]
fn a_daemon_that_cannot_be_enclosed_does_not_start() {
    let test = "a_daemon_that_cannot_be_enclosed_does_not_start";
    let Some(tenants) = Tenants::begin(test) else { return };
    if !has_landlock(test, &tenants.log()) {
        return;
    }
    where_the_kernel_says(libc::SYS_landlock_restrict_self, Errno::E2BIG, || {
        let mut tenants = tenants;
        for name in ["vmmd_tls", "vmmd_console", "vmmd"] {
            tenants.siege.system.end(name, Signal::SIGTERM).unwrap();
        }
        let system = &mut tenants.siege.system;
        // The socket of each is there before that, and may be reached for a moment. The control half is one of them.
        let _ = (system.start_console(), system.start_log(&[]), system.start_stats(&[]), system.start_vmmd(&[]));
        let _ = tenants.start_tls("127.0.0.1");
        for (name, _) in logs(&tenants.siege) {
            tenants.siege.expect_log(name, "could not be enclosed by Landlock (");
            tenants.siege.expect_log(name, "16 layers");
            let runs = || tenants.siege.system.pid(name).is_ok_and(|pid| !is_gone(pid_of(pid)));
            assert!(wait_until(|| !runs()), "{name} runs");
        }
        let config = tenants.siege.system.folder().join("influx.toml");
        fs::write(&config, format!("run = {:?}\n[tcp]\naddress = \"127.0.0.1:1\"\n", tenants.siege.system.run()))
            .unwrap();
        let influx = Command::new(programs().join("vmmd_influx")).arg("--config").arg(&config).output().unwrap();
        let said = String::from_utf8_lossy(&influx.stderr);
        assert!(influx.status.code() == Some(1) && said.contains("could not be enclosed by Landlock ("), "{said}");
        tenants.siege.system.stop().unwrap();
    });
}
