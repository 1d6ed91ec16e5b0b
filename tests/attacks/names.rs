//! A tenant wants what is another's by a name that somebody might read as the other's: everything it can say it says, and whatever
//! is answered is about its own path or a refusal.

use std::ffi::OsStr;
use std::fs;

use fulmar_core::name::Name;
use fulmar_core::wire::{
    self, BlockCommand, BlockDevice, Command, ConsoleCommand, Data, Frame, List, LogCommand, LogFrom, Payload,
    StatsCommand, UnikernelCommand, Window,
};
use fulmar_tests::contents::{DUMP, SET, chunks, sample};
use fulmar_tests::pki::{
    BMP, COMMON_NAME, Identity, Issuer, OTHER_NAMES, PRINTABLE, UTF8, carries, element, named, subject,
};
use fulmar_tests::raw::Answer;
use fulmar_tests::remote::Broken;
use fulmar_tests::tenants::{DESTROY, GET, INFO, Tenants, create, policy};

const CONSOLE: Command<'static> = Command::Console(ConsoleCommand::Subscribe(Window::Count(100)));
const STATS: Command<'static> = Command::Stats(StatsCommand::Subscribe);
const LOG: Command<'static> =
    Command::Events(LogCommand { from: LogFrom::Window(Window::Count(100_000)), follow: false });
const BLOCK_ADD: Command<'static> = Command::Block(BlockCommand::Add { size: 1 });
const BLOCK_REMOVE: Command<'static> = Command::Block(BlockCommand::Remove);
const BLOCK_INFO: Command<'static> = Command::Block(BlockCommand::Info);

/// Everything that reaches something of another, if a name does.
const COMMANDS: [Command<'static>; 10] =
    [INFO, GET, DESTROY, CONSOLE, STATS, LOG, DUMP, BLOCK_INFO, BLOCK_REMOVE, Command::Host];

/// The victim's path, its unikernel and its block device.
const VICTIM: &str = "victim";
const OWN: &str = "secret";

fn with_victim(test: &str) -> Option<(Tenants, Issuer, Vec<u8>)> {
    let mut tenants = Tenants::begin(test)?;
    tenants.siege.system.start_log(&[]).unwrap();
    tenants.siege.expect_log("vmmd", "the event log is here");
    tenants.siege.system.start_stats(&["--interval", "0.1"].map(OsStr::new)).unwrap();
    let victim = tenants.ca.delegate(VICTIM, policy(2, 64));
    assert_eq!(tenants.create(&victim, OWN, 16), Answer::Done("created unikernel".into()));
    assert_eq!(tenants.ask(&victim.leaf(OWN, BLOCK_ADD)), Answer::Done("added block device".into()));
    let content = sample(1 << 20, 7);
    assert_eq!(tenants.say(&victim.leaf(OWN, SET), &content), Answer::Done("set block device".into()));
    Some((tenants, victim, content))
}

/// All that comes up to the end; of what goes on for ever, the first message.
fn everything(tenants: &Tenants, identity: &Identity, command: Command<'_>) -> Vec<Vec<u8>> {
    let mut remote = tenants.connect(identity);
    let goes_on = matches!(command, Command::Console(_) | Command::Stats(_));
    let messages = std::iter::from_fn(|| remote.receive_bytes().ok());
    messages.take(if goes_on { 1 } else { usize::MAX }).collect()
}

fn payload(message: &[u8]) -> Payload<'_> {
    wire::decode(Frame::whole(message)).unwrap().payload
}

fn name_of(message: &[u8]) -> Name {
    wire::decode(Frame::whole(message)).unwrap().header.name
}

/// What is the victim's is whole.
fn expect_untouched(tenants: &Tenants, pids: &[u32], content: &[u8]) {
    let running = tenants.siege.running();
    assert_eq!(running.get("victim:secret").map(Vec::as_slice), Some(pids), "{running:?}");
    let file = tenants.siege.system.state().join("block/victim:secret_disk");
    assert!(fs::read(file).unwrap() == content);
}

