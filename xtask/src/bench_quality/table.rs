//! The tables of `bench quality`: runs that differ in their calibration sample only become a row.

use std::fmt::Write as _;

use rescomp_quantizer::evaluate::Evaluation;
use rescomp_quantizer::methods;
use rescomp_quantizer::transforms::TransformKind;
use serde::Serialize;

/// One quantized model, measured.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    pub(super) method: &'static str,
    pub(super) transform: &'static str,
    pub(super) bits: u8,
    pub(super) group: String,
    /// Of the blocks' low-rank corrections, at most; 0 for none.
    pub(super) rank: u32,
    /// Bits of the embedding and the head; absent where they are the checkpoint's.
    pub(super) head_bits: Option<u8>,
    /// Number of the calibration sample.
    pub(super) sample: usize,
    #[serde(flatten)]
    pub(super) evaluation: Evaluation,
}

/// A line of a table: the runs that differ in their calibration sample only.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) method: &'static str,
    pub(super) transform: &'static str,
    pub(super) bits: u8,
    pub(super) group: String,
    pub(super) rank: u32,
    pub(super) head_bits: Option<u8>,
    pub(super) activations: &'static str,
    /// Calibration samples; 1 where the method uses none.
    pub(super) samples: usize,
    /// Mean bytes of the containers, or of the codes and scales where only the linear layers are quantized.
    pub(super) bytes: f64,
    pub(super) bits_per_weight: f64,
    /// Mean KL divergence, nats a token, over the samples.
    pub(super) mean_kl: f64,
    /// Its standard error; absent where there is one sample of a method that uses it.
    pub(super) mean_kl_standard_error: Option<f64>,
    pub(super) perplexity: f64,
    pub(super) same_top1: f64,
}

/// The report of the command.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) model: String,
    /// Whether embedding and head were left as in the checkpoint, and activations f32.
    pub(super) linears_only: bool,
    /// How the levels of 2, 3 and 4 bits are spaced.
    pub(super) levels: &'static str,
    pub(super) context: usize,
    /// The first position of a window that counts.
    pub(super) score_from: usize,
    pub(super) windows: usize,
    pub(super) calibration_windows: usize,
    pub(super) samples: usize,
    pub(super) reference_perplexity: f64,
    pub(super) rows: Vec<Row>,
    pub(super) runs: Vec<Run>,
}

/// The different values of a property, in the order of their first mention.
pub(super) fn distinct<T, K: PartialEq>(items: &[T], key: impl Fn(&T) -> K) -> Vec<K> {
    let mut keys = Vec::new();
    for key in items.iter().map(key) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// One row for the runs that differ in their sample only, in the order of the runs.
pub(super) fn rows(runs: &[Run]) -> Vec<Row> {
    type Key = (&'static str, &'static str, u8, (String, u32), Option<u8>, &'static str);
    let key = |run: &Run| -> Key {
        let group = (run.group.clone(), run.rank);
        (run.method, run.transform, run.bits, group, run.head_bits, run.evaluation.activations)
    };
    let row = |wanted: Key| {
        let same: Vec<&Run> = runs.iter().filter(|run| key(run) == wanted).collect();
        let mean = |value: fn(&Evaluation) -> f64| {
            same.iter().map(|run| value(&run.evaluation)).sum::<f64>() / same.len() as f64
        };
        let kl = |evaluation: &Evaluation| evaluation.mean_kl.unwrap_or(f64::NAN);
        let divergences: Vec<f64> = same.iter().map(|run| kl(&run.evaluation)).collect();
        let (method, transform, bits, (group, rank), head_bits, activations) = wanted;
        let calibrated =
            method != methods::Method::Rtn.name() || transform == TransformKind::Spinquant.name();
        Row {
            method,
            transform,
            bits,
            group,
            rank,
            head_bits,
            activations,
            samples: same.len(),
            bytes: mean(|evaluation| evaluation.file_bytes as f64),
            bits_per_weight: mean(|evaluation| evaluation.bits_per_weight),
            mean_kl: mean(kl),
            mean_kl_standard_error: if calibrated { standard_error(&divergences) } else { Some(0.0) },
            perplexity: mean(|evaluation| evaluation.perplexity),
            same_top1: mean(|evaluation| evaluation.same_top1.unwrap_or(f64::NAN)),
        }
    };
    distinct(runs, key).into_iter().map(row).collect()
}

/// Standard error of the mean, from the sample's variance; `None` for fewer than two values.
fn standard_error(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    Some((variance / count).sqrt())
}

/// The tables, one for each format of activations.
pub(super) fn markdown(report: &Report) -> String {
    let counted = match report.score_from {
        0 => String::new(),
        from => format!(" (positions from {from} on count)"),
    };
    let what = match report.linears_only {
        true => {
            "Only the blocks' linear layers are quantized; embedding, norms and head are the checkpoint's. Bits a weight and \
             bytes:\ncodes and scales of these layers."
        }
        false => "Whole containers, everything counted in bytes and bits a weight.",
    };
    let mut text = format!(
        "{}: {} held-out windows of {} tokens{counted}, {} calibration windows a sample, {} samples; levels {}. {what}\n\
         Perplexity in full precision: {:.4}. KL: mean over the samples, +- two standard errors of that mean (the spread\n\
         over calibration samples, not over held-out text); `rtn` uses no calibration, so its standard error is 0.\n",
        report.model,
        report.windows,
        report.context,
        report.calibration_windows,
        report.samples,
        report.levels,
        report.reference_perplexity,
    );
    for format in distinct(&report.rows, |row| row.activations) {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\nActivations {format}:\n\n\
             | method | transform | bits | group | rank | head bits | bytes | bits a weight | mean KL, nats a token | perplexity | same top-1 |\n\
             |---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        );
        for row in report.rows.iter().filter(|row| row.activations == format) {
            let error = row
                .mean_kl_standard_error
                .map_or_else(|| "unknown".to_owned(), |error| format!("{:.6}", 2.0 * error));
            let head_bits = row.head_bits.map_or_else(|| "as stored".to_owned(), |bits| bits.to_string());
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} | {} | {head_bits} | {} | {:.3} | {:.6} +- {error} | {:.4} | {:.2} % |",
                row.method,
                row.transform,
                row.bits,
                row.group,
                row.rank,
                thousands(row.bytes.round() as u64),
                row.bits_per_weight,
                row.mean_kl,
                row.perplexity,
                100.0 * row.same_top1,
            );
        }
    }
    text
}

