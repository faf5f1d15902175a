//! Progress of quantizing: a bar with the time left for all layers and for this one, or a line a layer where there is no terminal.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use rescomp_formats::spec::ModelSpec;
use rescomp_quantizer::calibrate::{MatrixReport, Progress};
use rescomp_quantizer::plan::BlockPlan;
use rescomp_quantizer::work::block_work;
use rescomp_runtime::linear::LinearSet;

use crate::output;

/// Steps of the bar.
const STEPS: u64 = 1000;

/// How much is done of a work whose parts are known, and how long the rest takes if it goes on as it went.
#[derive(Clone, Debug)]
struct Estimate {
    /// Work of each matrix of a layer, in order; the layers are alike.
    layer: Vec<f64>,
    layers: usize,
    /// Matrices that are done, restored ones included.
    matrices: usize,
    /// Work that was done, as against restored, and the time that it took.
    done: f64,
    took: Duration,
    /// When the work that is going on began.
    since: Instant,
}

impl Estimate {
    fn new(layer: Vec<f64>, layers: usize, now: Instant) -> Estimate {
        Estimate { layer, layers, matrices: 0, done: 0.0, took: Duration::ZERO, since: now }
    }

    /// A matrix was quantized.
    fn matrix(&mut self, now: Instant) {
        self.done += self.layer.get(self.matrices % self.layer.len().max(1)).copied().unwrap_or(0.0);
        self.took += now.saturating_duration_since(self.since);
        self.matrices += 1;
        self.since = now;
    }

    /// The matrices of a layer came from an earlier run; their time says nothing about the rest.
    fn restored(&mut self, now: Instant) {
        self.matrices += self.layer.len();
        self.since = now;
    }

    /// Work that is ahead: in all layers, and in the one that is going on.
    fn ahead(&self) -> (f64, f64) {
        let layers = self.matrices / self.layer.len().max(1);
        let whole: f64 = self.layer.iter().sum();
        let behind: f64 = self.layer.iter().take(self.matrices % self.layer.len().max(1)).sum();
        match self.layers.saturating_sub(layers) {
            0 => (0.0, 0.0),
            later => (whole * later as f64 - behind, whole - behind),
        }
    }

    /// The share of all work that is behind, restored or done.
    fn share(&self) -> f64 {
        let all = self.layer.iter().sum::<f64>() * self.layers as f64;
        1.0 - self.ahead().0 / all
    }

    /// Time left: for all layers, and for the one that is going on. `None` as long as nothing was done.
    fn left(&self, now: Instant) -> Option<(Duration, Duration)> {
        if self.done <= 0.0 {
            return None;
        }
        let (all, layer) = self.ahead();
        let seconds = self.took.as_secs_f64() / self.done;
        let going_on = now.saturating_duration_since(self.since);
        let left = |work: f64| Duration::from_secs_f64(work * seconds).saturating_sub(going_on);
        Some((left(all), left(layer)))
    }
}

/// Hears of the quantizer's progress and shows it.
pub(crate) struct Shown {
    bar: ProgressBar,
    estimate: Arc<Mutex<Estimate>>,
    layers: usize,
    kinds: Vec<&'static str>,
    start: Instant,
    /// Warnings that were shown: each once.
    warned: Vec<String>,
    /// Blocks that came from an earlier run.
    pub(crate) restored: usize,
}

