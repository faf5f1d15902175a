//! The caller's memory, and how it is carved into slices.
//!
//! The runtime allocates nothing. What needs memory has a `bytes` function beside its `carve`; both count whole blocks of 64
//! bytes a slice, so the plan is exact: the planned bytes suffice, one block less is refused.

use crate::error::RuntimeError;
use bytemuck::{Pod, Zeroable};

/// The grain of memory: a cache line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct MemoryBlock(pub [u8; 64]);

/// Bytes of a [`MemoryBlock`].
pub const BLOCK_BYTES: u64 = 64;

/// Bytes that `elems` elements take, in whole blocks.
pub const fn slice_bytes<T>(elems: u64) -> u64 {
    elems.saturating_mul(core::mem::size_of::<T>() as u64).next_multiple_of(BLOCK_BYTES)
}

/// Memory not yet given out.
///
/// What is planned is refused before anything is carved, so slices are there. Should a plan be short of them, [`Arena::finish`] tells, once for
/// all: an error for each slice would be as much code again.
#[derive(Debug)]
pub struct Arena<'a> {
    rest: &'a mut [MemoryBlock],
    given_bytes: u64,
    /// Of the slices asked for.
    taken_bytes: u64,
}

impl<'a> Arena<'a> {
    /// All of `memory`, of which `needed_bytes` will be taken.
    ///
    /// # Errors
    /// [`RuntimeError::Memory`], where that is more than there is.
    pub fn new(memory: &'a mut [MemoryBlock], needed_bytes: u64) -> Result<Self, RuntimeError> {
        let given_bytes = memory.len() as u64 * BLOCK_BYTES;
        fits(needed_bytes, given_bytes)?;
        Ok(Arena { rest: memory, given_bytes, taken_bytes: 0 })
    }

    /// A slice of `elems` elements, with whatever values the memory holds; an empty one where the memory is used up, which
    /// [`Arena::finish`] tells.
    pub fn take<T: Pod>(&mut self, elems: usize) -> &'a mut [T] {
        const { assert!(align_of::<T>() <= 64) }
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(self.take_blocks(slice_bytes::<T>(elems as u64)));
        // Empty where there was no room: the length is then cut to what is there.
        let room: &mut [T] = bytemuck::cast_slice_mut(bytes);
        let elems = elems.min(room.len());
        &mut room[..elems]
    }

    #[inline(never)]
    fn take_blocks(&mut self, bytes: u64) -> &'a mut [MemoryBlock] {
        self.taken_bytes = self.taken_bytes.saturating_add(bytes);
        match core::mem::take(&mut self.rest).split_at_mut_checked((bytes / BLOCK_BYTES) as usize) {
            Some((taken, rest)) => {
                self.rest = rest;
                taken
            }
            None => Default::default(),
        }
    }

    /// Whether every slice was taken in full.
    ///
    /// # Errors
    /// [`RuntimeError::Memory`], where they were more than there is.
    pub fn finish(self) -> Result<(), RuntimeError> {
        fits(self.taken_bytes, self.given_bytes)
    }
}

fn fits(needed_bytes: u64, given_bytes: u64) -> Result<(), RuntimeError> {
    match needed_bytes <= given_bytes {
        true => Ok(()),
        false => Err(RuntimeError::Memory { needed_bytes, given_bytes }),
    }
}

/// Bytes in host memory that begin at a multiple of 64: where a container that isn't mapped from a file lies.
#[cfg(feature = "std")]
#[derive(Clone, Debug, Default)]
pub struct AlignedBytes {
    blocks: std::vec::Vec<MemoryBlock>,
    length: usize,
}

#[cfg(feature = "std")]
impl AlignedBytes {
    /// A copy of `bytes`.
    pub fn new(bytes: &[u8]) -> AlignedBytes {
        let mut blocks = std::vec![MemoryBlock::zeroed(); bytes.len().div_ceil(BLOCK_BYTES as usize)];
        bytemuck::cast_slice_mut::<_, u8>(&mut blocks)[..bytes.len()].copy_from_slice(bytes);
        AlignedBytes { blocks, length: bytes.len() }
    }
}

#[cfg(feature = "std")]
impl core::ops::Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.blocks)[..self.length]
    }
}
