//! How many threads run a container where nobody says: measured on decode steps of that very container, on short texts of an encoder, or on images of a classifier.
//!
//! The threads meet five times a block and once for the head. Whether that costs more than it gains depends on the model, the
//! processor, and what else runs on it, so a few steps with each number of threads tell more than any rule about bytes would.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use rescomp_formats::container::CheckedContainer;
use rescomp_formats::image_input::ImageInput;
use rescomp_formats::spec::ModelKind;
use rescomp_runtime::Machine;
use rescomp_runtime::classifier::Classifier;
use rescomp_runtime::encoder::Encoder;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::kernels::Kernels;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::MemoryBlock;
use rescomp_runtime::models::vit::Pixels;
use rescomp_runtime::session::{Limits, Session};
use rescomp_runtime::threads::ThreadPool;

use crate::classifier;
use crate::embedder;
use crate::error::Error;
use crate::machine;

/// Most threads that are chosen: more wait for the same memory.
const MOST: usize = 8;
/// Steps of a round with one number of threads; the first wakes the threads and isn't timed.
const STEPS: usize = 4;
/// Rounds in which all numbers of threads take turns.
const ROUNDS: usize = 5;
/// No round begins after this.
const TIME: Duration = Duration::from_millis(100);
/// Where a step on all processors takes this long, meeting costs nothing beside it, and nothing is measured.
const LONG_STEP: Duration = Duration::from_millis(10);
/// More threads are chosen where they take at most this share of the time.
const WORTH: f64 = 0.95;

/// The threads for a container that has been checked: one where the model does not run, which whoever runs it finds out and says.
///
/// # Errors
/// Where the system refuses a thread, or there is no memory for a step.
pub(crate) fn choose(
    path: &Path,
    container: &CheckedContainer<'_>,
    kernels: &'static Kernels,
    pin: bool,
) -> Result<ThreadPool, Error> {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MOST);
    let mut pools = Vec::new();
    for threads in candidates(processors) {
        pools.push(machine::thread_pool(threads, pin)?);
    }
    let context = STEPS.min(container.manifest().spec.context as usize);
    let limits = Limits { context, tile: 1 };
    let mut memory = match container.manifest().spec.architecture.kind() {
        ModelKind::Encoder => embedder::memory(path, container, context)?,
        ModelKind::Decoder => machine::session_memory(path, container, limits)?,
        ModelKind::Classifier => classifier::memory(path, container)?,
    };
    let mut steps = |pool: &ThreadPool| seconds_a_step(container, kernels, limits, memory.blocks(), pool);
    let mut best = pools.pop().map_or_else(|| machine::thread_pool(1, pin), Ok)?;
    if pools.is_empty() {
        return Ok(best);
    }
    match steps(&best) {
        Ok(seconds) if seconds > LONG_STEP.as_secs_f64() => return Ok(best),
        Ok(_) => {}
        Err(_) => return machine::thread_pool(1, pin),
    }
    pools.push(best);
    let mut times = vec![Vec::new(); pools.len()];
    let start = Instant::now();
    for _ in 0..ROUNDS {
        for (pool, times) in pools.iter().zip(&mut times) {
            let Ok(seconds) = steps(pool) else { return machine::thread_pool(1, pin) };
            times.push(seconds);
        }
        if start.elapsed() > TIME {
            break;
        }
    }
    let chosen = fastest(&mut times);
    best = pools.swap_remove(chosen);
    Ok(best)
}

/// Numbers of threads to compare, rising: powers of two, and all processors.
fn candidates(processors: usize) -> Vec<usize> {
    let powers = (0..usize::BITS).map(|power| 1 << power).take_while(|threads| *threads < processors);
    powers.chain([processors]).collect()
}

/// Seconds of a decode step, of a short text of an encoder, or of an image of a classifier: the median of a few.
fn seconds_a_step(
    container: &CheckedContainer<'_>,
    kernels: &'static Kernels,
    limits: Limits,
    memory: &mut [MemoryBlock],
    pool: &ThreadPool,
) -> Result<f64, RuntimeError> {
    let machine = Machine { kernels, executor: pool };
    let mut run: Box<dyn FnMut() -> Result<(), RuntimeError>> =
        match container.manifest().spec.architecture.kind() {
            ModelKind::Classifier => {
                let format = ActivationFormat::Int8;
                let mut classifier = Classifier::new(container, machine, format, memory)?;
                let elems = container.manifest().spec.image().map_or(0, ImageInput::elems);
                let rgb = vec![0; elems];
                Box::new(move || classifier.classify(Pixels::Bytes { rgb: &rgb, repeat: 1 }).map(|_| ()))
            }
            ModelKind::Encoder => {
                let mut encoder =
                    Encoder::new(container, machine, limits.context, ActivationFormat::Int8, memory)?;
                Box::new(move || encoder.embed(&[0; STEPS][..limits.context]).map(|_| ()))
            }
            ModelKind::Decoder => {
                let mut session = Session::new(container, machine, limits, ActivationFormat::Int8, memory)?;
                Box::new(move || session.run(&[0]).map(|_| ()))
            }
        };
    let mut times = Vec::new();
    for step in 0..limits.context {
        let start = Instant::now();
        run()?;
        if step > 0 || limits.context == 1 {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(median(&mut times))
}

/// The index of the numbers of threads that is fastest by its median; of nearly equal ones the least.
fn fastest(times: &mut [Vec<f64>]) -> usize {
    let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
    let mut best = 0;
    for (index, median) in medians.iter().enumerate() {
        if *median < WORTH * medians[best] {
            best = index;
        }
    }
    best
}

/// The middle one, infinite where there is none.
fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_rise_to_the_processors() {
        assert_eq!(candidates(1), [1]);
        assert_eq!(candidates(2), [1, 2]);
        assert_eq!(candidates(3), [1, 2, 3]);
        assert_eq!(candidates(4), [1, 2, 4]);
        assert_eq!(candidates(6), [1, 2, 4, 6]);
    }

    #[test]
    fn more_threads_must_be_worth_it() {
        let by_medians = |medians: [f64; 3]| {
            // A slow round changes no median.
            fastest(&mut medians.map(|median| vec![median, 99.0, median]))
        };
        assert_eq!(by_medians([1.0, 0.96, 0.97]), 0);
        assert_eq!(by_medians([1.0, 0.6, 0.59]), 1);
        assert_eq!(by_medians([1.0, 0.6, 0.4]), 2);
        assert_eq!(by_medians([1.0, 2.0, 3.0]), 0);
        assert_eq!(fastest(&mut [vec![], vec![1.0]]), 1);
    }
}
