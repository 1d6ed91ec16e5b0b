//! State files of albatross, written by hand in every generation that there was: for trying how a host moves over.

/// A unikernel in a state file.
#[derive(Clone, Copy, Debug)]
pub struct Unikernel<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it is for bhyve.
    pub bhyve: bool,
    /// Its image.
    pub image: &'a [u8],
    /// Whether that is a zlib stream.
    pub compressed: bool,
    /// Its place in the order of start; in generations 5 and 6.
    pub startup: Option<u8>,
    /// Restarted on these exit codes, ascending; in generations 1 to 6.
    pub fail: Option<&'a [u8]>,
    /// Its CPUs, ascending; the first one before generation 6.
    pub cpus: &'a [u8],
    /// Memory, MB, below 32,768.
    pub memory_mb: u16,
    /// Block devices with their names on the host, which generations 0 to 2 do not have. In encoded order.
    pub blocks: &'a [(&'a str, Option<&'a str>)],
    /// Networks with their bridges, which generations 0 and 1 do not have. In encoded order.
    pub networks: &'a [(&'a str, Option<&'a str>)],
    /// Its arguments.
    pub argv: &'a [&'a [u8]],
}

impl Unikernel<'_> {
    /// One without an image, 16 MB, on CPU 0.
    pub const PLAIN: Self = Self {
        name: "plain",
        bhyve: false,
        image: &[],
        compressed: false,
        startup: None,
        fail: None,
        cpus: &[0],
        memory_mb: 16,
        blocks: &[],
        networks: &[],
        argv: &[],
    };
}

/// A policy in a state file.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// Its path.
    pub path: &'a str,
    /// Number of unikernels, below 128.
    pub unikernels: u8,
    /// CPUs, ascending.
    pub cpus: &'a [u8],
    /// Memory, MB, below 32,768.
    pub memory_mb: u16,
    /// Block storage, MB, below 32,768.
    pub block_mb: Option<u16>,
    /// Bridges, ascending.
    pub bridges: &'a [&'a str],
}

/// The state file of this generation, 0 to 6. Policies are in it from generation 4 on.
#[must_use]
pub fn state(generation: u8, unikernels: &[Unikernel<'_>], policies: &[Policy<'_>]) -> Vec<u8> {
    let named = |it: &Unikernel<'_>| sequence(&[text(it.name), config(generation, it)]);
    let unikernels = sequence(&unikernels.iter().map(named).collect::<Vec<_>>());
    let policies = sequence(&policies.iter().map(policy).collect::<Vec<_>>());
    let choice = match generation {
        0 => 1,
        1 => 0,
        later => later,
    };
    if generation < 4 {
        return context(choice, &unikernels);
    }
    context(choice, &sequence(&[unikernels, policies]))
}

fn policy(policy: &Policy<'_>) -> Vec<u8> {
    let limits = sequence(&[
        sequence(&policy.cpus.iter().map(|cpu| integer((*cpu).into())).collect::<Vec<_>>()),
        integer(policy.unikernels.into()),
        integer(policy.memory_mb),
        policy.block_mb.map(integer).unwrap_or_default(),
        sequence(&policy.bridges.iter().map(|bridge| text(bridge)).collect::<Vec<_>>()),
    ]);
    sequence(&[text(policy.path), limits])
}

