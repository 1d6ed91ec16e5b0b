//! Manifests, orders and plans at random: a plan that was carried out leaves nothing to do, however far it came, and no text ends the
//! program.

use std::collections::BTreeSet;

use fulmar_core::limits::ARGUMENTS_BYTES_MAX;
use fulmar_core::machine::Digest;
use fulmar_core::name::Name;
use fulmar_core::wire::{self, Info, InfoBlock, InfoBridge, Kind, List, Text};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::super::manifest::{BlockWish, Manifest, PolicyWish, Source, UnikernelWish};
use super::super::order;
use super::super::plan::{Action, Plan, make};
use super::super::present::{Present, Unikernel};
use super::super::section::Faults;
use super::super::settings::{Block, Network, Policy, Restart, Settings};
use super::{SHOP, name};

const LABELS: [&str; 6] = ["a", "b", "c", "d", "x:a", "x:b"];

fn label() -> impl Strategy<Value = Name> {
    prop::sample::select(&LABELS[..]).prop_map(name)
}

fn policy() -> impl Strategy<Value = Policy> {
    let bridges = btree_set(prop::sample::select(vec!["br0".to_owned(), "br1".to_owned()]), 0..3);
    (1..4_i64, 1..4_i64, btree_set(0..3_i64, 1..3), prop::option::of(1..4_i64), bridges).prop_map(
        |(unikernels, memory_mb, cpus, block_mb, bridges)| Policy { unikernels, memory_mb, cpus, block_mb, bridges },
    )
}

fn settings() -> impl Strategy<Value = Settings> {
    let restart =
        prop_oneof![Just(Restart::Never), Just(Restart::OnFailure), btree_set(0..3_i64, 1..3).prop_map(Restart::On)];
    let network = (0..2_u8).prop_map(|last| Network { bridge: format!("br{last}"), mac: [2, 0, 0, 0, 0, last] });
    let block = (0..2_u8).prop_map(|disk| Block { host: format!("disk{disk}"), sector_bytes: 512 });
    let devices = (btree_map("[a-b]", network, 0..3), btree_map("[a-b]", block, 0..3));
    (1..4_i64, btree_set(0..3_i64, 1..3), restart, 0..3_i64, devices, vec("[a-b]", 0..3)).prop_map(
        |(memory_mb, cpus, restart, startup, (networks, blocks), arguments)| Settings {
            memory_mb,
            cpus,
            restart,
            startup,
            networks,
            blocks,
            arguments,
        },
    )
}

fn digest() -> impl Strategy<Value = Digest> {
    (0..3_u8).prop_map(|byte| [byte; 32])
}

fn there() -> impl Strategy<Value = Present> {
    let unikernel = (prop::option::of(digest()), settings());
    let unikernel = unikernel.prop_map(|(digest, settings)| Unikernel { digest, settings });
    let path = prop::sample::select(&["x:", "y:"][..]).prop_map(name);
    (btree_map(path, policy(), 0..3), btree_map(label(), 1..3_i64, 0..4), btree_map(label(), unikernel, 0..5))
        .prop_map(|(policies, blocks, unikernels)| Present { policies, blocks, unikernels, bridges: None })
}

/// What is wanted, as if it had been read, with the digests of its images.
fn wanted() -> impl Strategy<Value = (Manifest, Vec<Digest>)> {
    there().prop_map(|there| {
        let policies = there.policies.into_iter().map(|(path, policy)| PolicyWish { path, line: 1, policy });
        let blocks = there.blocks.into_iter().map(|(name, size_mb)| BlockWish { name, line: 1, size_mb });
        let (unikernels, digests) = there
            .unikernels
            .into_iter()
            .map(|(name, it)| {
                let digest = it.digest.unwrap_or_default();
                let (image, settings) = (Source::Digest(digest), it.settings);
                let (after, links) = (Vec::new(), Vec::new());
                (UnikernelWish { name, line: 1, image, image_line: 1, settings, after, links }, digest)
            })
            .unzip();
        let (policies, blocks) = (policies.collect(), blocks.collect());
        (Manifest { path: Name::ROOT, path_is_given: true, policies, blocks, unikernels }, digests)
    })
}

/// What is there when so many changes of the plan are done.
fn applied(manifest: &Manifest, digests: &[Digest], mut present: Present, plan: &Plan, changes: usize) -> Present {
    for change in plan.changes.iter().take(changes) {
        match change.action {
            Action::Destroy => drop(present.unikernels.remove(&change.name).unwrap()),
            Action::SetPolicy(index) => {
                present.policies.insert(change.name, manifest.policies[index].policy.clone());
            }
            Action::AddBlock(index) => {
                assert_eq!(present.blocks.insert(change.name, manifest.blocks[index].size_mb), None);
            }
            Action::Create(index) | Action::Replace(index) => {
                let settings = manifest.unikernels[index].settings.clone();
                let made = Unikernel { digest: Some(digests[index]), settings };
                let before = present.unikernels.insert(change.name, made.clone());
                assert_eq!(before.is_some(), matches!(change.action, Action::Replace(_)));
                assert_ne!(before, Some(made), "what is as wanted is left alone");
            }
        }
    }
    present
}

