//! Images in and out, and everything that can be wrong with them or with the disk below them.

use std::io::Write;

use flate2::write::ZlibEncoder;
use fulmar_core::limits::DISK_RESERVE_BYTES;

use super::*;
use crate::disk::simulated::{Fault, SimulatedFolder};

const IMAGE_BYTES_MAX: u64 = 4 << 20;
const IMAGES_BYTES_MAX: u64 = 3 * IMAGE_BYTES_MAX;
const ROOM_BYTES: u64 = 2 * IMAGE_BYTES_MAX;

fn spool_of(spools: &Spools<SimulatedFolder>, bytes: &[u8]) -> Spool<SimulatedFolder> {
    let mut spool = spools.create(IMAGE_BYTES_MAX).unwrap();
    for chunk in bytes.chunks(1000) {
        spool.append(chunk).unwrap();
    }
    spool
}

/// Names of files that hold something.
fn held(folder: &SimulatedFolder) -> usize {
    let holds = |name: &&std::string::String| folder.open(name).unwrap().bytes().unwrap() > 0;
    folder.names().unwrap().iter().filter(holds).count()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Something like an image: neither random nor flat, longer than the buffers.
fn image() -> Vec<u8> {
    (0..300_000_u32).flat_map(|word| (word / 7).wrapping_mul(word).to_le_bytes()).collect()
}

fn content(file: &impl Content) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

#[test]
fn an_image_is_found_by_the_digest_of_its_uncompressed_bytes() {
    let folder = SimulatedFolder::default();
    let spools = Spools::new(folder.clone(), ROOM_BYTES);
    let mut store = Store::new(spools.clone(), IMAGE_BYTES_MAX, IMAGES_BYTES_MAX);
    let placed = store.place(spool_of(&spools, &image()), false).unwrap();
    assert_eq!(placed.digest, <[u8; 32]>::from(Sha256::digest(image())));
    assert!(!placed.was_there && placed.bytes == image().len() as u64);
    let again = store.place(spool_of(&spools, &zlib(&image())), true).unwrap();
    assert!(again.was_there && again.digest == placed.digest);
    assert_eq!(content(&store.open(&placed.digest).unwrap()), image());
    assert_eq!(held(&folder), 1, "no spool is left");
    for level in [1, 9] {
        let compressed = store.compress(&placed.digest, level).unwrap();
        assert!(compressed.bytes() < placed.bytes);
        assert!(store.place(compressed, true).unwrap().was_there);
    }
    store.remove(&placed.digest).unwrap();
    store.remove(&placed.digest).unwrap();
    assert!(matches!(store.open(&placed.digest), Err(StoreError::Missing)));
    assert_eq!(held(&folder), 0);
}

#[test]
fn a_stream_that_is_not_whole_is_refused() {
    let folder = SimulatedFolder::default();
    let spools = Spools::new(folder.clone(), ROOM_BYTES);
    let mut store = Store::new(spools.clone(), IMAGE_BYTES_MAX, IMAGES_BYTES_MAX);
    let whole = zlib(&image());
    let tail = [&whole[..], b"x"].concat();
    for (bytes, truncated) in [
        (&b"\x7fELF is no zlib"[..], false),
        (b"", true),
        (&whole[..whole.len() - 1], true),
        (&whole[..5000], true),
        (&tail, true),
    ] {
        let error = store.place(spool_of(&spools, bytes), true).unwrap_err();
        assert_eq!(matches!(error, StoreError::Truncated), truncated, "{error}");
        assert_eq!(matches!(error, StoreError::NotCompressed), !truncated, "{error}");
    }
    // And it still works.
    store.place(spool_of(&spools, &whole), true).unwrap();
    assert_eq!(held(&folder), 1);
}

#[test]
fn a_bomb_is_refused_by_size() {
    let folder = SimulatedFolder::default();
    let spools = Spools::new(folder.clone(), ROOM_BYTES);
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(1));
    let zeros = vec![0; 1 << 20];
    for _ in 0..=IMAGE_BYTES_MAX >> 20 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let error = Store::new(spools.clone(), IMAGE_BYTES_MAX, IMAGES_BYTES_MAX)
        .place(spool_of(&spools, &bomb), true)
        .unwrap_err();
    assert!(matches!(error, StoreError::Spool(SpoolError::TooLarge(IMAGE_BYTES_MAX))), "{error}");
    assert_eq!(held(&folder), 0);
}

#[test]
fn the_quota_is_for_all_spools_and_comes_back() {
    let spools = Spools::new(SimulatedFolder::default(), 100);
    let mut one = spools.create(80).unwrap();
    let mut other = spools.create(80).unwrap();
    one.append(&[0; 70]).unwrap();
    assert!(matches!(other.append(&[0; 31]), Err(SpoolError::Quota)));
    assert!(matches!(one.append(&[0; 11]), Err(SpoolError::TooLarge(80))));
    drop(one);
    other.append(&[0; 80]).unwrap();
}

#[test]
fn a_full_disk_says_so_and_leaves_nothing() {
    let folder = SimulatedFolder::default();
    let spools = Spools::new(folder.clone(), ROOM_BYTES);
    let mut spool = spools.create(1000).unwrap();
    folder.fault_at(folder.operations(), Fault::Full);
    let error = spool.append(&[1; 500]).unwrap_err();
    assert!(error.to_string().contains("full"), "{error}");
    drop(spool);
    assert_eq!(held(&folder), 0);
}

