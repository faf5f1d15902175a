//! The signature of a container: who made it, and which release it is.
//!
//! ```text
//! signed:   "rescomp container signature 1" and a zero byte, then SHA-256 of bytes 0 .. end of the section table
//! block:    public key, Ed25519 signature, CRC-32; 128 bytes at the first multiple of 64 after the section table
//! ```
//! The table has the SHA-256 of every section, so a signature over head, manifest and table is one over the file: what is between
//! sections is zero. The signature is verified when nothing but the head has been read, and each section's digest before the section is.
//! Ed25519: Bernstein et al., "High-speed high-security signatures", 2011; RFC 8032. Verified strictly (Chalkias et al., "Taming the
//! many EdDSAs", 2020): keys and signatures of small order are refused.

use super::Head;
use crate::error::ContainerError;
use bytemuck::{Pod, Zeroable};
use core::fmt;
use sha2::{Digest, Sha256};

/// Bytes of [`SignatureBlock`].
pub const SIGNATURE_BYTES: usize = core::mem::size_of::<SignatureBlock>();
/// Bytes of what is signed.
pub const SIGNED_MESSAGE_BYTES: usize = DOMAIN.len() + 32;
/// Keeps signatures of containers apart from those of anything else that the same key signs.
const DOMAIN: [u8; 30] = *b"rescomp container signature 1\0";

/// The signature as it lies in the file (docs/container.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SignatureBlock {
    /// The public key that verifies it.
    pub public_key: [u8; 32],
    /// Ed25519, of [`signed_message`].
    pub signature: [[u8; 32]; 2],
    /// Zero.
    pub reserved: [u8; 28],
    /// CRC-32 of the bytes before.
    pub crc32: u32,
}
const _: () = assert!(SIGNATURE_BYTES == 128);

/// Why a container is not the one that a trusted key signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SignatureError {
    /// It has no signature.
    Missing,
    /// Another key signed it, or so it says.
    OtherKey {
        /// The trusted key.
        expected: [u8; 32],
        /// The key that it names.
        found: [u8; 32],
    },
    /// The signature is not one of this key over this file.
    Wrong,
    /// It is older than what was seen before.
    Release {
        /// The least release that is accepted.
        least: u64,
        /// The file's.
        found: u64,
    },
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Missing => f.write_str("expected a signature, found none"),
            Self::OtherKey { expected, found } => {
                f.write_str("expected the signature of key ")?;
                expected.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str(", found that of ")?;
                found.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Wrong => {
                f.write_str("the signature does not verify: the file is not what the trusted key signed")
            }
            Self::Release { least, found } => {
                write!(f, "expected release {least} or a later one, found {found}: refused as a downgrade")
            }
        }
    }
}

/// What is signed of a file: `front` is its bytes from 0 to the end of the section table.
pub fn signed_message(front: &[u8]) -> [u8; SIGNED_MESSAGE_BYTES] {
    let mut message = [0; SIGNED_MESSAGE_BYTES];
    let (domain, digest) = message.split_at_mut(DOMAIN.len());
    domain.copy_from_slice(&DOMAIN);
    digest.copy_from_slice(&Sha256::digest(front));
    message
}

/// The block of a signed file; `None` of an unsigned one.
#[inline(never)]
pub(super) fn read(head: &Head, file: &[u8]) -> Result<Option<SignatureBlock>, ContainerError> {
    let (start, end) = (head.front_bytes().next_multiple_of(64), head.first_section_offset());
    if head.signature_bytes == 0 {
        return Ok(None);
    }
    let found = file.len() as u64;
    let bytes = file.get(start..end).ok_or(ContainerError::Length {
        what: "signature",
        expected: end as u64,
        found,
    })?;
    let block: SignatureBlock = bytemuck::pod_read_unaligned(bytes);
    let crc = super::crc32(&bytes[..SIGNATURE_BYTES - 4]);
    if crc != block.crc32 {
        let (offset, expected, found) = (start as u64, block.crc32, crc);
        return Err(ContainerError::Checksum { part: "signature", section: None, offset, expected, found });
    }
    if let Some(at) = block.reserved.iter().position(|&byte| byte != 0) {
        let offset = (start + 96 + at) as u64;
        return Err(ContainerError::Padding { offset, found: block.reserved[at] });
    }
    Ok(Some(block))
}

/// A public key whose containers are trusted.
#[cfg(feature = "signature")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedKey(ed25519_dalek::VerifyingKey);

/// Bytes that are no public key, or one that verifies what nobody signed.
#[cfg(feature = "signature")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadKey;

#[cfg(feature = "signature")]
impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected an Ed25519 public key: a point of the curve, and none of small order")
    }
}

#[cfg(feature = "signature")]
impl core::error::Error for BadKey {}

#[cfg(feature = "signature")]
impl TrustedKey {
    /// From the 32 bytes of a public key (RFC 8032, section 5.1.5).
    ///
    /// # Errors
    /// [`BadKey`] for bytes that are no point of the curve, and for weak keys, such as all zeros: their signatures anyone can make.
    pub fn new(bytes: &[u8; 32]) -> Result<TrustedKey, BadKey> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| BadKey)?;
        if key.is_weak() { Err(BadKey) } else { Ok(TrustedKey(key)) }
    }

    /// The key's 32 bytes.
    pub fn bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Verifies a file's signature, reading nothing but its head.
    pub(super) fn verify(&self, head: &Head, file: &[u8]) -> Result<(), ContainerError> {
        let Some(block) = read(head, file)? else {
            return Err(ContainerError::Signature(SignatureError::Missing));
        };
        if block.public_key != self.bytes() {
            let (expected, found) = (self.bytes(), block.public_key);
            return Err(ContainerError::Signature(SignatureError::OtherKey { expected, found }));
        }
        let signature = ed25519_dalek::Signature::from_bytes(bytemuck::cast_ref(&block.signature));
        // `read` found the block behind it.
        let front = &file[..head.front_bytes()];
        if self.0.verify_strict(&signed_message(front), &signature).is_err() {
            return Err(ContainerError::Signature(SignatureError::Wrong));
        }
        Ok(())
    }
}
