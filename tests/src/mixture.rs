//! Clients that change everything at once, each in a domain of its own, and remember what they were told. They go on when
//! `vmmd` dies in the middle: what was not answered is then unknown.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};

use fulmar_core::wire::{
    Arguments, BlockCommand, BlockDevice, Bridge, Command, Config, FailBehaviour, Image, Kind, List, Policy,
    PolicyCommand, Text, UnikernelCommand,
};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::acknowledged::{Acknowledged, Subject, Value};
use crate::choose::{Choose, Seeded};
use crate::images;
use crate::raw::{Answer, Raw, Wish, frame};
use crate::siege::Siege;

/// Labels of a domain's unikernels.
const UNIKERNELS: [&str; 4] = ["a", "b", "c", "d"];

/// Labels of a domain's block devices.
const BLOCKS: [&str; 2] = ["x", "y"];

/// What a path that begins with this letter is: a domain of one of these clients.
const DOMAIN: char = 'k';

/// Where the content that a client sets says which it is: behind the sector that [`images::counting`] writes.
const CONTENT_AT: usize = 512;

/// A unikernel's image.
struct Guest {
    name: &'static str,
    bytes: Vec<u8>,
}

/// The clients of a system.
pub struct Mixture {
    socket: PathBuf,
    guests: Vec<Guest>,
    has_bridge: bool,
    known: Mutex<Acknowledged>,
    /// Held by whoever asks, until the answer is there.
    asking: RwLock<()>,
    answers: AtomicU64,
    changes: AtomicU64,
    is_over: AtomicBool,
}

