//! What a user chooses: the grid, the groups, the factorization, and the sweep's configuration.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use super::error::MethodError;
use crate::grids::{Grid, ScaleFormat, ScaleSearch, Spacing};

/// How many consecutive inputs of an output row share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupSize {
    /// This many; the last group of a row is shorter if they do not divide it.
    Elements(NonZeroUsize),
    /// All of them.
    Row,
}

impl GroupSize {
    /// A group of `elems` inputs.
    ///
    /// # Errors
    /// [`MethodError::GroupOfZero`].
    pub fn elements(elems: usize) -> Result<Self, MethodError> {
        NonZeroUsize::new(elems).map(Self::Elements).ok_or(MethodError::GroupOfZero)
    }

    /// The size in elements for rows of `columns` inputs: at least 1, at most `max(columns, 1)`.
    pub fn group_elems(self, columns: usize) -> usize {
        match self {
            Self::Elements(elems) => elems.get().min(columns.max(1)),
            Self::Row => columns.max(1),
        }
    }
}

impl fmt::Display for GroupSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elements(elems) => write!(f, "{elems}"),
            Self::Row => f.write_str("row"),
        }
    }
}

impl FromStr for GroupSize {
    type Err = MethodError;

    fn from_str(text: &str) -> Result<Self, MethodError> {
        match text.parse::<usize>() {
            Ok(elems) => Self::elements(elems),
            Err(_) if text == "row" => Ok(Self::Row),
            Err(_) => Err(MethodError::UnknownName {
                kind: "group size",
                found: text.to_owned(),
                expected: "a number, row".to_owned(),
            }),
        }
    }
}

/// Options common to all methods.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SolverOptions {
    /// Bits a code: 2, 3, 4, 5, 6 or 8.
    pub bits: u8,
    /// How the levels of the grid are spaced.
    pub spacing: Spacing,
    /// How many inputs share a scale.
    pub group: GroupSize,
    /// Ridge added to the Hessian before it is factored, as a share of its mean diagonal.
    pub damping: f64,
    /// Whether columns are quantized by descending diagonal of the Hessian ("act-order") instead of from left
    /// to right.
    pub activation_order: bool,
    /// Whether all scales are found before the sweep, from the original weights. Otherwise a group's scale is
    /// found from the compensated weights when the sweep enters it; that needs the natural order, or one
    /// group a row.
    pub static_groups: bool,
    /// Whether scales that clip the largest weights are tried, and how they are compared.
    pub clip: ClipSearch,
    /// Columns of a lazy block. Speed only, except for [`LazyVariant::Original`] and
    /// [`LazyVariant::AllWeights`].
    pub block: NonZeroUsize,
    /// How the device stores scales.
    pub scale_format: ScaleFormat,
}

impl SolverOptions {
    /// As published: uniform grid, damping 0.01, activation order, static groups, clip search, blocks of 128; f16 scales.
    pub const fn new(bits: u8, group: GroupSize) -> Self {
        Self {
            bits,
            spacing: Spacing::Uniform,
            group,
            damping: 0.01,
            activation_order: true,
            static_groups: true,
            clip: ClipSearch::Plain,
            block: NonZeroUsize::MIN.saturating_add(127),
            scale_format: ScaleFormat::F16,
        }
    }

    /// The same with levels and scales as containers have them: for normally distributed weights, and coded.
    pub const fn for_container(bits: u8, group: GroupSize) -> Self {
        let scale_format = if bits == 8 { ScaleFormat::F16 } else { ScaleFormat::Coded };
        Self { spacing: Spacing::Normal, scale_format, ..Self::new(bits, group) }
    }

    /// The same so that formats with a binary16 scale a group, such as GGUF's, hold every value exactly: uniform levels, short row scales.
    pub const fn for_export(bits: u8, group: GroupSize) -> Self {
        let scale_format = if bits == 8 { ScaleFormat::F16 } else { ScaleFormat::CodedShort };
        Self { scale_format, ..Self::new(bits, group) }
    }

    /// The format of scales in rows of `columns` inputs.
    pub(crate) fn row_format(&self, columns: usize) -> ScaleFormat {
        if self.group.group_elems(columns) >= columns.max(1) {
            self.scale_format.of_whole_rows()
        } else {
            self.scale_format
        }
    }

    /// The grid and the scale search that these options mean, for rows of `columns` inputs.
    ///
    /// # Errors
    /// [`MethodError::Bits`], [`MethodError::DynamicGroupsWithActivationOrder`], [`MethodError::DynamicGroupsWithCodedScales`], and
    /// [`MethodError::Option`] for a bad damping.
    pub fn check(&self, columns: usize) -> Result<ScaleSearch, MethodError> {
        let grid = Grid::new(self.bits, self.spacing)?;
        not_negative("damping", self.damping)?;
        if !self.static_groups && self.activation_order && self.group.group_elems(columns) < columns {
            return Err(MethodError::DynamicGroupsWithActivationOrder);
        }
        let coded = self.scale_format.is_coded();
        if coded && !self.static_groups && self.group.group_elems(columns) < columns {
            return Err(MethodError::DynamicGroupsWithCodedScales);
        }
        Ok(ScaleSearch { grid, clip_search: self.clip != ClipSearch::Off, format: self.row_format(columns) })
    }
}

