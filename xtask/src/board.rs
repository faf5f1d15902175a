//! How fast one board is: the table `[board]` of a target's description.

use std::collections::BTreeMap;

use rescomp_formats::encodings::CodeWidth;
use serde::{Deserialize, Serialize};

/// What a board's speed is reckoned from. Sources stand beside the numbers in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Board {
    /// Its processor's cores, for people.
    pub(crate) core: String,
    /// How many there are.
    pub(crate) processors: usize,
    /// Cycles a second.
    pub(crate) clock_hz: f64,
    /// What memory gives, by threads that read, rising.
    pub(crate) read_bandwidth: Vec<ReadBandwidth>,
    /// Cycles of one core a weight, in decode; by encoding, e.g. `int4`, and `int4_even` where levels are those of `--levels even`.
    pub(crate) cycles_per_weight: BTreeMap<String, f64>,
}

/// What memory gives to some threads together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadBandwidth {
    /// How many.
    pub(crate) threads: usize,
    /// Bytes a second.
    pub(crate) bytes_per_second: f64,
}

impl Board {
    /// The field that is wrong, and what is wrong with it.
    pub(crate) fn validate(&self) -> Result<(), (&'static str, String)> {
        if !(1..=1024).contains(&self.processors) {
            return Err(("board.processors", format!("expected 1 to 1024, found {}", self.processors)));
        }
        let positive = |field, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err((field, format!("expected a finite number above 0, found {value}"))),
        };
        positive("board.clock_hz", self.clock_hz)?;
        if self.read_bandwidth.first().is_none_or(|first| first.threads != 1) {
            return Err(("board.read_bandwidth", "expected an entry for 1 thread first".to_owned()));
        }
        if let Some(pair) = self.read_bandwidth.windows(2).find(|pair| pair[0].threads >= pair[1].threads) {
            return Err((
                "board.read_bandwidth",
                format!(
                    "expected rising numbers of threads, found {} after {}",
                    pair[1].threads, pair[0].threads
                ),
            ));
        }
        for entry in &self.read_bandwidth {
            positive("board.read_bandwidth.bytes_per_second", entry.bytes_per_second)?;
        }
        for (name, cycles) in &self.cycles_per_weight {
            let encoding = name.strip_suffix(EVEN).unwrap_or(name);
            if !CodeWidth::ALL.iter().any(|width| encoding == encoding_name(*width)) {
                return Err((
                    "board.cycles_per_weight",
                    format!("expected names like int4 and int4{EVEN}, found `{name}`"),
                ));
            }
            positive("board.cycles_per_weight", *cycles)?;
        }
        Ok(())
    }

    /// Bytes a second that so many threads read: the figure of the most threads up to that many.
    pub(crate) fn bandwidth(&self, threads: usize) -> f64 {
        let known = self.read_bandwidth.iter().rev().find(|entry| entry.threads <= threads);
        known.map_or(0.0, |entry| entry.bytes_per_second)
    }

    /// Cycles a weight; `None` where the board doesn't say. Evenly spaced levels take what others do where it says nothing of them.
    pub(crate) fn cycles(&self, width: CodeWidth, even_levels: bool) -> Option<f64> {
        let name = encoding_name(width);
        let even = even_levels.then(|| self.cycles_per_weight.get(&format!("{name}{EVEN}"))).flatten();
        even.or_else(|| self.cycles_per_weight.get(&name)).copied()
    }
}

/// What follows the name of an encoding whose levels are evenly spaced.
const EVEN: &str = "_even";

/// As a container's report names it.
pub(crate) fn encoding_name(width: CodeWidth) -> String {
    format!("int{}", width.bits())
}
