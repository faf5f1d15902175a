//! `cargo xtask compare`: do the reports of checks, of several devices or days, have the same digest?

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::figures::Figures;
use crate::flags::CompareFlags;
use crate::output;
use crate::runner::DeviceReport;

/// One measurement of a report.
#[derive(Clone, Debug, Serialize)]
struct Measurement {
    file: String,
    place: String,
    kernels: String,
    figures: Figures,
}

/// The result of the command.
#[derive(Clone, Debug, Serialize)]
struct Comparison {
    /// Whether every measurement has the same digest.
    equal: bool,
    measurements: Vec<Measurement>,
}

/// What `check --json` prints.
#[derive(Debug, Deserialize)]
struct Places {
    host: Figures,
    places: Vec<DeviceReport>,
}

/// The kinds of reports.
enum Report {
    /// Of `cargo xtask check`, or in that of `pack`.
    Check(Places),
    /// Of a device.
    Device(Box<DeviceReport>),
}

impl Report {
    /// What kind it is, its fields say.
    fn read(text: &str) -> serde_json::Result<Report> {
        let mut value: serde_json::Value = serde_json::from_str(text)?;
        if let Some(check) = value.get_mut("check") {
            value = check.take();
        }
        match value.get("places") {
            Some(_) => serde_json::from_value(value).map(Report::Check),
            None => serde_json::from_value(value).map(Report::Device),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// `Exit::Disk` and `Exit::Input` for files that are no reports, `Exit::Failed` where digests differ.
pub(crate) fn run(flags: &CompareFlags) -> Result<(), Error> {
    let mut measurements = Vec::new();
    for path in &flags.reports {
        let text = std::fs::read_to_string(path).map_err(|error| Error::disk("read", path, &error))?;
        measurements.extend(read(path, &text)?);
    }
    let equal = measurements.windows(2).all(|pair| same(&pair[0], &pair[1]));
    let comparison = Comparison { equal, measurements };
    if flags.json {
        output::line(&output::json(&comparison)?);
    } else {
        print(&comparison);
    }
    match comparison.measurements.iter().find(|other| !same(&comparison.measurements[0], other)) {
        None => Ok(()),
        Some(other) => Err(Error::failed(format!(
            "{}: {} ({}) has another digest than the first of {}",
            other.file, other.place, other.kernels, comparison.measurements[0].file
        ))),
    }
}

/// Whether two have a digest, and the same one.
fn same(a: &Measurement, b: &Measurement) -> bool {
    a.figures.digest().is_some() && a.figures.digest() == b.figures.digest()
}

/// The measurements of a report, at least one.
fn read(path: &Path, text: &str) -> Result<Vec<Measurement>, Error> {
    let report = Report::read(text).map_err(|error| {
        Error::input(format!("{}: expected the report of a check: {error}", path.display()))
            .remedy("cargo xtask check --json, or `rescomp check --json` on the device, prints one")
    })?;
    let file = path.display().to_string();
    let measurement = |place: &str, kernels: &str, figures: &Figures| Measurement {
        file: file.clone(),
        place: place.to_owned(),
        kernels: kernels.to_owned(),
        figures: figures.clone(),
    };
    let of = |report: &DeviceReport| {
        let place = if report.place.is_empty() { "device" } else { &report.place };
        measurement(place, &report.kernels, &report.device)
    };
    Ok(match report {
        Report::Device(report) => vec![of(&report)],
        Report::Check(check) => {
            let record = measurement("host", "recorded", &check.host);
            std::iter::once(record).chain(check.places.iter().map(of)).collect()
        }
    })
}

fn print(comparison: &Comparison) {
    output::line(&format!("{:<30}{:<22}{:<14}{}", "report", "where", "kernels", "figures"));
    for Measurement { file, place, kernels, figures } in &comparison.measurements {
        output::line(&format!("{file:<30}{place:<22}{kernels:<14}{}", figures.in_words()));
    }
    let count = comparison.measurements.len();
    output::line(&match comparison.equal {
        true => format!("all {count} have the same digest: what they computed is equal, bit for bit"),
        false => format!("NOT all {count} have the same digest"),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    fn device(digest: &str) -> String {
        format!(
            r#"{{"kernels": "neon", "threads": 1, "device": {{"nll": 1.5, "mean_kl": 0.1, "same_top1": 3, "positions": 4,
                "logits_sha256": "{digest}"}}, "prefill_logits_sha256": null, "passed": true, "seconds": 1.0}}"#
        )
    }

    #[test]
    fn each_kind_of_report_is_read() {
        let one = read(Path::new("a.json"), &device("00ff")).expect("a device's");
        assert_eq!((one.len(), one[0].place.as_str()), (1, "device"));
        let host = r#"{"nll": 1.5, "mean_kl": 0.1, "same_top1": 3, "positions": 4, "logits_sha256": "00ff"}"#;
        let check = format!(
            r#"{{"reference_nll": 1.0, "host": {host}, "places": [{}], "not_checked": null}}"#,
            device("00ff")
        );
        let two = read(Path::new("b.json"), &check).expect("a check's");
        assert_eq!(two.len(), 2);
        assert!(same(&two[0], &two[1]) && same(&one[0], &two[0]));
        let packed =
            read(Path::new("c.json"), &format!(r#"{{"target": "x", "check": {check}}}"#)).expect("a pack's");
        assert_eq!(packed.len(), 2);
        let other = read(Path::new("d.json"), &device("00fe")).expect("a device's");
        assert!(!same(&one[0], &other[0]));
    }

    #[test]
    fn what_is_no_report_is_named() {
        for text in ["{}", "[1]", "no JSON", r#"{"target": "x", "check": null}"#] {
            let error = read(Path::new("x.json"), text).expect_err("refused");
            assert_eq!(error.exit(), Exit::Input);
            assert!(error.to_string().starts_with("x.json: expected the report of a check"), "{error}");
        }
    }

    #[test]
    fn without_digests_nothing_is_equal() {
        let text = device("00ff").replace("\"00ff\"", "null");
        let one = read(Path::new("a.json"), &text).expect("a device's");
        assert!(!same(&one[0], &one[0]));
    }
}
