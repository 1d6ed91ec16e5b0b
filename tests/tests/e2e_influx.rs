//! `vmmd_influx` with all it reports to: a real InfluxDB that dies and comes back, a real Prometheus, a listener for lines, what
//! an InfluxDB of version 2 documents, and clients of its endpoint that misbehave.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fulmar_tests::pki::{Issuer, pem};
use fulmar_tests::siege::{Siege, said};
use fulmar_tests::skips::skip;
use fulmar_tests::system::{self, wait_until};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// What every machine calls itself.
const HOST: &str = "localhost";

/// A program that ends with its test, and what it says.
struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    fn start(mut command: Command, log: PathBuf) -> Self {
        let to = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(to.try_clone().unwrap()).stderr(to);
        Self { child: command.spawn().unwrap(), log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn expect_log(&self, text: &str) {
        assert!(wait_until(|| self.log().contains(text)), "no '{text}' in:\n{}", self.log());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A siege whose unikernels are measured each second.
struct Scene {
    siege: Siege,
}

impl Scene {
    fn begin(test: &str) -> Option<Self> {
        let mut siege = Siege::begin(test)?;
        siege.system.start_stats(&["--interval".as_ref(), "1".as_ref()]).unwrap();
        let created = siege.client(&["create", "siege:spin", &siege.image("spin"), "--mem", "16"]);
        assert_eq!(created.code, 0, "{created:?}");
        Some(Self { siege })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.siege.system.folder().join(name)
    }

    /// Starts `vmmd_influx` with these sections.
    fn report(&self, sections: &str) -> Program {
        let config = self.file("influx.toml");
        fs::write(&config, format!("run = {:?}\ninterval-seconds = 1\n{sections}", self.siege.system.run())).unwrap();
        let mut command = Command::new(system::programs().join("vmmd_influx"));
        command.arg("--config").arg(&config);
        let reporter = Program::start(command, self.file("influx.log"));
        reporter.expect_log("vmmd_stats is here");
        reporter
    }

    fn end(mut self) {
        assert_eq!(self.siege.client(&["destroy", "siege:spin"]).code, 0);
        self.siege.system.end("vmmd_stats", Signal::SIGTERM).unwrap();
        self.siege.end();
    }
}

/// A port that nobody has now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks in the old way, which is answered in one piece. The status and the body; nothing where nobody listens.
fn http(port: u16, request: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn get(port: u16, path: &str) -> Option<(u16, String)> {
    http(port, &format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"))
}

/// A program of a package; skipped, aloud, where that is not installed.
fn package(test: &str, program: &str) -> Option<PathBuf> {
    let found = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].iter().map(|it| PathBuf::from(it).join(program));
    let found = found.into_iter().find(|path| path.is_file());
    if found.is_none() {
        skip(test, &format!("{program} is not installed"));
    }
    found
}

fn unix_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// With these settings of its HTTP service besides.
fn start_influxdb(scene: &Scene, influxd: &PathBuf, port: u16, more: &str) -> Program {
    let folder = scene.file("influxdb");
    let (config, shown) = (scene.file("influxdb.conf"), folder.display());
    let settings = format!(
        "reporting-disabled = true\nbind-address = \"127.0.0.1:{}\"\n[meta]\ndir = \"{shown}/meta\"\n[data]\n\
         dir = \"{shown}/data\"\nwal-dir = \"{shown}/wal\"\n[http]\nbind-address = \"127.0.0.1:{port}\"\n{more}",
        free_port()
    );
    fs::write(&config, settings).unwrap();
    let mut command = Command::new(influxd);
    command.arg("-config").arg(config);
    let influxdb = Program::start(command, scene.file("influxdb.log"));
    let up = wait_until(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert!(up, "{}", influxdb.log());
    influxdb
}

/// Rows of an answer of InfluxDB.
fn query(port: u16, query: &str) -> Vec<Vec<serde_json::Value>> {
    let escaped = query.replace(' ', "%20").replace('>', "%3E").replace('<', "%3C").replace('\'', "%27");
    let (status, body) = get(port, &format!("/query?db=fulmar&epoch=ms&q={escaped}")).unwrap();
    assert_eq!(status, 200, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    let rows = answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| row.as_array().unwrap().clone()).collect()
}

#[test]
fn an_influxdb_that_dies_and_comes_back_has_all_measurements() {
    const TEST: &str = "an_influxdb_that_dies_and_comes_back_has_all_measurements";
    let Some(influxd) = package(TEST, "influxd") else { return };
    let Some(scene) = Scene::begin(TEST) else { return };
    let port = free_port();
    let influxdb = start_influxdb(&scene, &influxd, port, "");
    let created =
        http(port, "POST /query?q=CREATE%20DATABASE%20fulmar HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(created.unwrap().0, 200);
    let metrics = free_port();
    let reporter = scene.report(&format!(
        "[http]\nurl = \"http://127.0.0.1:{port}\"\ndatabase = \"fulmar\"\nfull-names = true\n\
         [metrics]\nlisten = \"127.0.0.1:{metrics}\"\n"
    ));
    // Measurements that have come, whether they could be sent or not.
    let come = || {
        let (_, page) = get(metrics, "/metrics")?;
        let line = page.lines().find_map(|line| line.strip_prefix("fulmar_influx_measurements_total "))?;
        line.parse::<f64>().ok()
    };
    let rows = |since: u128| {
        query(port, &format!("SELECT utime FROM resource_usage WHERE vm = 'siege:spin' AND time > {since}ms"))
    };
    assert!(wait_until(|| rows(0).len() >= 3), "{}", reporter.log());
    // It uses its processor, and that is what is reported.
    let times: Vec<f64> = rows(0).iter().map(|row| row[1].as_f64().unwrap()).collect();
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]) && times.last() > times.first(), "{times:?}");
    let kinds = query(port, "SHOW MEASUREMENTS");
    assert!(kinds.iter().any(|row| row[0] == "kinfo_mem"), "{kinds:?}");

    drop(influxdb);
    let gone_ms = unix_ms();
    reporter.expect_log("tried again every 5 s");
    let before = come().unwrap();
    assert!(wait_until(|| come().is_some_and(|now| now >= before + 4.0)), "{}", reporter.log());
    let back_ms = unix_ms();
    let _influxdb = start_influxdb(&scene, &influxd, port, "");
    reporter.expect_log("takes lines again");
    let kept = || rows(gone_ms).iter().filter(|row| u128::from(row[0].as_u64().unwrap()) < back_ms).count();
    assert!(wait_until(|| kept() >= 3), "{} measurements of the time in which it was away", kept());
    drop(reporter);
    scene.end();
}

#[test]
fn an_influxdb_is_believed_by_a_ca_of_ones_own_and_by_no_other() {
    const TEST: &str = "an_influxdb_is_believed_by_a_ca_of_ones_own_and_by_no_other";
    let (Some(influxd), Some(curl)) = (package(TEST, "influxd"), package(TEST, "curl")) else { return };
    let Some(scene) = Scene::begin(TEST) else { return };
    let file = |name: &str, kind: &str, der: &[u8]| {
        let path = scene.file(name);
        fs::write(&path, pem(kind, &[der])).unwrap();
        path.display().to_string()
    };
    let issuer = Issuer::root("ours");
    let server = issuer.server_of(HOST);
    let ours = file("ours.pem", "CERTIFICATE", &issuer.der);
    let other = file("other.pem", "CERTIFICATE", &Issuer::root("ours").der);
    let port = free_port();
    let more = format!(
        "https-enabled = true\nhttps-certificate = {:?}\nhttps-private-key = {:?}\n",
        file("server.pem", "CERTIFICATE", &server.chain[0]),
        file("server.key", "PRIVATE KEY", &server.key.pkcs8)
    );
    let _influxdb = start_influxdb(&scene, &influxd, port, &more);
    let ask = |words: &[&str]| {
        let mut command = Command::new(&curl);
        command.args(["--silent", "--show-error", "--cacert", &ours]).args(words);
        said(&command.arg(format!("https://{HOST}:{port}/query")).output().unwrap())
    };
    let created = ask(&["--data-urlencode", "q=CREATE DATABASE fulmar"]);
    assert_eq!(created.code, 0, "{created:?}");
    let section = |ca: &str| format!("[http]\nurl = \"https://{HOST}:{port}\"\ndatabase = \"fulmar\"\n{ca}");
    // Neither by those that everybody knows, nor by another one's.
    for ca in [String::new(), format!("ca-file = {other:?}\n")] {
        let reporter = scene.report(&section(&ca));
        reporter.expect_log("invalid peer certificate");
        drop(reporter);
        fs::remove_file(scene.file("influx.log")).unwrap();
    }
    let reporter = scene.report(&section(&format!("ca-file = {ours:?}\n")));
    let rows = || ask(&["--get", "--data", "db=fulmar", "--data-urlencode", "q=SELECT utime FROM resource_usage"]).out;
    assert!(wait_until(|| rows().contains("utime")), "{}\n{}", rows(), reporter.log());
    assert!(!reporter.log().contains("invalid peer certificate"), "{}", reporter.log());
    drop(reporter);
    scene.end();
}

#[test]
fn prometheus_finds_what_is_promised() {
    const TEST: &str = "prometheus_finds_what_is_promised";
    let Some(prometheus) = package(TEST, "prometheus") else { return };
    let Some(scene) = Scene::begin(TEST) else { return };
    let (port, own) = (free_port(), free_port());
    let reporter = scene.report(&format!("[metrics]\nlisten = \"127.0.0.1:{port}\"\n"));
    let config = scene.file("prometheus.yml");
    let scrape = "scrape_configs:\n- job_name: fulmar\n  scrape_interval: 1s\n  static_configs:\n  - targets:";
    fs::write(&config, format!("{scrape} ['127.0.0.1:{port}']\n")).unwrap();
    let mut command = Command::new(prometheus);
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", scene.file("prometheus").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{own}"));
    let server = Program::start(command, scene.file("prometheus.log"));
    let value = |query: &str| -> Option<f64> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let (_, body) = get(own, &format!("/api/v1/query?query={escaped}"))?;
        let answer: serde_json::Value = serde_json::from_str(&body).ok()?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    };
    let expect = |query: &str, holds: &dyn Fn(f64) -> bool| {
        let found = wait_until(|| value(query).is_some_and(holds));
        assert!(found, "{query} is {:?}\n{}\n{}", value(query), server.log(), reporter.log());
    };
    expect("up{job=\"fulmar\"}", &|up| up == 1.0);
    // What has no interface, reports to nobody and has never ended has all but these.
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let page = fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `fulmar_")?.split_once("` | "));
    let not_here = |labels: &str| ["`interface`", "`how`", "`to`"].iter().any(|label| labels.contains(label));
    let measures_storage = !scene.siege.system.log("vmmd").contains("what unikernels read and write is not measured");
    let rows = rows.filter(|(name, labels)| {
        let needs_storage = name.starts_with("unikernel_block_read") || name.starts_with("unikernel_block_written");
        !not_here(labels.split('|').next().unwrap()) && (measures_storage || !needs_storage)
    });
    let names: Vec<&str> = rows.map(|(name, _)| name).collect();
    assert!(names.len() > 18, "{names:?}");
    for name in names {
        expect(&format!("count(fulmar_{name})"), &|count| count >= 1.0);
    }
    expect("fulmar_unikernel_up{unikernel=\"siege:spin\"}", &|up| up == 1.0);
    expect("fulmar_unikernel_memory_limit_bytes{unikernel=\"siege:spin\"}", &|bytes| bytes == 16777216.0);
    expect("rate(fulmar_unikernel_cpu_seconds_total{unikernel=\"siege:spin\"}[10s])", &|rate| rate > 0.0);
    expect("fulmar_unikernel_resident_bytes{unikernel=\"siege:spin\"}", &|bytes| bytes > 65536.0);
    expect("fulmar_domain_unikernels{path=\"siege:\"}", &|count| count == 1.0);
    expect("fulmar_domain_memory_bytes{path=\"siege:\"}", &|bytes| bytes == 16777216.0);
    expect("fulmar_domain_unikernels_limit{path=\"siege:\"}", &|count| count == 1.0);
    expect("fulmar_daemon_up{daemon=\"vmmd_stats\"}", &|up| up == 1.0);
    expect("fulmar_host_used{what=\"unikernels\"} or fulmar_host_used{what=\"processes\"}", &|used| used >= 1.0);
    // One that is gone is not reported any more: neither as running nor with its last measurement.
    assert_eq!(scene.siege.client(&["destroy", "siege:spin"]).code, 0);
    for metric in ["fulmar_unikernel_up", "fulmar_unikernel_cpu_seconds_total"] {
        let gone = wait_until(|| get(port, "/metrics").is_some_and(|(_, body)| !body.contains(&format!("{metric}{{"))));
        assert!(gone, "{metric}");
    }
    assert_eq!(scene.siege.client(&["create", "siege:spin", &scene.siege.image("spin"), "--mem", "16"]).code, 0);
    drop((server, reporter));
    scene.end();
}

