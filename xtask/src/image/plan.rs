//! What an image takes of its device's memory, known before it is deployed, and what would fit where it doesn't.
//!
//! ```text
//! code:  instructions + constants + container                             <= code memory
//! data:  variables + stack + keys and values + scratch of one session     <= data memory
//! one memory: all of them                                                 <= that
//! ```

use rescomp_firmware::TILE;
use rescomp_formats::cache_format::CacheFormat;
use rescomp_formats::container::CheckedContainer;
use rescomp_quantizer::checkpoint::Checkpoint;
use rescomp_quantizer::pack::{PackOptions, container_bytes};
use rescomp_quantizer::plan::MatrixFormat;
use rescomp_runtime::memory::BLOCK_BYTES;
use rescomp_runtime::session::{Limits, SessionPlan};
use serde::Serialize;

use super::description::ImageDescription;
use super::sizes::Sizes;
use crate::error::Error;
use crate::output;

/// Widths that a container has, most bits first.
const WIDTHS: [u8; 6] = [8, 6, 5, 4, 3, 2];

/// Bytes by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct MemoryPlan {
    /// Instructions.
    pub(crate) text_bytes: u64,
    /// Constants and the first values of variables.
    pub(crate) constant_bytes: u64,
    /// The container.
    pub(crate) container_bytes: u64,
    /// Variables.
    pub(crate) variable_bytes: u64,
    /// The stack.
    pub(crate) stack_bytes: u64,
    /// Positions of the largest session that fits, at most the model's.
    pub(crate) context: usize,
    /// Its keys and values.
    pub(crate) kv_cache_bytes: u64,
    /// The rest of it.
    pub(crate) scratch_bytes: u64,
    /// The memory of code and container.
    pub(crate) code_memory_bytes: u64,
    /// The memory of everything else; none where it is the same.
    pub(crate) data_memory_bytes: Option<u64>,
}

impl MemoryPlan {
    /// Of an image with this container in it, and the largest session that the rest of the memory holds.
    ///
    /// # Errors
    /// `Exit::Failed` where not even the check's windows fit; it names the largest context that does.
    pub(crate) fn new(
        target: &str,
        description: &ImageDescription,
        image: &Sizes,
        container: &CheckedContainer<'_>,
    ) -> Result<MemoryPlan, Error> {
        let container_bytes = (container.container().file_bytes() as u64).next_multiple_of(BLOCK_BYTES);
        // What the linker adds between sections to align them counts as constants.
        let constant_bytes = image.constant_bytes.saturating_sub(container_bytes);
        let fixed = image.variable_bytes + description.stack_bytes;
        let (memory, taken) = match description.data {
            Some(data) => (data.bytes, fixed),
            None => (description.code.bytes, fixed + image.text_bytes + image.constant_bytes),
        };
        // The session begins at a block.
        let room = memory.saturating_sub(taken).saturating_sub(BLOCK_BYTES) / BLOCK_BYTES;
        let most = container.manifest().spec.context as usize;
        let Some(windows) = container.check_windows().map(|windows| windows.sizes().positions) else {
            return Err(Error::input(format!(
                "{target}: an image runs a decoder, and the container is none's"
            )));
        };
        let failed = |error: &dyn std::fmt::Display| {
            Error::failed(format!("{target}: {error}")).because(format!(
                "{taken} of {memory} bytes are the image's variables, stack and, in one memory, code"
            ))
        };
        let context =
            SessionPlan::largest_context(container, TILE, most, room).map_err(|error| failed(&error))?;
        if context < windows {
            return Err(failed(&format_args!(
                "the check's windows have {windows} positions, and the memory holds a context of {context}"
            ))
            .remedy(match container.manifest().cache {
                CacheFormat::Binary16 => "--kv-cache int8 keeps about twice as many positions".to_owned(),
                CacheFormat::Int8 => format!(
                    "a model with a context of at most {context} (`max_position_embeddings` in its config.json) fits"
                ),
            }));
        }
        let session =
            SessionPlan::new(container, Limits { context, tile: TILE }).map_err(|error| failed(&error))?;
        Ok(MemoryPlan {
            text_bytes: image.text_bytes,
            constant_bytes,
            container_bytes,
            variable_bytes: image.variable_bytes,
            stack_bytes: description.stack_bytes,
            context,
            kv_cache_bytes: session.kv_cache_bytes,
            scratch_bytes: session.scratch_bytes,
            code_memory_bytes: description.code.bytes,
            data_memory_bytes: description.data.map(|data| data.bytes),
        })
    }

