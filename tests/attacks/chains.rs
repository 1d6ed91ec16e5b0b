//! Certificates that are not what they claim: of the wrong kind, of another time, of another issuer, or of bytes that two readers
//! might read differently.

use fulmar_core::wire::{Command, List, Policy, PolicyCommand, UnikernelCommand};
use fulmar_tests::pki::{
    CERT_SIGN, CLIENT, CRL_SIGN, DAY, DIGITAL_SIGNATURE, Draft, Identity, Issuer, KEY_AGREEMENT, Key, SERVER,
    basic_constraints, carries, carries_octets, element, extended_usage, extension, key_usage, named, now,
    with_long_length,
};
use fulmar_tests::raw::Answer;
use fulmar_tests::remote::Broken;
use fulmar_tests::tenants::{DESTROY, INFO, REVOKE, Tenants, policy};

const LIST: Command<'static> = INFO;

fn begin(test: &str) -> Option<(Tenants, Issuer)> {
    let tenants = Tenants::begin(test)?;
    let a = tenants.ca.delegate("a", policy(2, 64));
    expect_good(&tenants, &a.leaf(".", LIST));
    Some((tenants, a))
}

/// The chain is taken, whatever then comes of the command.
fn expect_good(tenants: &Tenants, identity: &Identity) {
    let answer = tenants.ask(identity);
    assert!(matches!(&answer, Answer::Other(words) if words.contains("Infos")), "{answer:?}\n{}", tenants.log());
}

/// The chain is well signed and refused in words.
fn expect_refused(tenants: &Tenants, identity: &Identity, reason: &str) {
    let answer = tenants.ask(identity);
    assert!(answer.reason().contains(reason), "not for '{reason}': {answer:?}");
}

/// The chain is not even well signed: TLS itself refuses it.
fn expect_alert(tenants: &Tenants, identity: &Identity, alert: &str) {
    assert_eq!(tenants.try_ask(identity), Err(Broken::Alert(alert.into())), "{}", tenants.log());
}

/// An issuer with the key and certificate of a leaf.
fn issuer_of(leaf: Identity, label: &str) -> Issuer {
    let serial = leaf.serial;
    Issuer { key: leaf.key, subject: named(label), der: leaf.chain[0].clone(), chain: leaf.chain, serial }
}

#[test]
fn a_leaf_is_no_ca() {
    let Some((tenants, a)) = begin("a_leaf_is_no_ca") else { return };
    expect_good(&tenants, &a.issuer_by("below", |_| {}).leaf(".", LIST));
    let leaf = issuer_of(a.leaf("below", LIST), "below");
    expect_alert(&tenants, &leaf.leaf(".", LIST), "CertificateUnknown");
    // Neither does a policy make a CA of it, nor a key usage.
    let policy = Command::Policy(PolicyCommand::Add(policy(1, 16)));
    let with_usage = a.leaf_by("below", policy, |draft| draft.extensions[1] = key_usage(CERT_SIGN | CRL_SIGN));
    expect_alert(&tenants, &issuer_of(with_usage, "below").leaf(".", LIST), "CertificateUnknown");
    tenants.end();
}

#[test]
fn a_ca_needs_the_extension_that_says_so() {
    let Some((tenants, a)) = begin("a_ca_needs_the_extension_that_says_so") else { return };
    expect_good(&tenants, &a.issuer_by("below", |_| {}).leaf(".", LIST));
    let without = a.issuer_by("below", |draft| drop(draft.extensions.remove(0)));
    expect_alert(&tenants, &without.leaf(".", LIST), "CertificateUnknown");
    let says_no = a.issuer_by("below", |draft| draft.extensions[0] = basic_constraints(false));
    expect_alert(&tenants, &says_no.leaf(".", LIST), "CertificateUnknown");
    // Nor can a CA be a client.
    let as_leaf = a.leaf_by(".", LIST, |draft| draft.extensions[0] = basic_constraints(true));
    expect_alert(&tenants, &as_leaf, "CertificateUnknown");
    tenants.end();
}