#[test]
fn lines_over_tcp_are_those_of_the_peer_and_outlive_a_connection() {
    let Some(scene) = Scene::begin("lines_over_tcp_are_those_of_the_peer") else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let reporter = scene.report(&format!("[tcp]\naddress = \"{}\"\n", listener.local_addr().unwrap()));
    for _ in 0..2 {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let lines: Vec<String> = BufReader::new(stream).lines().take(4).map(Result::unwrap).collect();
        for pair in lines.chunks(2) {
            assert!(pair[0].starts_with("resource_usage,vm=spin utime="), "{pair:?}");
            assert!(pair[1].starts_with("kinfo_mem,vm=spin vsize="), "{pair:?}");
            let uptime = pair[1].rsplit_once("uptime=").unwrap().1.parse::<f64>().unwrap();
            assert!((0.0..600.0).contains(&uptime), "{pair:?}");
        }
        // The connection is closed here; the next one is made by itself.
    }
    reporter.expect_log("tried again every 5 s");
    drop(reporter);
    scene.end();
}

/// Answers one request so, and tells what it was.
fn answer(listener: &TcpListener, answer: &str) -> (String, String) {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(&stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = bytes.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    write!(&stream, "HTTP/1.1 {answer}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").unwrap();
    (head, String::from_utf8(body).unwrap())
}

#[test]
fn version_2_is_asked_as_it_documents() {
    let Some(scene) = Scene::begin("version_2_is_asked_as_it_documents") else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, token) = (format!("http://{}", listener.local_addr().unwrap()), scene.file("token"));
    fs::write(&token, "s3cret==\n").unwrap();
    let port = free_port();
    let reporter = scene.report(&format!(
        "[http]\nurl = {url:?}\norganisation = \"my org\"\nbucket = \"b\"\ntoken-file = {token:?}\n\
         [metrics]\nlisten = \"127.0.0.1:{port}\"\n"
    ));
    // Not now: the same lines come again. Never: they do not.
    let (head, refused) = answer(&listener, "503 Service Unavailable");
    assert!(head.starts_with("POST /api/v2/write?org=my%20org&bucket=b&precision=ms HTTP/1.1\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("\r\nauthorization: token s3cret==\r\n"), "{head}");
    let (_, again) = answer(&listener, "400 Bad Request");
    assert!(again.starts_with(&refused), "{refused} and then {again}");
    let (_, next) = answer(&listener, "204 No Content");
    let first = |body: &str| body.lines().next().unwrap().rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
    assert!(first(&next) > first(&again), "{next}");
    reporter.expect_log("lines dropped: status 400: no");
    assert!(!reporter.log().contains("s3cret"), "{}", reporter.log());
    let dropped = again.lines().count();
    let counted = format!("fulmar_influx_lines_dropped_total{{to=\"http\"}} {dropped}.0\n");
    assert!(wait_until(|| get(port, "/metrics").is_some_and(|(_, body)| body.contains(&counted))), "{counted}");
    drop(reporter);
    scene.end();
}

#[test]
fn clients_of_the_endpoint_that_misbehave() {
    let Some(scene) = Scene::begin("clients_of_the_endpoint_that_misbehave") else { return };
    let port = free_port();
    let reporter = scene.report(&format!("[metrics]\nlisten = \"127.0.0.1:{port}\"\n"));
    let long = format!("GET /metrics HTTP/1.0\r\nX: {}\r\n\r\n", "x".repeat(8192));
    for (request, status) in [
        ("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n", 200),
        ("GET /metrics?a=b HTTP/1.0\r\n\r\n", 200),
        ("GET / HTTP/1.0\r\n\r\n", 404),
        ("POST /metrics HTTP/1.0\r\n\r\n", 405),
        ("GET /metrics HTTP/9.9\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01", 400),
        (long.as_str(), 431),
    ] {
        let answer = http(port, request).unwrap_or_else(|| panic!("no answer to {request}"));
        assert_eq!(answer.0, status, "{request}: {}", answer.1);
    }
    // Those that say nothing hold a place each, for ten seconds at most.
    let silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    assert!(wait_until(|| get(port, "/metrics").is_some_and(|(status, _)| status == 200)));
    drop(silent);
    drop(reporter);
    scene.end();
}

#[test]
fn what_is_wrong_with_a_configuration_is_said() {
    let Some(programs) = fulmar_tests::siege::programs("what_is_wrong_with_a_configuration_is_said") else { return };
    let folder = system::make_folder("influx").unwrap();
    let config = folder.join("influx.toml");
    let check = |text: &str| {
        fs::write(&config, text).unwrap();
        let mut command = Command::new(programs.join("vmmd_influx"));
        said(&command.arg("--config").arg(&config).arg("--check").output().unwrap())
    };
    let well = check("[metrics]\nlisten = \"127.0.0.1:9102\"\n");
    assert_eq!((well.code, well.out.as_str()), (0, "vmmd_influx: it is well\n"), "{well:?}");
    let http = "[http]\nurl = \"http://127.0.0.1:1\"\norganisation = \"o\"\nbucket = \"b\"\ntoken-file = ";
    let fifo = folder.join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let in_file = |name: &str, content: &[u8]| {
        fs::write(folder.join(name), content).unwrap();
        format!("{http}{:?}", folder.join(name))
    };
    let (empty, long) = (in_file("empty", b"\n"), in_file("long", &[b'x'; 20_000]));
    for (text, said) in [
        ("[metrics]\nlisten = \"127.0.0.1\"\n", "line 2: "),
        ("", "nothing is to be reported: add [tcp], [http] or [metrics]"),
        ("[metrics]\nlisten = \"127.0.0.1:1\n", "line 2: "),
        ("run = 3\n", "line 1: invalid type"),
        ("# one\nrum = \"/r\"\n", "line 2: unknown field `rum`, expected one of"),
        ("[metric]\n", "unknown field `metric`"),
        ("[tcp]\n", "missing field `address`"),
        ("[tcp]\naddress = \"h\"\n", "tcp.address: 'h' is not HOST:PORT"),
        ("[tcp]\naddress = \"h:1\"\naddress = \"h:2\"\n", "line 3: duplicate key"),
        ("interval-seconds = 0\n[tcp]\naddress = \"h:1\"\n", "interval-seconds: 0 is not from 1 to 3600"),
        ("log-level = \"loud\"\n[tcp]\naddress = \"h:1\"\n", "log-level: 'loud' is none of"),
        ("[http]\nurl = \"127.0.0.1\"\ndatabase = \"d\"\n", "http.url: it must begin with http://"),
        (&format!("{http}\"/nowhere/token\""), "/nowhere/token cannot be read: No such file"),
        (&format!("{http}{fifo:?}"), "fifo cannot be read: it is no plain file"),
        (&format!("{http}\"/dev/zero\""), "/dev/zero cannot be read: it is no plain file"),
        (&empty, "there is no secret in"),
        (&long, "it has more than 16384 bytes"),
        (&"#".repeat(17_000), "it has more than 16384 bytes"),
    ] {
        let wrong = check(text);
        assert_eq!((wrong.code, wrong.out.as_str()), (1, ""), "{text}: {wrong:?}");
        assert!(wrong.err.contains(said), "{text}: {wrong:?}");
        // One line, which has all of it, and begins with the file.
        assert_eq!(wrong.err.lines().count(), 1, "{wrong:?}");
        assert!(wrong.err.contains("influx.toml: ") && !wrong.err.contains('?'), "{wrong:?}");
    }
    let named = |path: &Path| {
        let mut command = Command::new(programs.join("vmmd_influx"));
        said(&command.arg("--config").arg(path).arg("--check").output().unwrap())
    };
    fs::write(&config, "[metrics]\nlisten = \"127.0.0.1:9102\"\n").unwrap();
    let mode = |mode| fs::set_permissions(&config, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o666);
    let wrong = named(&config);
    assert!(wrong.code == 1 && wrong.err.contains("has mode 666"), "{wrong:?}");
    mode(0o644);
    if chown(&config, Some(4321), None).is_ok() {
        let wrong = named(&config);
        assert!(wrong.code == 1 && wrong.err.contains("it belongs to user 4321"), "{wrong:?}");
    }
    for (path, what) in [
        (fifo.as_path(), "it is no file"),
        (Path::new("/dev/zero"), "it is no file"),
        (&folder, "it is no file"),
        (Path::new("/nowhere/influx.toml"), "write one (docs/metrics.md), or name it by --config"),
    ] {
        let wrong = named(path);
        assert!(wrong.code == 1 && wrong.err.contains(what), "{wrong:?}");
    }
    fs::remove_dir_all(folder).unwrap();
}