/// How a group's scale is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClipSearch {
    /// The scale that covers the largest weight.
    Off,
    /// The shrunken scale with the least `sum |value - w|^2.4`, as published, see [`crate::grids::scales`].
    Plain,
    /// The shrunken scale with the least `sum h (value - w)^2`, h the diagonal of the Hessian: what an error in this weight costs
    /// if nothing compensates it. Scales that are found during the sweep, and round to nearest, use [`ClipSearch::Plain`].
    HessianDiagonal,
}

impl ClipSearch {
    /// All ways.
    pub const ALL: [Self; 3] = [Self::Off, Self::Plain, Self::HessianDiagonal];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Plain => "plain",
            Self::HessianDiagonal => "hessian-diagonal",
        }
    }
}

/// `found`, refused unless it is finite and 0 or more.
pub(super) fn not_negative(option: &'static str, found: f64) -> Result<(), MethodError> {
    if found.is_finite() && found >= 0.0 { Ok(()) } else { Err(MethodError::Option { option, found }) }
}

/// Which value of a rounded column the update of the columns beyond its lazy block is computed from.
///
/// Inside a block all variants use the weight before rounding, w. They differ in the `alpha1` and `alpha2`
/// terms of the update that is applied once a block, so they are the same when both strengths are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LazyVariant {
    /// w, as in the equations of GPTAQ (arXiv 2504.02692) and ResComp (arXiv 2604.07955). The result does not
    /// depend on the block size.
    Paper,
    /// The rounded value q: what GPTAQ's published code does, because it overwrites the column in the block's
    /// buffer, and ResComp's at 2 bits ("org"). Depends on the block size.
    Original,
    /// w limited to the range of the column's grid: ResComp's published code at 3 bits and more ("allw").
    /// Depends on the block size where weights are clipped.
    AllWeights,
}

impl LazyVariant {
    /// All variants.
    pub const ALL: [Self; 3] = [Self::Paper, Self::Original, Self::AllWeights];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Original => "original",
            Self::AllWeights => "all-weights",
        }
    }
}

impl fmt::Display for LazyVariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LazyVariant {
    type Err = MethodError;

    fn from_str(text: &str) -> Result<Self, MethodError> {
        by_name("lazy variant", text, &Self::ALL, Self::name)
    }
}

/// The weights that the sweep starts from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    /// The original weights W0.
    Unchanged,
    /// `W0 + strength * W0 D (H + ridge * mean(diag H) * I)^-1`: with strength 1 and the ridge equal to the
    /// damping, the exact minimizer over real weights, see [`super::exact`].
    Exact {
        /// 0 for no correction, 1 for all of it.
        strength: f64,
        /// Ridge of the correction alone, as a share of the Hessian's mean diagonal.
        ridge: f64,
    },
    /// `W0 + strength * W0 P`: GPTAQ's drift term anchored to the original weights, which makes it computable
    /// before the sweep.
    Anchored {
        /// 0 for no correction, 1 for all of it.
        strength: f64,
    },
}

impl Start {
    /// # Errors
    /// [`MethodError::Option`] for a strength or ridge that is negative, infinite or NaN.
    pub(super) fn check(&self) -> Result<(), MethodError> {
        match *self {
            Self::Unchanged => Ok(()),
            Self::Exact { strength, ridge } => {
                not_negative("the start's strength", strength)?;
                not_negative("the start's ridge", ridge)
            }
            Self::Anchored { strength } => not_negative("the start's strength", strength),
        }
    }
}

/// What makes a compensating method: two strengths, the lazy variant and the start. See [`super::sweep`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SweepConfiguration {
    /// Strength of GPTAQ's drift term, `w P[j, F]`.
    pub alpha1: f64,
    /// Strength of ResComp's compensation-aware term, `(w0 - w) (P - N)[j, F]`.
    pub alpha2: f64,
    /// What the update beyond the block is computed from.
    pub variant: LazyVariant,
    /// The weights that the sweep starts from.
    pub start: Start,
}

impl SweepConfiguration {
    /// The same with another lazy variant.
    #[must_use]
    pub const fn with_variant(self, variant: LazyVariant) -> Self {
        Self { variant, ..self }
    }

    /// The same with another start.
    #[must_use]
    pub const fn with_start(self, start: Start) -> Self {
        Self { start, ..self }
    }

    /// # Errors
    /// [`MethodError::Option`] for a strength or ridge that is negative, infinite or NaN.
    pub(super) fn check(&self) -> Result<(), MethodError> {
        not_negative("alpha1", self.alpha1)?;
        not_negative("alpha2", self.alpha2)?;
        self.start.check()
    }
}

/// The item of `all` called `text`.
pub(super) fn by_name<T: Copy>(
    kind: &'static str,
    text: &str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, MethodError> {
    all.iter().copied().find(|item| name(*item) == text).ok_or_else(|| MethodError::UnknownName {
        kind,
        found: text.to_owned(),
        expected: all.iter().map(|item| name(*item)).collect::<Vec<_>>().join(", "),
    })
}