#[test]
fn a_path_length_is_kept() {
    let Some((tenants, a)) = begin("a_path_length_is_kept") else { return };
    // A CA that may have no CA below it.
    let value = element(0x30, &[&[0x01, 0x01, 0xff, 0x02, 0x01, 0x00]]);
    let last = a.issuer_by("last", |draft| draft.extensions[0] = extension(&[0x55, 0x1d, 0x13], true, &value));
    expect_good(&tenants, &last.leaf(".", LIST));
    expect_alert(&tenants, &last.issuer_by("below", |_| {}).leaf(".", LIST), "CertificateUnknown");
    tenants.end();
}

#[test]
fn a_chain_of_ten_is_refused() {
    let Some((tenants, a)) = begin("a_chain_of_ten_is_refused") else { return };
    let mut issuer = a;
    let mut lengths = Vec::new();
    while issuer.chain.len() < 9 {
        let leaf = issuer.leaf(".", LIST);
        match tenants.try_ask(&leaf) {
            Ok(answer) => {
                assert!(matches!(answer, Answer::Other(_)), "{answer:?}");
                lengths.push(leaf.chain.len());
            }
            Err(Broken::Alert(_)) => {}
            Err(broken) => panic!("{broken:?}"),
        }
        issuer = issuer.issuer_by("below", |_| {});
    }
    assert_eq!(lengths, [2, 3, 4, 5, 6, 7]);
    let ten = issuer.leaf(".", LIST);
    assert_eq!(ten.chain.len(), 10);
    assert!(matches!(tenants.try_ask(&ten), Err(Broken::Alert(_))));
    // Nor do certificates count that belong to no chain.
    let mut padded = tenants.ca.leaf(".", LIST);
    padded.chain.extend(ten.chain[1..7].iter().cloned());
    assert_eq!(padded.chain.len(), 7);
    expect_good(&tenants, &padded);
    padded.chain.extend(ten.chain[7..].iter().cloned());
    assert!(matches!(tenants.try_ask(&padded), Err(Broken::Alert(_))));
    tenants.end();
}

#[test]
fn many_that_look_like_issuers_cost_no_time() {
    // Each could be the issuer of each other by its name: how many ways there are grows beyond all bounds.
    let Some((tenants, a)) = begin("many_that_look_like_issuers_cost_no_time") else { return };
    let stranger = Issuer::root("stranger");
    let mut twins = a.leaf(".", LIST);
    let other = a.issuer_by("twin", |draft| draft.issuer = named("twin"));
    twins.chain.extend((0..5).map(|_| stranger.issuer_by("twin", |draft| draft.issuer = named("twin")).der));
    expect_good(&tenants, &twins);
    let mut lost = other.leaf(".", LIST);
    lost.chain.truncate(1);
    lost.chain.extend(twins.chain[2..].iter().cloned());
    assert!(matches!(tenants.try_ask(&lost), Err(Broken::Alert(_))));
    tenants.end();
}

#[test]
fn a_key_is_used_only_for_what_it_is_for() {
    let Some((tenants, a)) = begin("a_key_is_used_only_for_what_it_is_for") else { return };
    let issuer = |usage| a.issuer_by("below", |draft| draft.extensions[1] = key_usage(usage));
    let leaf = |usage| a.leaf_by(".", LIST, |draft| draft.extensions[1] = key_usage(usage));
    expect_good(&tenants, &issuer(CERT_SIGN).leaf(".", LIST));
    expect_good(&tenants, &leaf(DIGITAL_SIGNATURE));
    expect_refused(&tenants, &issuer(CRL_SIGN | DIGITAL_SIGNATURE).leaf(".", LIST), "its key usage does not allow");
    expect_refused(&tenants, &leaf(KEY_AGREEMENT), "its key usage does not allow");
    expect_refused(&tenants, &leaf(CERT_SIGN | CRL_SIGN), "its key usage does not allow");
    // A server's certificate is no client's.
    let server = a.leaf_by(".", LIST, |draft| draft.extensions[2] = extended_usage(SERVER));
    expect_alert(&tenants, &server, "CertificateUnknown");
    let limited = a.issuer_by("below", |draft| draft.extensions.push(extended_usage(SERVER)));
    expect_alert(&tenants, &limited.leaf(".", LIST), "CertificateUnknown");
    expect_good(&tenants, &a.issuer_by("below", |draft| draft.extensions.push(extended_usage(CLIENT))).leaf(".", LIST));
    tenants.end();
}

