//! How many messages a second are decoded and encoded: one JSON line a measurement. The median of many short
//! rounds, and the best, which is what the machine does when nothing else runs.
//! `cargo run --release -p fulmar-tests --bin bench_codec`

use std::hint::black_box;
use std::time::{Duration, Instant};

use fulmar_core::limits::FRAME_HEAD_BYTES_MAX;
use fulmar_core::name::Name;
use fulmar_core::scan::{Event, Limits, Scanner};
use fulmar_core::wire::{
    self, Arguments, BlockDevice, Bridge, Command, Config, FailBehaviour, Frame, Full, Header, Image, Kind, List,
    Message, Payload, Text, UnikernelCommand,
};
use serde_json::json;

const ROUNDS: usize = 101;
const ROUND_MS: u64 = 5;
const IMAGE_BYTES: usize = 1 << 20;

fn main() -> Result<(), Full> {
    let header = Header::new(1, Name::parse("hello").unwrap_or(Name::ROOT));
    let small = Message { header, payload: Payload::Command(Command::Unikernel(UnikernelCommand::Info)) };
    bench_message("small", &small)?;

    let argv = ["--ipv4=10.0.0.2/24", "--hello=world with spaces", "", "-l *:debug"].map(Text::from);
    let block = |name, host_device, sector_size| BlockDevice { name, host_device, sector_size };
    let bridge = |name, bridge, mac| Bridge { name, bridge, mac };
    let blocks =
        [block("storage", Some("disk"), Some(4096)), block("data", None, None), block("third", Some("t3"), None)];
    let bridges = [bridge("service", Some("br0"), Some([0, 128, 65, 1, 2, 3])), bridge("mgmt", None, None)];
    let arguments = Arguments {
        fail_behaviour: FailBehaviour::Restart(List::Items(&[0, 2, 255])),
        startup: Some(7),
        add_name: false,
        cpuids: List::Items(&[0, 1, 3, 130]),
        memory: 1024,
        block_devices: List::Items(&blocks),
        bridges: List::Items(&bridges),
        argv: Some(List::Items(&argv)),
        numcpus: 4,
        linux_boot: None,
    };
    let create = |image| {
        let config = Config { kind: Kind::Solo5, compressed: false, image, arguments };
        Message { header, payload: Payload::Command(Command::Unikernel(UnikernelCommand::Create(config))) }
    };
    bench_message("full create", &create(Image::Inline(&[7; 30])))?;
    // As vmmd has it: the lists are DER that was stored.
    let mut stored = vec![0; 1024];
    let stored = arguments.encode(&mut stored)?;
    bench("decode stored arguments", stored.len(), || black_box(Arguments::decode(black_box(stored))).is_ok());

    let image = vec![7; IMAGE_BYTES];
    bench_stream("stream of small", &small)?;
    bench_stream("stream of full create", &create(Image::Inline(&[7; 30])))?;
    bench_stream("stream of full create, image 1 MiB", &create(Image::Inline(&image)))?;
    bench_decode_diverted(&create(Image::Diverted { len: IMAGE_BYTES as u64 }))
}

fn bench_message(what: &str, message: &Message<'_>) -> Result<(), Full> {
    let mut buffer = vec![0; 4096];
    let bytes = wire::encode(message, &mut buffer)?.to_vec();
    bench(&format!("decode {what}"), bytes.len(), || black_box(wire::decode(Frame::whole(black_box(&bytes)))).is_ok());
    let mut again = [0; 4096];
    bench(&format!("encode {what}"), bytes.len(), || wire::encode(black_box(message), black_box(&mut again)).is_ok());
    bench(&format!("decode and encode {what}"), bytes.len(), || {
        let decoded = wire::decode(Frame::whole(black_box(&bytes)));
        decoded.is_ok_and(|message| wire::encode(black_box(&message), black_box(&mut again)).is_ok())
    });
    Ok(())
}

/// A frame through the scanner and the decoder, as a connection has it; diverted octets are dropped.
fn bench_stream(what: &str, message: &Message<'_>) -> Result<(), Full> {
    let mut buffer = vec![0; IMAGE_BYTES + 4096];
    let frame = wire::encode_frame(message, &mut buffer)?.to_vec();
    let limits = Limits { divert_bytes_min: 1024, diverted_bytes_max: 1 << 30 };
    let mut scanner = Scanner::new(limits);
    let mut head = vec![0; FRAME_HEAD_BYTES_MAX];
    bench(&format!("scan and decode {what}"), frame.len(), || {
        let mut rest = black_box(frame.as_slice());
        loop {
            match scanner.next(&mut head, &mut rest) {
                Ok(Event::Frame { head_len, cut }) => {
                    let head = head.get(..head_len).unwrap_or_default();
                    return black_box(wire::decode(Frame { head, cut })).is_ok();
                }
                Ok(Event::More) | Err(_) => return false,
                Ok(event) => {
                    black_box(event);
                }
            }
        }
    });
    Ok(())
}

fn bench_decode_diverted(message: &Message<'_>) -> Result<(), Full> {
    let mut buffer = vec![0; 4096];
    let Frame { head, cut } = wire::encode_head(message, &mut buffer)?;
    let (Some(head), Some(cut)) = (head.get(4..), cut) else { return Err(Full) };
    let frame = Frame { head, cut: Some(wire::Cut { at: cut.at - 4, len: cut.len }) };
    bench("decode full create, image 1 MiB diverted", head.len(), || black_box(wire::decode(black_box(frame))).is_ok());
    Ok(())
}

/// Repeats `work`, which must succeed, and prints its median rate.
fn bench(what: &str, bytes: usize, mut work: impl FnMut() -> bool) {
    let mut rates = [0.0_f64; ROUNDS];
    for rate in &mut rates {
        let (start, mut count) = (Instant::now(), 0_u32);
        let mut elapsed = Duration::ZERO;
        while elapsed < Duration::from_millis(ROUND_MS) {
            for _ in 0..64 {
                assert!(work(), "{what} failed");
            }
            count += 64;
            elapsed = start.elapsed();
        }
        *rate = f64::from(count) / elapsed.as_secs_f64();
    }
    rates.sort_by(f64::total_cmp);
    let median = rates.get(ROUNDS / 2).copied().unwrap_or_default();
    let best = rates.last().copied().unwrap_or_default();
    let line = json!({
        "bench": "codec", "what": what, "bytes": bytes, "per_second": median.round(), "best_per_second": best.round(),
    });
    println!("{line}");
}
