//! Messages as the recorded vectors write them in JSON, so that the two can be compared as a whole.

use fulmar_core::time;
use fulmar_core::wire::{
    Arguments, BlockCommand, BlockInfo, Command, Condition, Config, ConsoleCommand, Counter, Data, FailBehaviour,
    Header, Image, Info, Kind, List, Message, Moment, NamedCondition, NamedInfo, NamedPolicy, Payload, Policy,
    PolicyCommand, StatsCommand, Success, Text, UnikernelCommand, Usage, Window,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// The whole message.
pub fn message(message: &Message<'_>) -> Value {
    json!({ "header": header(&message.header), "payload": payload(&message.payload) })
}

/// A command, as a certificate has it.
pub fn command(command: &Command<'_>) -> Value {
    match command {
        Command::Console(command) => console(*command),
        Command::Stats(command) => stats(command),
        Command::Log(window) => json!({ "log_subscribe": self::window(*window) }),
        Command::Unikernel(command) => unikernel(command),
        Command::Host => json!("host"),
        Command::Revoke { remove } => json!({ "revoke": remove }),
        Command::Events(command) => json!({ "events": format!("{command:?}") }),
        Command::Policy(PolicyCommand::Info) => json!("policy_info"),
        Command::Policy(PolicyCommand::Add(policy)) => json!({ "policy_add": self::policy(policy) }),
        Command::Policy(PolicyCommand::Remove) => json!("policy_remove"),
        Command::Policy(PolicyCommand::Chain(policies)) => {
            json!({ "policy_chain": policies.iter().map(|it| named_policy(&it)).collect::<Vec<_>>() })
        }
        Command::Block(command) => block(command),
    }
}

/// A unikernel's image and arguments.
pub fn config(config: &Config<'_>) -> Value {
    let mut value = arguments(&config.arguments);
    value["typ"] = kind(config.kind);
    value["compressed"] = json!(config.compressed);
    value["image_hex"] = image(&config.image);
    value
}

/// A policy.
pub fn policy(policy: &Policy<'_>) -> Value {
    json!({
        "unikernels": policy.unikernels, "cpuids": numbers(&policy.cpuids), "memory": policy.memory,
        "block": policy.block, "bridges": policy.bridges.iter().collect::<Vec<_>>(),
    })
}

fn named_policy(item: &NamedPolicy<'_>) -> Value {
    json!({ "name": item.name.as_str(), "policy": policy(&item.policy) })
}

fn header(header: &Header) -> Value {
    json!({
        "version": header.version, "sequence": header.sequence.cast_signed().to_string(), "name": header.name.as_str(),
    })
}

fn payload(payload: &Payload<'_>) -> Value {
    match payload {
        Payload::Command(command) => json!({ "command": self::command(command) }),
        Payload::Success(success) => json!({ "success": self::success(success) }),
        Payload::Failure(failure) => json!({ "failure": text(*failure) }),
        Payload::Data(data) => json!({ "data": self::data(data) }),
    }
}

fn console(command: ConsoleCommand) -> Value {
    match command {
        ConsoleCommand::Add { unikernels } => json!({ "console_add": unikernels }),
        ConsoleCommand::Subscribe(window) => json!({ "console_subscribe": self::window(window) }),
        ConsoleCommand::ListInactive => json!("console_list_inactive"),
    }
}

fn window(window: Window) -> Value {
    match window {
        Window::Since(unix_ms) => json!({ "since": moment(unix_ms) }),
        Window::Count(count) => json!({ "count": count }),
    }
}

fn stats(command: &StatsCommand<'_>) -> Value {
    match command {
        StatsCommand::Add { device, pid, taps } => {
            let taps: Vec<_> = taps.iter().map(|tap| json!({ "bridge": tap.bridge, "tap": tap.tap })).collect();
            json!({ "stats_add": { "vmmdev": device, "pid": pid, "taps": taps } })
        }
        StatsCommand::Remove => json!("stats_remove"),
        StatsCommand::Subscribe => json!("stats_subscribe"),
        StatsCommand::Initial => json!("stats_initial"),
    }
}

fn unikernel(command: &UnikernelCommand<'_>) -> Value {
    match command {
        UnikernelCommand::Info => json!("unikernel_info"),
        UnikernelCommand::Condition => json!("unikernel_condition"),
        UnikernelCommand::OldInfo5 => json!("old_unikernel_info5"),
        UnikernelCommand::OldInfo4 => json!("old_unikernel_info4"),
        UnikernelCommand::Destroy => json!("unikernel_destroy"),
        UnikernelCommand::Get { level } => json!({ "unikernel_get": level }),
        UnikernelCommand::Create(config) => json!({ "unikernel_create": self::config(config) }),
        UnikernelCommand::ForceCreate(config) => json!({ "unikernel_force_create": self::config(config) }),
        UnikernelCommand::Restart(arguments) => json!({ "unikernel_restart": arguments.as_ref().map(self::arguments) }),
    }
}

fn block(command: &BlockCommand<'_>) -> Value {
    match command {
        BlockCommand::Info => json!("block_info"),
        BlockCommand::Add { size } => json!({ "block_add": size }),
        BlockCommand::Remove => json!("block_remove"),
        BlockCommand::OldAdd { size, compressed, data } => json!({ "old_block_add": {
            "size": size, "compressed": compressed, "data_hex": data.as_ref().map(image),
        } }),
        BlockCommand::OldSet { compressed, data } => {
            json!({ "old_block_set": { "compressed": compressed, "data_hex": image(data) } })
        }
        BlockCommand::OldDump { level } => json!({ "old_block_dump": level }),
        BlockCommand::Dump { level } => json!({ "block_dump": level }),
        BlockCommand::Set { compressed } => json!({ "block_set": compressed }),
    }
}

fn success(success: &Success<'_>) -> Value {
    match success {
        Success::Empty => json!("empty"),
        Success::Text(words) => json!({ "string": text(*words) }),
        Success::Policies(list) => {
            let item = |item: NamedPolicy<'_>| named_policy(&item);
            json!({ "policies": list.iter().map(item).collect::<Vec<_>>() })
        }
        Success::Blocks(list) => {
            let item =
                |item: BlockInfo| json!({ "name": item.name.as_str(), "size": item.size, "active": item.active });
            json!({ "block_devices": list.iter().map(item).collect::<Vec<_>>() })
        }
        Success::Image { compressed, image } => {
            json!({ "unikernel_image": { "compressed": compressed, "image_hex": self::image(image) } })
        }
        Success::OldBlockImage { compressed, image } => {
            json!({ "old_block_device_image": { "compressed": compressed, "image_hex": self::image(image) } })
        }
        Success::BlockImage { compressed } => json!({ "block_device_image": compressed }),
        Success::Consoles(list) => {
            json!({ "consoles": list.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>() })
        }
        Success::Infos(list) => json!({ "unikernel_info": infos(list) }),
        Success::OldInfos5(list) => json!({ "old_unikernel_info5": infos(list) }),
        Success::OldInfos4(list) => json!({ "old_unikernel_info4": infos(list) }),
        Success::Host(host) => json!({ "host": {
            "version": text(host.version), "cpuids": host.cpuids.iter().collect::<Vec<_>>(),
            "bridges": host.bridges.iter().collect::<Vec<_>>(),
            "uses": host.uses.iter().map(|it| json!([text(it.what), it.used, it.limit])).collect::<Vec<_>>(),
            "facts": host.facts.iter().map(|it| json!([text(it.what), text(it.how)])).collect::<Vec<_>>(),
        } }),
        Success::Conditions(list) => {
            let item = |item: NamedCondition<'_>| json!({ "name": item.name.as_str(), "condition": condition(&item.condition) });
            json!({ "unikernel_condition": list.iter().map(item).collect::<Vec<_>>() })
        }
    }
}

fn condition(condition: &Condition<'_>) -> Value {
    json!({
        "phase": condition.phase.as_str(), "restarts": condition.restarts, "failures": condition.failures,
        "last": condition.last.map(|last| json!([last.ended_unix_ms, format!("{:?}", last.end)])),
        "next": condition.next_unix_ms, "reason": condition.reason.map(text),
    })
}

fn infos(list: &List<'_, NamedInfo<'_>>) -> Vec<Value> {
    list.iter().map(|item| json!({ "name": item.name.as_str(), "info": info(&item.info) })).collect()
}

fn info(info: &Info<'_>) -> Value {
    let blocks = info.block_devices.iter().map(|block| {
        json!({
            "unikernel_device": text(block.device), "host_device": text(block.host), "sector_size": block.sector_size,
            "size": block.size,
        })
    });
    let bridges = info.bridges.iter().map(|bridge| {
        json!({
            "unikernel_device": text(bridge.device), "host_device": text(bridge.host), "mac": mac(bridge.mac),
        })
    });
    json!({
        "typ": kind(info.kind), "fail_behaviour": fail_behaviour(&info.fail_behaviour), "startup": info.startup,
        "cpuids": numbers(&info.cpuids), "memory": info.memory, "block_devices": blocks.collect::<Vec<_>>(),
        "bridges": bridges.collect::<Vec<_>>(), "argv": info.argv.map(texts), "digest_hex": hex(info.digest),
        "started": info.started.map(moment), "numcpus": info.numcpus, "linux_boot_partition": info.linux_boot.map(text),
    })
}

fn arguments(arguments: &Arguments<'_>) -> Value {
    let blocks = arguments.block_devices.iter().map(|block| {
        json!({
            "name": block.name, "host_device": block.host_device, "sector_size": block.sector_size,
        })
    });
    let bridges = arguments.bridges.iter().map(|bridge| {
        json!({
            "name": bridge.name, "bridge": bridge.bridge, "mac": bridge.mac.map(mac),
        })
    });
    json!({
        "fail_behaviour": fail_behaviour(&arguments.fail_behaviour), "startup": arguments.startup,
        "add_name": arguments.add_name, "cpuids": numbers(&arguments.cpuids), "memory": arguments.memory,
        "block_devices": blocks.collect::<Vec<_>>(), "bridges": bridges.collect::<Vec<_>>(),
        "argv": arguments.argv.map(texts), "numcpus": arguments.numcpus, "linux_boot_partition": arguments.linux_boot,
    })
}

fn data(data: &Data<'_>) -> Value {
    match data {
        Data::Stats(usage) => json!({ "stats_data": self::usage(usage) }),
        Data::Log(entry) => json!({ "log_data": format!("{entry:?}") }),
        Data::Event(event) => json!({ "event": format!("{event:?}") }),
        Data::Note(note) => json!({ "note": format!("{note:?}") }),
        Data::Console { unix_ms, line } => {
            json!({ "console_data": { "timestamp": moment(*unix_ms), "line": text(*line) } })
        }
        Data::Block(chunk) => json!({ "block_data": chunk.as_ref().map(image) }),
    }
}

fn usage(usage: &Usage<'_>) -> Value {
    let rusage = &usage.rusage;
    let pair = |moment: &Moment| json!({ "s": moment.seconds.to_string(), "us": moment.microseconds });
    let mut rusage_value = strings(&[
        ("maxrss", rusage.maxrss),
        ("ixrss", rusage.ixrss),
        ("idrss", rusage.idrss),
        ("isrss", rusage.isrss),
        ("minflt", rusage.minflt),
        ("majflt", rusage.majflt),
        ("nswap", rusage.nswap),
        ("inblock", rusage.inblock),
        ("outblock", rusage.outblock),
        ("msgsnd", rusage.msgsnd),
        ("msgrcv", rusage.msgrcv),
        ("nsignals", rusage.nsignals),
        ("nvcsw", rusage.nvcsw),
        ("nivcsw", rusage.nivcsw),
    ]);
    rusage_value["utime"] = pair(&rusage.utime);
    rusage_value["stime"] = pair(&rusage.stime);
    let memory = usage.memory.as_ref().map(|memory| {
        let mut value = strings(&[
            ("vsize", memory.vsize),
            ("rss", memory.rss),
            ("tsize", memory.tsize),
            ("dsize", memory.dsize),
            ("ssize", memory.ssize),
            ("runtime", memory.runtime),
        ]);
        value["cow"] = json!(memory.cow);
        value["start"] = pair(&memory.start);
        value
    });
    let interfaces: Vec<_> = usage
        .interfaces
        .iter()
        .map(|interface| {
            let mut value = strings(&[
                ("flags", interface.flags),
                ("send_length", interface.send_length),
                ("max_send_length", interface.max_send_length),
                ("send_drops", interface.send_drops),
                ("mtu", interface.mtu),
                ("baudrate", interface.baudrate),
                ("input_packets", interface.input_packets),
                ("input_errors", interface.input_errors),
                ("output_packets", interface.output_packets),
                ("output_errors", interface.output_errors),
                ("collisions", interface.collisions),
                ("input_bytes", interface.input_bytes),
                ("output_bytes", interface.output_bytes),
                ("input_mcast", interface.input_mcast),
                ("output_mcast", interface.output_mcast),
                ("input_dropped", interface.input_dropped),
                ("output_dropped", interface.output_dropped),
            ]);
            value["bridge"] = json!(text(interface.bridge));
            value
        })
        .collect();
    let counter = |counter: Counter<'_>| json!([text(counter.name), counter.value.to_string()]);
    json!({
        "rusage": rusage_value, "kinfo_mem": memory, "ifdata": interfaces,
        "vmm": usage.counters.map(|counters| counters.iter().map(counter).collect::<Vec<_>>()),
    })
}

fn strings(fields: &[(&str, i64)]) -> Value {
    Value::Object(
        fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value.to_string()))).collect::<Map<_, _>>(),
    )
}

