//! How fast the machine reads a file that is in memory: what decoding, which reads every weight once a token, is held against.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rescomp_runtime::executor::Executor;

/// Times that the bytes are read; the fastest counts.
const REPEATS: usize = 5;
/// A part that one thread reads is a multiple of this.
const GRANULARITY: usize = 1 << 12;

/// Bytes a second at which `executor`'s threads read `bytes`, a part each: the best of several. What fits the caches is read from there,
/// as its weights are.
pub(crate) fn read_bandwidth(executor: &dyn Executor, bytes: &[u8]) -> f64 {
    let part = bytes.len().div_ceil(executor.threads()).next_multiple_of(GRANULARITY).max(GRANULARITY);
    let parts: Vec<&[u8]> = bytes.chunks(part).collect();
    let sum = AtomicU64::new(0);
    let mut fastest = f64::INFINITY;
    for _ in 0..REPEATS {
        let start = Instant::now();
        executor.run(parts.len(), &|part| {
            sum.fetch_add(parts.get(part).map_or(0, |bytes| sum_of_words(bytes)), Ordering::Relaxed);
        });
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    black_box(sum);
    bytes.len() as f64 / fastest.max(f64::MIN_POSITIVE)
}

/// The sum of all whole words of eight bytes, in chains enough for a processor to read as fast as it can.
fn sum_of_words(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    let (lines, _) = words.as_chunks::<16>();
    let mut sums = [0_u64; 16];
    for line in lines {
        for (sum, word) in sums.iter_mut().zip(line) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rescomp_runtime::executor::Serial;
    use rescomp_runtime::threads::ThreadPool;

    #[test]
    fn every_line_is_read() {
        let bytes: Vec<u8> = (0..4096 + 128 + 5).map(|index| (index % 251) as u8).collect();
        let words =
            bytes[..4096 + 128].chunks(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight")));
        assert_eq!(sum_of_words(&bytes), words.fold(0, u64::wrapping_add));
        assert_eq!(sum_of_words(&bytes[..127]), 0);
    }

    #[test]
    fn bandwidth_is_a_positive_number() {
        let bytes = vec![1; 3 * GRANULARITY + 1];
        for speed in
            [read_bandwidth(&Serial, &bytes), read_bandwidth(&ThreadPool::new(3).expect("threads"), &bytes)]
        {
            assert!(speed.is_finite() && speed > 0.0, "{speed}");
        }
        assert_eq!(read_bandwidth(&Serial, &[]), 0.0);
    }
}