impl Mixture {
    /// Clients of this system; whether it has a bridge `br0`.
    #[must_use]
    pub fn new(siege: &Siege, has_bridge: bool) -> Self {
        let read = |name| Guest { name, bytes: std::fs::read(siege.image(name)).unwrap() };
        let counting = Guest { name: "counting", bytes: images::counting() };
        let guests = vec![read("hello"), counting, read("network")];
        Self {
            socket: siege.system.socket("vmmd.sock"),
            guests,
            has_bridge,
            known: Mutex::default(),
            asking: RwLock::new(()),
            answers: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// What is known.
    pub fn known(&self) -> MutexGuard<'_, Acknowledged> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody waits for an answer. Nobody asks while the guard is held.
    pub fn quiet(&self) -> RwLockWriteGuard<'_, ()> {
        self.asking.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers that all clients have had.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Changes that were acknowledged.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Lets all clients end.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// One client: asks for whatever this seed says until [`Mixture::end`].
    pub fn ask(&self, number: usize, seed: u64) {
        let mut choices = Seeded::new(seed);
        let domain = format!("{DOMAIN}{number}:");
        while !self.is_over.load(Ordering::Relaxed) {
            let asking = self.asking.read().unwrap_or_else(PoisonError::into_inner);
            match Raw::try_connect(&self.socket) {
                Ok(client) => self.ask_one(client, &domain, &mut choices),
                // It is dead, and whoever killed it waits for the guard.
                Err(_) => {
                    drop(asking);
                    std::thread::yield_now();
                }
            }
        }
    }

    fn ask_one(&self, client: Raw, domain: &str, choices: &mut dyn Choose) {
        let unikernel = format!("{domain}{}", choices.pick(&UNIKERNELS));
        let block = format!("{domain}{}", choices.pick(&BLOCKS));
        match choices.below(22) {
            0..5 => self.create(client, &unikernel, choices, false),
            5..8 => self.create(client, &unikernel, choices, true),
            8 | 9 => {
                let command = Command::Unikernel(UnikernelCommand::Restart(None));
                let subject = Subject::Unikernel(unikernel);
                self.known().ask_the_same(&subject);
                self.answered(client, &subject, command);
            }
            10 => self.restart_with(client, &unikernel, choices),
            11..14 => {
                let command = Command::Unikernel(UnikernelCommand::Destroy);
                self.change(client, &Subject::Unikernel(unikernel), None, command);
            }
            14 => self.send_broken(client, &unikernel, choices),
            15 | 16 => {
                let size = 1 + i64::from(choices.below(3));
                let command = Command::Block(BlockCommand::Add { size });
                self.change(client, &Subject::Block(block), Some(block_value(size, 0)), command);
            }
            17 => self.change(client, &Subject::Block(block), None, Command::Block(BlockCommand::Remove)),
            18 => self.add_policy(client, domain, choices),
            19 => self.set(client, block, choices),
            20 => self.dump(client, &block),
            _ => {
                let command = Command::Policy(PolicyCommand::Remove);
                self.change(client, &Subject::Policy(domain.to_owned()), None, command);
            }
        }
    }

    fn create(&self, client: Raw, name: &str, choices: &mut dyn Choose, by_force: bool) {
        let guest = choices.pick(&[0, 0, 1, 2]);
        let guest = &self.guests[if guest == 2 && !self.has_bridge { 0 } else { guest }];
        self.with_arguments(guest.name, choices, |arguments, value| {
            let image = Image::Inline(&guest.bytes);
            let config = Config { kind: Kind::Solo5, compressed: false, image, arguments };
            self.change(client, &Subject::Unikernel(name.to_owned()), Some(value), create(config, by_force));
        });
    }

    /// Its image stays, and has to be known: only then do its devices fit.
    fn restart_with(&self, client: Raw, name: &str, choices: &mut dyn Choose) {
        let subject = Subject::Unikernel(name.to_owned());
        let Some(value) = self.known().certain(&subject).map(str::to_owned) else { return };
        let guest = value.split(' ').next().unwrap_or_default();
        self.with_arguments(guest, choices, |arguments, value| {
            let command = Command::Unikernel(UnikernelCommand::Restart(Some(arguments)));
            self.change(client, &subject, Some(value), command);
        });
    }

    /// Arguments for this guest, and what a unikernel is that has them.
    fn with_arguments(&self, guest: &str, choices: &mut dyn Choose, run: impl FnOnce(Arguments<'_>, String)) {
        let memory = choices.pick(&[16, 24]);
        let restarts = choices.once_in(2);
        let argument = format!("--number={}", choices.below(1 << 30));
        let block = choices.pick(&BLOCKS);
        let blocks = [BlockDevice { name: "storage", host_device: Some(block), sector_size: None }];
        let bridges = [Bridge { name: "service", bridge: Some("br0"), mac: None }];
        let argv = [Text::from(argument.as_str())];
        let block = Some(block).filter(|_| guest == "counting");
        let value = unikernel(guest, memory, restarts, &argument, block);
        let arguments = Arguments {
            fail_behaviour: if restarts { FailBehaviour::Restart(List::EMPTY) } else { FailBehaviour::Quit },
            startup: None,
            add_name: true,
            cpuids: List::Items(&[0]),
            memory,
            block_devices: if block.is_some() { List::Items(&blocks) } else { List::EMPTY },
            bridges: if guest == "network" { List::Items(&bridges) } else { List::EMPTY },
            argv: Some(List::Items(&argv)),
            numcpus: 1,
            linux_boot: None,
        };
        run(arguments, value);
    }

    /// An image that is none: it arrives, and is refused.
    fn send_broken(&self, client: Raw, name: &str, choices: &mut dyn Choose) {
        let bytes = &self.guests[0].bytes;
        let image = bytes.get(..bytes.len() / 2).unwrap();
        let subject = Subject::Unikernel(name.to_owned());
        let value = "what is not an image".to_owned();
        let Command::Unikernel(UnikernelCommand::Create(config)) = Wish::of(image).command() else { return };
        self.change(client, &subject, Some(value), create(config, choices.once_in(2)));
    }

    fn add_policy(&self, client: Raw, domain: &str, choices: &mut dyn Choose) {
        let policy = Policy {
            cpuids: List::Items(&[0]),
            unikernels: 1 + i64::from(choices.below(4)),
            memory: choices.pick(&[32, 64, 96]),
            block: choices.pick(&[None, Some(4), Some(6)]),
            bridges: if self.has_bridge { List::Items(&["br0"]) } else { List::EMPTY },
        };
        let value = policy_value(policy.unikernels, policy.memory, policy.block);
        let subject = Subject::Policy(domain.to_owned());
        self.change(client, &subject, Some(value), Command::Policy(PolicyCommand::Add(policy)));
    }

    fn change(&self, client: Raw, subject: &Subject, wish: Value, command: Command<'_>) {
        self.known().ask(subject, wish);
        self.answered(client, subject, command);
    }

    /// Sets the content of a block device: a number where no unikernel writes.
    fn set(&self, client: Raw, block: String, choices: &mut dyn Choose) {
        let subject = Subject::Block(block);
        let Some(value) = self.known().certain(&subject).map(str::to_owned) else { return };
        let size = value.split(' ').next().and_then(|size| size.parse().ok()).unwrap();
        let number = choices.below(u32::MAX);
        let mut content = vec![0; CONTENT_AT];
        content.extend(number.to_be_bytes());
        let stream = [&u32::try_from(content.len()).unwrap().to_be_bytes(), content.as_slice(), &[0; 4]].concat();
        self.known().ask(&subject, Some(block_value(size, number)));
        self.answered_with(client, &subject, Command::Block(BlockCommand::Set { compressed: false }), &stream);
    }

    /// Reads a block device to the end, or as far as the daemon lives. Nothing is changed by that.
    fn dump(&self, mut client: Raw, block: &str) {
        client.send(&frame(block, Command::Block(BlockCommand::Dump { level: 0 })));
        while client.receive_bytes().is_some() {}
    }

    fn answered(&self, client: Raw, subject: &Subject, command: Command<'_>) {
        self.answered_with(client, subject, command, &[]);
    }

    /// Asks, sends what belongs to it, and remembers what was answered.
    fn answered_with(&self, mut client: Raw, subject: &Subject, command: Command<'_>, stream: &[u8]) {
        let (Subject::Unikernel(name) | Subject::Policy(name) | Subject::Block(name)) = subject;
        client.send(&frame(name, command));
        client.send(stream);
        let answer = client.receive();
        let mut known = self.known();
        match answer {
            Answer::Done(_) => {
                known.done(subject);
                self.changes.fetch_add(1, Ordering::Relaxed);
            }
            Answer::Refused(_) => known.refused(subject),
            Answer::Closed => return known.unanswered(subject),
            other => panic!("{subject:?}: {other:?}"),
        }
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// What the daemon has of the clients' domains.
    #[must_use]
    pub fn found(&self, siege: &Siege) -> BTreeMap<Subject, String> {
        let mut found = BTreeMap::new();
        let mut active = BTreeMap::new();
        for it in list(siege, &["info", "--json"], "unikernels") {
            let Some(name) = of_domain(&it["name"]) else { continue };
            let domain = &name[..=name.rfind(':').unwrap()];
            let block = it["blocks"][0]["host_device"].as_str();
            if let Some(block) = block {
                active.insert(format!("{domain}{block}"), name.clone());
            }
            let restarts = it["restart"] != Json::Bool(false);
            let memory = it["memory_mb"].as_i64().unwrap();
            let argument = it["arguments"][0].as_str().unwrap();
            let value = unikernel(self.guest(&it["digest"]), memory, restarts, argument, block);
            found.insert(Subject::Unikernel(name), value);
        }
        for it in list(siege, &["policy", "--json"], "policies") {
            let Some(path) = of_domain(&it["path"]) else { continue };
            let [unikernels, memory] = [&it["unikernels"], &it["memory_mb"]].map(|it| it.as_i64().unwrap());
            found.insert(Subject::Policy(path), policy_value(unikernels, memory, it["block_mb"].as_i64()));
        }
        for it in list(siege, &["block", "--json"], "blocks") {
            let Some(name) = of_domain(&it["name"]) else { continue };
            let user = active.remove(&name);
            assert_eq!(it["active"].as_bool(), Some(user.is_some()), "{name} is used by {user:?}");
            let file = File::open(siege.system.state().join("block").join(format!("{name}_disk"))).unwrap();
            let mut number = [0; 4];
            file.read_exact_at(&mut number, CONTENT_AT as u64).unwrap();
            let value = block_value(it["size_mb"].as_i64().unwrap(), u32::from_be_bytes(number));
            found.insert(Subject::Block(name), value);
        }
        assert!(active.is_empty(), "there are no such block devices: {active:?}");
        found
    }

    fn guest(&self, digest: &Json) -> &'static str {
        let hex = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let guest = self.guests.iter().find(|guest| digest.as_str() == Some(&hex(&guest.bytes)));
        guest.unwrap_or_else(|| panic!("nobody sent the image {digest}")).name
    }

    /// Removes all that there is.
    pub fn remove_all(&self, siege: &Siege) {
        let found: Vec<Subject> = self.found(siege).into_keys().collect();
        // In this order: unikernels before the block devices that they hold.
        for subject in found {
            let (name, command) = match &subject {
                Subject::Unikernel(name) => (name, Command::Unikernel(UnikernelCommand::Destroy)),
                Subject::Policy(path) => (path, Command::Policy(PolicyCommand::Remove)),
                Subject::Block(name) => (name, Command::Block(BlockCommand::Remove)),
            };
            let answer = Raw::connect(&self.socket).ask(name, command);
            assert!(matches!(answer, Answer::Done(_)), "{subject:?}: {answer:?}");
        }
    }
}

fn create(config: Config<'_>, by_force: bool) -> Command<'_> {
    Command::Unikernel(if by_force { UnikernelCommand::ForceCreate(config) } else { UnikernelCommand::Create(config) })
}

fn unikernel(guest: &str, memory: i64, restarts: bool, argument: &str, block: Option<&str>) -> String {
    format!("{guest} in {memory} MB, restarts {restarts}, {argument}, block {block:?}")
}

fn block_value(size: i64, content: u32) -> String {
    format!("{size} MB with {content}")
}

fn policy_value(unikernels: i64, memory: i64, block: Option<i64>) -> String {
    format!("{unikernels} unikernels, {memory} MB, block {block:?}")
}

fn of_domain(name: &Json) -> Option<String> {
    name.as_str().filter(|name| name.starts_with(DOMAIN)).map(str::to_owned)
}

fn list(siege: &Siege, words: &[&str], key: &str) -> Vec<Json> {
    let said = siege.client(words);
    assert_eq!(said.code, 0, "{said:?}\n{}", siege.system.log("vmmd"));
    let value: Json = serde_json::from_str(&said.out).unwrap();
    value[key].as_array().unwrap().clone()
}
