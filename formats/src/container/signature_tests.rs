//! Signed containers: what a trusted key opens, and everything that it refuses.

use super::tests::{Aligned, check, container};
use super::write::signed;
use super::*;
use crate::layouts::Layout;
use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};
use std::string::ToString;
use std::vec::Vec;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn trusted(key: &SigningKey) -> TrustedKey {
    TrustedKey::new(key.verifying_key().as_bytes()).expect("no weak key")
}

fn sign(file: &[u8], key: &SigningKey, release: u64) -> Vec<u8> {
    let file = Aligned::new(file);
    signed(file.bytes(), key.verifying_key().to_bytes(), release, |message| key.sign(message).to_bytes())
        .expect("a container")
}

/// Opens and checks, with the CRC-32 alone where that is allowed.
fn load(file: &[u8], key: &TrustedKey, least: u64) -> Result<u64, ContainerError> {
    let file = Aligned::new(file);
    let container = Container::open_trusted(file.bytes(), key, least)?;
    container.check(Integrity::Crc).map(|checked| checked.container().release())
}

fn plain() -> Vec<u8> {
    container(crate::spec::tests::spec(), Layout::Nr8k4)
}

#[test]
fn what_the_trusted_key_signed_is_opened_and_has_the_same_sections() {
    let (plain, key) = (plain(), key(1));
    let file = sign(&plain, &key, 7);
    assert_eq!(file.len(), plain.len() + SIGNATURE_BYTES);
    assert_eq!(load(&file, &trusted(&key), 7), Ok(7));
    // Without a key it is a container like any other, and says whose it is.
    assert_eq!(check(&file), Ok(()));
    let (plain, file) = (Aligned::new(&plain), Aligned::new(&file));
    let (plain, container) =
        (Container::open(plain.bytes()).unwrap(), Container::open(file.bytes()).unwrap());
    assert_eq!(container.signer(), Some(key.verifying_key().to_bytes()));
    assert_eq!((plain.signer(), plain.release()), (None, 0));
    for (name, _) in plain.entries() {
        assert_eq!(plain.section(name).unwrap().1, container.section(name).unwrap().1, "{name}");
    }
}

#[test]
fn signing_again_replaces_the_signature() {
    let twice = sign(&sign(&plain(), &key(1), 7), &key(2), 9);
    assert_eq!(twice, sign(&plain(), &key(2), 9));
    assert_eq!(load(&twice, &trusted(&key(2)), 0), Ok(9));
}

#[test]
fn strangers_are_named() {
    let (plain, ours) = (plain(), key(1));
    let refused = |file: &[u8], least| load(file, &trusted(&ours), least).unwrap_err().to_string();
    assert_eq!(refused(&plain, 0), "expected a signature, found none");
    let other = refused(&sign(&plain, &key(2), 7), 0);
    assert!(other.starts_with("expected the signature of key 8a88e3dd7409f195"), "{other}");
    let older = refused(&sign(&plain, &ours, 7), 8);
    assert_eq!(older, "expected release 8 or a later one, found 7: refused as a downgrade");
}