/// Names that look like another's, and why they are refused where they are.
fn tricks() -> Vec<(&'static str, Vec<u8>, Option<&'static str>)> {
    let cn = |text: &str| named(text);
    let raw = |kind: u8, octets: &[u8]| subject(&[(COMMON_NAME, kind, octets)]);
    let [organisation, .., user] = OTHER_NAMES;
    let wide: Vec<u8> = "secret".bytes().flat_map(|byte| [0, byte]).collect();
    let both = |first: &'static str, second: &'static str| {
        subject(&[(COMMON_NAME, UTF8, first.as_bytes()), (COMMON_NAME, UTF8, second.as_bytes())])
    };
    let in_one = {
        let attribute = |text: &str| {
            let parts = [element(0x06, &[COMMON_NAME]), element(UTF8, &[text.as_bytes()])];
            element(0x30, &[&parts.concat()])
        };
        element(0x30, &[&element(0x31, &[&attribute("own"), &attribute("secret")])])
    };
    vec![
        ("the label of another", cn(VICTIM), None),
        ("the same in capitals", cn("VICTIM"), None),
        ("the label of what another has", cn(OWN), None),
        ("the whole name of another", cn("victim:secret"), Some("':' is not allowed")),
        ("the whole name from the root", cn(":victim:secret"), Some("':' is not allowed")),
        ("a path", cn("victim:"), Some("':' is not allowed")),
        ("two colons", cn("::"), Some("':' is not allowed")),
        ("an empty label", cn(""), Some("invalid name")),
        ("dots", cn(".."), None),
        ("dots and a slash", cn("../victim:secret"), Some("'/' is not allowed")),
        ("a slash", cn("victim/secret"), Some("'/' is not allowed")),
        ("the end of the files' names", cn("secret_disk"), Some("'_' is not allowed")),
        ("the longest label", cn(&"x".repeat(63)), None),
        ("one byte longer", cn(&"x".repeat(64)), Some("longer than 63")),
        ("far longer", cn(&"x".repeat(4000)), Some("longer than 63")),
        ("a NUL", cn("secret\0"), Some("not allowed")),
        ("a NUL and more", cn("victim\0:secret"), Some("not allowed")),
        ("a space", cn("secret "), Some("' ' is not allowed")),
        ("a line's end", cn("secret\n"), Some("not allowed")),
        ("a dash", cn("-secret"), Some("begins with '-'")),
        ("a letter of another alphabet", cn("ѕecret"), Some("not allowed")),
        ("wide letters", cn("ｓｅｃｒｅｔ"), Some("not allowed")),
        ("no UTF-8", raw(UTF8, b"secret\xff"), Some("not allowed")),
        ("a slash in two bytes", raw(UTF8, b"..\xc0\xafvictim"), Some("not allowed")),
        ("printable", raw(PRINTABLE, b"secret"), None),
        ("two bytes a letter", raw(BMP, &wide), Some("cannot be read")),
        ("another type", raw(0x14, b"secret"), Some("cannot be read")),
        ("two common names", both("own", "victim"), Some("two common names")),
        ("twice the same", both("own", "own"), Some("two common names")),
        ("two in one set", in_one, Some("two common names")),
        (
            "an organisation of that name",
            subject(&[(organisation, UTF8, b"victim"), (COMMON_NAME, UTF8, b"own")]),
            None,
        ),
        ("a user of that name", subject(&[(COMMON_NAME, UTF8, b"own"), (user, UTF8, b"victim")]), None),
    ]
}

#[test]
fn the_victim_itself_reaches_what_it_has() {
    let Some((tenants, victim, content)) = with_victim("the_victim_itself_reaches_what_it_has") else { return };
    let last = |command| everything(&tenants, &victim.leaf(OWN, command), command);
    for command in [INFO, GET, STATS, LOG, BLOCK_INFO] {
        let messages = last(command);
        assert!(!messages.is_empty() && !matches!(payload(&messages[0]), Payload::Failure(_)), "{command:?}");
        assert_eq!(name_of(&messages[0]).as_str(), "victim:secret");
    }
    let mut console = tenants.connect(&victim.leaf(OWN, CONSOLE));
    console.receive().unwrap();
    assert!(matches!(payload(&console.receive_bytes().unwrap()), Payload::Data(Data::Console { .. })));
    let mut stats = tenants.connect(&victim.leaf(".", STATS));
    stats.receive().unwrap();
    assert_eq!(name_of(&stats.receive_bytes().unwrap()).as_str(), ":secret");
    let dump: usize = last(DUMP).iter().map(Vec::len).sum();
    assert!(dump > content.len(), "{dump}");
    tenants.end();
}

#[test]
fn no_name_of_a_leaf_reaches_what_is_anothers() {
    let Some((tenants, _, content)) = with_victim("no_name_of_a_leaf_reaches_what_is_anothers") else { return };
    let pids = tenants.siege.running()["victim:secret"].clone();
    let attacker = tenants.ca.delegate("attacker", policy(2, 64));
    for (what, subject, refused) in tricks() {
        for command in COMMANDS {
            let leaf = attacker.leaf_by("own", command, |draft| draft.subject = subject.clone());
            expect_own(&tenants, what, (&leaf, command), refused);
        }
    }
    expect_untouched(&tenants, &pids, &content);
    tenants.end();
}

