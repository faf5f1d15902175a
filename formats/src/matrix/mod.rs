//! A quantized matrix: its shape, the sizes that follow from it, and views of its bytes.
//!
//! Rows are outputs (`n`), columns inputs (`k`). Columns are padded to a multiple of 32 and rows to a multiple of the layout's
//! tile. Columns share scales in groups; the last group of a row may be short. There are two forms, by the width of the codes
//! (docs/container.md has the bytes):
//!
//! ```text
//! 2 to 6 bits (codebook)   value = row_scale[row] * multipliers[scale_code[row, group]] / 256 * levels[code[row, col]] / 64
//! 8 bits                   value = scale[row, group] * code[row, col]
//! ```
//! What is multiplied with activations as integers, `levels[code]` or the code itself, is called a level throughout. At 2, 3 and 4
//! bits a matrix chooses its levels; at 5 and 6 bits ([`stacked`](crate::encodings::stacked)) all have the same.

mod check;
mod error;
mod low_rank;
mod pack;
mod shape;
#[cfg(test)]
mod tests;
mod view;

pub use error::MatrixError;
pub use low_rank::{LowRankShape, LowRankView, MOST_RANK, RANK_UNIT};
pub use pack::{CodebookMatrix, PackError, pack_codebook, pack_scaled};
pub use shape::{MatrixShape, ShapeError};
pub use view::{Codebook, MatrixView, Scaling};

/// Most rows of a matrix.
pub const MAX_ROWS: u32 = 1 << 24;
/// Most columns of a matrix.
pub const MAX_COLS: u32 = 1 << 20;
/// Columns that share one activation scale, wherever no shorter group of f16 scales ends before.
pub const STEP_ELEMS: usize = 64;
/// Entries of the tables that a codebook matrix begins with. Levels beyond [`CodeWidth::table_levels`](crate::encodings::CodeWidth::table_levels) are zero.
pub const TABLE_ENTRIES: usize = 16;
/// Bytes of a codebook matrix before its codes: two tables, and zeros up to the alignment of sections.
pub const TABLES_BYTES: usize = 64;
