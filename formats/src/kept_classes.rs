//! Probabilities of a full-precision model, as checks keep them: of the most likely classes (tokens of a vocabulary, or classes of an image) one by
//! one, of all others together (docs/container.md).

use crate::check_windows::CheckWindowsError;

/// Most classes kept one by one.
pub const MAX_CLASSES: usize = 64;
/// A log-probability `-x` nats is stored as `x` times this, rounded, in 16 bits.
pub const LOG_PROBABILITY_STEPS: f64 = 4096.0;

/// Classes that are kept of `vocabulary`, and bytes of a class's id.
pub fn sizes(vocabulary: u32) -> (usize, usize) {
    (MAX_CLASSES.min(vocabulary as usize), if vocabulary <= 1 << 16 { 2 } else { 4 })
}

/// A view of the probabilities of several places. After [`KeptClasses::parse`] no accessor panics for places that there are.
#[derive(Clone, Copy, Debug)]
pub struct KeptClasses<'a> {
    classes: usize,
    id_bytes: usize,
    /// A place: f32.
    rest: &'a [u8],
    /// Places x classes: u16.
    log_probabilities: &'a [u8],
    /// Places x classes.
    ids: &'a [u8],
}

impl<'a> KeptClasses<'a> {
    /// Bytes of so many places; `None` on overflow.
    pub fn bytes(places: usize, vocabulary: u32) -> Option<usize> {
        let (classes, id_bytes) = sizes(vocabulary);
        places.checked_mul(4 + classes * (2 + id_bytes))
    }

    /// Views and checks the bytes of so many places, which begin at `offset_bytes` of their section: probabilities between 0 and 1, ids within
    /// the vocabulary.
    ///
    /// # Errors
    /// [`CheckWindowsError`] with the byte that can't be.
    pub fn parse(
        bytes: &'a [u8],
        places: usize,
        vocabulary: u32,
        offset_bytes: usize,
    ) -> Result<Self, CheckWindowsError> {
        let error = |at: usize, expected, found| {
            Err(CheckWindowsError { offset_bytes: offset_bytes + at, expected, found })
        };
        let (classes, id_bytes) = sizes(vocabulary);
        if Self::bytes(places, vocabulary) != Some(bytes.len()) {
            return error(bytes.len(), "as many bytes as the sizes say", bytes.len() as u64);
        }
        let (rest, after) = bytes.split_at(4 * places);
        let (log_probabilities, ids) = after.split_at(2 * places * classes);
        let view = KeptClasses { classes, id_bytes, rest, log_probabilities, ids };
        for place in 0..places {
            let mass = view.rest(place);
            if !(0.0..=1.0).contains(&mass) {
                let expected = "a probability (the bits of an f32 from 0 to 1)";
                return error(4 * place, expected, mass.to_bits().into());
            }
        }
        let ids_start = bytes.len() - ids.len();
        for index in 0..places * classes {
            let id = view.id(index);
            if id >= vocabulary {
                return error(ids_start + index * id_bytes, "a token of the vocabulary", id.into());
            }
        }
        Ok(view)
    }

    /// The probability of all classes that aren't kept.
    pub fn rest(&self, place: usize) -> f32 {
        f32::from_bits(u32_at(self.rest, place))
    }

    /// The kept classes of a place with their log-probabilities in nats, most likely first.
    pub fn kept(&self, place: usize) -> impl Iterator<Item = (u32, f64)> + use<'a> {
        let first = place * self.classes;
        let view = *self;
        (first..first + self.classes).map(move |index| {
            let stored = u16::from_le_bytes([
                view.log_probabilities[2 * index],
                view.log_probabilities[2 * index + 1],
            ]);
            (view.id(index), -f64::from(stored) / LOG_PROBABILITY_STEPS)
        })
    }

    fn id(&self, index: usize) -> u32 {
        match self.id_bytes {
            2 => u32::from(u16::from_le_bytes([self.ids[2 * index], self.ids[2 * index + 1]])),
            _ => u32_at(self.ids, index),
        }
    }
}

/// Number `index` of u32 numbers.
pub(crate) fn u32_at(bytes: &[u8], index: usize) -> u32 {
    let at = 4 * index;
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Adds the bytes of places: `rest` is one a place, `kept` as many as there are classes, with log-probabilities in nats.
#[cfg(feature = "write")]
pub(crate) fn write(section: &mut alloc::vec::Vec<u8>, rest: &[f32], kept: &[(u32, f64)], id_bytes: usize) {
    rest.iter().for_each(|mass| section.extend(mass.to_le_bytes()));
    for (_, log_probability) in kept {
        // Adding a half and truncating rounds; a cast saturates, so that the least likely keep the largest number.
        section.extend(((-log_probability * LOG_PROBABILITY_STEPS + 0.5) as u16).to_le_bytes());
    }
    for (id, _) in kept {
        section.extend_from_slice(&id.to_le_bytes()[..id_bytes]);
    }
}
