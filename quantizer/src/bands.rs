//! Bands of an embedding: its rows by how often their tokens occur, each band a matrix with bits and groups of its own.
//!
//! An error in the row of a token counts each time the token is read, and, where the embedding is the head as well, each time the
//! token is likely. That differs by orders of magnitude between rows, so bits are worth far more in some of them than in others: the same
//! argument by which bits are distributed over matrices. A band is chosen by a token's frequency in the calibration text; tokens that
//! do not occur there are the rarest.

use crate::checkpoint::Matrix;

/// The bands that an embedding is divided into.
pub const BANDS: usize = 4;
/// Rows of each band in sixteenths of the vocabulary, those of the most frequent tokens first: frequencies fall about as the inverse of the
/// rank (Zipf's law), so that bands which double have about the same share of a text.
const SIXTEENTHS: [usize; BANDS] = [1, 2, 4, 9];
/// Rows of a band are a multiple of this: a tile of the layouts.
const ROWS_MULTIPLE: usize = 8;
/// Fewer tokens are not worth the tables of several matrices.
const SMALLEST_VOCABULARY: usize = 512;

/// Which band each token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bands {
    of_token: Vec<u8>,
}

impl Bands {
    /// By the frequency of tokens in the first `positions + 1` tokens of the calibration windows. `None` for a vocabulary that is too small.
    pub fn by_frequency(windows: &[Vec<u32>], positions: usize, vocabulary: usize) -> Option<Bands> {
        if vocabulary < SMALLEST_VOCABULARY {
            return None;
        }
        let mut counts = vec![0_u64; vocabulary];
        for &token in windows.iter().flat_map(|window| window.iter().take(positions + 1)) {
            if let Some(count) = counts.get_mut(token as usize) {
                *count += 1;
            }
        }
        let mut tokens: Vec<usize> = (0..vocabulary).collect();
        // Stable: equally frequent tokens come in the order of their numbers, in which tokenizers were trained, frequent ones first.
        tokens.sort_by_key(|&token| std::cmp::Reverse(counts[token]));
        let mut of_token = vec![0; vocabulary];
        let (mut band, mut end) = (0, band_end(0, vocabulary));
        for (rank, token) in tokens.into_iter().enumerate() {
            while rank >= end {
                band += 1;
                end = band_end(band, vocabulary);
            }
            of_token[token] = band as u8;
        }
        Some(Bands { of_token })
    }

    /// The band of each token.
    pub fn of_token(&self) -> &[u8] {
        &self.of_token
    }

    /// The tokens of a band, rising: the order of its rows.
    pub fn tokens(&self, band: u8) -> impl Iterator<Item = usize> {
        self.of_token.iter().enumerate().filter(move |(_, of)| **of == band).map(|(token, _)| token)
    }

    /// The rows of a band.
    pub fn part(&self, matrix: &Matrix, band: u8) -> Matrix {
        let mut data = Vec::new();
        let mut rows = 0;
        for token in self.tokens(band) {
            data.extend_from_slice(matrix.row(token));
            rows += 1;
        }
        Matrix { rows, cols: matrix.cols, data }
    }

    /// Puts the rows of a band where they belong.
    ///
    /// # Panics
    /// Where `part` has other columns.
    pub fn put(&self, whole: &mut Matrix, part: &Matrix, band: u8) {
        let cols = whole.cols;
        for (row, token) in self.tokens(band).enumerate() {
            whole.data[token * cols..(token + 1) * cols].copy_from_slice(part.row(row));
        }
    }
}

/// Where a band ends among the tokens by frequency.
fn band_end(band: usize, vocabulary: usize) -> usize {
    match SIXTEENTHS.get(..=band) {
        Some(before) if before.len() < BANDS => {
            let sixteenths: usize = before.iter().sum();
            (vocabulary * sixteenths / 16).next_multiple_of(ROWS_MULTIPLE)
        }
        _ => vocabulary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_tokens_come_first_and_every_row_has_its_place() {
        let vocabulary = 1003;
        // Token t occurs more often the larger it is, up to 40; token 7 most often, and once beyond the positions that count.
        let mut window: Vec<u32> = (500..540).flat_map(|t| vec![t; t as usize - 499]).collect();
        window.extend([7; 100]);
        let positions = window.len() - 1;
        window.push(3);
        let bands = Bands::by_frequency(&[window], positions, vocabulary).unwrap();
        let count = |band| bands.tokens(band).count();
        assert_eq!([0, 1, 2, 3].map(count), [64, 128, 248, 563]);
        assert_eq!((bands.of_token()[7], bands.of_token()[539], bands.of_token()[500]), (0, 0, 0));
        // Of those that do not occur, the first.
        assert_eq!((bands.of_token()[0], bands.of_token()[23], bands.of_token()[24]), (0, 0, 1));
        assert_eq!(bands.of_token()[1002], 3);

        let matrix =
            Matrix { rows: vocabulary, cols: 2, data: (0..2 * vocabulary).map(|i| i as f32).collect() };
        let mut whole = Matrix { data: vec![-1.0; 2 * vocabulary], ..matrix.clone() };
        for band in 0..BANDS as u8 {
            let part = bands.part(&matrix, band);
            assert_eq!(part.rows, count(band));
            bands.put(&mut whole, &part, band);
        }
        assert_eq!(whole.data, matrix.data);
        assert_eq!(bands.part(&matrix, 0).row(7), [14.0, 15.0]);
    }

    #[test]
    fn small_vocabularies_have_no_bands_and_all_others_have_all() {
        assert_eq!(Bands::by_frequency(&[vec![1, 2]], 1, SMALLEST_VOCABULARY - 1), None);
        for vocabulary in (SMALLEST_VOCABULARY..2000).step_by(37) {
            let bands = Bands::by_frequency(&[], 0, vocabulary).unwrap();
            assert!((0..BANDS as u8).all(|band| bands.tokens(band).next().is_some()));
            assert_eq!((0..BANDS as u8).map(|band| bands.tokens(band).count()).sum::<usize>(), vocabulary);
        }
    }
}
