//! What a check compares, and its table.

use rescomp_quantizer::pack::{CheckFigures, EmbeddingFigures, ImageFigures, WindowFigures};
use serde::{Deserialize, Serialize};

use crate::runner::DeviceReport;

/// Figures over what is embedded in a container, by what its model computes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged, try_from = "Fields")]
pub(crate) enum Figures {
    /// Over a decoder's windows.
    Windows(Windows),
    /// Over an encoder's texts.
    Embeddings(Embeddings),
    /// Over a classifier's images.
    Images(Images),
}

/// Over a classifier's images.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Images {
    /// Mean KL divergence from the full-precision model, nats an image.
    pub(crate) mean_kl: f64,
    /// Images with the same most likely class.
    pub(crate) same_top1: u32,
    /// Images.
    pub(crate) images: u32,
    /// SHA-256 of the logits, in hexadecimal digits.
    pub(crate) logits_sha256: String,
}

/// Over a decoder's windows.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Windows {
    /// Mean negative log-likelihood, nats a token.
    pub(crate) nll: f64,
    /// Mean KL divergence from the full-precision model; `None` for that model itself.
    pub(crate) mean_kl: Option<f64>,
    /// Positions with the same most likely token.
    pub(crate) same_top1: Option<u32>,
    /// Positions.
    pub(crate) positions: u32,
    /// SHA-256 of the logits, in hexadecimal digits.
    pub(crate) logits_sha256: Option<String>,
}

/// Over an encoder's texts.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Embeddings {
    /// Mean of one less the cosine with the full-precision model's vectors.
    pub(crate) mean_distance: f64,
    /// The largest of these.
    pub(crate) largest_distance: f64,
    /// Texts.
    pub(crate) texts: u32,
    /// SHA-256 of the vectors, in hexadecimal digits.
    pub(crate) embeddings_sha256: String,
}

/// The fields of either kind. Serde's own way to try one kind after the other says of a wrong field only that no kind matched.
#[derive(Deserialize)]
struct Fields {
    nll: Option<f64>,
    mean_kl: Option<f64>,
    same_top1: Option<u32>,
    positions: Option<u32>,
    logits_sha256: Option<String>,
    mean_distance: Option<f64>,
    largest_distance: Option<f64>,
    texts: Option<u32>,
    embeddings_sha256: Option<String>,
    images: Option<u32>,
}

impl TryFrom<Fields> for Figures {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Figures, Self::Error> {
        let Fields { mean_kl, same_top1, logits_sha256, .. } = fields;
        if let (Some(nll), Some(positions)) = (fields.nll, fields.positions) {
            return Ok(Figures::Windows(Windows { nll, mean_kl, same_top1, positions, logits_sha256 }));
        }
        if let (Some(mean_kl), Some(same_top1), Some(images), Some(logits_sha256)) =
            (mean_kl, same_top1, fields.images, logits_sha256)
        {
            return Ok(Figures::Images(Images { mean_kl, same_top1, images, logits_sha256 }));
        }
        match (fields.mean_distance, fields.largest_distance, fields.texts, fields.embeddings_sha256) {
            (Some(mean_distance), Some(largest_distance), Some(texts), Some(embeddings_sha256)) => {
                Ok(Figures::Embeddings(Embeddings {
                    mean_distance,
                    largest_distance,
                    texts,
                    embeddings_sha256,
                }))
            }
            _ => Err(
                "expected the figures of a decoder (nll, positions, ..), of an encoder (mean_distance, texts, ..) or of a classifier (mean_kl, images, ..)",
            ),
        }
    }
}

impl From<&CheckFigures> for Figures {
    fn from(record: &CheckFigures) -> Figures {
        match record {
            CheckFigures::Windows(WindowFigures {
                nll,
                mean_kl,
                same_top1,
                positions,
                logits_sha256,
                ..
            }) => Figures::Windows(Windows {
                nll: *nll,
                mean_kl: Some(*mean_kl),
                same_top1: Some(*same_top1),
                positions: *positions,
                logits_sha256: Some(logits_sha256.clone()),
            }),
            CheckFigures::Images(figures) => {
                let ImageFigures { mean_kl, same_top1, images, logits_sha256 } = figures.clone();
                Figures::Images(Images { mean_kl, same_top1, images, logits_sha256 })
            }
            CheckFigures::Embeddings(figures) => {
                let EmbeddingFigures { mean_distance, largest_distance, texts, embeddings_sha256 } =
                    figures.clone();
                Figures::Embeddings(Embeddings { mean_distance, largest_distance, texts, embeddings_sha256 })
            }
        }
    }
}

impl Figures {
    /// The SHA-256 of what was computed, in hexadecimal digits.
    pub(crate) fn digest(&self) -> Option<&str> {
        match self {
            Figures::Windows(figures) => figures.logits_sha256.as_deref(),
            Figures::Embeddings(figures) => Some(&figures.embeddings_sha256),
            Figures::Images(figures) => Some(&figures.logits_sha256),
        }
    }

