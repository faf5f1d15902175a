//! The reports that a page is made of, as far as it shows them: fields that others have besides are left alone.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// Everything for a page.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) pack: Pack,
    /// Checks of devices, each with a name.
    pub(super) checks: Vec<(String, Check)>,
    pub(super) quality: Option<Quality>,
    pub(super) methods: Option<Methods>,
}

/// Reads one.
///
/// # Errors
/// `Exit::Disk`, or `Exit::Input` saying where the file isn't what it should be.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::disk("read", path, &error))?;
    serde_json::from_str(&text)
        .map_err(|error| Error::input(format!("{}: no such report: {error}", path.display())))
}

/// `report.json` of `pack`.
#[derive(Debug, Deserialize)]
pub(super) struct Pack {
    pub(super) target: String,
    pub(super) pack: Model,
    pub(super) memory: Option<Memory>,
    pub(super) check: Option<Check>,
    pub(super) signed_by: Option<String>,
    pub(super) seconds: f64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Model {
    pub(super) checkpoint: String,
    pub(super) method: String,
    pub(super) layout: String,
    pub(super) parameters: u64,
    pub(super) bits_per_weight: f64,
    pub(super) file_bytes: u64,
    pub(super) calibration_tokens: u64,
    pub(super) warnings: Vec<String>,
    pub(super) vocabulary: Vec<Matrix>,
    pub(super) matrices: Vec<Matrix>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Matrix {
    pub(super) layer: Option<usize>,
    pub(super) kind: String,
    pub(super) format: Format,
    pub(super) relative_error: Option<f64>,
    pub(super) held_out: Option<HeldOut>,
    #[serde(default)]
    pub(super) warnings: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Format {
    pub(super) bits: u8,
    pub(super) group: String,
}

/// Errors on held-out calibration windows.
#[derive(Debug, Deserialize)]
pub(super) struct HeldOut {
    /// As the sweep began.
    pub(super) first: f64,
    /// After it, with the settings that were chosen.
    pub(super) swept: f64,
    /// After refinement.
    pub(super) chosen: f64,
}

/// The memory plan of an image.
#[derive(Debug, Deserialize)]
pub(super) struct Memory {
    pub(super) text_bytes: u64,
    pub(super) constant_bytes: u64,
    pub(super) container_bytes: u64,
    pub(super) variable_bytes: u64,
    pub(super) stack_bytes: u64,
    pub(super) context: u64,
    pub(super) kv_cache_bytes: u64,
    pub(super) scratch_bytes: u64,
    pub(super) code_memory_bytes: u64,
    pub(super) data_memory_bytes: Option<u64>,
}

/// What `check` found.
#[derive(Debug, Deserialize)]
pub(super) struct Check {
    pub(super) reference_nll: Option<f64>,
    pub(super) host: Figures,
    pub(super) places: Vec<Place>,
    pub(super) not_checked: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Place {
    pub(super) place: String,
    pub(super) kernels: String,
    pub(super) device: Figures,
    pub(super) passed: bool,
    pub(super) seconds: f64,
    /// By kind of matrix; of places that say it.
    #[serde(default)]
    pub(super) tensor_kernels: Option<Vec<TensorKernels>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct TensorKernels {
    pub(super) tensor: String,
    pub(super) encoding: String,
    pub(super) layout: String,
    pub(super) gemv: Option<String>,
    pub(super) gemm: Option<String>,
}

/// Of a decoder's windows, or of an encoder's texts.
#[derive(Debug, Deserialize)]
pub(super) struct Figures {
    pub(super) nll: Option<f64>,
    pub(super) mean_kl: Option<f64>,
    pub(super) same_top1: Option<u32>,
    pub(super) positions: Option<u32>,
    pub(super) mean_distance: Option<f64>,
    #[serde(alias = "embeddings_sha256")]
    pub(super) logits_sha256: Option<String>,
}

/// `bench quality`.
#[derive(Debug, Deserialize)]
pub(super) struct Quality {
    pub(super) model: String,
    pub(super) windows: usize,
    pub(super) context: usize,
    pub(super) rows: Vec<QualityRow>,
}

#[derive(Debug, Deserialize)]
pub(super) struct QualityRow {
    pub(super) method: String,
    pub(super) activations: String,
    pub(super) bits_per_weight: f64,
    pub(super) mean_kl: f64,
    pub(super) mean_kl_standard_error: Option<f64>,
}

/// `bench methods`.
#[derive(Debug, Deserialize)]
pub(super) struct Methods {
    pub(super) bits: u8,
    pub(super) matrices: Vec<Comparison>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Comparison {
    pub(super) layer: usize,
    pub(super) methods: Vec<MethodErrors>,
}

#[derive(Debug, Deserialize)]
pub(super) struct MethodErrors {
    pub(super) method: String,
    pub(super) held_out: f64,
}
