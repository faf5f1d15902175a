//! The file of one finished block.
//!
//! | offset | type | what |
//! |---|---|---|
//! | 0 | 8 bytes | `RESCBLK` and 0x1a |
//! | 8 | u32 | version: 1 |
//! | 12 | u32 | the block, counted from 0 |
//! | 16 | 32 bytes | the run's identity |
//! | 48 | u64 | bytes of the matrices |
//! | 56 | | the matrices: `Vec<QuantizedMatrix>` as a postcard message |
//! | end - 32 | 32 bytes | SHA-256 of all bytes before |
//!
//! Integers are little-endian; levels are one byte each, scales the eight bytes of their f64. The same program that wrote a file reads
//! it (the identity says so), so there is no older version to understand.

use crate::calibrate::QuantizedMatrix;
use crate::checkpoint::LayerWeights;
use crate::methods::{LowRank, Solution};
use rescomp_formats::section::SectionKind;
use rescomp_runtime::linear::LinearSet;
use sha2::{Digest, Sha256};

const MAGIC: [u8; 8] = *b"RESCBLK\x1a";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 56;
const DIGEST_BYTES: usize = 32;

/// The file of a block.
///
/// # Errors
/// Where the matrices hold something that postcard cannot spell.
pub(super) fn encode(
    layer: usize,
    identity: &[u8; 32],
    matrices: &[QuantizedMatrix],
) -> Result<Vec<u8>, postcard::Error> {
    let payload = postcard::to_allocvec(matrices)?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len() + DIGEST_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(layer as u32).to_le_bytes());
    bytes.extend_from_slice(identity);
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&payload);
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    Ok(bytes)
}

/// The matrices of block `layer` of the run `identity`, which stand for `weights`.
///
/// # Errors
/// What is wrong with the file, in words.
pub(super) fn decode(
    bytes: &[u8],
    layer: usize,
    identity: &[u8; 32],
    weights: &LayerWeights,
) -> Result<Vec<QuantizedMatrix>, String> {
    let least = HEAD_BYTES + DIGEST_BYTES;
    if bytes.len() < least {
        return Err(format!("expected at least {least} bytes, found {}", bytes.len()));
    }
    let (head, rest) = bytes.split_at(HEAD_BYTES);
    if head[..8] != MAGIC {
        return Err("not the file of a finished block".to_owned());
    }
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if number(8) != VERSION {
        return Err(format!("expected version {VERSION}, found {}", number(8)));
    }
    if number(12) as usize != layer {
        return Err(format!("expected block {layer}, found block {}", number(12)));
    }
    if head[16..48] != identity[..] {
        return Err("it is of another run".to_owned());
    }
    let (payload, digest) = rest.split_at(rest.len() - DIGEST_BYTES);
    let announced = u64::from(number(48)) | u64::from(number(52)) << 32;
    if announced != payload.len() as u64 {
        return Err(format!("expected matrices of {announced} bytes, found {}", payload.len()));
    }
    let content = &bytes[..bytes.len() - DIGEST_BYTES];
    if Sha256::digest(content)[..] != *digest {
        return Err("the checksum is wrong".to_owned());
    }
    let (matrices, left) = postcard::take_from_bytes::<Vec<QuantizedMatrix>>(payload)
        .map_err(|error| format!("the matrices cannot be read: {error}"))?;
    if !left.is_empty() {
        return Err(format!("{} bytes follow the matrices", left.len()));
    }
    check(&matrices, layer, weights)?;
    Ok(matrices)
}

/// Whether these are the matrices of the block: kinds, shapes, levels of the grid, finite scales.
fn check(matrices: &[QuantizedMatrix], layer: usize, weights: &LayerWeights) -> Result<(), String> {
    let sets = LinearSet::with_gate(weights.matrix(SectionKind::Gate).is_some());
    let kinds: Vec<_> = sets.iter().flat_map(|set| set.kinds()).copied().collect();
    if matrices.len() != kinds.len() {
        return Err(format!("expected {} matrices, found {}", kinds.len(), matrices.len()));
    }
    for (matrix, kind) in matrices.iter().zip(kinds) {
        let (name, solution) = (kind.name(), &matrix.solution);
        if matrix.kind != kind || matrix.report.kind != name || matrix.report.layer != layer {
            let (found, of) = (matrix.kind.name(), matrix.report.layer);
            return Err(format!("expected {name} of block {layer}, found {found} of block {of}"));
        }
        let expected = weights.matrix(kind).map(|matrix| (matrix.rows, matrix.cols)).unwrap_or_default();
        let found = (solution.rows, solution.columns);
        if found != expected {
            return Err(format!("{name}: expected {expected:?} rows and columns, found {found:?}"));
        }
        let expected = matrix.format.group.group_elems(solution.columns);
        if solution.group_elems != expected {
            let found = solution.group_elems;
            return Err(format!("{name}: expected groups of {expected} columns, found {found}"));
        }
        let counts = (found.0 * found.1, found.0 * solution.groups_per_row());
        let found = (solution.codes.len(), solution.scales.len());
        if found != counts {
            return Err(format!("{name}: expected {counts:?} levels and scales, found {found:?}"));
        }
        let levels = solution.grid.levels();
        if let Some(level) = solution.codes.iter().find(|level| levels.binary_search(level).is_err()) {
            return Err(format!("{name}: {level} is not a level of its grid"));
        }
        let row_scales = solution.coding.as_ref().map_or(&[][..], |coding| &coding.row_scales);
        if !row_scales.is_empty() && row_scales.len() != solution.rows {
            return Err(format!(
                "{name}: expected {} scales of rows, found {}",
                solution.rows,
                row_scales.len()
            ));
        }
        if let Some(low_rank) = &matrix.low_rank {
            check_factors(low_rank, solution).map_err(|error| format!("{name}: correction: {error}"))?;
        }
        let mut scales = solution.scales.iter().chain(row_scales);
        if let Some(scale) = scales.find(|scale| !(scale.is_finite() && **scale > 0.0)) {
            return Err(format!("{name}: a scale is {scale}"));
        }
    }
    Ok(())
}

/// Whether these are factors of a correction of the solution: shapes, levels of the grid, finite scales.
fn check_factors(low_rank: &LowRank, solution: &Solution<f64>) -> Result<(), String> {
    let LowRank { right, left } = low_rank;
    let rank = right.rows;
    let expected = [("V", right, (rank, solution.columns)), ("U", left, (solution.rows, rank))];
    for (name, factor, expected) in expected {
        let found = (factor.rows, factor.columns);
        if found != expected || rank == 0 {
            return Err(format!("{name}: expected {expected:?} rows and columns, found {found:?}"));
        }
        let found = (factor.group_elems, factor.codes.len(), factor.scales.len());
        let expected = (expected.1, expected.0 * expected.1, expected.0);
        if found != expected {
            return Err(format!(
                "{name}: expected {expected:?} columns a group, levels and scales, found {found:?}"
            ));
        }
        let levels = factor.grid.levels();
        if let Some(level) = factor.codes.iter().find(|level| levels.binary_search(level).is_err()) {
            return Err(format!("{name}: {level} is not a level of its grid"));
        }
        if let Some(scale) = factor.scales.iter().find(|scale| !(scale.is_finite() && **scale > 0.0)) {
            return Err(format!("{name}: a scale is {scale}"));
        }
    }
    Ok(())
}