fn kind(kind: Kind) -> Value {
    json!(match kind {
        Kind::Solo5 => "solo5",
        Kind::Bhyve => "bhyve",
    })
}

fn fail_behaviour(behaviour: &FailBehaviour<'_>) -> Value {
    match behaviour {
        FailBehaviour::Quit => json!("quit"),
        FailBehaviour::Restart(codes) if codes.is_empty() => json!({ "restart": null }),
        FailBehaviour::Restart(codes) => json!({ "restart": numbers(codes) }),
    }
}

/// The recorder keeps sets of numbers by value, the wire by encoding.
fn numbers(list: &List<'_, i64>) -> Vec<i64> {
    let mut numbers: Vec<_> = list.iter().collect();
    numbers.sort_unstable();
    numbers
}

fn texts(list: List<'_, Text<'_>>) -> Vec<String> {
    list.iter().map(text).collect()
}

/// One code point a byte.
fn text(text: Text<'_>) -> String {
    text.0.iter().map(|byte| char::from(*byte)).collect()
}

fn image(image: &Image<'_>) -> Value {
    match image {
        Image::Inline(octets) if octets.len() > HEX_BYTES_MAX => {
            json!({ "len": octets.len(), "sha256": hex(&Sha256::digest(octets)) })
        }
        Image::Inline(octets) => json!(hex(octets)),
        Image::Diverted { len } => json!({ "diverted": len }),
    }
}