/// A number with commas between its thousands.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    groups.join(",")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run with a given divergence.
    pub(in super::super) fn run(method: &'static str, group: &str, sample: usize, mean_kl: f64) -> Run {
        let evaluation = Evaluation {
            perplexity: 4.0 + mean_kl,
            reference_perplexity: Some(4.0),
            mean_kl: Some(mean_kl),
            median_kl: Some(mean_kl),
            p99_kl: Some(mean_kl),
            same_top1: Some(0.5),
            bits_per_weight: 4.5,
            file_bytes: 1_234_567,
            tokens: 1,
            windows: 1,
            activations: "int8",
            kernels: "scalar",
        };
        Run {
            method,
            transform: "none",
            bits: 4,
            group: group.to_owned(),
            rank: 0,
            head_bits: Some(8),
            sample,
            evaluation,
        }
    }

    /// A report of these runs.
    pub(in super::super) fn report(runs: Vec<Run>) -> Report {
        Report {
            model: "m".to_owned(),
            linears_only: false,
            levels: "normal",
            context: 512,
            score_from: 0,
            windows: 2,
            calibration_windows: 3,
            samples: 1,
            reference_perplexity: 4.0,
            rows: rows(&runs),
            runs,
        }
    }

    #[test]
    fn samples_become_a_mean_and_its_standard_error() {
        let rows = rows(&[
            run("rtn", "64", 0, 0.4),
            run("gptq", "64", 0, 0.1),
            run("gptq", "64", 1, 0.2),
            run("gptq", "64", 2, 0.3),
            run("gptq", "32", 0, 0.3),
        ]);
        assert_eq!(rows.len(), 3);
        assert_eq!((rows[0].samples, rows[0].mean_kl_standard_error), (1, Some(0.0)));
        assert_eq!((rows[1].samples, rows[1].method), (3, "gptq"));
        assert!((rows[1].mean_kl - 0.2).abs() < 1e-12);
        // Deviations -0.1, 0, 0.1: variance 0.02 / 2, over three samples.
        assert!(
            (rows[1].mean_kl_standard_error.expect("three samples") - (0.01_f64 / 3.0).sqrt()).abs() < 1e-12
        );
        assert_eq!((rows[2].samples, rows[2].mean_kl_standard_error), (1, None));
    }

    #[test]
    fn a_table_a_format_and_a_line_a_row() {
        let mut f32 = run("gptq", "32", 0, 0.25);
        f32.evaluation.activations = "f32";
        let text = markdown(&report(vec![run("rtn", "64", 0, 0.4), run("gptq", "64", 0, 0.25), f32]));
        assert_eq!(text.matches("\nActivations ").count(), 2);
        assert_eq!(text.matches("\n| `").count(), 3);
        assert!(
            text.contains("| `rtn` | none | 4 | 64 | 0 | 8 | 1,234,567 | 4.500 | 0.400000 +- 0.000000 |"),
            "{text}"
        );
        assert!(
            text.contains("| `gptq` | none | 4 | 32 | 0 | 8 | 1,234,567 | 4.500 | 0.250000 +- unknown |"),
            "{text}"
        );
    }

    #[test]
    fn thousands_are_parted() {
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(thousands(number), expected);
        }
    }
}