#[test]
fn what_has_expired_or_is_not_valid_yet_is_refused_with_both_times() {
    let Some((tenants, a)) = begin("what_has_expired_or_is_not_valid_yet_is_refused_with_both_times") else { return };
    for (valid, reason) in [
        ([now() - 2 * DAY, now() - DAY], "has expired at"),
        ([now() + DAY, now() + 2 * DAY], "is not yet valid before"),
    ] {
        let leaf = a.leaf_by(".", LIST, |draft| draft.valid = valid);
        expect_refused(&tenants, &leaf, reason);
        expect_refused(&tenants, &leaf, " here: ");
        let issuer = a.issuer_by("below", |draft| draft.valid = valid);
        expect_refused(&tenants, &issuer.leaf(".", LIST), reason);
    }
    let never = a.leaf_by(".", LIST, |draft| draft.valid = [now() + DAY, now() - DAY]);
    expect_alert(&tenants, &never, "CertificateUnknown");
    // A leaf may be meant for longer than its issuer: each is looked at by itself, now.
    let outlives = a.leaf_by(".", LIST, |draft| draft.valid[1] = now() + 300 * DAY);
    expect_good(&tenants, &outlives);
    tenants.end();
}

#[test]
fn a_ca_of_the_same_name_is_another_one() {
    let Some((tenants, a)) = begin("a_ca_of_the_same_name_is_another_one") else { return };
    let twin = Issuer::root("Fulmar");
    assert_eq!(twin.subject, tenants.ca.subject);
    let leaf = twin.delegate("a", policy(2, 64)).leaf(".", LIST);
    assert!(matches!(tenants.try_ask(&leaf), Err(Broken::Alert(_))), "{}", tenants.log());
    // With its certificate sent along, and with the true one.
    for more in [&twin.der, &tenants.ca.der] {
        let mut leaf = leaf.clone();
        leaf.chain.push(more.clone());
        assert!(matches!(tenants.try_ask(&leaf), Err(Broken::Alert(_))));
    }
    // A delegation of the same name, whose issuer it did not have.
    let mut below = twin.delegate("a", policy(2, 64)).leaf(".", LIST);
    below.chain[1] = a.der;
    assert!(matches!(tenants.try_ask(&below), Err(Broken::Alert(_))));
    // The true one may be sent, or not.
    let mut good = tenants.ca.leaf(".", LIST);
    expect_good(&tenants, &good);
    good.chain.push(tenants.ca.der.clone());
    expect_good(&tenants, &good);
    tenants.end();
}

#[test]
fn a_chain_is_nobodys_without_the_key_of_its_leaf() {
    let Some((tenants, a)) = begin("a_chain_is_nobodys_without_the_key_of_its_leaf") else { return };
    assert_eq!(tenants.create(&a, "one", 16), Answer::Done("created unikernel".into()));
    let mut stolen = a.leaf("one", DESTROY);
    stolen.key = Key::generate();
    assert!(matches!(tenants.try_ask(&stolen), Err(Broken::Alert(_) | Broken::Cut)), "{}", tenants.log());
    assert_eq!(tenants.siege.names(), ["a:one"]);
    let own = a.leaf("one", DESTROY);
    assert_eq!(tenants.ask(&own), Answer::Done("destroyed unikernel".into()));
    tenants.end();
}