#[test]
fn the_sweep_keeps_what_is_wanted_and_what_is_not_ours() {
    let folder = SimulatedFolder::default();
    let spools = Spools::new(folder.clone(), ROOM_BYTES);
    let mut store = Store::new(spools.clone(), IMAGE_BYTES_MAX, IMAGES_BYTES_MAX);
    let wanted = store.place(spool_of(&spools, b"wanted"), false).unwrap().digest;
    let unwanted = store.place(spool_of(&spools, b"unwanted"), false).unwrap().digest;
    std::mem::forget(spool_of(&spools, b"of a dead daemon"));
    folder.create("README").unwrap();
    assert_eq!(store.sweep(|digest| *digest == wanted).unwrap(), 1);
    assert_eq!(Spools::new(folder.clone(), ROOM_BYTES).clear().unwrap(), 1);
    assert!(store.open(&wanted).is_ok() && store.open(&unwanted).is_err());
    assert_eq!(folder.names().unwrap().len(), 2);
}

/// What is settled survives the power; what is not, is whole, or damaged, or gone, and the sweep removes it.
#[test]
fn a_crash_at_every_operation() {
    let run = |folder: &SimulatedFolder| -> Result<(), StoreError> {
        let spools = Spools::new(folder.clone(), ROOM_BYTES);
        let mut store = Store::new(spools.clone(), IMAGE_BYTES_MAX, IMAGES_BYTES_MAX);
        let mut spool = spools.create(1000)?;
        spool.append(&zlib(b"an image"))?;
        let placed = store.place(spool, true)?;
        settle(folder, &placed.file)
    };
    let digest: Digest = Sha256::digest(b"an image").into();
    let count = {
        let folder = SimulatedFolder::default();
        run(&folder).unwrap();
        folder.operations()
    };
    for operation in 0..=count {
        for fault in [Fault::CrashBefore, Fault::CrashAfter] {
            for choices in 0..64_u32 {
                let folder = SimulatedFolder::default();
                folder.fault_at(operation, fault);
                let settled = run(&folder).is_ok();
                let mut at = 0;
                folder.crash(|| {
                    at += 1;
                    choices >> (at % 6) & 1 == 1
                });
                let store = Store::new(Spools::new(folder.clone(), ROOM_BYTES), IMAGE_BYTES_MAX, IMAGES_BYTES_MAX);
                if settled {
                    let kept = content(&store.open(&digest).unwrap());
                    assert_eq!(<[u8; 32]>::from(Sha256::digest(kept)), digest);
                }
                store.sweep(|_| false).unwrap();
                Spools::new(folder.clone(), ROOM_BYTES).clear().unwrap();
                assert!(folder.names().unwrap().is_empty());
            }
        }
    }
}

#[test]
fn no_more_is_kept_than_may_be_and_each_image_counts_once() {
    let folder = SimulatedFolder::default();
    let spools = Spools::new(folder, ROOM_BYTES);
    let bytes = image().len() as u64;
    let mut store = Store::new(spools.clone(), IMAGE_BYTES_MAX, 2 * bytes + 100);
    let other = |number: u8| [image(), vec![number]].concat();
    let first = store.place(spool_of(&spools, &image()), false).unwrap();
    store.place(spool_of(&spools, &other(1)), false).unwrap();
    assert_eq!(spools.kept_bytes(), 2 * bytes + 1);
    assert!(store.place(spool_of(&spools, &image()), false).unwrap().was_there);
    assert_eq!(spools.kept_bytes(), 2 * bytes + 1);
    let full = store.place(spool_of(&spools, &other(2)), false).unwrap_err();
    assert!(full.to_string().contains("full") && full.to_string().contains("destroy"), "{full}");
    assert_eq!(spools.bytes(), 0, "what was not kept is no spool any more either");
    store.remove(&first.digest).unwrap();
    store.remove(&first.digest).unwrap();
    assert_eq!(spools.kept_bytes(), bytes + 1);
    store.place(spool_of(&spools, &other(2)), false).unwrap();
    // A new start counts what there is.
    let spools = Spools::new(spools.folder().clone(), ROOM_BYTES);
    let store = Store::new(spools.clone(), IMAGE_BYTES_MAX, IMAGES_BYTES_MAX);
    assert_eq!(store.sweep(|digest| *digest != first.digest).unwrap(), 0);
    assert_eq!(spools.kept_bytes(), 2 * bytes + 2);
}

#[test]
fn some_of_the_disk_is_left_to_the_journal() {
    let folder = SimulatedFolder::default();
    let spools = Spools::new(folder.clone(), ROOM_BYTES);
    folder.leave(DISK_RESERVE_BYTES + 1500);
    let mut spool = spools.create(IMAGE_BYTES_MAX).unwrap();
    spool.append(&[7; 1000]).unwrap();
    let full = spool.append(&[7; 1000]).unwrap_err();
    assert!(matches!(full, SpoolError::Reserve) && full.to_string().contains("full"), "{full}");
    drop(spool);
    assert_eq!(spools.bytes(), 0);
    let mut spool = spools.create(IMAGE_BYTES_MAX).unwrap();
    spool.append(&[7; 1000]).unwrap();
}