#[test]
fn no_name_of_a_delegation_reaches_what_is_anothers() {
    let Some((tenants, _, content)) = with_victim("no_name_of_a_delegation_reaches_what_is_anothers") else { return };
    let pids = tenants.siege.running()["victim:secret"].clone();
    let attacker = tenants.ca.delegate("attacker", policy(2, 64));
    for (what, subject, refused) in tricks() {
        let below = attacker.issuer_by("own", |draft| {
            draft.subject = subject.clone();
            draft.extensions.push(carries(&Command::Policy(wire::PolicyCommand::Add(policy(0, 0)))));
        });
        for command in COMMANDS {
            expect_own(&tenants, what, (&below.leaf(OWN, command), command), refused);
        }
    }
    // Without a common name a leaf is the path itself, and a delegation is nobody's.
    let nobody = |draft: &mut fulmar_tests::pki::Draft| draft.subject = element(0x30, &[]);
    let leaf = attacker.leaf_by("own", INFO, nobody);
    expect_own(&tenants, "no name", (&leaf, INFO), None);
    let below = attacker.issuer_by("own", |draft| {
        nobody(draft);
        draft.extensions.push(carries(&Command::Policy(wire::PolicyCommand::Add(policy(0, 0)))));
    });
    expect_own(&tenants, "no name above", (&below.leaf(OWN, INFO), INFO), Some("no common name"));
    expect_untouched(&tenants, &pids, &content);
    tenants.end();
}

