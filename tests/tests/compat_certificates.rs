//! Certificates as the peer's tools made them: what their extension says is what was recorded for them, and is written
//! again byte by byte. How the certificates of a chain work together is no matter of this file: the table says, entry by
//! entry, what is left to the rules of chains.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, DecodePem, Encode};
use fulmar_core::certificate;
use fulmar_core::name::{self, Name};
use fulmar_core::wire::{
    BlockCommand, Command, Config, ConsoleCommand, FailBehaviour, Kind, Malformed, PolicyCommand, Reason, StatsCommand,
    UnikernelCommand, Window,
};
use serde_json::Value;
use x509_cert::Certificate;
use x509_cert::ext::Extension;
use x509_cert::request::{CertReq, ExtensionReq};

/// What one certificate carries.
#[derive(Debug, PartialEq, Eq)]
enum Carries {
    /// A command, in the peer's words.
    Says(&'static str),
    /// No extension of ours.
    Nothing,
    /// An extension that is refused.
    Refused(Reason),
}

use Carries::{Nothing, Refused, Says};

const INFO: Carries = Says("unikernel info");
const USER: Carries = Says("policy add 10 unikernels 512 MB 10 MB block CPUs 0");
const USER_BRIDGE: Carries = Says("policy add 16 unikernels 1024 MB 20 MB block CPUs 0 1 bridges peerbr0");
const USER_SMALL: Carries = Says("policy add 16 unikernels 1024 MB CPUs 0");

// What is left to the rules of chains, and why it cannot be judged from one certificate.
const ALL_JUDGED: &str = "";
const ROOT_SENT: &str = "a chain may contain the root certificate, which counts for nothing";
const PATH_ITSELF: &str = "a leaf without a label of its own stands for the path above it";
const NEEDS_NAME: &str = "whether a command may do without a label depends on what the chain makes of the leaf";
const PATH: &str = "the labels above the leaf make the path, and the policies have an order";
const NO_LABEL_ABOVE: &str = "a policy wants a label in the path";
const ONLY_POLICIES_ABOVE: &str = "above the leaf, a command must be a policy to add";
const REFUSED_AS_A_WHOLE: &str = "one unreadable extension refuses the whole chain";
const LEAF_NEEDS_COMMAND: &str = "only the place in the chain tells that this one must have a command";
const NOT_FOR_LEAVES: &str = "which commands a certificate may carry is a rule of chains";
const LENGTH: &str = "the length of a chain is bounded";

/// Each entry of `chains/index.json`: what its certificates carry, the leaf first, and what is left to the rules of chains.
const CHAINS: &[(&str, &[Carries], &str)] = &[
    ("01-direct", &[INFO], ALL_JUDGED),
    ("02-direct-root-in-chain", &[INFO, Nothing], ROOT_SENT),
    ("03-cn-dot", &[INFO], PATH_ITSELF),
    ("04-cn-colon", &[INFO], PATH_ITSELF),
    ("05-cn-empty", &[INFO], ALL_JUDGED),
    ("06-cn-none", &[INFO], PATH_ITSELF),
    ("08-cn-none-blockinfo", &[Says("block info")], PATH_ITSELF),
    ("09-cn-none-blockadd", &[Says("block add 1")], NEEDS_NAME),
    (
        "11-cn-none-create",
        &[Says(
            "unikernel create typ solo5 compression false image 1 bytes\nfail behaviour quit startup at not specified \
             add_name true CPUids 0\n32 MB memory block devices  bridge  #cpus 1\nlinux_boot not specified",
        )],
        NEEDS_NAME,
    ),
    ("14-cn-path", &[INFO], ALL_JUDGED),
    ("17-cn-dotted", &[INFO], ALL_JUDGED),
    ("18-inter1", &[INFO, USER], PATH),
    ("20-inter1-root", &[INFO, USER, Nothing], PATH),
    ("21-inter2", &[INFO, Says("policy add 5 unikernels 256 MB 10 MB block CPUs 0"), USER], PATH),
    ("23-inter2-larger", &[INFO, Says("policy add 50 unikernels 5120 MB 10 MB block CPUs 0"), USER], PATH),
    ("26-inter-badcn", &[INFO, USER], ALL_JUDGED),
    ("28-inter-nocn", &[INFO, USER], NO_LABEL_ABOVE),
    ("29-inter-info", &[INFO, INFO], ONLY_POLICIES_ABOVE),
    ("30-inter-policyremove", &[INFO, Says("policy remove")], ONLY_POLICIES_ABOVE),
    ("31-inter-badext", &[INFO, Refused(Reason::Tag)], REFUSED_AS_A_WHOLE),
    ("32-inter-unusable", &[INFO, Says("policy add 0 unikernels 0 MB 10 MB block CPUs 0")], PATH),
    ("33-leaf-noext", &[Nothing, USER], LEAF_NEEDS_COMMAND),
    ("34-leaf-badext", &[Refused(Reason::Truncated), USER], REFUSED_AS_A_WHOLE),
    ("36-leaf-version6", &[Refused(Reason::Version(6)), USER], REFUSED_AS_A_WHOLE),
    ("38-cmd-console-add", &[Says("console add 5"), USER], NOT_FOR_LEAVES),
    ("39-cmd-console-subscribe", &[Says("console subscribe number 5"), USER], PATH),
    ("40-cmd-console-list", &[Says("console list inactive available ringbuffers"), USER], PATH),
    ("42-cmd-stats-remove", &[Says("stat remove"), USER], NOT_FOR_LEAVES),
    ("43-cmd-stats-initial", &[Says("stat initial"), USER], NOT_FOR_LEAVES),
    ("45-cmd-policy-add", &[Says("policy add 1 unikernels 32 MB 10 MB block CPUs 0"), USER], NOT_FOR_LEAVES),
    ("47-cmd-policy-info", &[Says("policy info"), USER], PATH),
    ("48-cmd-destroy", &[Says("unikernel destroy"), USER], PATH),
    ("49-cmd-get", &[Says("unikernel get compress level 0"), USER], PATH),
    ("50-cmd-restart", &[Says("unikernel restart"), USER], PATH),
    ("51-cmd-old-info4", &[Says("old unikernel info4"), USER], PATH),
    ("52-cmd-old-info5", &[Says("old unikernel info5"), USER], PATH),
    ("54-cmd-block-add", &[Says("block add 1"), USER], PATH),
    ("55-cmd-block-dump", &[Says("block dump, compress level 0"), USER], PATH),
    (
        "58-len-10",
        &[
            INFO,
            Says("policy add 1 unikernels 64 MB 10 MB block CPUs 0"),
            Says("policy add 2 unikernels 96 MB 10 MB block CPUs 0"),
            Says("policy add 3 unikernels 128 MB 10 MB block CPUs 0"),
            Says("policy add 4 unikernels 160 MB 10 MB block CPUs 0"),
            Says("policy add 5 unikernels 192 MB 10 MB block CPUs 0"),
            Says("policy add 6 unikernels 224 MB 10 MB block CPUs 0"),
            Says("policy add 7 unikernels 256 MB 10 MB block CPUs 0"),
            Says("policy add 8 unikernels 288 MB 10 MB block CPUs 0"),
            Says("policy add 9 unikernels 320 MB 10 MB block CPUs 0"),
        ],
        LENGTH,
    ),
];

/// Certificates that belong to no chain of the index: authorities and servers.
const OTHERS: &[&str] = &["ca", "server"];

/// What the peer's tools signed or asked for: the file and what it carries. Where a `sign.out` lies beside it, that is
/// the peer's own word for it.
const SIGNED: &[(&str, &[Carries])] = &[
    ("cacert.pem", &[Nothing]),
    ("server.pem", &[Nothing]),
    ("sub.pem", &[Says("policy add 3 unikernels 64 MB CPUs 0"), USER_BRIDGE]),
    ("sub.req", &[Says("policy add 3 unikernels 64 MB CPUs 0")]),
    ("user.pem", &[USER_BRIDGE]),
    ("user.req", &[USER_BRIDGE]),
    ("leaf/blockadd/b1.pem", &[Says("block add 2"), USER_BRIDGE]),
    ("leaf/blockadd/leaf.req", &[Says("block add 2")]),
    ("leaf/console1/c1.pem", &[Says("console subscribe number 20"), USER_BRIDGE]),
    ("leaf/console1/leaf.req", &[Says("console subscribe number 20")]),
    ("leaf/destroy1/d1.pem", &[Says("unikernel destroy"), USER_BRIDGE]),
    ("leaf/destroy1/leaf.req", &[Says("unikernel destroy")]),
    ("leaf/dump/db1.pem", &[Says("block dump, compress level 9"), USER_BRIDGE]),
    ("leaf/dump/leaf.req", &[Says("block dump, compress level 9")]),
    ("leaf/getx/g1.pem", &[Says("unikernel get compress level 9"), USER_BRIDGE]),
    ("leaf/getx/leaf.req", &[Says("unikernel get compress level 9")]),
    ("leaf/info1/x1.pem", &[INFO, USER_BRIDGE]),
    ("leaf/info1/leaf.req", &[INFO]),
    ("leaf/policyinfo/p1.pem", &[Says("policy info"), USER_BRIDGE]),
    ("leaf/policyinfo/leaf.req", &[Says("policy info")]),
    ("leaf/restart/r1.pem", &[Says("unikernel restart"), USER_BRIDGE]),
    ("leaf/restart/leaf.req", &[Says("unikernel restart")]),
    ("leaf/setblock/sb1.pem", &[Says("block set compressed true"), USER_BRIDGE]),
    ("leaf/setblock/leaf.req", &[Says("block set compressed true")]),
    ("leaf/stats1/s1.pem", &[Says("stat subscribe"), USER_BRIDGE]),
    ("leaf/stats1/leaf.req", &[Says("stat subscribe")]),
];

/// Each kind of key has the same files.
const KEY_KINDS: [&str; 4] = ["p256", "p384", "p521", "rsa2048"];
const OF_EACH_KEY_KIND: &[(&str, &[Carries])] = &[
    ("cacert.pem", &[Nothing]),
    ("server.pem", &[Nothing]),
    ("user.pem", &[USER_SMALL]),
    ("user.req", &[USER_SMALL]),
    ("foo.pem", &[INFO, USER_SMALL]),
    ("foo.req", &[INFO]),
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name)
}

