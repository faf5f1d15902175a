//! The check windows: tokens, and the full-precision model's probabilities on them (docs/container.md).

use crate::kept_classes::{self, KeptClasses, u32_at};

/// Bytes before the tokens.
const PREFIX_BYTES: usize = 16;

/// Why the section is refused. The offset counts from the start of the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CheckWindowsError {
    /// Byte in the section.
    pub offset_bytes: usize,
    /// What was expected.
    pub expected: &'static str,
    /// What was found.
    pub found: u64,
}

/// Sizes of the section, from which all offsets follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckSizes {
    /// Number of windows, `W`.
    pub windows: usize,
    /// Positions a window, `T`; a window has `T + 1` tokens.
    pub positions: usize,
    /// Tokens kept a position, `C`.
    pub classes: usize,
    /// Bytes of a token id: 2 or 4.
    pub id_bytes: usize,
}

impl CheckSizes {
    /// The sizes for a vocabulary.
    pub fn new(windows: usize, positions: usize, vocabulary: u32) -> CheckSizes {
        let (classes, id_bytes) = kept_classes::sizes(vocabulary);
        CheckSizes { windows, positions, classes, id_bytes }
    }
    /// Bytes of the section; `None` on overflow.
    pub fn section_bytes(&self) -> Option<usize> {
        let kept = self.kept()?.checked_mul(2 + self.id_bytes)?;
        self.all_positions()?.checked_mul(4)?.checked_add(kept)?.checked_add(self.rest_offset_bytes()?)
    }
    /// Positions in all windows.
    pub fn all_positions(&self) -> Option<usize> {
        self.windows.checked_mul(self.positions)
    }
    fn tokens(&self) -> Option<usize> {
        self.windows.checked_mul(self.positions.checked_add(1)?)
    }
    fn kept(&self) -> Option<usize> {
        self.all_positions()?.checked_mul(self.classes)
    }
    fn rest_offset_bytes(&self) -> Option<usize> {
        self.tokens()?.checked_mul(4)?.checked_add(PREFIX_BYTES)
    }
}

/// A view of the section. After [`CheckWindows::parse`] no accessor panics for positions within the sizes.
#[derive(Clone, Copy, Debug)]
pub struct CheckWindows<'a> {
    sizes: CheckSizes,
    tokens: &'a [u8],
    /// A place a position, windows one after the other.
    classes: KeptClasses<'a>,
}

impl<'a> CheckWindows<'a> {
    /// Views and checks a section: sizes, tokens and kept ids within the vocabulary, probabilities between 0 and 1.
    ///
    /// # Errors
    /// [`CheckWindowsError`] with the byte that can't be.
    pub fn parse(section: &'a [u8], vocabulary: u32) -> Result<Self, CheckWindowsError> {
        let error = |offset_bytes, expected, found| Err(CheckWindowsError { offset_bytes, expected, found });
        let Some(prefix) = section.get(..PREFIX_BYTES) else {
            return error(0, "16 bytes of sizes", section.len() as u64);
        };
        let word = |index: usize| u32_at(prefix, index) as usize;
        let sizes = CheckSizes { windows: word(0), positions: word(1), classes: word(2), id_bytes: word(3) };
        let canonical = CheckSizes::new(sizes.windows, sizes.positions, vocabulary);
        if sizes.windows == 0 {
            return error(0, "one window or more", 0);
        }
        if sizes.positions == 0 {
            return error(4, "one position or more", 0);
        }
        if sizes.classes != canonical.classes {
            return error(8, "64 classes, or the vocabulary where it is smaller", sizes.classes as u64);
        }
        if sizes.id_bytes != canonical.id_bytes {
            return error(
                12,
                "2 bytes an id for a vocabulary of at most 65,536, else 4",
                sizes.id_bytes as u64,
            );
        }
        let rest = match (sizes.rest_offset_bytes(), sizes.section_bytes()) {
            (Some(rest), Some(bytes)) if bytes == section.len() => rest,
            _ => return error(section.len(), "as many bytes as the sizes say", section.len() as u64),
        };
        let tokens = &section[PREFIX_BYTES..rest];
        for index in 0..tokens.len() / 4 {
            let token = u32_at(tokens, index);
            if token >= vocabulary {
                return error(PREFIX_BYTES + 4 * index, "a token of the vocabulary", token.into());
            }
        }
        let places = sizes.windows * sizes.positions;
        let classes = KeptClasses::parse(&section[rest..], places, vocabulary, rest)?;
        Ok(CheckWindows { sizes, tokens, classes })
    }

    /// The sizes.
    pub fn sizes(&self) -> CheckSizes {
        self.sizes
    }

    /// Token `index` (0 to `T`) of a window.
    pub fn token(&self, window: usize, index: usize) -> u32 {
        u32_at(self.tokens, window * (self.sizes.positions + 1) + index)
    }

    /// The probabilities of all positions: those of position `t` of a window stand in place `window * T + t`.
    pub fn classes(&self) -> KeptClasses<'a> {
        self.classes
    }

    /// The probability of all tokens that aren't kept.
    pub fn rest(&self, window: usize, position: usize) -> f32 {
        self.classes.rest(window * self.sizes.positions + position)
    }

    /// The kept tokens of a position with their log-probabilities in nats, most likely first.
    pub fn kept(&self, window: usize, position: usize) -> impl Iterator<Item = (u32, f64)> + use<'a> {
        self.classes.kept(window * self.sizes.positions + position)
    }
}

/// Makes a section: `tokens` are W x (T+1), `rest` W x T, `kept` W x T x C with log-probabilities in nats.
///
/// # Errors
/// [`CheckWindowsError`], where a slice has another length than the sizes say.
#[cfg(feature = "write")]
pub fn write(
    sizes: &CheckSizes,
    tokens: &[u32],
    rest: &[f32],
    kept: &[(u32, f64)],
) -> Result<alloc::vec::Vec<u8>, CheckWindowsError> {
    let error = |expected, found: usize| CheckWindowsError { offset_bytes: 0, expected, found: found as u64 };
    let expect = |expected: Option<usize>, what, found: usize| {
        if expected == Some(found) { Ok(()) } else { Err(error(what, found)) }
    };
    expect(sizes.tokens(), "windows x (positions + 1) tokens", tokens.len())?;
    expect(sizes.all_positions(), "windows x positions rest masses", rest.len())?;
    expect(sizes.kept(), "windows x positions x classes kept tokens", kept.len())?;
    let mut section = alloc::vec::Vec::new();
    for size in [sizes.windows, sizes.positions, sizes.classes, sizes.id_bytes] {
        section.extend((size as u32).to_le_bytes());
    }
    tokens.iter().for_each(|token| section.extend(token.to_le_bytes()));
    kept_classes::write(&mut section, rest, kept, sizes.id_bytes);
    Ok(section)
}