    /// Prints it as a table.
    pub(crate) fn print(&self) {
        let line = |name: &str, bytes: u64| output::line(&format!("  {name:<36}{bytes:>12}"));
        let code = [
            ("instructions", self.text_bytes),
            ("constants", self.constant_bytes),
            ("container", self.container_bytes),
        ];
        let keys = format!("keys and values, {} positions", self.context);
        let data = [
            ("variables", self.variable_bytes),
            ("stack", self.stack_bytes),
            (keys.as_str(), self.kv_cache_bytes),
            ("scratch", self.scratch_bytes),
        ];
        let sum = |parts: &[(&str, u64)]| parts.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let left = |name: &str, memory: u64, used: u64| {
            line(name, used);
            line("left", memory.saturating_sub(used));
        };
        output::line("memory, bytes");
        code.iter().for_each(|(name, bytes)| line(name, *bytes));
        if let Some(memory) = self.data_memory_bytes {
            left(&format!("code memory of {}", self.code_memory_bytes), self.code_memory_bytes, sum(&code));
            data.iter().for_each(|(name, bytes)| line(name, *bytes));
            left(&format!("data memory of {memory}"), memory, sum(&data));
        } else {
            data.iter().for_each(|(name, bytes)| line(name, *bytes));
            let memory = self.code_memory_bytes;
            left(&format!("memory of {memory}"), memory, sum(&code) + sum(&data));
        }
    }
}

/// Refuses, before the long work, a container that the code's memory can't hold beside the image, and says which bits would fit. Formats that
/// are chosen a matrix are not looked at: what they give is known afterwards.
///
/// # Errors
/// `Exit::Failed`.
pub(crate) fn check_code(
    target: &str,
    description: &ImageDescription,
    image: &Sizes,
    checkpoint: &Checkpoint,
    options: &PackOptions,
) -> Result<(), Error> {
    let plan = &options.plan;
    let Some(vocabulary) =
        plan.vocabulary.as_ref().filter(|it| it.bands.is_none() && plan.formats.is_empty())
    else {
        return Ok(());
    };
    let group = plan.options.group;
    let own = image.text_bytes + image.constant_bytes;
    let room = description.code.bytes.saturating_sub(own);
    let bytes = |bits: u8, head_bits: u8| {
        let format = |bits| MatrixFormat::plain(bits, group);
        container_bytes(checkpoint, options, format(bits), format(head_bits))
            .map_err(|error| Error::input(error.to_string()))
    };
    let needed = bytes(plan.options.bits, vocabulary.head.bits)?;
    if needed <= room {
        return Ok(());
    }
    let mut best = None;
    for bits in WIDTHS {
        for head_bits in WIDTHS {
            let bytes = bytes(bits, head_bits)?;
            if bytes <= room && best.is_none_or(|(most, _, _)| bytes > most) {
                best = Some((bytes, bits, head_bits));
            }
        }
    }
    let error = Error::failed(format!(
        "{target}: the container needs {needed} bytes, and {} of memory for code have {room} beside the image's {own}",
        description.code.bytes
    ));
    Err(match best {
        Some((bytes, bits, head_bits)) => error
            .remedy(format!("--bits {bits} --head-bits {head_bits} is the largest that fits: {bytes} bytes")),
        None => error.because("no number of bits would fit: the model is too large for this memory"),
    })
}
