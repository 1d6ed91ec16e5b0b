//! The manifest: what is wanted, read from TOML. Pure: text in, wishes or all that is wrong with it out.

use std::collections::{BTreeMap, BTreeSet};

use fulmar_core::limits::{
    BLOCK_MB_MAX, CPUS_MAX, MEMORY_MB_MAX, SECTOR_BYTES_DEFAULT, STARTUP_DEFAULT, UNIKERNELS_MAX,
};
use fulmar_core::mac;
use fulmar_core::machine::Digest;
use fulmar_core::name::Name;
use toml::de::{DeTable, DeValue};

use super::order;
use super::section::{Fault, Faults, Section, list, number, text};
use super::settings::{Block, Network, Policy, Restart, Settings};
use crate::options;

/// Memory of a unikernel that says nothing about it, in MB: as of `create`.
const MEMORY_MB_DEFAULT: i64 = 32;

/// The highest place in the order of starting that the command line takes too.
const STARTUP_MAX: i64 = u32::MAX as i64;

/// MB that a policy can allow.
const POLICY_MB_MAX: i64 = u32::MAX as i64;

/// All that is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Manifest {
    /// The path that all of it is at or below.
    pub(super) path: Name,
    /// Whether the manifest says so itself.
    pub(super) path_is_given: bool,
    /// Policies, parents first.
    pub(super) policies: Vec<PolicyWish>,
    /// Block devices.
    pub(super) blocks: Vec<BlockWish>,
    /// Unikernels, each behind those that it waits for.
    pub(super) unikernels: Vec<UnikernelWish>,
}

/// A policy that is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PolicyWish {
    pub(super) path: Name,
    pub(super) line: usize,
    pub(super) policy: Policy,
}

/// A block device that is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BlockWish {
    pub(super) name: Name,
    pub(super) line: usize,
    pub(super) size_mb: i64,
}

/// A unikernel that is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct UnikernelWish {
    pub(super) name: Name,
    pub(super) line: usize,
    pub(super) image: Source,
    pub(super) image_line: usize,
    pub(super) settings: Settings,
    /// Those that are brought up before it, and the line that says so.
    pub(super) after: Vec<(usize, Name)>,
    /// Those of them that it must share a bridge with.
    pub(super) links: Vec<(usize, Name)>,
}

/// Where an image is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// In a file, relative to the manifest.
    File(String),
    /// On the host already.
    Digest(Digest),
    /// Elsewhere, and it has this digest.
    Url(String, Digest),
}

impl Manifest {
    /// Reads one.
    ///
    /// # Errors
    /// All that is wrong with it, in the order of its lines.
    pub(super) fn parse(source: &str) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::new(source);
        let table = DeTable::parse(source).map_err(|error| {
            let line = faults.line(error.span().map_or(0, |span| span.start));
            vec![Fault { line, text: error.message().replace('\n', ", ") }]
        })?;
        let mut whole = Section::new("", table.get_ref());
        let path = whole.take("path", &mut faults, |value| options::path(text(value)?));
        let (path_is_given, path) = (path.is_some(), path.map_or(Name::ROOT, |(_, path)| path));
        let mut reading = Reading { path, faults: &mut faults };
        let mut policies = reading.policies(&mut whole);
        policies.sort_by_key(|it| it.path.labels().count());
        let blocks = reading.blocks(&mut whole);
        let unikernels = reading.unikernels(&mut whole);
        whole.finish(&mut faults);
        check_disks(&unikernels, &mut faults);
        let unikernels = order::sort(unikernels, &mut faults);
        if faults.list.is_empty() {
            return Ok(Self { path, path_is_given, policies, blocks, unikernels });
        }
        faults.list.sort();
        Err(faults.list)
    }
}

struct Reading<'f, 't> {
    path: Name,
    faults: &'f mut Faults<'t>,
}

impl Reading<'_, '_> {
    /// The full name of what the manifest calls by this.
    fn full(&self, text: &str, parse: fn(&str) -> Result<Name, String>) -> Result<Name, String> {
        let name = parse(text)?;
        if self.path.is_root() {
            return Ok(name);
        }
        let full = format!("{}{}", self.path, name.as_str().trim_start_matches(':'));
        parse(&full)
    }

