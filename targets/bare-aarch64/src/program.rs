//! What the image does.

use core::fmt::Write;
use core::hint::black_box;

use rescomp_firmware::{Command, Escaped, Failure, Generated, check, generate, open};
use rescomp_runtime::kernels;
use rescomp_runtime::memory::MemoryBlock;

use crate::serial::Serial;

/// The container, aligned as one must be.
#[repr(C, align(64))]
struct Aligned<B: ?Sized>(B);

static CONTAINER: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/container.bin")));

/// Runs the command and says how it went. False where a check missed its bound or something failed.
pub(crate) fn run(memory: &mut [MemoryBlock], serial: &mut Serial) -> bool {
    let command = Command::given().map_err(Failure::from);
    match command.and_then(|command| obey(&command, memory, serial)) {
        Ok(true) => true,
        Ok(false) => {
            let _ = writeln!(serial, "error: the logits are not the host's");
            false
        }
        Err(failure) => {
            let _ = writeln!(serial, "error: {failure}");
            false
        }
    }
}

// A serial line can't refuse a byte, so nothing is lost by not looking at what writing returns.
fn obey(command: &Command, memory: &mut [MemoryBlock], serial: &mut Serial) -> Result<bool, Failure> {
    // An image without a container has the code of one with it, so that its size tells what room there is.
    let container = open(black_box(&CONTAINER.0))?;
    let kernels = kernels::best();
    let provenance = &container.manifest().provenance;
    let _ = writeln!(
        serial,
        "{}: {} bits, {} bytes; {} bytes of memory; kernels {}",
        provenance.checkpoint,
        provenance.bits,
        container.container().file_bytes(),
        size_of_val(memory),
        kernels.name
    );
    let mut passed = true;
    if command.check {
        let report = check(&container, kernels, memory, |done, of| {
            let _ = writeln!(serial, "checking: {done} of {of} windows");
        })?;
        let _ = writeln!(serial, "{report}");
        passed = report.passed();
    }
    if let Some(prompt) = &command.prompt {
        let _ = writeln!(serial, "story begins\npiece {}", Escaped(prompt));
        let Generated { prompt_tokens, tokens, .. } =
            generate(&container, kernels, memory, prompt, command.max_tokens, |piece| {
                let _ = writeln!(serial, "piece {}", Escaped(piece));
            })?;
        let _ = writeln!(serial, "story ends\n{tokens} tokens behind a prompt of {prompt_tokens}");
    }
    Ok(passed)
}
