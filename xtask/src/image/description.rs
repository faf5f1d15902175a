//! What a target's description says of the image that a device without an operating system runs.

use serde::{Deserialize, Serialize};

/// Where an image lies and what emulates its device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageDescription {
    /// Memory of the code and the container.
    pub(crate) code: Memory,
    /// Memory of variables, the model's state and the stack; where absent, what the code's memory has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<Memory>,
    /// Bytes of the stack.
    pub(crate) stack_bytes: u64,
    /// Emulated boards: those of the table that `pack` prints.
    #[serde(default)]
    pub(crate) emulated: Vec<Board>,
}

/// One memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Memory {
    /// Its first address.
    pub(crate) origin: u64,
    /// How large it is.
    pub(crate) bytes: u64,
}

/// A board that QEMU knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Board {
    /// `-M`.
    pub(crate) machine: String,
    /// `-cpu`; the machine's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<String>,
    /// `-m`; the machine's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_megabytes: Option<u32>,
}

impl Board {
    /// For a table.
    pub(crate) fn name(&self) -> String {
        match &self.cpu {
            Some(cpu) => format!("{} {cpu}", self.machine),
            None => self.machine.clone(),
        }
    }
}

impl ImageDescription {
    /// Refuses memory that can't be.
    ///
    /// # Errors
    /// The field and what is wrong with it.
    pub(crate) fn validate(&self) -> Result<(), (&'static str, String)> {
        for (field, memory) in [("image.code", Some(self.code)), ("image.data", self.data)] {
            let Some(Memory { origin, bytes }) = memory else { continue };
            if bytes == 0 || origin.checked_add(bytes).is_none() {
                return Err((
                    field,
                    format!(
                        "expected addresses from origin to origin + bytes, found {origin:#x} and {bytes}"
                    ),
                ));
            }
        }
        Ok(())
    }
}