#[test]
fn a_signature_cannot_be_moved_or_stripped() {
    let ours = key(1);
    let file = sign(&plain(), &ours, 7);
    let head = Head::read(&file).unwrap();
    let block = head.front_bytes().next_multiple_of(64);
    let wrong = Err(ContainerError::Signature(SignatureError::Wrong));

    // Another release under the same signature.
    let mut newer = file.clone();
    newer[..HEAD_BYTES].copy_from_slice(bytemuck::bytes_of(&Head { release: 8, ..head }.sealed()));
    assert_eq!(check(&newer), Ok(()), "every checksum is repaired");
    assert_eq!(load(&newer, &trusted(&ours), 0), wrong);

    // The signature of another file: a section's byte and all checksums over it are exchanged.
    let mut swapped = file.clone();
    let last = swapped.len() - 4;
    swapped[last] ^= 1;
    let table = head.table_offset as usize..head.front_bytes();
    let entry_at = table.end - SECTION_ENTRY_BYTES;
    let mut entry: SectionEntry = bytemuck::pod_read_unaligned(&swapped[entry_at..table.end]);
    entry.crc32 = crc32(&swapped[entry.offset_bytes as usize..]);
    swapped[entry_at..table.end].copy_from_slice(bytemuck::bytes_of(&entry));
    let repaired = Head { table_crc32: crc32(&swapped[HEAD_BYTES..table.end]), ..head }.sealed();
    swapped[..HEAD_BYTES].copy_from_slice(bytemuck::bytes_of(&repaired));
    assert_eq!(load(&swapped, &trusted(&ours), 0), wrong);

    // A section whose CRC-32 is right and whose SHA-256 is not: found although only the CRC-32 was asked for.
    let mut forged = file.clone();
    let (name, at, length) = {
        let aligned = Aligned::new(&file);
        let container = Container::open(aligned.bytes()).unwrap();
        let (name, entry) = container.entries().last().unwrap();
        (name, entry.offset_bytes as usize, entry.length_bytes as usize)
    };
    forge_with_the_same_crc32(&mut forged[at..at + length]);
    assert_ne!(forged, file);
    let digest = ContainerError::Digest {
        section: name,
        offset: at as u64,
        expected: Sha256::digest(&file[at..at + length]).into(),
        found: Sha256::digest(&forged[at..at + length]).into(),
    };
    assert_eq!(load(&forged, &trusted(&ours), 0), Err(digest));

    // Its own key and signature over the file, as anyone can make.
    let stranger = sign(&file, &key(3), 9);
    assert!(load(&stranger, &trusted(&ours), 0).is_err());
    // The trusted key's name over a stranger's signature.
    let mut named = stranger;
    named[block..block + 32].copy_from_slice(ours.verifying_key().as_bytes());
    let crc = crc32(&named[block..block + SIGNATURE_BYTES - 4]).to_le_bytes();
    named[block + SIGNATURE_BYTES - 4..block + SIGNATURE_BYTES].copy_from_slice(&crc);
    assert_eq!(load(&named, &trusted(&ours), 0), wrong);
    // Stripped: the file as it was before.
    assert_eq!(load(&plain(), &trusted(&ours), 0), Err(ContainerError::Signature(SignatureError::Missing)));
}

/// Changes bytes so that the CRC-32 stays: CRC-32 is linear, so a multiple of its polynomial may be added anywhere.
fn forge_with_the_same_crc32(bytes: &mut [u8]) {
    // The polynomial of degree 32, reflected: 33 bits, the first one first.
    let polynomial = 0x1_db71_0641_u64;
    for bit in 0..33 {
        if polynomial >> bit & 1 == 1 {
            bytes[1 + bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_of_a_signed_file_is_refused() {
    let key = key(1);
    let file = sign(&plain(), &key, 7);
    let trusted = trusted(&key);
    for length in 0..file.len() {
        assert!(load(&file[..length], &trusted, 0).is_err(), "truncated to {length}");
    }
    for at in 0..file.len() {
        let mut hostile = file.clone();
        hostile[at] ^= 1 << (at % 8);
        assert!(load(&hostile, &trusted, 0).is_err(), "bit {} of byte {at}", at % 8);
        assert!(check(&hostile).is_err(), "bit {} of byte {at}, without a key", at % 8);
    }
}

#[test]
fn weak_keys_are_no_keys() {
    // Points of order 1, 2, 4 and 8 by their y coordinates, and what isn't on the curve.
    let mut one = [0; 32];
    one[0] = 1;
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    let mut off_curve = [0; 32];
    off_curve[0] = 2;
    let eighth =
        |hex: &str| core::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap());
    let order_8 = [
        eighth("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        eighth("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    ];
    for weak in [[0; 32], one, minus_one, off_curve, order_8[0], order_8[1]] {
        assert_eq!(TrustedKey::new(&weak), Err(BadKey), "{weak:02x?}");
    }
}