/// A certificate or a request: the common name, which may be missing, and the value of our extension.
struct Carrier {
    label: Option<String>,
    extension: Option<Vec<u8>>,
}

impl Carrier {
    fn new(subject: &x509_cert::name::Name, extensions: &[Extension]) -> Self {
        let common_name = ObjectIdentifier::new_unwrap("2.5.4.3");
        let label = subject.iter().find(|attribute| attribute.oid == common_name);
        let identifier = ObjectIdentifier::from_bytes(&certificate::OBJECT_IDENTIFIER).unwrap();
        let ours: Vec<_> = extensions.iter().filter(|extension| extension.extn_id == identifier).collect();
        assert!(ours.len() <= 1 && ours.iter().all(|extension| !extension.critical));
        Self {
            label: label.map(|attribute| String::from_utf8(attribute.value.value().to_vec()).unwrap()),
            extension: ours.first().map(|extension| extension.extn_value.as_bytes().to_vec()),
        }
    }

    fn command(&self) -> Option<Result<Command<'_>, Malformed>> {
        self.extension.as_deref().map(certificate::decode)
    }

    /// Checks what is carried, and that it is written as it was read.
    fn check(&self, expected: &Carries, what: &str) {
        match (self.command(), expected) {
            (None, Nothing) => {}
            (Some(Ok(command)), Says(words)) => {
                assert_eq!(in_words(&command), *words, "{what}");
                let bytes = self.extension.as_deref().unwrap();
                let mut buffer = vec![0; bytes.len()];
                assert_eq!(certificate::encode(&command, &mut buffer).unwrap(), bytes, "{what}");
            }
            (Some(Err(error)), Refused(reason)) => assert_eq!(error.reason, *reason, "{what}"),
            (found, _) => panic!("{what}: {expected:?} was expected, found is {found:?}"),
        }
    }
}

