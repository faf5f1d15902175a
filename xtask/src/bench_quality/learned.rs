//! Rotations that are learned for the cases of `bench quality`: once for each bits, group and calibration sample.

use std::sync::Mutex;

use rescomp_quantizer::transforms::Transform;
use rescomp_quantizer::transforms::spinquant::{StateFile, StepReport, learn};

use super::{Case, Setting, say};
use crate::error::Error;
use crate::host;

/// What was learned for which bits, group and sample.
pub(super) type Kept = Mutex<Vec<((u8, String, usize), Transform)>>;

impl Setting<'_> {
    /// The rotations of a case.
    pub(super) fn learned(&self, case: Case, calibration: &[Vec<u32>]) -> Result<Transform, Error> {
        let Case { bits, group, sample, .. } = case;
        let flags = self.flags;
        let key = (bits, group.to_string(), sample);
        let mut kept = self.learned.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, transform)) = kept.iter().find(|(of, _)| *of == key) {
            return Ok(transform.clone());
        }
        let what = format!("spinquant, {bits} bits, group {group}, sample {}", sample + 1);
        let windows = &calibration[sample * flags.calibration_windows..][..flags.calibration_windows];
        let program = host::program_digest()?;
        let path = flags
            .spin
            .spin_state
            .as_ref()
            .map(|folder| folder.join(format!("spinquant-{bits}-{group}-{sample}.state")));
        let file = path.as_deref().map(|path| StateFile { path, resume: true, program: &program });
        let mut each = |report: &StepReport, steps: usize| {
            let loss = report.loss.map_or_else(String::new, |loss| format!(", loss {loss:.6}"));
            let step = format!("{what}: step {} of {steps}{loss}", report.step);
            match report.held_out {
                Some(held_out) => say(&self.bar, &format!("{step}, held out {held_out:.6}")),
                None => self.bar.set_message(step),
            }
        };
        let options = flags.spin.options(bits, group);
        let learned =
            learn(self.machine, self.checkpoint, windows, self.positions.run, &options, file, &mut each)
                .map_err(|error| Error::failed(format!("{what}: {error}")))?;
        let report = &learned.report;
        say(
            &self.bar,
            &format!(
                "{what}: step {}: held out {:.6} -> {:.6}, training {:.6} -> {:.6}",
                report.best_step,
                report.held_out_start,
                report.held_out_best,
                report.training_start,
                report.training_best
            ),
        );
        kept.push((key, learned.transform.clone()));
        Ok(learned.transform)
    }
}