proptest! {
    #[test]
    fn a_plan_that_was_carried_out_leaves_nothing_to_do((manifest, digests) in wanted(), there in there(), prune: bool) {
        let plan = make(&manifest, &digests, &there, prune);
        let others = plan.others.clone();
        let after = applied(&manifest, &digests, there, &plan, usize::MAX);
        let again = make(&manifest, &digests, &after, prune);
        prop_assert_eq!(&again.changes, &[]);
        prop_assert_eq!(again.others, others);
        prop_assert_eq!(
            again.unchanged, manifest.policies.len() + manifest.blocks.len() + manifest.unikernels.len()
        );
        if prune {
            prop_assert_eq!(after.unikernels.len(), manifest.unikernels.len());
        }
    }

    #[test]
    fn a_plan_that_was_cut_off_goes_on((manifest, digests) in wanted(), there in there(), cut in 0..8_usize) {
        let plan = make(&manifest, &digests, &there, false);
        let halfway = applied(&manifest, &digests, there, &plan, cut);
        let again = make(&manifest, &digests, &halfway, false);
        let rest: Vec<_> = plan.changes.iter().skip(cut).cloned().collect();
        prop_assert_eq!(again.changes, rest);
    }

    /// What is sent and what is then listed mean the same.
    #[test]
    fn settings_come_back_as_they_went(settings in settings()) {
        settings.with_arguments(|sent| {
            let mut buffer = vec![0; ARGUMENTS_BYTES_MAX];
            let sent = wire::Arguments::decode(sent.encode(&mut buffer).unwrap()).unwrap();
            let bridges: Vec<_> = sent.bridges.iter().map(|it| InfoBridge {
                device: Text::from(it.name), host: Text::from(it.host()), mac: it.mac.unwrap(),
            }).collect();
            let blocks: Vec<_> = sent.block_devices.iter().map(|it| InfoBlock {
                device: Text::from(it.name), host: Text::from(it.host()), sector_size: it.sector_size.unwrap(), size: 1,
            }).collect();
            let listed = Info {
                kind: Kind::Solo5,
                startup: sent.startup,
                fail_behaviour: sent.fail_behaviour,
                cpuids: sent.cpuids,
                memory: sent.memory,
                digest: &[],
                block_devices: List::Items(&blocks),
                bridges: List::Items(&bridges),
                argv: sent.argv,
                started: None,
                numcpus: sent.numcpus,
                linux_boot: None,
            };
            prop_assert_eq!(Settings::of(&listed), settings.clone());
            Ok(())
        })?;
    }

    #[test]
    fn who_waits_comes_behind(edges in vec((0..6_usize, 0..6_usize), 0..10), settings in settings()) {
        let wish = |index: usize| UnikernelWish {
            name: name(LABELS[index]),
            line: index,
            image: Source::File(String::new()),
            image_line: 1,
            settings: settings.clone(),
            after: edges.iter().filter(|edge| edge.0 == index).map(|edge| (1, name(LABELS[edge.1]))).collect(),
            links: Vec::new(),
        };
        let mut faults = Faults::new("");
        let sorted = order::sort((0..6).map(wish).collect(), &mut faults);
        prop_assert_eq!(sorted.len(), 6);
        if faults.list.is_empty() {
            for (place, unikernel) in sorted.iter().enumerate() {
                let earlier = |other: &Name| sorted[..place].iter().any(|it| it.name == *other);
                prop_assert!(unikernel.after.iter().all(|(_, other)| earlier(other)));
            }
        } else {
            // Then there is a circle: taking away whom nobody has to wait for, again and again, leaves some.
            let mut left: BTreeSet<usize> = (0..6).collect();
            while let Some(free) = left.iter().copied().find(|it| !edges.iter().any(|e| e.0 == *it && left.contains(&e.1))) {
                left.remove(&free);
            }
            prop_assert!(!left.is_empty());
        }
    }

    #[test]
    fn no_text_ends_the_program(text in "[ -~\n]{0,80}", cut in 0..900_usize, put in "[\\[\\]={}\"a.\n0-9]{0,4}") {
        let _ = Manifest::parse(&text);
        let at = cut.min(SHOP.len());
        let _ = Manifest::parse(&format!("{}{put}{}", &SHOP[..at], &SHOP[at..]));
    }
}