/// The certificates of a file, in its order; or its one request.
fn carriers(file: &Path) -> Vec<Carrier> {
    let text = fs::read(file).unwrap();
    if file.extension().is_some_and(|extension| extension == "req") {
        let request = CertReq::from_pem(&text).unwrap();
        let wanted = request.info.attributes.iter().find(|it| it.oid == <ExtensionReq as der::oid::AssociatedOid>::OID);
        let wanted = wanted.unwrap().values.get(0).unwrap().to_der().unwrap();
        let extensions = ExtensionReq::from_der(&wanted).unwrap();
        return vec![Carrier::new(&request.info.subject, &extensions.0)];
    }
    let chain = Certificate::load_pem_chain(&text).unwrap();
    let carrier = |certificate: &Certificate| {
        // What was read with another tool is what is written here.
        assert!(AnyRef::from_der(&certificate.to_der().unwrap()).is_ok());
        let certificate = certificate.tbs_certificate();
        Carrier::new(certificate.subject(), certificate.extensions().map_or(&[], Vec::as_slice))
    };
    chain.iter().map(carrier).collect()
}

/// All files below `folder` with one of these extensions, by their path from there.
fn files(folder: &Path, extensions: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for path in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| extensions.iter().any(|extension| it == *extension)) {
                found.insert(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

#[test]
fn each_entry_of_the_index_is_judged_as_far_as_one_certificate_goes() {
    let index: Vec<Value> = serde_json::from_slice(&fs::read(folder("chains/index.json")).unwrap()).unwrap();
    let table: BTreeMap<_, _> = CHAINS.iter().map(|(file, carries, left)| (*file, (*carries, *left))).collect();
    assert_eq!((index.len(), table.len()), (CHAINS.len(), CHAINS.len()), "each entry stands in the table once");
    for entry in &index {
        let file = entry["file"].as_str().unwrap();
        let (carries, left) = table.get(file).unwrap_or_else(|| panic!("{file} does not stand in the table"));
        let chain = carriers(&folder("chains").join(format!("{file}.pem")));
        assert_eq!(entry["chain_length"], chain.len(), "{file}");
        assert_eq!(carries.len(), chain.len(), "{file}");
        for (place, (carrier, carries)) in chain.iter().zip(*carries).enumerate() {
            carrier.check(carries, &format!("{file}, certificate {place}"));
        }
        if entry["verdict"] == "ok" {
            accepted(entry, &chain, carries);
        } else {
            refused(entry, &chain, carries, left);
        }
    }
}

/// What the index says about a chain that it accepts: the command; the policies, not their paths and order; the name of
/// a unikernel at the root.
fn accepted(entry: &Value, chain: &[Carrier], carries: &[Carries]) {
    let file = entry["file"].as_str().unwrap();
    assert_eq!(carries[0], Says(leak(entry["command"].as_str().unwrap())), "{file}");
    let policies = chain.iter().skip(1).filter_map(|carrier| match carrier.command()?.unwrap() {
        Command::Policy(PolicyCommand::Add(policy)) => Some((policy.unikernels, policy.memory)),
        other => panic!("{file}: {other:?} above the leaf"),
    });
    let recorded = entry["policies_in_order_applied"].as_array().unwrap();
    let recorded = recorded.iter().map(|it| (it["unikernels"].as_i64().unwrap(), it["memory"].as_i64().unwrap()));
    assert_eq!(policies.collect::<BTreeSet<_>>(), recorded.collect(), "{file}");
    let path_itself = matches!(chain[0].label.as_deref(), None | Some("." | ":"));
    if chain.len() == 1 && !path_itself {
        let label = chain[0].label.as_deref().unwrap();
        let name = Name::parse(":").unwrap().join(label).unwrap();
        assert_eq!(name.as_str(), entry["name"].as_str().unwrap(), "{file}");
    }
}

/// What the index refuses is refused here, or is left to the rules of chains.
fn refused(entry: &Value, chain: &[Carrier], carries: &[Carries], left: &str) {
    let file = entry["file"].as_str().unwrap();
    let error = entry["error"].as_str().unwrap();
    let of_extension = error.starts_with("Unexpected EOF") || error.starts_with("unknown version number");
    assert_eq!(carries.iter().any(|it| matches!(it, Refused(_))), of_extension, "{file}: {error}");
    let label =
        |carrier: &Carrier| carrier.label.as_deref().is_some_and(|it| name::check_label(it.as_bytes()).is_err());
    assert_eq!(chain.iter().any(label), error.starts_with("invalid label"), "{file}: {error}");
    let judged = of_extension || chain.iter().any(label);
    assert!(judged || !left.is_empty(), "{file} is refused nowhere: {error}");
}

fn leak(text: &str) -> &'static str {
    String::leak(text.to_owned())
}

#[test]
fn every_certificate_of_the_chains_is_looked_at() {
    let expected = CHAINS.iter().map(|(file, ..)| *file).chain(OTHERS.iter().copied());
    let expected: BTreeSet<_> = expected.map(|file| format!("{file}.pem")).collect();
    assert_eq!(files(&folder("chains"), &["pem", "req"]), expected);
    for other in OTHERS {
        let found = carriers(&folder("chains").join(format!("{other}.pem")));
        assert_eq!(found.len(), 1, "{other}");
        found[0].check(&Nothing, other);
    }
}

#[test]
fn what_the_peers_tools_signed_says_what_they_were_asked_for() {
    let mut table: BTreeMap<String, &[Carries]> = SIGNED.iter().map(|(file, it)| ((*file).to_owned(), *it)).collect();
    for kind in KEY_KINDS {
        table.extend(OF_EACH_KEY_KIND.iter().map(|(file, it)| (format!("keytypes/{kind}/{file}"), *it)));
    }
    assert_eq!(files(&folder("tls"), &["pem", "req"]), table.keys().cloned().collect());
    assert_eq!(files(&folder("tls"), &["out"]).len(), 10);
    for (file, carries) in table {
        let path = folder("tls").join(&file);
        let found = carriers(&path);
        assert_eq!(found.len(), carries.len(), "{file}");
        for (carrier, carries) in found.iter().zip(carries) {
            carrier.check(carries, &file);
        }
        let Ok(signed) = fs::read_to_string(path.with_file_name("sign.out")) else { continue };
        let (subject, command) = signed.trim_end().split_once('\n').unwrap();
        assert_eq!(carries[0], Says(leak(command.strip_prefix("signing ").unwrap())), "{file}");
        let label = found[0].label.as_deref().unwrap();
        assert_eq!(subject.strip_prefix("signing certificate with subject /CN="), Some(label), "{file}");
    }
}

/// The peer's words for a command, as far as the recorded certificates have them.
fn in_words(command: &Command<'_>) -> String {
    match command {
        Command::Unikernel(UnikernelCommand::Info) => "unikernel info".into(),
        Command::Unikernel(UnikernelCommand::OldInfo4) => "old unikernel info4".into(),
        Command::Unikernel(UnikernelCommand::OldInfo5) => "old unikernel info5".into(),
        Command::Unikernel(UnikernelCommand::Destroy) => "unikernel destroy".into(),
        Command::Unikernel(UnikernelCommand::Get { level }) => format!("unikernel get compress level {level}"),
        Command::Unikernel(UnikernelCommand::Restart(None)) => "unikernel restart".into(),
        Command::Unikernel(UnikernelCommand::Create(config)) => create_in_words(config),
        Command::Block(BlockCommand::Info) => "block info".into(),
        Command::Block(BlockCommand::Add { size }) => format!("block add {size}"),
        Command::Block(BlockCommand::Dump { level }) => format!("block dump, compress level {level}"),
        Command::Block(BlockCommand::Set { compressed }) => format!("block set compressed {compressed}"),
        Command::Policy(PolicyCommand::Info) => "policy info".into(),
        Command::Policy(PolicyCommand::Remove) => "policy remove".into(),
        Command::Policy(PolicyCommand::Add(policy)) => {
            let mut words = format!("policy add {} unikernels {} MB", policy.unikernels, policy.memory);
            words.extend(policy.block.map(|size| format!(" {size} MB block")));
            words += if policy.cpuids.iter().next().is_some() { " CPUs" } else { "" };
            words.extend(policy.cpuids.iter().map(|cpu| format!(" {cpu}")));
            words += if policy.bridges.iter().next().is_some() { " bridges" } else { "" };
            words.extend(policy.bridges.iter().map(|bridge| format!(" {bridge}")));
            words
        }
        Command::Console(ConsoleCommand::Add { unikernels }) => format!("console add {unikernels}"),
        Command::Console(ConsoleCommand::Subscribe(Window::Count(count))) => {
            format!("console subscribe number {count}")
        }
        Command::Console(ConsoleCommand::ListInactive) => "console list inactive available ringbuffers".into(),
        Command::Stats(StatsCommand::Remove) => "stat remove".into(),
        Command::Stats(StatsCommand::Initial) => "stat initial".into(),
        Command::Stats(StatsCommand::Subscribe) => "stat subscribe".into(),
        other => panic!("no certificate was recorded with {other:?}"),
    }
}

/// The peer's words for a creation without devices.
fn create_in_words(config: &Config<'_>) -> String {
    let arguments = &config.arguments;
    assert!(arguments.block_devices.is_empty() && arguments.bridges.is_empty() && arguments.argv.is_none());
    assert_eq!((config.kind, arguments.fail_behaviour), (Kind::Solo5, FailBehaviour::Quit));
    assert_eq!((arguments.startup, arguments.linux_boot), (None, None));
    let cpus: Vec<_> = arguments.cpuids.iter().map(|cpu| cpu.to_string()).collect();
    format!(
        "unikernel create typ solo5 compression {} image {} bytes\nfail behaviour quit startup at not specified \
         add_name {} CPUids {}\n{} MB memory block devices  bridge  #cpus {}\nlinux_boot not specified",
        config.compressed,
        config.image.len(),
        arguments.add_name,
        cpus.join(" "),
        arguments.memory,
        arguments.numcpus
    )
}
