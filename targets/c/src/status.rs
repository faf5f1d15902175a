//! What functions return.

use core::ffi::{c_char, c_int};

use rescomp_firmware::Failure;
use rescomp_runtime::error::RuntimeError;

/// What a function returns: 0, or why it did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Status {
    /// It did what it says.
    Ok = 0,
    /// A pointer is null, or memory or container don't begin at a multiple of 64.
    Pointer = 1,
    /// The container can't be: damaged, of another version, for another layout, or no decoder's.
    Container = 2,
    /// There is less memory than `rescomp_plan_session` says.
    Memory = 3,
    /// The context is larger than the model's.
    Context = 4,
    /// The session has no positions left for the tokens.
    ContextFull = 5,
    /// A token isn't one of the vocabulary, or there are none.
    Token = 6,
    /// The text isn't UTF-8, is empty where the model has no begin token, or is longer than `RESCOMP_MAX_PROMPT_BYTES`.
    Text = 7,
    /// A kernel doesn't give its known answer on this processor.
    SelfCheck = 8,
    /// The logits don't have the bits that the host recorded.
    Differs = 9,
    /// The model gave numbers that aren't finite.
    NotFinite = 10,
    /// The container needs a part of rescomp that the library was built without.
    NotBuilt = 11,
}

/// A status in a few words: a text that lives for ever, for any number.
#[unsafe(no_mangle)]
pub extern "C" fn rescomp_status_text(status: c_int) -> *const c_char {
    let text = match status {
        0 => c"ok",
        1 => c"a pointer is null, or memory or container don't begin at a multiple of 64",
        2 => c"the container can't be: damaged, of another version, for another layout, or no decoder's",
        3 => c"there is less memory than the plan says",
        4 => c"the context is larger than the model's",
        5 => c"the session has no positions left",
        6 => c"a token isn't one of the vocabulary, or there are none",
        7 => c"the text isn't UTF-8, is empty, or is too long",
        8 => c"a kernel doesn't give its known answer on this processor",
        9 => c"the logits don't have the bits that the host recorded",
        10 => c"the model gave numbers that aren't finite",
        11 => c"the container needs a part of rescomp that the library was built without",
        _ => c"no status of rescomp",
    };
    text.as_ptr()
}

impl From<RuntimeError> for Status {
    fn from(error: RuntimeError) -> Status {
        match error {
            RuntimeError::Memory { .. } => Status::Memory,
            RuntimeError::Limit { .. } => Status::Context,
            RuntimeError::ContextFull { .. } => Status::ContextFull,
            RuntimeError::Token { .. } | RuntimeError::NoTokens => Status::Token,
            RuntimeError::NotFinite { .. } => Status::NotFinite,
            RuntimeError::NotBuilt { .. } => Status::NotBuilt,
            _ => Status::Container,
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        match failure {
            Failure::NoContainer | Failure::Container(_) | Failure::NoDecoder => Status::Container,
            Failure::SelfCheck(_) | Failure::Comparison(_) => Status::SelfCheck,
            Failure::Runtime(error) => error.into(),
            Failure::LongPrompt { .. } => Status::ContextFull,
            Failure::Command(_) | Failure::Prompt(_) | Failure::EmptyPrompt => Status::Text,
        }
    }
}