    fn names<'a, 'i>(
        &mut self,
        section: &mut Section<'a, 'i>,
        key: &'static str,
        kind: &str,
        parse: fn(&str) -> Result<Name, String>,
    ) -> Vec<(Name, String, usize, &'a DeTable<'i>)> {
        let mut found: Vec<(Name, String, usize, &DeTable<'_>)> = Vec::new();
        for entry in section.entries(key, self.faults) {
            let what = format!("{kind} {}", entry.key);
            let table = entry.value.as_table().ok_or("is not a table".to_owned());
            match self.full(entry.key, parse).and_then(|name| Ok((name, table?))) {
                Err(reason) => self.faults.push(entry.line, format!("{what}: {reason}")),
                Ok((name, table)) => match found.iter().find(|(other, ..)| *other == name) {
                    Some((_, _, line, _)) => {
                        self.faults.push(entry.line, format!("{what}: line {line} has {name} already"));
                    }
                    None => found.push((name, what, entry.line, table)),
                },
            }
        }
        found
    }

    fn policies(&mut self, whole: &mut Section<'_, '_>) -> Vec<PolicyWish> {
        let mut wishes = Vec::new();
        for (path, what, line, table) in self.names(whole, "policy", "policy", options::path) {
            let mut section = Section::new(&what, table);
            let faults = &mut *self.faults;
            let before = faults.list.len();
            let unikernels = section.take("unikernels", faults, |it| number(it, 1..=UNIKERNELS_MAX as i64));
            let memory_mb = section.take("memory", faults, |it| number(it, 17..=POLICY_MB_MAX));
            let cpus = section.take("cpus", faults, |it| list(it, cpu));
            let block_mb = section.take("block", faults, |it| number(it, 1..=POLICY_MB_MAX));
            let bridges = section.take("bridges", faults, |it| list(it, |it| options::bridge(text(it)?)));
            section.finish(faults);
            if path.is_root() {
                faults.push(line, format!("{what}: the root policy is what the host has: write a path below it"));
            }
            let (Some((_, unikernels)), Some((_, memory_mb)), Some((_, cpus))) = (unikernels, memory_mb, cpus) else {
                if faults.list.len() == before {
                    faults.push(line, format!("{what}: it needs unikernels, memory and cpus"));
                }
                continue;
            };
            let policy = Policy {
                unikernels,
                memory_mb,
                cpus: cpus.into_iter().collect(),
                block_mb: block_mb.map(|(_, mb)| mb),
                bridges: bridges.into_iter().flat_map(|(_, bridges)| bridges).collect(),
            };
            wishes.push(PolicyWish { path, line, policy });
        }
        wishes
    }

    fn blocks(&mut self, whole: &mut Section<'_, '_>) -> Vec<BlockWish> {
        let mut wishes = Vec::new();
        for (name, what, line, table) in self.names(whole, "block", "block", options::block_device) {
            let mut section = Section::new(&what, table);
            let before = self.faults.list.len();
            let size = section.take("size", self.faults, |it| number(it, 1..=BLOCK_MB_MAX));
            section.finish(self.faults);
            match size {
                Some((_, size_mb)) => wishes.push(BlockWish { name, line, size_mb }),
                None if self.faults.list.len() == before => {
                    self.faults.push(line, format!("{what}: it needs a size in MB"));
                }
                None => {}
            }
        }
        wishes
    }

    fn unikernels(&mut self, whole: &mut Section<'_, '_>) -> Vec<UnikernelWish> {
        let mut wishes = Vec::new();
        for (name, what, line, table) in self.names(whole, "unikernel", "unikernel", options::unikernel) {
            let mut section = Section::new(&what, table);
            let before = self.faults.list.len();
            let image = section.take("image", self.faults, source);
            let settings = self.settings(&name, &what, &mut section);
            let after = self.others("after", &what, &mut section);
            let links = self.others("links", &what, &mut section);
            section.finish(self.faults);
            match image {
                Some((image_line, image)) => {
                    let after = [after, links.clone()].concat();
                    wishes.push(UnikernelWish { name, line, image, image_line, settings, after, links });
                }
                None if self.faults.list.len() == before => {
                    self.faults.push(line, format!("{what}: it needs an image"));
                }
                None => {}
            }
        }
        wishes
    }

    /// What it runs with.
    fn settings(&mut self, name: &Name, what: &str, section: &mut Section<'_, '_>) -> Settings {
        let networks = self.networks(name, what, section);
        let blocks = self.disks(what, section);
        let faults = &mut *self.faults;
        let memory = section.take("memory", faults, |it| number(it, 1..=MEMORY_MB_MAX));
        let cpus = section.take("cpus", faults, |it| match list(it, cpu)? {
            cpus if cpus.is_empty() => Err("is empty: leave it out for CPU 0".to_owned()),
            cpus => Ok(cpus),
        });
        let restart = section.take("restart", faults, restart);
        let startup = section.take("startup", faults, |it| number(it, 0..=STARTUP_MAX));
        let arguments = section.take("arguments", faults, |it| list(it, |it| text(it).map(str::to_owned)));
        Settings {
            memory_mb: memory.map_or(MEMORY_MB_DEFAULT, |(_, mb)| mb),
            cpus: cpus.map_or_else(|| BTreeSet::from([0]), |(_, cpus)| cpus.into_iter().collect()),
            restart: restart.map_or(Restart::Never, |(_, restart)| restart),
            startup: startup.map_or(STARTUP_DEFAULT, |(_, place)| place),
            networks,
            blocks,
            arguments: arguments.map(|(_, arguments)| arguments).unwrap_or_default(),
        }
    }

    fn networks(&mut self, name: &Name, what: &str, section: &mut Section<'_, '_>) -> BTreeMap<String, Network> {
        let mut networks = BTreeMap::new();
        for entry in section.entries("networks", self.faults) {
            let what = format!("{what}: network {}", entry.key);
            let (mut bridge, mut mac_text) = (entry.value.as_str().map(str::to_owned), None);
            if let Some(table) = entry.value.as_table() {
                let mut section = Section::new(&what, table);
                bridge = section.take("bridge", self.faults, |it| text(it).map(str::to_owned)).map(|it| it.1);
                mac_text = section.take("mac", self.faults, |it| text(it).map(str::to_owned)).map(|it| it.1);
                section.finish(self.faults);
            }
            let Some(bridge) = bridge else {
                self.faults.push(entry.line, format!("{what}: it needs a bridge: write {} = \"BRIDGE\"", entry.key));
                continue;
            };
            let mac_text = mac_text.map(|text| format!("={text}")).unwrap_or_default();
            match options::net(&format!("{}:{bridge}{mac_text}", entry.key)) {
                Err(reason) => self.faults.push(entry.line, format!("{what}: {reason}")),
                Ok(net) => {
                    let mac = net.mac.unwrap_or_else(|| mac::address(name, &net.device));
                    networks.insert(net.device, Network { bridge, mac });
                }
            }
        }
        networks
    }

    fn disks(&mut self, what: &str, section: &mut Section<'_, '_>) -> BTreeMap<String, Block> {
        let mut blocks = BTreeMap::new();
        for entry in section.entries("blocks", self.faults) {
            let what = format!("{what}: block {}", entry.key);
            let (mut host, mut sector) = (entry.value.as_str().map(str::to_owned), None);
            if let Some(table) = entry.value.as_table() {
                let mut section = Section::new(&what, table);
                host = section.take("device", self.faults, |it| text(it).map(str::to_owned)).map(|it| it.1);
                sector = section.take("sector-size", self.faults, |it| number(it, 1..=i64::MAX)).map(|it| it.1);
                section.finish(self.faults);
            }
            let Some(host) = host else {
                let text = format!("{what}: it needs a block device of the host: write {} = \"DEVICE\"", entry.key);
                self.faults.push(entry.line, text);
                continue;
            };
            let sector = sector.unwrap_or(SECTOR_BYTES_DEFAULT);
            match options::block(&format!("{}:{host}@{sector}", entry.key)) {
                Err(reason) => self.faults.push(entry.line, format!("{what}: {reason}")),
                Ok(block) => {
                    blocks.insert(block.device, Block { host, sector_bytes: sector });
                }
            }
        }
        blocks
    }

    /// Other unikernels of the manifest.
    fn others(&mut self, key: &'static str, what: &str, section: &mut Section<'_, '_>) -> Vec<(usize, Name)> {
        let names = section.take(key, self.faults, |it| list(it, |it| text(it).map(str::to_owned)));
        let Some((line, names)) = names else { return Vec::new() };
        let mut others = Vec::new();
        for name in names {
            match self.full(&name, options::unikernel) {
                Ok(name) => others.push((line, name)),
                Err(reason) => self.faults.push(line, format!("{what}: {key}: {name}: {reason}")),
            }
        }
        others
    }
}

fn cpu(value: &DeValue<'_>) -> Result<i64, String> {
    number(value, 0..=CPUS_MAX as i64 - 1).map_err(|reason| format!("a CPU {reason}"))
}

fn restart(value: &DeValue<'_>) -> Result<Restart, String> {
    match value.as_bool() {
        Some(true) => Ok(Restart::OnFailure),
        Some(false) => Ok(Restart::Never),
        None => match list(value, |it| number(it, 0..=255)) {
            Ok(codes) if !codes.is_empty() => Ok(Restart::On(codes.into_iter().collect())),
            _ => Err("is not true, false or a list of exit codes from 0 to 255".to_owned()),
        },
    }
}

fn source(value: &DeValue<'_>) -> Result<Source, String> {
    if let Some(file) = value.as_str() {
        if file.starts_with("http://") || file.starts_with("https://") {
            return Err("a url needs the image's digest: write { url = \"...\", sha256 = \"...\" }".to_owned());
        }
        return Ok(Source::File(file.to_owned()));
    }
    let forms = "write \"FILE\", { digest = \"...\" } or { url = \"...\", sha256 = \"...\" }";
    let table = value.as_table().ok_or(forms)?;
    let of = |key| table.get(key).and_then(|it| it.get_ref().as_str());
    match (of("digest"), of("url"), of("sha256"), table.len()) {
        (Some(digest), None, None, 1) => Ok(Source::Digest(sha256(digest)?)),
        (None, Some(url), Some(digest), 2) => {
            if !url.starts_with("http://") && !url.starts_with("https://") {
                return Err(format!("{url} does not begin with http:// or https://"));
            }
            Ok(Source::Url(url.to_owned(), sha256(digest)?))
        }
        (None, Some(_), None, 1) => Err("a url needs the image's digest: add sha256 = \"...\"".to_owned()),
        _ => Err(forms.to_owned()),
    }
}

/// Reads 64 hexadecimal digits.
fn sha256(text: &str) -> Result<Digest, String> {
    let mut digest = Digest::default();
    let digits = text.len() == 2 * digest.len() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    for (place, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|_| digits);
        let byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        *place = byte.ok_or_else(|| format!("'{text}' is no SHA-256: it has 64 hexadecimal digits"))?;
    }
    Ok(digest)
}

/// A block device is for one unikernel at a time.
fn check_disks(unikernels: &[UnikernelWish], faults: &mut Faults<'_>) {
    let mut taken: BTreeMap<Name, Name> = BTreeMap::new();
    for unikernel in unikernels {
        for disk in unikernel.disks() {
            match taken.get(&disk) {
                Some(other) => {
                    let text = format!("unikernel {}: {other} has block device {disk} already", unikernel.name);
                    faults.push(unikernel.line, text);
                }
                None => {
                    taken.insert(disk, unikernel.name);
                }
            }
        }
    }
}

impl UnikernelWish {
    /// The block devices of the host that it has.
    pub(super) fn disks(&self) -> impl Iterator<Item = Name> {
        self.settings.blocks.values().filter_map(|block| self.name.path().join(&block.host).ok())
    }
}