#[test]
fn a_bit_that_was_changed_is_noticed() {
    let Some((tenants, a)) = begin("a_bit_that_was_changed_is_noticed") else { return };
    let good = a.leaf(".", LIST);
    for place in [0, 1] {
        let length = good.chain[place].len();
        for at in (8..length).step_by(41) {
            let mut changed = good.clone();
            changed.chain[place][at] ^= 0x10;
            match tenants.try_ask(&changed) {
                Err(Broken::Alert(_) | Broken::Cut) => {}
                other => panic!("byte {at} of certificate {place}: {other:?}"),
            }
        }
    }
    expect_good(&tenants, &good);
    tenants.end();
}

#[test]
fn a_revoked_certificate_that_is_replayed_is_refused() {
    let Some((tenants, a)) = begin("a_revoked_certificate_that_is_replayed_is_refused") else { return };
    let (leaf, below) = (a.leaf(".", LIST), a.issuer_by("below", |_| {}));
    let of_below = below.leaf(".", LIST);
    expect_good(&tenants, &leaf);
    expect_good(&tenants, &of_below);
    let list = a.list(1, &[&leaf.serial, &below.serial]);
    assert_eq!(tenants.say(&a.leaf(".", REVOKE), &list), Answer::Done("revoked".into()));
    for identity in [&leaf, &of_below, &below.leaf(".", LIST), &below.issuer_by("deeper", |_| {}).leaf(".", LIST)] {
        expect_refused(&tenants, identity, "is revoked, number ");
    }
    // The number is that of this issuer alone.
    let other = tenants.ca.delegate("b", policy(2, 64));
    expect_good(&tenants, &other.leaf_by(".", LIST, |draft| draft.serial.clone_from(&leaf.serial)));
    expect_good(&tenants, &a.leaf(".", LIST));
    // Nor does the revoked one become another by how its number is written.
    let longer = a.leaf_by(".", LIST, |draft| draft.serial = [&[0], &leaf.serial[..]].concat());
    match tenants.try_ask(&longer) {
        Err(Broken::Alert(_)) | Ok(Answer::Refused(_)) => {}
        other => panic!("{other:?}"),
    }
    tenants.end();
}

#[test]
fn a_policy_larger_than_the_one_above_is_refused_with_all_of_its_chain() {
    let Some((tenants, a)) = begin("a_policy_larger_than_the_one_above_is_refused_with_all_of_its_chain") else {
        return;
    };
    expect_good(&tenants, &a.delegate("same", policy(2, 64)).leaf(".", LIST));
    for (what, larger, reason) in [
        ("unikernels", policy(3, 64), "allows 2 unikernels, which is fewer than 3"),
        ("memory", policy(2, 65), "allows 64 MB memory, which is fewer than 65 MB"),
        ("CPUs", Policy { cpuids: List::Items(&[0, 1]), ..policy(2, 64) }, "does not allow CPUid 1"),
        ("storage", Policy { block: Some(9), ..policy(2, 64) }, "allows 8 MB block storage, which is fewer than 9 MB"),
        ("bridges", Policy { bridges: List::Items(&["br0"]), ..policy(2, 64) }, "does not allow bridge br0"),
    ] {
        expect_refused(&tenants, &a.delegate(what, larger).leaf(".", LIST), reason);
    }
    // Not even what is above them is set, and what would be within it is not either.
    let new = tenants.ca.delegate("new", policy(2, 64));
    expect_refused(&tenants, &new.delegate("more", policy(3, 64)).leaf(".", LIST), "fewer than 3");
    let policies = tenants.siege.client(&["policy"]).out;
    assert!(policies.contains("a:same") && !policies.contains("new"), "{policies}");
    // What the host does not have is nobody's to allow.
    let all = tenants.ca.delegate("all", policy(2, 1 << 40));
    expect_refused(&tenants, &all.leaf(".", LIST), "policy above allows");
    tenants.end();
}

