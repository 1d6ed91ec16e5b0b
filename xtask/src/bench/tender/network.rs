//! A network in a namespace of its own, with a tap and a server of each side on it. Clients have one processor and servers
//! another, if there are two, so that chance does not put one server nearer to its clients than the other.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use fulmar_tests::namespace::inside;
use fulmar_tests::skips::skip;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::stage::{Running, Side, Stage};
use crate::steps::{Done, Failure};

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `body` in an empty network and with mounts of its own; skipped aloud where they cannot be had.
pub(super) fn apart(title: &str, body: impl FnOnce() -> Done + Send) -> Done {
    if !nix::unistd::geteuid().is_root() {
        skip(title, "only root can make a network, mounts and users for it");
        return Ok(());
    }
    let mut done = Ok(());
    inside(title, || done = body());
    done
}

/// Runs `body` beside a server `name` of each side.
pub(super) fn with_servers(stage: &Stage, name: &str, body: impl FnOnce() -> Done + Send) -> Done {
    let title = format!("bench tender ({} {name})", stage.kind.name());
    apart(&title, || beside_servers(stage, name, body))
}

fn beside_servers(stage: &Stage, name: &str, body: impl FnOnce() -> Done) -> Done {
    let cpus = processors();
    stay_on(cpus.map(|[_, servers]| servers))?;
    let servers = stage.sides().iter().map(|side| serve(stage, *side, name)).collect::<Done<Vec<_>>>()?;
    stay_on(cpus.map(|[clients, _]| clients))?;
    let done = body();
    drop(servers);
    done
}

/// The first two processors that we may use, if there are two.
fn processors() -> Option<[usize; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
    let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    Some([cpus.next()?, cpus.next()?])
}

/// Keeps this thread and all that it starts on a processor.
fn stay_on(cpu: Option<usize>) -> Done {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut only = CpuSet::new();
    only.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &only))
        .map_err(|error| Failure(format!("cannot stay on processor {cpu}: {error}")))
}

/// The address of a server.
pub(super) fn address(side: Side) -> &'static str {
    match side {
        Side::Ours => "10.0.1.2",
        Side::Original => "10.0.2.2",
    }
}

fn serve(stage: &Stage, side: Side, name: &str) -> Done<Running> {
    let (tap, server) = (side.word(), address(side));
    let host = match side {
        Side::Ours => "10.0.1.1",
        Side::Original => "10.0.2.1",
    };
    let script = format!(
        "ip link set lo up; ip tuntap add dev {tap} mode tap && ip addr add {host}/24 dev {tap} && ip link set {tap} up"
    );
    let made = Command::new("sh").args(["-c", &script]).output();
    let made = made.map_err(|error| Failure(format!("cannot run `sh`: {error}")))?;
    if !made.status.success() {
        return Err(Failure(format!("cannot make a tap: {}", String::from_utf8_lossy(&made.stderr))));
    }
    let mut command = stage.command(side);
    command.arg(format!("--net:service={tap}")).arg(stage.image(name)).arg(format!("--ipv4={server}/24"));
    let mut running = stage.start(&mut command)?;
    running.await_console(" port ")?;
    Ok(running)
}

/// A connection that answers in time or fails.
pub(super) fn connect(side: Side, port: u16) -> Done<TcpStream> {
    let failed = |error| Failure(format!("cannot connect to {} port {port}: {error}", address(side)));
    let stream = TcpStream::connect((address(side), port)).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    Ok(stream)
}
