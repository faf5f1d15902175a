//! The chat template: the texts that stand before, between and behind the messages of a conversation (docs/container.md).
//!
//! A conversation is a system message, where there is one, then a user's message and an answer in turn, and a user's message last:
//!
//! ```text
//! system SYSTEM after_system USER answered ANSWER next USER answered ANSWER next USER open
//! first                      USER answered ANSWER next USER open
//! ```
//! Everything that a model's template says of such conversations fits these six texts, or the host refuses to make them.

/// Most bytes of the section.
pub const MAX_CHAT_TEMPLATE_BYTES: usize = 65_536;
/// Version of the layout.
const VERSION: u8 = 1;
/// The number of texts.
const TEXTS: usize = 6;
/// Bytes before the texts: version, flags, two zero bytes, the texts' lengths.
#[cfg(any(test, feature = "write"))]
const PREFIX_BYTES: usize = 4 + 4 * TEXTS;

/// The flags, by their bits.
mod flag {
    pub(super) const SYSTEM: u8 = 1;
    pub(super) const TRIM_SYSTEM: u8 = 2;
    pub(super) const TRIM_USER: u8 = 4;
    pub(super) const TRIM_ANSWER: u8 = 8;
    pub(super) const DROP_THOUGHTS: u8 = 16;
    pub(super) const ALL: u8 = 31;
}

/// Whose messages lose the white space at their ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Trimmed {
    /// The system message.
    pub system: bool,
    /// The user's messages.
    pub user: bool,
    /// The answers.
    pub answer: bool,
}

/// What stands around a system message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SystemTexts<'a> {
    /// From the beginning to the system message.
    pub before: &'a str,
    /// From it to the first message of the user.
    pub after: &'a str,
}

/// A template, as it lies in the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ChatTemplate<'a> {
    /// Around a system message; `None` where the model takes none.
    pub system: Option<SystemTexts<'a>>,
    /// From the beginning to the user's first message, where there is no system message: the default one, if any, is part of it.
    pub first: &'a str,
    /// From the last message of the user to the answer that the model is to give.
    pub open: &'a str,
    /// From a message of the user to the answer that it got.
    pub answered: &'a str,
    /// From an answer to the next message of the user.
    pub next: &'a str,
    /// Whose messages are trimmed.
    pub trimmed: Trimmed,
    /// Of an answer that was given, only what follows the last `</think>` is repeated, without the line breaks in front of it.
    pub drops_thoughts: bool,
}

/// Why the section is refused. The offset counts from the start of the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ChatTemplateError {
    /// Byte in the section.
    pub offset_bytes: usize,
    /// What was expected.
    pub expected: &'static str,
    /// What was found.
    pub found: u64,
}

impl core::fmt::Display for ChatTemplateError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "byte {}: expected {}, found {}", self.offset_bytes, self.expected, self.found)
    }
}

impl core::error::Error for ChatTemplateError {}

impl<'a> ChatTemplate<'a> {
    /// Views and checks a section.
    ///
    /// # Errors
    /// [`ChatTemplateError`] with the byte that can't be.
    pub fn parse(section: &'a [u8]) -> Result<Self, ChatTemplateError> {
        let error = |offset_bytes, expected, found| ChatTemplateError { offset_bytes, expected, found };
        if section.len() > MAX_CHAT_TEMPLATE_BYTES {
            return Err(error(0, "at most 65,536 bytes", section.len() as u64));
        }
        let Some((&[version, flags, zero, zero_too], rest)) = section.split_first_chunk() else {
            return Err(error(0, "28 bytes of flags and lengths", section.len() as u64));
        };
        if version != VERSION {
            return Err(error(0, "version 1 of the chat template", version.into()));
        }
        if flags & !flag::ALL != 0 {
            return Err(error(1, "no flags but those of bits 0 to 4", flags.into()));
        }
        for (offset, byte) in [(2, zero), (3, zero_too)] {
            if byte != 0 {
                return Err(error(offset, "0", byte.into()));
            }
        }
        let Some((lengths, mut rest)) = rest.split_first_chunk::<{ 4 * TEXTS }>() else {
            return Err(error(0, "28 bytes of flags and lengths", section.len() as u64));
        };
        let mut texts = [""; TEXTS];
        for (index, (length, place)) in lengths.as_chunks::<4>().0.iter().zip(&mut texts).enumerate() {
            let length = u32::from_le_bytes(*length);
            let Some((text, after)) = rest.split_at_checked(length as usize) else {
                return Err(error(4 + 4 * index, "a length within the section", length.into()));
            };
            let begin = section.len() - rest.len();
            *place = core::str::from_utf8(text).map_err(|wrong| {
                let at = wrong.valid_up_to();
                error(begin + at, "UTF-8", text.get(at).copied().unwrap_or_default().into())
            })?;
            rest = after;
        }
        if !rest.is_empty() {
            let end = section.len() - rest.len();
            return Err(error(end, "the end of the section", rest.len() as u64));
        }
        let [before, after, first, open, answered, next] = texts;
        let is_set = |bit| flags & bit != 0;
        let system = is_set(flag::SYSTEM).then_some(SystemTexts { before, after });
        if system.is_none() {
            for (offset, text) in [(4, before), (8, after)] {
                if !text.is_empty() {
                    return Err(error(
                        offset,
                        "no texts around a system message that there is not",
                        text.len() as u64,
                    ));
                }
            }
            if is_set(flag::TRIM_SYSTEM) {
                return Err(error(1, "no trimming of a system message that there is not", flags.into()));
            }
        }
        let trimmed = Trimmed {
            system: is_set(flag::TRIM_SYSTEM),
            user: is_set(flag::TRIM_USER),
            answer: is_set(flag::TRIM_ANSWER),
        };
        let drops_thoughts = is_set(flag::DROP_THOUGHTS);
        Ok(ChatTemplate { system, first, open, answered, next, trimmed, drops_thoughts })
    }

