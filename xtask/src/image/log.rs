//! What an image says: text, as the 64-bit one writes it, and as `targets/defmt-log` makes it of a microcontroller's frames.
//!
//! ```text
//! report kernels=NAME nll=F kl=F top1=N positions=N digest=HEX prefill=HEX passed=true|false
//! story begins / piece TEXT / .. / story ends
//! anything else                                           for people
//! ```
//! In text, a line break inside a piece is written `\n` and a backslash twice.

use crate::figures::{Figures, Windows};
use crate::runner::DeviceReport;

/// Makes lines of an image's text.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// What no line break has ended yet.
    held: Vec<u8>,
}

impl Log {
    /// Takes bytes, and hands on the lines they complete.
    pub(crate) fn receive(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        self.held.extend_from_slice(bytes);
        while let Some(end) = self.held.iter().position(|&byte| byte == b'\n') {
            let rest = self.held.split_off(end + 1);
            let whole = std::mem::replace(&mut self.held, rest);
            line(&unescaped(String::from_utf8_lossy(&whole).trim_end_matches(['\n', '\r'])));
        }
    }
}

/// A line as it was before [`rescomp_firmware::Escaped`] wrote it.
fn unescaped(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                other => text.extend(other),
            },
            _ => text.push(character),
        }
    }
    text
}

/// What a run of an image said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Said {
    /// The check's figures.
    pub(crate) report: Option<Checked>,
    /// The text of a story, its prompt in front.
    pub(crate) story: Option<String>,
    /// Everything else, in order.
    pub(crate) lines: Vec<String>,
}

/// The figures of a `report` line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checked {
    kernels: String,
    figures: Windows,
    prefill_logits_sha256: String,
    passed: bool,
}

impl Checked {
    /// As every place reports.
    pub(crate) fn report(self, place: String, seconds: f64) -> DeviceReport {
        DeviceReport {
            place,
            kernels: self.kernels,
            threads: 1,
            device: Figures::Windows(self.figures),
            prefill_logits_sha256: Some(self.prefill_logits_sha256),
            passed: self.passed,
            seconds,
            tensor_kernels: serde_json::Value::Null,
        }
    }
}

impl Said {
    /// Takes a line in.
    ///
    /// # Errors
    /// Says in words what is wrong with a line for programs.
    pub(crate) fn hear(&mut self, line: &str) -> Result<(), String> {
        if let Some(fields) = line.strip_prefix("report ") {
            self.report = Some(checked(fields)?);
        } else if line == "story begins" {
            self.story = Some(String::new());
        } else if let (Some(piece), Some(story)) = (line.strip_prefix("piece "), &mut self.story) {
            story.push_str(piece);
        } else if line != "story ends" {
            self.lines.push(line.to_owned());
        }
        Ok(())
    }
}

fn checked(fields: &str) -> Result<Checked, String> {
    let find = |name: &str| {
        let value = fields.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        value.ok_or_else(|| format!("report: no {name} in `{fields}`"))
    };
    fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
        text.parse().map_err(|_| format!("report: {name}: expected a number, found `{text}`"))
    }
    let digest = |name: &str| {
        let text = find(name)?;
        match text.len() == 64 && text.chars().all(|digit| digit.is_ascii_hexdigit()) {
            true => Ok(text.to_owned()),
            false => Err(format!("report: {name}: expected 64 hexadecimal digits, found `{text}`")),
        }
    };
    Ok(Checked {
        kernels: find("kernels")?.to_owned(),
        figures: Windows {
            nll: number("nll", find("nll")?)?,
            mean_kl: Some(number("kl", find("kl")?)?),
            same_top1: Some(number("top1", find("top1")?)?),
            positions: number("positions", find("positions")?)?,
            logits_sha256: Some(digest("digest")?),
        },
        prefill_logits_sha256: digest("prefill")?,
        passed: number("passed", find("passed")?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rescomp_formats::manifest::CheckRecord;
    use rescomp_runtime::eval::Measured;

    const DIGEST: &str = "00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff";

    fn windows(report: &DeviceReport) -> &Windows {
        match &report.device {
            Figures::Windows(windows) => windows,
            Figures::Embeddings(_) | Figures::Images(_) => panic!("a decoder's"),
        }
    }

    fn line() -> String {
        format!(
            "report kernels=scalar nll=1.25 kl=0.5 top1=7 positions=9 digest={DIGEST} prefill={DIGEST} passed=true"
        )
    }

    #[test]
    fn a_report_is_read_back() {
        let mut said = Said::default();
        said.hear(&line()).expect("valid");
        let report = said.report.expect("a report").report("there".to_owned(), 2.0);
        assert_eq!((report.kernels.as_str(), report.passed, windows(&report).nll), ("scalar", true, 1.25));
        assert_eq!(report.device.digest(), Some(DIGEST));
        assert_eq!(report.prefill_logits_sha256.as_deref(), Some(DIGEST));
    }

    #[test]
    fn what_the_firmware_writes_is_read_back_exactly() {
        let figures =
            Measured { nll: 1.0 / 3.0, mean_kl: 1e-9, same_top1: 3, positions: 7, logits_sha256: [0xab; 32] };
        let host = CheckRecord {
            reference_nll: 1.0,
            nll: figures.nll,
            mean_kl: figures.mean_kl,
            same_top1: 3,
            positions: 7,
            logits_sha256: [0xab; 32],
        };
        let report = rescomp_firmware::Report {
            kernels: "neon",
            host,
            device: figures,
            prefill_logits_sha256: [0xab; 32],
        };
        let mut said = Said::default();
        said.hear(&report.to_string()).expect("valid");
        let read = said.report.clone().expect("a report").report(String::new(), 0.0);
        assert_eq!((windows(&read).nll, windows(&read).mean_kl), (figures.nll, Some(figures.mean_kl)));
        assert_eq!(read.device.digest(), Some("ab".repeat(32).as_str()));
        assert!(read.passed);
        let other = rescomp_firmware::Report { prefill_logits_sha256: [0; 32], ..report };
        said.hear(&other.to_string()).expect("valid");
        assert!(!said.report.expect("a report").passed);
    }

    #[test]
    fn a_report_that_lacks_something_is_no_report() {
        for (from, to, part) in [
            ("nll=1.25 ", "", "no nll"),
            ("top1=7", "top1=x", "top1: expected a number"),
            ("passed=true", "passed=yes", "passed"),
            (&DIGEST[..8], "", "digest: expected 64"),
        ] {
            let error = Said::default().hear(&line().replacen(from, to, 1)).expect_err("refused");
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn text_becomes_lines_and_a_story() {
        let (mut log, mut said) = (Log::default(), Said::default());
        for part in ["boot\r\nstory be", "gins\npiece Once\npiece  up\\\\on\\n\n", "story ends\nlast"] {
            log.receive(part.as_bytes(), |line| said.hear(line).expect("valid"));
        }
        assert_eq!(said.story.as_deref(), Some("Once up\\on\n"));
        assert_eq!(said.lines, ["boot"]);
    }
}
