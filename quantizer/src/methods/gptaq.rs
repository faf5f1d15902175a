//! GPTAQ (Li et al., arXiv 2504.02692): GPTQ against the full-precision model's output, `||W0 Xf - Q X||^2`.
//!
//! When column j is done, the part of its drift that later columns can correct is added to them: `alpha1 *
//! w_j * P[j, F]`, where w_j is the column as compensated so far. The paper derives alpha1 = 1; its code uses
//! 0.25, found empirically, and computes the update beyond a block from the rounded column. [`CONFIGURATION`]
//! is the code's, [`PUBLISHED_EQUATIONS`] the paper's.

use super::{LazyVariant, Start, SweepConfiguration};

/// As in the published code.
pub const CONFIGURATION: SweepConfiguration =
    SweepConfiguration { alpha1: 0.25, alpha2: 0.0, variant: LazyVariant::Original, start: Start::Unchanged };

/// As in the publication.
pub const PUBLISHED_EQUATIONS: SweepConfiguration =
    SweepConfiguration { alpha1: 1.0, alpha2: 0.0, variant: LazyVariant::Paper, start: Start::Unchanged };