    /// In a few words.
    pub(crate) fn in_words(&self) -> String {
        let digest = short(self.digest());
        match self {
            Figures::Windows(Windows { nll, .. }) => format!("NLL {nll:.6}, logits digest {digest}"),
            Figures::Embeddings(Embeddings { mean_distance, .. }) => {
                format!("mean 1 - cosine {mean_distance:.6}, vectors digest {digest}")
            }
            Figures::Images(Images { mean_kl, .. }) => {
                format!("mean KL {mean_kl:.6}, logits digest {digest}")
            }
        }
    }
}

/// The beginning of a digest.
fn short(digest: Option<&str>) -> &str {
    digest.map_or("-", |digest| digest.get(..16).unwrap_or(digest))
}

/// The table of a check: the full-precision model of a decoder, the host's record, and every place.
pub(crate) fn table(reference_nll: Option<f64>, host: &Figures, places: &[DeviceReport]) -> Vec<String> {
    let heads = match host {
        Figures::Windows(_) => {
            format!("{:>10}{:>11}{:>11}  {:<18}", "NLL", "KL", "same top-1", "logits digest")
        }
        Figures::Embeddings(_) => {
            format!("{:>16}{:>16}  {:<18}", "mean 1 - cos", "largest", "vectors digest")
        }
        Figures::Images(_) => format!("{:>16}{:>16}  {:<18}", "KL", "same top-1", "logits digest"),
    };
    let mut lines = vec![format!("{:<22}{:<14}{heads}{:>8}  {}", "where", "kernels", "time", "verdict")];
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.6}"));
    let mut row = |name: &str, kernels: &str, figures: &Figures, seconds: Option<f64>, verdict: &str| {
        let columns = match figures {
            Figures::Windows(Windows { nll, mean_kl, same_top1, positions, .. }) => {
                let share = |count: u32| {
                    format!("{:.2} %", 100.0 * f64::from(count) / f64::from((*positions).max(1)))
                };
                let same = same_top1.map_or("-".to_owned(), share);
                format!("{:>10}{:>11}{same:>11}", number(Some(*nll)), number(*mean_kl))
            }
            Figures::Embeddings(Embeddings { mean_distance, largest_distance, .. }) => {
                format!("{mean_distance:>16.6}{largest_distance:>16.6}")
            }
            Figures::Images(Images { mean_kl, same_top1, images, .. }) => {
                let share = 100.0 * f64::from(*same_top1) / f64::from((*images).max(1));
                format!("{mean_kl:>16.6}{:>16}", format!("{share:.2} %"))
            }
        };
        lines.push(format!(
            "{name:<22}{kernels:<14}{columns}  {:<18}{:>8}  {verdict}",
            short(figures.digest()),
            seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.1} s")),
        ));
    };
    if let (Figures::Windows(windows), Some(nll)) = (host, reference_nll) {
        let reference =
            Windows { nll, mean_kl: None, same_top1: None, logits_sha256: None, ..windows.clone() };
        row("full precision", "f32", &Figures::Windows(reference), None, "reference");
    }
    row("host", "recorded", host, None, "record");
    for report in places {
        let verdict = match (report.passed, report.device.digest() == host.digest()) {
            (true, true) => "equal",
            (true, false) => "within bounds",
            (false, _) => "MISSED",
        };
        row(&report.place, &report.kernels, &report.device, Some(report.seconds), verdict);
    }
    lines.push(match host {
        Figures::Windows(Windows { positions, .. }) => format!(
            "NLL and KL in nats a token over {positions} positions of the embedded windows; the KL is from the full-precision model."
        ),
        Figures::Embeddings(Embeddings { texts, .. }) => format!(
            "1 - cosine of the vectors and the full-precision model's, over the {texts} embedded texts."
        ),
        Figures::Images(Images { images, .. }) => format!(
            "KL in nats an image from the full-precision model, over the {images} embedded images, which are smaller ones enlarged."
        ),
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_kind_it_is_of_by_its_fields() {
        let read = |text: &str| serde_json::from_str::<Figures>(text);
        let windows = r#"{"nll":1.5,"mean_kl":0.1,"same_top1":1,"positions":2,"logits_sha256":"abc"}"#;
        assert!(matches!(read(windows), Ok(Figures::Windows(_))));
        let texts = r#"{"mean_distance":0.5,"largest_distance":0.75,"texts":2,"embeddings_sha256":"abc"}"#;
        let figures = read(texts).expect("figures");
        assert!(matches!(figures, Figures::Embeddings(_)));
        assert_eq!(figures.in_words(), "mean 1 - cosine 0.500000, vectors digest abc");
        let images = r#"{"mean_kl":0.5,"same_top1":2,"images":3,"logits_sha256":"abc"}"#;
        let figures = read(images).expect("figures");
        assert!(matches!(figures, Figures::Images(_)));
        assert_eq!(figures.in_words(), "mean KL 0.500000, logits digest abc");
        assert!(read("{}").is_err());
    }
}