#[test]
fn negative_and_huge_numbers_are_refused() {
    let Some((tenants, a)) = begin("negative_and_huge_numbers_are_refused") else { return };
    const HUGE: i64 = (1 << 62) - 1;
    for (what, odd) in [
        ("few", policy(-1, 16)),
        ("little", policy(1, -1)),
        ("least", policy(-HUGE, -HUGE)),
        ("many", policy(HUGE, 16)),
        ("much", policy(1, HUGE)),
        ("nothing", Policy { block: Some(-1), ..policy(1, 16) }),
        ("store", Policy { block: Some(HUGE), ..policy(1, 16) }),
        ("cpu", Policy { cpuids: List::Items(&[-1]), ..policy(1, 16) }),
        ("cpus", Policy { cpuids: List::Items(&[HUGE]), ..policy(1, 16) }),
    ] {
        for issuer in [&tenants.ca, &a] {
            let answer = tenants.ask(&issuer.delegate(what, odd).leaf(".", LIST));
            assert!(matches!(answer, Answer::Refused(_)), "{what}: {answer:?}");
        }
    }
    let get = |level| a.leaf("one", Command::Unikernel(UnikernelCommand::Get { level }));
    for level in [-1, HUGE, -HUGE] {
        assert!(matches!(tenants.ask(&get(level)), Answer::Refused(_)));
    }
    for memory in [0, -1, HUGE, -HUGE, 1 << 32, 65] {
        let answer = tenants.create(&a, "one", memory);
        assert!(matches!(answer, Answer::Refused(_)), "{memory}: {answer:?}");
    }
    // A number that is none of the wire: of nine bytes, and in more bytes than it needs.
    for number in [&[0x02, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0][..], &[0x02, 2, 0, 1], &[0x02, 0]] {
        let limits = element(0x30, &[&[0x30, 3, 2, 1, 0], number, &[2, 1, 16], &[0x30, 0]]);
        let command = element(0xa4, &[&element(0xa1, &[&limits])]);
        let octets = element(0x30, &[&[0x02, 1, 5], &command]);
        let below = a.issuer_by("below", |draft| draft.extensions.push(carries_octets(&octets)));
        expect_refused(&tenants, &below.leaf(".", LIST), "its command cannot be read");
    }
    // The same with a number that is one.
    let limits = element(0x30, &[&[0x30, 3, 2, 1, 0], &[2, 1, 1], &[2, 1, 16], &[0x30, 0]]);
    let octets = element(0x30, &[&[0x02, 1, 5], &element(0xa4, &[&element(0xa1, &[&limits])])]);
    let below = a.issuer_by("below", |draft| draft.extensions.push(carries_octets(&octets)));
    expect_good(&tenants, &below.leaf(".", LIST));
    tenants.end();
}

#[test]
fn an_extension_that_is_there_twice_refuses_the_chain() {
    let Some((tenants, a)) = begin("an_extension_that_is_there_twice_refuses_the_chain") else { return };
    let refused = |what: &str, identity: &Identity| match tenants.try_ask(identity) {
        Err(Broken::Alert(_)) | Ok(Answer::Refused(_)) => {}
        other => panic!("{what}: {other:?}"),
    };
    expect_refused(&tenants, &a.leaf_by(".", LIST, |it| it.extensions.push(carries(&LIST))), "an extension twice");
    expect_refused(&tenants, &a.leaf_by(".", LIST, |it| it.extensions.push(carries(&DESTROY))), "an extension twice");
    let small = carries(&Command::Policy(PolicyCommand::Add(policy(1, 16))));
    let below = a.issuer_by("below", |draft| draft.extensions.extend([small.clone(), small]));
    expect_refused(&tenants, &below.leaf(".", LIST), "an extension twice");
    let twice = |at: usize| move |draft: &mut Draft| draft.extensions.push(draft.extensions[at].clone());
    for at in 0..3 {
        refused("of a leaf", &a.leaf_by(".", LIST, twice(at)));
    }
    for at in 0..2 {
        refused("of an issuer", &a.issuer_by("below", twice(at)).leaf(".", LIST));
    }
    // One that says yes and one that says no.
    let both = a.issuer_by("below", |draft| draft.extensions.insert(0, basic_constraints(false)));
    refused("yes and no", &both.leaf(".", LIST));
    let unknown =
        |critical| a.leaf_by(".", LIST, |draft| draft.extensions.push(extension(&[0x2a, 3], critical, &[5, 0])));
    expect_good(&tenants, &unknown(false));
    refused("unknown and critical", &unknown(true));
    tenants.end();
}

