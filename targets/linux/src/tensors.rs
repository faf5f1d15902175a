//! Which kernel runs which matrix of a container.

use std::collections::BTreeMap;

use rescomp_formats::container::CheckedContainer;
use rescomp_formats::matrix::MatrixShape;
use rescomp_formats::section::SectionKind;
use rescomp_runtime::kernels::Kernels;
use serde::Serialize;

use crate::table::Table;

/// The kernels of all matrices of one kind, width and layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TensorKernels {
    /// The kind of section.
    pub(crate) tensor: &'static str,
    /// Encoding, e.g. "int4".
    pub(crate) encoding: String,
    /// Layout, e.g. "nr8k4".
    pub(crate) layout: &'static str,
    /// The kernel for one token; `None` where rows are only looked up.
    pub(crate) gemv: Option<&'static str>,
    /// The kernel for several tokens; `None` where there is never more than one.
    pub(crate) gemm: Option<&'static str>,
}

/// The kernels of every kind of matrix, in the order of the file; of bands of the embedding, one for each width that occurs.
pub(crate) fn tensor_kernels(container: &CheckedContainer<'_>, kernels: &Kernels) -> Vec<TensorKernels> {
    let mut all = Vec::new();
    let mut add = |entry| {
        if !all.contains(&entry) {
            all.push(entry);
        }
    };
    if !container.manifest().spec.tied_head {
        let embedding =
            container.container().entries().filter(|(name, _)| name.kind == SectionKind::Embedding);
        for matrix in embedding.filter_map(|(name, _)| container.matrix(name)) {
            add(entry(SectionKind::Embedding.name(), matrix.shape(), None, None));
        }
    }
    for (name, shape, in_tiles) in container.products() {
        let gemv = Some(kernels.matrix_product(&shape, 1).1);
        let gemm = in_tiles.then(|| kernels.matrix_product(&shape, 2).1);
        add(entry(name.kind.name(), &shape, gemv, gemm));
    }
    all
}

fn entry(
    tensor: &'static str,
    shape: &MatrixShape,
    gemv: Option<&'static str>,
    gemm: Option<&'static str>,
) -> TensorKernels {
    let encoding = format!("int{}", shape.width().bits());
    TensorKernels { tensor, encoding, layout: shape.layout().name(), gemv, gemm }
}

/// The kernels as a table.
pub(crate) fn table(tensors: &[TensorKernels]) -> Table {
    let mut table = Table::with_header(["matrix", "encoding", "layout", "one token", "several tokens"]);
    for tensor in tensors {
        table.row([
            tensor.tensor.to_owned(),
            tensor.encoding.clone(),
            tensor.layout.to_owned(),
            tensor.gemv.unwrap_or("(rows are looked up)").to_owned(),
            tensor.gemm.unwrap_or("-").to_owned(),
        ]);
    }
    table
}

/// Weights (rows x columns) that each kernel processes when `tokens` tokens run in tiles of `tile` and the logits that follow
/// the last one are made: a matrix counts once a call.
pub(crate) fn weights_processed(
    container: &CheckedContainer<'_>,
    kernels: &Kernels,
    tokens: usize,
    tile: usize,
) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for (_, shape, in_tiles) in container.products() {
        let weights = shape.rows() as u64 * shape.cols() as u64;
        let mut count = |tokens: usize, calls: usize| {
            if calls > 0 {
                *counts.entry(kernels.matrix_product(&shape, tokens).1).or_default() +=
                    weights * calls as u64;
            }
        };
        if in_tiles {
            count(tile, tokens / tile);
            count(tokens % tile, usize::from(!tokens.is_multiple_of(tile)));
        } else {
            count(1, 1);
        }
    }
    counts
}
