//! The steps from text to tokens and back: which there are, and their codes in the section's head.

/// How a pre-token becomes tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Model {
    /// Byte-pair encoding that starts from the tokens of the bytes.
    #[default]
    ByteLevelBpe,
    /// Byte-pair encoding that starts from the tokens of the characters, as SentencePiece has it; a character without a token
    /// is its bytes' tokens, where there are such, else the token of what is unknown.
    CharacterBpe,
    /// The longest token that fits, from the left; those inside a word start with [`CONTINUATION`](super::CONTINUATION).
    WordPiece,
    /// The sequence of tokens with the greatest sum of scores (Viterbi).
    Unigram,
}

impl Model {
    pub(super) fn from_code(code: u8) -> Option<Self> {
        if !cfg!(feature = "ordered-tokens") {
            return (code == Model::ByteLevelBpe.code()).then_some(Model::ByteLevelBpe);
        }
        [Model::ByteLevelBpe, Model::CharacterBpe, Model::WordPiece, Model::Unigram]
            .into_iter()
            .find(|model| model.code() == code)
    }

    /// The code in the section's head.
    pub fn code(self) -> u8 {
        match self {
            Model::ByteLevelBpe => 0,
            Model::CharacterBpe => 1,
            Model::WordPiece => 2,
            Model::Unigram => 3,
        }
    }
}

/// How a text is cut into pre-tokens, across which no token reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum PreTokenizer {
    /// Not at all: `ByteLevel` with `use_regex: false`, or no pre-tokenizer.
    #[default]
    ByteLevel,
    /// By GPT-2's pattern: `ByteLevel` with `use_regex: true`.
    Gpt2,
    /// Every numeric character alone, the rest by GPT-2's pattern: `Sequence[Digits, ByteLevel]`, as SmolLM has it.
    DigitsGpt2,
    /// By Llama 3's pattern, with up to three numeric characters together.
    Llama3,
    /// By Qwen 2's pattern: Llama 3's with every numeric character alone.
    Qwen2,
    /// Before every space: `Metaspace` with `split: true`.
    Spaces,
    /// At white space, which is dropped, and around every punctuation character: `BertPreTokenizer`.
    Bert,
}

impl PreTokenizer {
    pub(super) fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => PreTokenizer::ByteLevel,
            1 => PreTokenizer::Gpt2,
            2 => PreTokenizer::DigitsGpt2,
            3 => PreTokenizer::Llama3,
            4 => PreTokenizer::Qwen2,
            5 => PreTokenizer::Spaces,
            6 => PreTokenizer::Bert,
            _ => return None,
        })
    }

    /// The code in the section's head.
    pub fn code(self) -> u8 {
        match self {
            PreTokenizer::ByteLevel => 0,
            PreTokenizer::Gpt2 => 1,
            PreTokenizer::DigitsGpt2 => 2,
            PreTokenizer::Llama3 => 3,
            PreTokenizer::Qwen2 => 4,
            PreTokenizer::Spaces => 5,
            PreTokenizer::Bert => 6,
        }
    }

    pub(super) fn goes_with(self, model: Model) -> bool {
        match model {
            Model::ByteLevelBpe => !matches!(self, PreTokenizer::Spaces | PreTokenizer::Bert),
            Model::CharacterBpe | Model::Unigram => {
                matches!(self, PreTokenizer::ByteLevel | PreTokenizer::Spaces)
            }
            Model::WordPiece => self == PreTokenizer::Bert,
        }
    }
}

/// What `BertNormalizer` does, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct BertNormalizer {
    /// Control characters are dropped, white space is spaces.
    pub clean_text: bool,
    /// Spaces around Chinese characters.
    pub space_chinese: bool,
    /// Decomposed (NFD), without nonspacing marks.
    pub strip_accents: bool,
    /// In lower case.
    pub lowercase: bool,
}

/// Where a text (or a piece of it between added tokens) gets a space in front.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SpacePrefix {
    /// Nowhere.
    #[default]
    Never,
    /// Everywhere: the normalizer `Prepend`.
    Always,
    /// Where there is none yet: `Metaspace` with `prepend_scheme: always`.
    UnlessThere,
    /// Where there is none yet, at the beginning of the text only: `Metaspace` with `prepend_scheme: first`.
    FirstUnlessThere,
}

/// What happens to a text before it is cut into pre-tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Normalizer {
    /// Nothing.
    #[default]
    None,
    /// Canonical composition (Unicode's NFC).
    Nfc,
    /// BERT's steps.
    Bert(BertNormalizer),
    /// U+2581 is taken for a space (in the tokens as well), and a space may go in front.
    Spaces(SpacePrefix),
}

impl Normalizer {
    /// From the two bytes of the head.
    pub(super) fn from_code([code, detail]: [u8; 2]) -> Option<Self> {
        let normalizer = match code {
            0 => Normalizer::None,
            1 => Normalizer::Nfc,
            2 => Normalizer::Bert(BertNormalizer {
                clean_text: detail & 1 != 0,
                space_chinese: detail & 2 != 0,
                strip_accents: detail & 4 != 0,
                lowercase: detail & 8 != 0,
            }),
            3 => Normalizer::Spaces(match detail {
                0 => SpacePrefix::Never,
                1 => SpacePrefix::Always,
                2 => SpacePrefix::UnlessThere,
                _ => SpacePrefix::FirstUnlessThere,
            }),
            _ => return None,
        };
        (normalizer.code() == [code, detail]).then_some(normalizer)
    }

    /// The two bytes of the section's head.
    pub fn code(self) -> [u8; 2] {
        match self {
            Normalizer::None => [0, 0],
            Normalizer::Nfc => [1, 0],
            Normalizer::Bert(steps) => {
                let flags = [steps.clean_text, steps.space_chinese, steps.strip_accents, steps.lowercase];
                let flags = flags.into_iter().rev().fold(0, |flags, set| flags << 1 | u8::from(set));
                [2, flags]
            }
            Normalizer::Spaces(prefix) => {
                let prefix = match prefix {
                    SpacePrefix::Never => 0,
                    SpacePrefix::Always => 1,
                    SpacePrefix::UnlessThere => 2,
                    SpacePrefix::FirstUnlessThere => 3,
                };
                [3, prefix]
            }
        }
    }

    pub(super) fn goes_with(self, model: Model) -> bool {
        match self {
            Normalizer::None => true,
            Normalizer::Nfc => model == Model::ByteLevelBpe,
            Normalizer::Bert(_) => model == Model::WordPiece,
            Normalizer::Spaces(_) => matches!(model, Model::CharacterBpe | Model::Unigram),
        }
    }
}

/// How the bytes of tokens become text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Decoding {
    /// A text that starts with a space loses it.
    pub strip_leading_space: bool,
    /// The first token of a text loses all its spaces, unless it is an added one.
    pub strip_first_token: bool,
    /// WordPiece: no space before `.`, `?`, `!`, `,` and some contractions.
    pub clean_up: bool,
}

impl Decoding {
    pub(super) fn from_code(code: u8) -> Option<Self> {
        (code < 8).then_some(Decoding {
            strip_leading_space: code & 1 != 0,
            strip_first_token: code & 2 != 0,
            clean_up: code & 4 != 0,
        })
    }

    /// The byte of the section's head.
    pub fn code(self) -> u8 {
        u8::from(self.strip_leading_space)
            | u8::from(self.strip_first_token) << 1
            | u8::from(self.clean_up) << 2
    }
}
