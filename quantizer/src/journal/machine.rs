//! What of this machine decides the last bits of the quantizer's numbers.
//!
//! Matrix products take the widest vectors that the processor has, and cut long sums by the size of its caches: both change the order of
//! additions. So beside the processor's name and vector instructions, a digest of some products' bits is taken: it tells
//! machines apart that are called the same.

use super::identity::hexadecimal;
use faer::linalg::matmul::matmul;
use faer::traits::RealField;
use faer::{Accum, Mat, Par};
use rescomp_runtime::kernels;
use sha2::{Digest, Sha256};

/// Beginnings of the names of vector instructions in Linux's list, on x86 and ARM.
const VECTOR_FEATURES: [&str; 12] =
    ["mmx", "sse", "ssse", "avx", "fma", "f16c", "amx", "xop", "asimd", "sve", "fp", "sme"];
/// Long sums: beyond any cut by a cache of the first level.
const PROBE_SHAPES: [(usize, usize, usize); 3] = [(37, 4099, 41), (128, 513, 96), (5, 70, 6)];

/// The settings of this machine, by name.
pub(super) fn settings() -> Vec<(&'static str, String)> {
    let description = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |names: &[&str]| {
        description.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            names.contains(&name.trim()).then(|| value.trim().to_owned())
        })
    };
    let mut features: Vec<String> = field(&["flags", "Features"])
        .unwrap_or_default()
        .split_whitespace()
        .filter(|feature| VECTOR_FEATURES.iter().any(|start| feature.starts_with(start)))
        .map(str::to_owned)
        .collect();
    features.sort();
    vec![
        ("architecture", std::env::consts::ARCH.to_owned()),
        ("processor", field(&["model name", "CPU part"]).unwrap_or_else(|| "unknown".to_owned())),
        ("vector instructions", features.join(" ")),
        ("kernels", kernels::best().name.to_owned()),
        ("bits of matrix products", probe()),
    ]
}

/// A digest of the bits of products in both of the quantizer's types.
fn probe() -> String {
    let mut digest = Sha256::new();
    for shape in PROBE_SHAPES {
        product::<f32>(shape, |value| digest.update(value.to_bits().to_le_bytes()), |value| value as f32);
        product::<f64>(shape, |value| digest.update(value.to_bits().to_le_bytes()), |value| value);
    }
    hexadecimal(&digest.finalize())
}

/// Hands over the entries of a product (m x k, k x n) of irregular numbers.
fn product<T: RealField + Copy>(
    (m, k, n): (usize, usize, usize),
    mut take: impl FnMut(T),
    convert: impl Fn(f64) -> T,
) {
    let entry = |salt: usize| {
        move |i: usize, j: usize| ((i * 7919 + j * 104_729 + salt) % 9973) as f64 / 4986.5 - 1.0
    };
    let matrix = |rows, columns, salt: usize| Mat::from_fn(rows, columns, |i, j| convert(entry(salt)(i, j)));
    let (left, right) = (matrix(m, k, 1), matrix(k, n, 2));
    let mut product = Mat::<T>::zeros(m, n);
    matmul(&mut product, Accum::Replace, &left, &right, convert(1.0), Par::Seq);
    (0..m).for_each(|i| (0..n).for_each(|j| take(product[(i, j)])));
}