fn lock(estimate: &Mutex<Estimate>) -> MutexGuard<'_, Estimate> {
    estimate.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shown {
    /// For the blocks of a model, quantized as `plan` says on so many tokens.
    pub(crate) fn new(plan: &BlockPlan, spec: &ModelSpec, tokens: usize) -> Shown {
        let layers = spec.layers as usize;
        let sets = LinearSet::of(spec.architecture);
        let kinds = sets.iter().flat_map(|set| set.kinds()).map(|kind| kind.name()).collect();
        let start = Instant::now();
        let estimate = Arc::new(Mutex::new(Estimate::new(block_work(plan, spec, tokens), layers, start)));
        let bar = ProgressBar::new(STEPS);
        let shown = Arc::clone(&estimate);
        let times = move |state: &ProgressState, to: &mut dyn std::fmt::Write| {
            // A bar that cannot be written to is not to stop the work.
            let _ = write!(to, "{}", clock(state.elapsed()));
            match lock(&shown).left(Instant::now()) {
                Some((all, layer)) if !layer.is_zero() || !all.is_zero() => {
                    let _ = write!(to, " (left {}, layer {})", clock(all), clock(layer));
                }
                _ => {}
            }
        };
        // The template is a constant; should it be wrong, the default style shows as much.
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:>12} [{bar:30}] {percent:>3} % {msg} {times}")
        {
            bar.set_style(style.progress_chars("=> ").with_key("times", times));
        }
        bar.set_prefix("quantizing");
        bar.enable_steady_tick(Duration::from_millis(250));
        Shown { bar, estimate, layers, kinds, start, warned: Vec::new(), restored: 0 }
    }

    /// Shows a step.
    pub(crate) fn hear(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Set { layer, set } => {
                self.bar.set_message(format!("layer {} of {}, {}", layer + 1, self.layers, set.name()));
            }
            Progress::Matrix { report, restored } => {
                if !restored {
                    self.matrix(report);
                }
                self.warn(&report.warnings);
            }
            Progress::Block { layer, restored } => self.block(layer, restored),
            Progress::Note(note) => self.say(&format!("note: {note}")),
            Progress::Phase(phase) => self.bar.set_message(phase),
        }
    }

    fn matrix(&mut self, report: &MatrixReport) {
        lock(&self.estimate).matrix(Instant::now());
        self.advance();
        let next = self.kinds.iter().position(|kind| *kind == report.kind).map(|at| at + 1);
        if let Some(next) = next.and_then(|next| self.kinds.get(next)) {
            self.bar.set_message(format!("layer {} of {}, {next}", report.layer + 1, self.layers));
        }
    }

    fn block(&mut self, layer: usize, restored: bool) {
        let now = Instant::now();
        if restored {
            lock(&self.estimate).restored(now);
            self.restored += 1;
            self.advance();
        }
        let left = lock(&self.estimate).left(now);
        if self.bar.is_hidden() {
            let mut line = format!("quantizing: layer {} of {}", layer + 1, self.layers);
            match left {
                _ if restored => line.push_str(", from the earlier run"),
                Some((all, _)) if layer + 1 < self.layers => {
                    let _ = write!(line, ", {}, left {}", clock(now - self.start), clock(all));
                }
                _ => {
                    let _ = write!(line, ", {}", clock(now - self.start));
                }
            }
            output::note(&line);
        }
    }

    /// Moves the bar. The lock is not held while it is drawn, since drawing asks for the time left.
    fn advance(&self) {
        let share = lock(&self.estimate).share();
        self.bar.set_position((share * STEPS as f64) as u64);
    }

    fn warn(&mut self, warnings: &[String]) {
        for warning in warnings {
            if !self.warned.contains(warning) {
                self.say(&format!("warning: {warning}"));
                self.warned.push(warning.clone());
            }
        }
    }

    /// A line on standard error, above the bar.
    fn say(&self, line: &str) {
        self.bar.suspend(|| output::note(line));
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Minutes and seconds, with hours where there are any.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_the_work() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut estimate = Estimate::new(vec![3.0, 1.0], 3, start);
        assert_eq!((estimate.share(), estimate.left(after(5))), (0.0, None));
        estimate.matrix(after(30));
        assert_eq!(estimate.share(), 0.25);
        // A unit of work takes ten seconds; one is left of this layer, eight of the others.
        let seconds = |(all, layer): (Duration, Duration)| (all.as_secs(), layer.as_secs());
        assert_eq!(estimate.left(after(30)).map(seconds), Some((90, 10)));
        assert_eq!(estimate.left(after(34)).map(seconds), Some((86, 6)));
        // Longer than expected: never less than nothing.
        assert_eq!(estimate.left(after(60)).map(seconds), Some((60, 0)));
        estimate.matrix(after(50));
        assert!((estimate.share() - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(estimate.left(after(50)).map(seconds), Some((100, 50)));
        (0..4).for_each(|_| estimate.matrix(after(90)));
        assert_eq!(estimate.share(), 1.0);
        assert_eq!(estimate.left(after(90)).map(seconds), Some((0, 0)));
    }

    #[test]
    fn restored_layers_count_as_done_but_not_as_speed() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut estimate = Estimate::new(vec![3.0, 1.0], 4, start);
        estimate.restored(after(1));
        estimate.restored(after(2));
        assert_eq!((estimate.share(), estimate.left(after(2))), (0.5, None));
        estimate.matrix(after(32));
        let seconds = |(all, layer): (Duration, Duration)| (all.as_secs(), layer.as_secs());
        assert_eq!(estimate.left(after(32)).map(seconds), Some((50, 10)));
    }

    #[test]
    fn times_are_read_as_on_a_clock() {
        for (seconds, expected) in
            [(0, "0:00"), (9, "0:09"), (61, "1:01"), (3599, "59:59"), (7325, "2:02:05")]
        {
            assert_eq!(clock(Duration::from_secs(seconds)), expected);
        }
    }
}
