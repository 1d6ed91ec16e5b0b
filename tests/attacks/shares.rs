//! What the host has only so much of, and clients from afar share: a tenant who takes all that it can get leaves enough for others.

use fulmar_core::limits::{IMAGE_BYTES_MAX, TLS_TRANSFERS_PER_DOMAIN_MAX};
use fulmar_core::wire::{BlockCommand, Command, Policy};
use fulmar_tests::contents::{DUMP, MB, SET, chunks};
use fulmar_tests::pki::Issuer;
use fulmar_tests::raw::Answer;
use fulmar_tests::remote::Remote;
use fulmar_tests::system::wait_until;
use fulmar_tests::tenants::{Tenants, create, policy};

/// Block devices that somebody tries to set at once: more than the host sets.
const MANY: usize = 9;

fn done(text: &str) -> Answer {
    Answer::Done(text.into())
}

fn add(tenants: &Tenants, issuer: &Issuer, label: &str) {
    let add = Command::Block(BlockCommand::Add { size: 1 });
    assert_eq!(tenants.ask(&issuer.leaf(label, add)), done("added block device"));
}

#[test]
fn who_sets_block_devices_slowly_leaves_room_for_others_to_set_theirs() {
    let test = "who_sets_block_devices_slowly_leaves_room_for_others_to_set_theirs";
    let Some(tenants) = Tenants::begin(test) else { return };
    let a = tenants.ca.delegate("a", Policy { block: Some(64), ..policy(1, 16) });
    let other = tenants.ca.delegate("other", policy(1, 16));
    add(&tenants, &other, "disk");
    assert_eq!(tenants.say(&other.leaf("disk", SET), b"alone"), done("set block device"));
    let mut slow: Vec<Remote> = (0..MANY)
        .map(|number| {
            let label = format!("disk{number}");
            add(&tenants, &a, &label);
            let mut remote = tenants.connect(&a.leaf(&label, SET));
            assert!(remote.send(&chunks(&[7; 1000], 1000)[..500]));
            remote
        })
        .collect();
    // All but its share are refused, and those that are left still wait.
    let (kept, refused) = slow.split_at_mut(TLS_TRANSFERS_PER_DOMAIN_MAX);
    for remote in refused {
        let answer = remote.receive().unwrap();
        assert!(answer.reason().contains("of this domain"), "{answer:?}");
    }
    assert_eq!(tenants.say(&other.leaf("disk", SET), b"beside them"), done("set block device"));
    let mut dump = tenants.connect(&other.leaf("disk", DUMP));
    assert!(matches!(dump.receive(), Ok(Answer::Other(words)) if words.contains("BlockImage")));
    drop(dump);
    for remote in kept {
        assert!(remote.send(&chunks(&[7; 1000], 1000)[500..]));
        assert_eq!(remote.receive(), Ok(done("set block device")));
    }
    assert_eq!(tenants.say(&a.leaf("disk0", SET), b"again"), done("set block device"));
    tenants.end();
}

#[test]
fn who_sends_many_large_images_leaves_room_for_those_of_others() {
    let Some(tenants) = Tenants::begin("who_sends_many_large_images_leaves_room_for_those_of_others") else { return };
    let (a, other) = (tenants.ca.delegate("a", policy(4, 64)), tenants.ca.delegate("other", policy(2, 64)));
    assert_eq!(tenants.create(&other, "one", 16), done("created unikernel"));
    let piece = chunks(&vec![7; MB], MB);
    let piece = &piece[..piece.len() - 4];
    // Each stops before it would be too large, and sends no end.
    let mut slow: Vec<Remote> = Vec::new();
    let refused = (0..5).find_map(|number| {
        let mut remote = tenants.connect(&a.leaf(&format!("u{number}"), create(16)));
        let sent = (0..IMAGE_BYTES_MAX / MB as u64 - 1).all(|_| !remote.has_come() && remote.send(piece));
        if sent {
            slow.push(remote);
            return None;
        }
        Some(remote.receive().unwrap())
    });
    let refused = refused.expect("it has got everything");
    assert!(refused.reason().contains("images of this user or domain are arriving at once"), "{refused:?}");
    assert_eq!(tenants.create(&other, "two", 16), done("created unikernel"));
    drop(slow);
    assert!(wait_until(|| tenants.create(&a, "one", 16) == done("created unikernel")));
    tenants.end();
}
