//! Resizing as PIL does it (`Image.resize`, Pillow's src/libImaging/Resample.c), so that a model is given what it was trained on.
//!
//! ```text
//! first all rows, then all columns, with bytes in between (of images whose height shrinks by more than twice as many pixels as their width first
//! the columns); for each pixel of the output:
//!     center = (place + 1/2) * scale            scale: pixels of the input that one of the output stands for
//!     weights = filter((pixel + 1/2 - center) / max(scale, 1)), divided by their sum, rounded to multiples of 2^-22
//!     value = (2^21 + sum of weight * byte) >> 22, within 0 and 255
//! ```
//! So an image that shrinks is filtered as wide as it shrinks (antialiasing), and the result is PIL's, byte for byte.

use rescomp_formats::image_input::{CHANNELS, Filter};

use crate::Rgb;

/// Bits of a weight's fraction.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// What a pixel of the output is made of.
struct Taps {
    /// The first pixel of the input.
    first: usize,
    /// Of the pixels from there on.
    weights: Vec<i32>,
}

/// An image of another size; one that has it already stays what it is.
pub fn resize(image: &Rgb, width: u32, height: u32, filter: Filter) -> Rgb {
    let [from_width, from_height, to_width, to_height] =
        [image.width, image.height, width, height].map(i64::from);
    // As PIL 13 has it; before, rows always came first.
    let columns_first = from_height - to_height > (2 * (from_width - to_width)).max(0);
    match columns_first {
        true => with_width(with_height(image.clone(), height, filter), width, filter),
        false => with_height(with_width(image.clone(), width, filter), height, filter),
    }
}

/// All rows, of another width.
fn with_width(image: Rgb, width: u32, filter: Filter) -> Rgb {
    if width == image.width {
        return image;
    }
    let channels = CHANNELS as usize;
    let taps = taps(image.width, width, filter);
    let rows = image.bytes.chunks_exact(image.width as usize * channels);
    let bytes = rows.flat_map(|row| taps.iter().flat_map(|taps| mixed(taps, row, channels))).collect();
    Rgb { width, height: image.height, bytes }
}

/// All columns, of another height.
fn with_height(image: Rgb, height: u32, filter: Filter) -> Rgb {
    if height == image.height {
        return image;
    }
    let stride = image.width as usize * CHANNELS as usize;
    let of_row = |taps: &Taps| -> Vec<u8> {
        let rows = &image.bytes[taps.first * stride..];
        (0..stride).map(|at| sum(&taps.weights, rows[at..].iter().step_by(stride))).collect()
    };
    let bytes = taps(image.height, height, filter).iter().flat_map(of_row).collect();
    Rgb { width: image.width, height, bytes }
}

/// A pixel of a row.
fn mixed(taps: &Taps, row: &[u8], channels: usize) -> [u8; CHANNELS as usize] {
    let pixels = &row[taps.first * channels..];
    std::array::from_fn(|channel| sum(&taps.weights, pixels[channel..].iter().step_by(channels)))
}

/// The weighted sum of bytes.
fn sum<'b>(weights: &[i32], bytes: impl Iterator<Item = &'b u8>) -> u8 {
    // Weights sum to 1, and their magnitudes to less than 2: within an i32, as PIL has it.
    let start = 1_i64 << (PRECISION_BITS - 1);
    let sum = weights
        .iter()
        .zip(bytes)
        .fold(start, |sum, (weight, byte)| sum + i64::from(*weight) * i64::from(*byte));
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// What each pixel of an edge of `to` pixels is made of, of an edge of `from`.
fn taps(from: u32, to: u32, filter: Filter) -> Vec<Taps> {
    let scale = f64::from(from) / f64::from(to);
    let filter_scale = scale.max(1.0);
    let support = match filter {
        Filter::Bilinear => 1.0,
        Filter::Bicubic => 2.0,
    } * filter_scale;
    let of_place = |place: u32| {
        let center = (f64::from(place) + 0.5) * scale;
        // Casts cut off towards zero and at it.
        let first = (center - support + 0.5) as u32;
        let end = ((center + support + 0.5) as u32).min(from);
        let inverse = 1.0 / filter_scale;
        let raw: Vec<f64> = (0..end.saturating_sub(first))
            .map(|tap| weight(filter, (f64::from(tap) + f64::from(first) - center + 0.5) * inverse))
            .collect();
        let total: f64 = raw.iter().sum();
        let rounded = |weight: f64| {
            let share = if total == 0.0 { weight } else { weight / total };
            let scaled = share * f64::from(1_u32 << PRECISION_BITS);
            (if share < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
        };
        Taps { first: first as usize, weights: raw.into_iter().map(rounded).collect() }
    };
    (0..to).map(of_place).collect()
}

/// A filter at a distance from its center.
fn weight(filter: Filter, distance: f64) -> f64 {
    let x = distance.abs();
    match filter {
        Filter::Bilinear => (1.0 - x).max(0.0),
        Filter::Bicubic => {
            const A: f64 = -0.5;
            if x < 1.0 {
                ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
            } else if x < 2.0 {
                (((x - 5.0) * x + 8.0) * x - 4.0) * A
            } else {
                0.0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gray(width: u32, height: u32, value: impl Fn(u32, u32) -> u8) -> Rgb {
        let pixel = |at: u32| [value(at % width, at / width); 3];
        Rgb { width, height, bytes: (0..width * height).flat_map(pixel).collect() }
    }

    #[test]
    fn flat_images_stay_flat_and_sizes_are_kept() {
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            for (from, to) in [((7, 5), (3, 9)), ((1, 1), (4, 4)), ((100, 2), (1, 1)), ((5, 5), (5, 5))] {
                for value in [0, 1, 127, 255] {
                    let resized = resize(&gray(from.0, from.1, |_, _| value), to.0, to.1, filter);
                    assert_eq!(resized, gray(to.0, to.1, |_, _| value), "{filter:?} {from:?} {to:?}");
                }
            }
        }
        let image = gray(6, 4, |x, y| (x * 40 + y) as u8);
        assert_eq!(resize(&image, 6, 4, Filter::Bicubic), image);
    }

    #[test]
    fn halves_are_means_of_what_they_stand_for() {
        // A triangle of four pixels: weights 1/8, 3/8, 3/8, 1/8; at the edges without those beyond, 3/7, 3/7, 1/7.
        let image = gray(6, 1, |x, _| [0, 80, 160, 240, 40, 200][x as usize]);
        let found: Vec<u8> = resize(&image, 3, 1, Filter::Bilinear).bytes.into_iter().step_by(3).collect();
        let exact = [
            (3.0 * 80.0 + 160.0) / 7.0,
            (80.0 + 3.0 * 160.0 + 3.0 * 240.0 + 40.0) / 8.0,
            (240.0 + 3.0 * 40.0 + 3.0 * 200.0) / 7.0,
        ];
        assert_eq!(found, exact.map(|value: f64| value.round() as u8));
    }
}
