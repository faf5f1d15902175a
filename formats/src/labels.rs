//! The names of an image's classes: a line each (docs/container.md).

use crate::check_windows::CheckWindowsError;
use crate::manifest::is_printable;

/// Most bytes of the section.
pub const MAX_LABELS_BYTES: usize = 16 << 20;

/// A view of the section. After [`Labels::parse`] no accessor panics.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    text: &'a str,
}

impl<'a> Labels<'a> {
    /// Views and checks a section: UTF-8, a line for each class, characters that can be printed.
    ///
    /// # Errors
    /// [`CheckWindowsError`] with the byte that can't be.
    pub fn parse(section: &'a [u8], classes: u32) -> Result<Self, CheckWindowsError> {
        let error = |offset_bytes, expected, found| Err(CheckWindowsError { offset_bytes, expected, found });
        if section.len() > MAX_LABELS_BYTES {
            return error(MAX_LABELS_BYTES, "at most 16777216 bytes", section.len() as u64);
        }
        let text = match core::str::from_utf8(section) {
            Ok(text) => text,
            Err(wrong) => {
                let at = wrong.valid_up_to();
                return error(at, "UTF-8", section.get(at).copied().unwrap_or(0).into());
            }
        };
        let mut lines = 0_u64;
        for (at, character) in text.char_indices() {
            match character {
                '\n' => lines += 1,
                character if is_printable(character) => {}
                character => {
                    return error(at, "a character that can be printed", u32::from(character).into());
                }
            }
        }
        if lines != u64::from(classes) {
            return error(section.len(), "as many lines as there are classes", lines);
        }
        if !text.ends_with('\n') {
            return error(section.len(), "the end of the last line", 0);
        }
        Ok(Labels { text })
    }

    /// The name of a class; nothing beyond the last.
    pub fn get(&self, class: u32) -> &'a str {
        self.text.split('\n').nth(class as usize).unwrap_or_default()
    }
}

/// Makes a section.
#[cfg(feature = "write")]
pub fn write<S: AsRef<str>>(labels: &[S]) -> alloc::vec::Vec<u8> {
    labels.iter().flat_map(|label| label.as_ref().bytes().chain([b'\n'])).collect()
}

#[cfg(test)]
#[cfg(feature = "write")]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let section = write(&["tench, Tinca tinca", "", "caf\u{e9}"]);
        let labels = Labels::parse(&section, 3).unwrap();
        let found: [&str; 4] = core::array::from_fn(|class| labels.get(class as u32));
        assert_eq!(found, ["tench, Tinca tinca", "", "caf\u{e9}", ""]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_byte() {
        let refuse = |section: &[u8], classes| {
            let error = Labels::parse(section, classes).unwrap_err();
            (error.offset_bytes, error.found)
        };
        assert_eq!(refuse(b"a\nb\n", 3), (4, 2));
        assert_eq!(refuse(b"a\nb\nc", 2), (5, 0));
        assert_eq!(refuse(b"a\n\xff\n", 2), (2, 0xff));
        assert_eq!(refuse(b"a\n\x1b[2J\n", 2), (2, 0x1b));
        assert_eq!(refuse(b"", 1), (0, 0));
    }
}
