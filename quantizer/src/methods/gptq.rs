//! GPTQ (Frantar et al., arXiv 2210.17323): each column's rounding error is compensated in the columns to
//! come.
//!
//! Minimizes `||W0 X - Q X||^2` greedily, one column after the other; the drift is ignored. The sweep without
//! extra terms.

use super::{LazyVariant, Start, SweepConfiguration};

/// No drift term, no compensation-aware term.
pub const CONFIGURATION: SweepConfiguration =
    SweepConfiguration { alpha1: 0.0, alpha2: 0.0, variant: LazyVariant::Paper, start: Start::Unchanged };