/// Whatever is said is about the attacker's own, and nothing of it is the victim's.
fn expect_own(tenants: &Tenants, what: &str, (leaf, command): (&Identity, Command<'_>), refused: Option<&str>) {
    let messages = everything(tenants, leaf, command);
    let Some(first) = messages.first() else { panic!("{what}: no answer\n{}", tenants.log()) };
    match refused {
        Some(reason) => {
            let answer = Answer::of(first);
            assert!(answer.reason().contains(reason), "{what}: not for '{reason}': {answer:?}");
            assert_eq!(messages.len(), 1, "{what}: goes on after the refusal");
        }
        None => assert!(name_of(first).as_str().starts_with("attacker:"), "{what}: about {}", name_of(first)),
    }
    for message in &messages {
        // What the attacker has called its own is told to it.
        let words = format!("{:?}", payload(message)).replace("attacker:victim:secret", "");
        assert!(refused.is_some() || !words.contains("victim:secret"), "{what}: {words}");
    }
}

#[test]
fn the_streams_of_a_path_are_of_that_path_alone() {
    let Some((tenants, _, _)) = with_victim("the_streams_of_a_path_are_of_that_path_alone") else { return };
    // One whose path begins with the same letters.
    let attacker = tenants.ca.delegate("victi", policy(2, 64));
    assert_eq!(tenants.create(&attacker, "own", 16), Answer::Done("created unikernel".into()));
    let mut stats = tenants.connect(&attacker.leaf(".", STATS));
    assert_eq!(stats.receive(), Ok(Answer::Done("subscribed".into())));
    for _ in 0..5 {
        let message = stats.receive_bytes().unwrap();
        assert_eq!(name_of(&message).as_str(), ":own");
        assert!(matches!(payload(&message), Payload::Data(Data::Stats(_))));
    }
    let events = everything(&tenants, &attacker.leaf(".", LOG), LOG);
    let words: Vec<String> = events.iter().map(|event| format!("{:?}", payload(event))).collect();
    assert!(words.iter().any(|event| event.contains("victi:own")), "{words:#?}");
    assert!(!words.iter().any(|event| event.contains("victim")), "{words:#?}");
    tenants.end();
}

#[test]
fn a_chain_of_long_names_is_refused_and_makes_no_other_name() {
    let Some(tenants) = Tenants::begin("a_chain_of_long_names_is_refused_and_makes_no_other_name") else { return };
    let label = "x".repeat(63);
    let mut issuer = tenants.ca.clone();
    for depth in 1..=3 {
        issuer = issuer.delegate(&label, policy(1, 16));
        let answer = tenants.ask(&issuer.leaf("y", INFO));
        assert!(matches!(&answer, Answer::Refused(text) if text == "info: not found"), "{depth}: {answer:?}");
    }
    let answer = tenants.ask(&issuer.leaf(&label, INFO));
    assert!(answer.reason().contains("longer than 250 bytes"), "{answer:?}");
    let answer = tenants.ask(&issuer.delegate(&label, policy(1, 16)).leaf(".", INFO));
    assert!(answer.reason().contains("longer than 250 bytes"), "{answer:?}");
    tenants.end();
}

#[test]
fn capitals_make_no_second_unikernel() {
    let Some(tenants) = Tenants::begin("capitals_make_no_second_unikernel") else { return };
    let a = tenants.ca.delegate("A", policy(2, 64));
    assert_eq!(tenants.create(&a, "one", 16), Answer::Done("created unikernel".into()));
    let answer = tenants.create(&a, "ONE", 16);
    assert!(answer.reason().contains("same name"), "{answer:?}");
    let b = tenants.ca.delegate("a", policy(2, 64));
    assert!(matches!(tenants.ask(&b.leaf("One", INFO)), Answer::Other(_)));
    assert_eq!(tenants.siege.names(), ["a:one"]);
    tenants.end();
}

#[test]
fn no_name_of_a_device_reaches_a_block_device_of_another() {
    let Some((tenants, _, content)) = with_victim("no_name_of_a_device_reaches_a_block_device_of_another") else {
        return;
    };
    let pids = tenants.siege.running()["victim:secret"].clone();
    let attacker = tenants.ca.delegate("attacker", policy(2, 64));
    let image = tenants.image("block");
    assert_eq!(tenants.ask(&attacker.leaf("own", BLOCK_ADD)), Answer::Done("added block device".into()));
    let with_device = |host: &str| {
        let devices = [BlockDevice { name: "storage", host_device: Some(host), sector_size: None }];
        let Command::Unikernel(UnikernelCommand::Create(mut config)) = create(16) else { panic!() };
        config.arguments.block_devices = List::Items(&devices);
        let leaf = attacker.leaf("guest", Command::Unikernel(UnikernelCommand::Create(config)));
        tenants.say(&leaf, &image)
    };
    for host in [
        "secret",
        "victim:secret",
        ":victim:secret",
        "VICTIM:SECRET",
        "..:victim:secret",
        "../victim:secret",
        "../block/victim:secret",
        "victim:secret_disk",
        "own:victim:secret",
        "",
        ".",
        "secret\0",
    ] {
        let answer = with_device(host);
        assert!(matches!(answer, Answer::Refused(_)), "{host}: {answer:?}");
    }
    assert_eq!(with_device("own"), Answer::Done("created unikernel".into()));
    expect_untouched(&tenants, &pids, &content);
    tenants.end();
}

#[test]
fn an_image_of_another_is_not_got_by_having_its_digest() {
    // Images are kept by their digest: who sends the same one has his own, and takes nobody's away.
    let Some((tenants, victim, content)) = with_victim("an_image_of_another_is_not_got_by_having_its_digest") else {
        return;
    };
    let pids = tenants.siege.running()["victim:secret"].clone();
    let attacker = tenants.ca.delegate("attacker", policy(2, 64));
    let image = tenants.image("hello");
    assert_eq!(tenants.ask(&victim.leaf(OWN, GET)), Answer::Image(image.len()));
    assert!(matches!(tenants.ask(&attacker.leaf(OWN, GET)), Answer::Refused(_)));
    assert_eq!(tenants.create(&attacker, OWN, 16), Answer::Done("created unikernel".into()));
    assert_eq!(tenants.ask(&attacker.leaf(OWN, DESTROY)), Answer::Done("destroyed unikernel".into()));
    assert!(matches!(tenants.ask(&attacker.leaf(OWN, GET)), Answer::Refused(_)));
    assert_eq!(tenants.ask(&victim.leaf(OWN, GET)), Answer::Image(image.len()));
    expect_untouched(&tenants, &pids, &content);
    tenants.end();
}

#[test]
fn what_a_client_says_after_its_certificate_is_no_command() {
    let Some((tenants, victim, content)) = with_victim("what_a_client_says_after_its_certificate_is_no_command") else {
        return;
    };
    let pids = tenants.siege.running()["victim:secret"].clone();
    let attacker = tenants.ca.delegate("attacker", policy(2, 64));
    // The victim's leaf destroys; so does a message, on the socket of the daemon.
    assert_eq!(tenants.create(&victim, "other", 16), Answer::Done("created unikernel".into()));
    assert_eq!(tenants.ask(&victim.leaf("other", DESTROY)), Answer::Done("destroyed unikernel".into()));
    let destroy = fulmar_tests::raw::frame("victim:secret", DESTROY);
    for command in [INFO, GET, Command::Policy(wire::PolicyCommand::Info), BLOCK_ADD] {
        let mut remote = tenants.connect(&attacker.leaf("own", command));
        remote.send(&destroy.repeat(100));
        let first = remote.receive_bytes().unwrap();
        assert!(name_of(&first).as_str().starts_with("attacker:"), "{command:?}");
        assert!(matches!(remote.receive(), Err(Broken::Closed | Broken::Cut)), "{command:?}");
    }
    // Behind the chunks of a content, and in the place of them.
    for stream in [[chunks(b"x", 1), destroy.clone()].concat(), [&[0, 0, 0, 0], &destroy[..]].concat(), destroy] {
        let mut remote = tenants.connect(&attacker.leaf("own", SET));
        remote.send(&stream);
        remote.half_close();
        let first = remote.receive_bytes();
        assert!(first.is_err() || first.is_ok_and(|first| name_of(&first).as_str() == "attacker:own"));
    }
    expect_untouched(&tenants, &pids, &content);
    tenants.end();
}
