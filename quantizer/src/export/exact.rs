//! A matrix of a container as small integers times one binary16 number for every 32 columns of a row: what the formats of other programs
//! are made of.

use half::f16;
use rescomp_formats::container::CheckedContainer;
use rescomp_formats::encodings::UNIT_ELEMS;
use rescomp_formats::matrix::MatrixView;
use rescomp_formats::section::{SectionKind, SectionName};

use super::ExportError;

/// A matrix; its values are `scale * code`, exactly the container's.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaledIntegers {
    /// Which one.
    pub name: SectionName,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// Columns that share a scale in the container: a multiple of 32; of an embedding in bands, the fewest of a band.
    pub group_elems: usize,
    /// Bits of the container's codes; of an embedding in bands, the most of a band.
    pub bits: usize,
    /// Row-major.
    pub codes: Vec<i8>,
    /// One for every 32 columns of a row, the last ones of which may be fewer.
    pub scales: Vec<f16>,
}

impl ScaledIntegers {
    /// The matrix of this kind in a layer, or outside the layers; `None` where the model has none.
    ///
    /// # Errors
    /// [`ExportError::Scale`] and [`ExportError::Corrected`].
    pub fn read(
        container: &CheckedContainer<'_>,
        kind: SectionKind,
        layer: Option<u16>,
    ) -> Result<Option<Self>, ExportError> {
        let name = SectionName { kind, layer };
        let spec = &container.manifest().spec;
        let bands = container.token_bands().filter(|_| kind == SectionKind::Embedding);
        let parts: Option<Vec<(SectionName, MatrixView<'_>)>> = match bands {
            None => container.matrix(name).map(|view| vec![(name, view)]),
            Some(_) => (0..u16::from(spec.embedding_bands))
                .map(|band| SectionName { kind, layer: Some(band) })
                .map(|name| container.matrix(name).map(|view| (name, view)))
                .collect(),
        };
        let Some(parts) = parts else { return Ok(None) };
        let Some((_, first)) = parts.first() else { return Ok(None) };
        let (columns, rows) = (first.shape().cols(), parts.iter().map(|(_, view)| view.shape().rows()).sum());
        let mut whole = Self {
            name,
            rows,
            columns,
            group_elems: parts.iter().map(|(_, view)| view.shape().group_elems()).min().unwrap_or(0),
            bits: parts.iter().map(|(_, view)| view.shape().width().bits()).max().unwrap_or(0),
            codes: Vec::with_capacity(rows * columns),
            scales: Vec::with_capacity(rows * columns.div_ceil(UNIT_ELEMS)),
        };
        if let Some((tensor, _)) = parts.iter().find(|(name, _)| container.low_rank(*name).is_some()) {
            return Err(ExportError::Corrected { tensor: *tensor });
        }
        // Within a band, rows come in the order of tokens.
        let mut next = vec![0; parts.len()];
        for row in 0..rows {
            let band = bands.map_or(0, |bands| usize::from(bands[row]));
            let (name, view) = &parts[band];
            let row = if bands.is_some() { next[band] } else { row };
            next[band] += 1;
            whole.push_row(*name, view, row)?;
        }
        Ok(Some(whole))
    }

    fn push_row(
        &mut self,
        tensor: SectionName,
        view: &MatrixView<'_>,
        row: usize,
    ) -> Result<(), ExportError> {
        for unit in 0..view.shape().units() {
            let columns = UNIT_ELEMS.min(self.columns - unit * UNIT_ELEMS);
            self.codes.extend(&view.unit_levels(row, unit)[..columns]);
            let group = unit * UNIT_ELEMS / view.shape().group_elems();
            // A multiplier has eight bits, a row's scale eleven: the product is exact.
            let scale = f32::from(view.multiplier(row, group)) * view.scale(row, group);
            let stored = f16::from_f32(scale);
            if stored.to_f32() != scale {
                return Err(ExportError::Scale { tensor, row, group, found: scale });
            }
            self.scales.push(stored);
        }
        Ok(())
    }

    /// Scales of a row.
    pub fn units(&self) -> usize {
        self.columns.div_ceil(UNIT_ELEMS)
    }

    /// The lowest and the highest code.
    pub fn range(&self) -> (i8, i8) {
        self.codes.iter().fold((0, 0), |(low, high), &code| (low.min(code), high.max(code)))
    }

    /// Refuses codes out of a type's range.
    pub(super) fn check_range(
        &self,
        kind: &'static str,
        (lowest, highest): (i8, i8),
        remedy: &'static str,
    ) -> Result<(), ExportError> {
        let (low, high) = self.range();
        let found = if low < lowest { low } else { high };
        if low < lowest || high > highest {
            return Err(ExportError::Level { tensor: self.name, kind, lowest, highest, found, remedy });
        }
        Ok(())
    }
}