fn config(generation: u8, it: &Unikernel<'_>) -> Vec<u8> {
    let argv = sequence(&it.argv.iter().map(|argument| wrap(0x0c, argument)).collect::<Vec<_>>());
    let cpu = integer(it.cpus.first().copied().unwrap_or_default().into());
    let names = |devices: &[(&str, Option<&str>)]| devices.iter().map(|(name, _)| text(name)).collect::<Vec<_>>();
    if generation == 0 {
        return sequence(&[
            cpu,
            integer(it.memory_mb),
            it.blocks.first().map(|(name, _)| text(name)).unwrap_or_default(),
            if it.networks.is_empty() { Vec::new() } else { sequence(&names(it.networks)) },
            context(if it.compressed { 2 } else { 0 }, &wrap(0x04, it.image)),
            if it.argv.is_empty() { Vec::new() } else { argv },
        ]);
    }
    let pairs = |devices: &[(&str, Option<&str>)]| {
        let pair = |(name, host): &(&str, Option<&str>)| sequence(&[text(name), host.map(text).unwrap_or_default()]);
        devices.iter().map(pair).collect::<Vec<_>>()
    };
    let blocks = if generation < 3 { set(&names(it.blocks)) } else { set(&pairs(it.blocks)) };
    let networks = match generation {
        1 => set(&names(it.networks)),
        2 => sequence(&pairs(it.networks)),
        _ => set(&pairs(it.networks)),
    };
    let fail = match it.fail {
        None => context(0, &wrap(0x05, &[])),
        Some(codes) => context(1, &set(&codes.iter().map(|code| integer((*code).into())).collect::<Vec<_>>())),
    };
    let mut fields = vec![context(u8::from(it.bhyve), &wrap(0x05, &[])), boolean(it.compressed), wrap(0x04, it.image)];
    if generation >= 5 {
        fields.extend(it.startup.map(|place| integer(place.into())));
        fields.push(boolean(true));
    }
    fields.push(fail);
    fields.push(if generation < 6 {
        cpu
    } else {
        set(&it.cpus.iter().map(|cpu| integer((*cpu).into())).collect::<Vec<_>>())
    });
    fields.push(integer(it.memory_mb));
    for (tag, devices, content) in [(0, it.blocks, blocks), (1, it.networks, networks)] {
        fields.extend((!devices.is_empty()).then(|| context(tag, &content)));
    }
    fields.extend((!it.argv.is_empty()).then(|| context(2, &argv)));
    fields.extend((generation == 6).then(|| context(3, &integer(1))));
    sequence(&fields)
}

/// An element of this tag, its length in the shortest form.
#[must_use]
pub fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len().to_be_bytes();
    let digits: &[u8] = len.split_at(len.iter().position(|byte| *byte != 0).unwrap_or(len.len() - 1)).1;
    let mut element = vec![tag];
    match digits {
        [short] if *short < 0x80 => element.push(*short),
        digits => {
            element.push(0x80 | u8::try_from(digits.len()).unwrap_or_default());
            element.extend_from_slice(digits);
        }
    }
    element.extend_from_slice(content);
    element
}

fn context(number: u8, content: &[u8]) -> Vec<u8> {
    wrap(0xa0 | number, content)
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    wrap(0x30, &parts.concat())
}

fn set(parts: &[Vec<u8>]) -> Vec<u8> {
    wrap(0x31, &parts.concat())
}

fn text(text: &str) -> Vec<u8> {
    wrap(0x0c, text.as_bytes())
}

fn boolean(value: bool) -> Vec<u8> {
    wrap(0x01, &[if value { 0xff } else { 0 }])
}

fn integer(value: u16) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let [high, low] = bytes;
    // A first bit that is set would mean a negative number.
    wrap(0x02, if high == 0 && low < 0x80 { &bytes[1..] } else { &bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_core::state_import::decode;

    #[test]
    fn every_generation_is_read_as_it_was_written() {
        let image = vec![7; 70_000];
        let unikernel = Unikernel {
            name: "shop:web",
            image: &image,
            startup: Some(3),
            fail: Some(&[2, 7]),
            cpus: &[1, 3],
            memory_mb: 300,
            blocks: &[("data", Some("disk"))],
            networks: &[("net", Some("br0"))],
            argv: &[b"--a"],
            ..Unikernel::PLAIN
        };
        let policy = Policy {
            path: "shop:",
            unikernels: 3,
            cpus: &[0, 1],
            memory_mb: 500,
            block_mb: Some(9),
            bridges: &["br0"],
        };
        for generation in 0..=6 {
            let file = state(generation, &[unikernel], &[policy]);
            let state = decode(&file).unwrap();
            assert_eq!(state.generation(), generation);
            let (name, config) = state.unikernels().next().unwrap().content.unwrap();
            let arguments = config.arguments;
            assert_eq!((name.as_str(), config.image.len(), arguments.memory), ("shop:web", 70_000, 300));
            assert_eq!(arguments.cpuids.len(), if generation < 6 { 1 } else { 2 });
            assert_eq!(arguments.startup.is_some(), generation >= 5);
            let block = arguments.block_devices.iter().next().unwrap();
            assert_eq!((block.name, block.host_device), ("data", (generation >= 3).then_some("disk")));
            let network = arguments.bridges.iter().next().unwrap();
            assert_eq!((network.name, network.bridge), ("net", (generation >= 2).then_some("br0")));
            assert_eq!(state.policies().count(), usize::from(generation >= 4));
        }
    }
}