/// Longer octet strings are recorded by their digest.
const HEX_BYTES_MAX: usize = 4096;

fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The bytes in lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits; what is none counts as 0.
pub fn from_hex(hex: &str) -> Vec<u8> {
    let digits = |index| hex.get(index..index + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    (0..hex.len()).step_by(2).map(|index| digits(index).unwrap_or_default()).collect()
}

/// The same with devices in one order: they are a set on the wire.
pub fn sorted(value: &Value) -> Value {
    let mut value = value.clone();
    sort_devices(&mut value);
    value
}

fn sort_devices(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields.iter_mut() {
                sort_devices(value);
                if let ("block_devices" | "bridges", Value::Array(items)) = (field.as_str(), value) {
                    items.sort_by_key(Value::to_string);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(sort_devices),
        _ => {}
    }
}

/// A time as RFC 3339 with twelve decimals.
fn moment(unix_ms: i64) -> String {
    let mut buffer = [0; time::TEXT_BYTES_MAX];
    let text = String::from_utf8_lossy(time::format(unix_ms, &mut buffer)).into_owned();
    let ms = text.get(15..18).unwrap_or("000");
    let field = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default().to_owned();
    let date = [field(0..4), field(4..6), field(6..8)].join("-");
    format!("{date}T{}.{ms}000000000-00:00", [field(8..10), field(10..12), field(12..14)].join(":"))
}
