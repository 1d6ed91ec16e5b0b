//! What a certificate or a request allows, in words.

use fulmar_core::wire::{
    Arguments, BlockCommand, Command, Config, ConsoleCommand, FailBehaviour, LogFrom, Policy, PolicyCommand,
    StatsCommand, UnikernelCommand, Window,
};

use crate::output::text::{megabytes, plain, ranges, shell_word, size, timestamp};

/// A command in words, on one line.
#[must_use]
pub fn command(command: &Command<'_>) -> String {
    match command {
        Command::Unikernel(command) => unikernel(command),
        Command::Policy(PolicyCommand::Add(policy)) => format!("may hand on to others: {}", self::policy(policy)),
        Command::Policy(PolicyCommand::Info) => "show the policies".to_owned(),
        Command::Policy(_) => "change policies, which no certificate may".to_owned(),
        Command::Block(command) => block(command),
        Command::Console(ConsoleCommand::Subscribe(from)) => {
            format!("follow the console, beginning with {}", window(from))
        }
        Command::Console(ConsoleCommand::ListInactive) => "list the consoles of unikernels that do not run".to_owned(),
        Command::Console(_)
        | Command::Stats(StatsCommand::Add { .. } | StatsCommand::Remove | StatsCommand::Initial) => {
            "what only daemons say to each other, which no certificate may".to_owned()
        }
        Command::Stats(StatsCommand::Subscribe) => "follow what is used of CPU, memory and network".to_owned(),
        Command::Log(from) => format!("follow the events, beginning with {}", window(from)),
        Command::Events(log) => {
            let from = match &log.from {
                LogFrom::Window(from) => window(from),
                LogFrom::After(number) => format!("what came after number {number}"),
            };
            format!("{} the events, beginning with {from}", if log.follow { "follow" } else { "show" })
        }
        Command::Host => "show what the machine has and what bounds unikernels".to_owned(),
        Command::Revoke { remove: false } => "revoke certificates by a list".to_owned(),
        Command::Revoke { remove: true } => "revoke certificates by a list, and remove all of the path".to_owned(),
    }
}

/// A policy in words.
#[must_use]
pub fn policy(policy: &Policy<'_>) -> String {
    let unikernels = match policy.unikernels {
        1 => "1 unikernel".to_owned(),
        many => format!("{many} unikernels"),
    };
    let bridges: Vec<_> = policy.bridges.iter().map(|bridge| plain(bridge.as_bytes())).collect();
    let bridges = if bridges.is_empty() { "no bridge".to_owned() } else { format!("bridges {}", bridges.join(", ")) };
    let block =
        policy.block.map_or("no block storage".to_owned(), |mib| format!("{} of block storage", megabytes(mib)));
    format!(
        "{unikernels}, {} of memory, CPUs {}, {block}, {bridges}",
        megabytes(policy.memory),
        ranges(policy.cpuids.iter())
    )
}

fn unikernel(command: &UnikernelCommand<'_>) -> String {
    match command {
        UnikernelCommand::Info | UnikernelCommand::OldInfo5 | UnikernelCommand::OldInfo4 => {
            "show unikernels".to_owned()
        }
        UnikernelCommand::Condition => "show how unikernels fare".to_owned(),
        UnikernelCommand::Destroy => "destroy the unikernel".to_owned(),
        UnikernelCommand::Get { level } => format!("fetch the image{}", compression(*level > 0)),
        UnikernelCommand::Create(config) => format!("create a unikernel with {}", self::config(config)),
        UnikernelCommand::ForceCreate(config) => {
            format!("create a unikernel, in the place of the one of this name, with {}", self::config(config))
        }
        UnikernelCommand::Restart(None) => "restart the unikernel".to_owned(),
        UnikernelCommand::Restart(Some(arguments)) => {
            format!("restart the unikernel with {}", self::arguments(arguments))
        }
    }
}

fn config(config: &Config<'_>) -> String {
    let image = match config.image.len() {
        0 => "an image that is sent with it".to_owned(),
        bytes => format!("an image of {}", size(bytes)),
    };
    format!("{image}{}, {}", compression(config.compressed), arguments(&config.arguments))
}

fn arguments(arguments: &Arguments<'_>) -> String {
    let mut parts =
        vec![format!("{} of memory", megabytes(arguments.memory)), format!("CPUs {}", ranges(arguments.cpuids.iter()))];
    parts.extend(arguments.bridges.iter().map(|net| {
        format!("network {} on bridge {}", plain(net.name.as_bytes()), plain(net.bridge.unwrap_or(net.name).as_bytes()))
    }));
    parts.extend(arguments.block_devices.iter().map(|block| {
        let host = block.host_device.unwrap_or(block.name);
        format!("block device {} as {}", plain(host.as_bytes()), plain(block.name.as_bytes()))
    }));
    match &arguments.fail_behaviour {
        FailBehaviour::Quit => {}
        FailBehaviour::Restart(codes) if codes.is_empty() => parts.push("restarted when it fails".to_owned()),
        FailBehaviour::Restart(codes) => parts.push(format!("restarted on exit codes {}", ranges(codes.iter()))),
    }
    if let Some(argv) = arguments.argv {
        let words: Vec<_> = argv.iter().map(|word| shell_word(&plain(word.0))).collect();
        parts.push(format!("arguments {}", words.join(" ")));
    }
    parts.join(", ")
}

fn block(command: &BlockCommand<'_>) -> String {
    match command {
        BlockCommand::Info => "show the block devices".to_owned(),
        BlockCommand::Add { size } | BlockCommand::OldAdd { size, .. } => {
            format!("make a block device of {}", megabytes(*size))
        }
        BlockCommand::Remove => "remove the block device".to_owned(),
        BlockCommand::Set { compressed } | BlockCommand::OldSet { compressed, .. } => {
            format!("set the content of the block device{}", compression(*compressed))
        }
        BlockCommand::Dump { level } | BlockCommand::OldDump { level } => {
            format!("fetch the content of the block device{}", compression(*level > 0))
        }
    }
}

fn compression(compressed: bool) -> &'static str {
    if compressed { ", compressed on its way" } else { "" }
}

fn window(from: &Window) -> String {
    match from {
        Window::Count(count) => format!("the last {count}"),
        Window::Since(unix_ms) => format!("those since {}", timestamp(*unix_ms)),
    }
}