#[test]
fn what_is_not_der_is_refused() {
    let Some((tenants, a)) = begin("what_is_not_der_is_refused") else { return };
    let refused = |what: &str, identity: &Identity| match tenants.try_ask(identity) {
        Err(Broken::Alert(_)) | Ok(Answer::Refused(_)) => {}
        other => panic!("{what}: {other:?}"),
    };
    // Each is signed as it is: only its form is wrong.
    let leaf_with = |change: &dyn Fn(&mut Draft)| a.leaf_by(".", LIST, change);
    refused("a long length of the subject", &leaf_with(&|it| it.subject = with_long_length(&it.subject)));
    refused("a long length of the issuer", &leaf_with(&|it| it.issuer = with_long_length(&it.issuer)));
    refused("a long length of the key", &leaf_with(&|it| it.key = with_long_length(&it.key)));
    refused("a long length of an extension", &leaf_with(&|it| it.extensions[3] = with_long_length(&it.extensions[3])));
    refused("a serial number with a zero before it", &leaf_with(&|it| it.serial.insert(0, 0)));
    refused("a serial number of no bytes", &leaf_with(&|it| it.serial.clear()));
    let yes = extension(&[0x55, 0x1d, 0x13], true, &element(0x30, &[&[0x01, 0x01, 0x01]]));
    let below = a.issuer_by("below", |draft| draft.extensions[0] = yes.clone());
    refused("a truth that is neither 00 nor ff", &below.leaf(".", LIST));
    let no = extension(&[0x55, 0x1d, 0x13], true, &element(0x30, &[&[0x01, 0x01, 0x00]]));
    let _ = tenants.try_ask(&leaf_with(&|it| it.extensions[0] = no.clone()));
    // The whole certificate, and what stands behind it.
    let mut whole = a.leaf(".", LIST);
    whole.chain[0] = with_long_length(&whole.chain[0]);
    refused("a long length of all", &whole);
    let mut tail = a.leaf(".", LIST);
    tail.chain[0].extend([5, 0]);
    refused("something behind the certificate", &tail);
    let mut empty = a.leaf(".", LIST);
    empty.chain[0] = vec![0x30, 0];
    refused("nothing", &empty);
    // Our own extension's value.
    let good = [0x30, 9, 2, 1, 5, 0xa3, 4, 0xb3, 2, 5, 0];
    let with_value = |value: &[u8]| a.leaf_by(".", LIST, |draft| draft.extensions[3] = carries_octets(value));
    expect_good(&tenants, &with_value(&good));
    for (what, value) in [
        ("a long length", with_long_length(&good)),
        ("something behind it", [&good[..], &[0]].concat()),
        ("an endless length", [&[0x30, 0x80], &good[2..], &[0, 0]].concat()),
        ("a null with content", vec![0x30, 10, 2, 1, 5, 0xa3, 5, 0xb3, 3, 5, 1, 0]),
        ("a long version", vec![0x30, 10, 2, 2, 0, 5, 0xa3, 4, 0xb3, 2, 5, 0]),
        ("nothing", vec![]),
    ] {
        let answer = tenants.ask(&with_value(&value));
        assert!(answer.reason().contains("its command cannot be read"), "{what}: {answer:?}");
    }
    tenants.end();
}