    /// The section, unless it would have more than [`MAX_CHAT_TEMPLATE_BYTES`].
    #[cfg(any(test, feature = "write"))]
    pub fn section(&self) -> Option<alloc::vec::Vec<u8>> {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = bit(self.system.is_some(), flag::SYSTEM)
            | bit(self.trimmed.system && self.system.is_some(), flag::TRIM_SYSTEM)
            | bit(self.trimmed.user, flag::TRIM_USER)
            | bit(self.trimmed.answer, flag::TRIM_ANSWER)
            | bit(self.drops_thoughts, flag::DROP_THOUGHTS);
        let SystemTexts { before, after } = self.system.unwrap_or(SystemTexts { before: "", after: "" });
        let texts = [before, after, self.first, self.open, self.answered, self.next];
        let bytes = texts.iter().fold(PREFIX_BYTES, |bytes, text| bytes.saturating_add(text.len()));
        if bytes > MAX_CHAT_TEMPLATE_BYTES {
            return None;
        }
        let mut section = alloc::vec![VERSION, flags, 0, 0];
        texts.iter().for_each(|text| section.extend((text.len() as u32).to_le_bytes()));
        texts.iter().for_each(|text| section.extend(text.as_bytes()));
        Some(section)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: ChatTemplate<'_> = ChatTemplate {
        system: Some(SystemTexts { before: "<s>S:", after: "\nU:" }),
        first: "<s>U:",
        open: "\nA:",
        answered: "\nA: ",
        next: "é</s>U:",
        trimmed: Trimmed { system: false, user: true, answer: true },
        drops_thoughts: true,
    };

    #[test]
    fn what_was_written_is_read_back() {
        for system in [TEMPLATE.system, None] {
            let template = ChatTemplate { system, ..TEMPLATE };
            let section = template.section().unwrap();
            assert_eq!(ChatTemplate::parse(&section), Ok(template));
            // Cut anywhere, it is refused.
            assert!((0..section.len()).all(|end| ChatTemplate::parse(&section[..end]).is_err()));
        }
        let long = "x".repeat(MAX_CHAT_TEMPLATE_BYTES);
        assert_eq!(ChatTemplate { first: &long, ..TEMPLATE }.section(), None);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_byte() {
        let section = TEMPLATE.section().unwrap();
        let refused = |change: &dyn Fn(&mut alloc::vec::Vec<u8>)| {
            let mut changed = section.clone();
            change(&mut changed);
            let error = ChatTemplate::parse(&changed).unwrap_err();
            (error.offset_bytes, error.found)
        };
        assert_eq!(refused(&|bytes| bytes[0] = 2), (0, 2));
        assert_eq!(refused(&|bytes| bytes[1] |= 32), (1, 61));
        assert_eq!(refused(&|bytes| bytes[3] = 7), (3, 7));
        assert_eq!(refused(&|bytes| bytes[7] = 1), (4, 5 | 1 << 24));
        assert_eq!(refused(&|bytes| bytes.push(0)), (section.len(), 1));
        assert_eq!(refused(&|bytes| bytes.resize(MAX_CHAT_TEMPLATE_BYTES + 1, 0)), (0, 65_537));
        assert_eq!(refused(&|bytes| bytes[1] = 0), (4, 5));
        assert_eq!(refused(&|bytes| bytes[PREFIX_BYTES + 2] = 0xff), (PREFIX_BYTES + 2, 0xff));
        let bare = ChatTemplate { system: None, ..TEMPLATE }.section().unwrap();
        let mut trims_nothing = bare;
        trims_nothing[1] |= flag::TRIM_SYSTEM;
        assert_eq!(ChatTemplate::parse(&trims_nothing).unwrap_err().offset_bytes, 1);
    }
}
