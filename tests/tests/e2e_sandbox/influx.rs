//! `vmmd_influx` with databases that are reached by name, by TLS, slowly and not at all.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use fulmar_shim_linux::sandbox::Program;
use fulmar_tests::dns;
use fulmar_tests::pki::Issuer;
use fulmar_tests::siege::Siege;
use fulmar_tests::system::{PATIENCE, programs, wait_until};
use fulmar_tests::trace::Traced;
use nix::libc;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::{Seen, expect_nothing_kept, show};

/// A name that only the server of this test knows.
const DATABASE: &str = "database.example";

/// Adds what is seen of it.
pub(crate) fn watch(siege: &mut Siege, seen: &mut Seen) {
    let folder = siege.system.folder().to_path_buf();
    siege.system.start_stats(&["--interval".as_ref(), "0.2".as_ref()]).unwrap();
    let created = siege.client(&["create", "siege:spin", &siege.image("spin"), "--mem", "16"]);
    assert_eq!(created.code, 0, "{created:?}");
    seen.push((Program::Influx, by_name(siege, &folder)));
    let on_old_kernel = || {
        deny_clone3();
        (Program::Influx, by_address(siege, &folder))
    };
    let more = std::thread::scope(|scope| scope.spawn(on_old_kernel).join()).unwrap();
    seen.push(more);
    assert_eq!(siege.client(&["destroy", "siege:spin"]).code, 0);
    siege.system.end("vmmd_stats", nix::sys::signal::Signal::SIGTERM).unwrap();
}

/// By two names, of which one has an answer that is too long for a datagram; a module of the C library is tried for each. The database
/// that has a certificate has none that is known. Who asks for metrics comes too.
fn by_name(siege: &Siege, folder: &Path) -> fulmar_tests::trace::Calls {
    dns::serve();
    let resolver = show(folder, "/etc/resolv.conf", "nameserver 127.0.0.1\n");
    show(folder, "/etc/hosts", "127.0.0.1 localhost\n");
    show(folder, "/etc/nsswitch.conf", "hosts: hesiod files dns\n");
    let receiver = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let database = serve_tls();
    let metrics = free_port();
    let sections = format!(
        "[tcp]\naddress = \"{}.example:{}\"\n[http]\nurl = \"https://{DATABASE}:{database}\"\ndatabase = \"d\"\n\
         [metrics]\nlisten = \"127.0.0.1:{metrics}\"\n",
        dns::LONG,
        receiver.local_addr().unwrap().port()
    );
    let influx = start(siege, folder, &sections);
    for _ in 0..2 {
        let stream = accept(&receiver, &influx);
        assert!(BufReader::new(stream).lines().next().unwrap().unwrap().contains("vm=spin"));
        // The connection is closed here, and made again; meanwhile servers of names are to be asked in another way.
        fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:1\n").unwrap();
    }
    influx.expect("UnknownIssuer");
    expect_nothing_kept(influx.pid.as_raw().cast_unsigned(), "vmmd_influx");
    assert!(wait_until(|| scrape(metrics).contains("siege:spin")));
    influx.end()
}

/// By addresses: nobody listens at the one, the other says that it wants nothing now, and then is slow.
fn by_address(siege: &Siege, folder: &Path) -> fulmar_tests::trace::Calls {
    let database = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let sections = format!(
        "[tcp]\naddress = \"127.0.0.1:{}\"\n[http]\nurl = \"http://{}\"\ndatabase = \"d\"\n\
         [metrics]\nlisten = \"127.0.0.1:{}\"\n",
        free_port(),
        database.local_addr().unwrap(),
        free_port(),
    );
    let metrics = sections.rsplit_once(':').unwrap().1.trim_matches(['"', '\n']).parse().unwrap();
    let influx = start(siege, folder, &sections);
    influx.expect("Connection refused");
    influx.stop_once();
    for status in ["503 Busy", "200 OK"] {
        let stream = accept(&database, &influx);
        take_request(&stream);
        let said = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        for byte in said.bytes() {
            (&stream).write_all(&[byte]).unwrap();
        }
    }
    influx.expect("takes lines again");
    assert!(wait_until(|| scrape(metrics).contains("siege:spin")));
    influx.end()
}

fn start(siege: &Siege, folder: &Path, sections: &str) -> Traced {
    let (config, run) = (folder.join("influx.toml"), siege.system.run());
    fs::write(&config, format!("run = {run:?}\ninterval-seconds = 1\n{sections}")).unwrap();
    let mut command = Command::new(programs().join("vmmd_influx"));
    command.arg("--config").arg(&config);
    let influx = Traced::start(&command, folder.join("influx.log"));
    influx.expect("vmmd_stats is here");
    influx
}

/// From now on this thread and who it starts are on a kernel that has no newer way to begin a thread.
fn deny_clone3() {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let unknown = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, unknown, std::env::consts::ARCH.try_into().unwrap());
    seccompiler::apply_filter(&BpfProgram::try_from(filter.unwrap()).unwrap()).unwrap();
}

/// A server with a certificate of a CA that nobody knows; its port.
fn serve_tls() -> u16 {
    let server = Issuer::root("nobody's").server();
    let chain = server.chain.iter().cloned().map(CertificateDer::from).collect();
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = PrivatePkcs8KeyDer::from(server.key.pkcs8.clone());
    let config = Arc::new(builder.with_single_cert(chain, key.into()).unwrap());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            // Until the client hangs up.
            while tls.complete_io(&mut stream).is_ok_and(|(read, written)| read + written > 0) {}
        }
    });
    port
}

/// Reads all that somebody posts.
fn take_request(stream: &TcpStream) {
    let (mut reader, mut bytes) = (BufReader::new(stream), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            bytes = length.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; bytes]).unwrap();
}

/// The next that connects there.
fn accept(listener: &TcpListener, influx: &Traced) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    let has_come = wait_until(|| {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    assert!(has_come, "{}", influx.log());
    let (stream, _) = accepted.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Asks for what it knows.
fn scrape(port: u16) -> String {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: here\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
