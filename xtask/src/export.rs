//! `cargo xtask export`: a container's weights as a file of another program.

use rescomp_quantizer::export::compressed_tensors::CompressedTensorsReport;
use rescomp_quantizer::export::gguf::GgufReport;
use rescomp_quantizer::export::{ExportError, compressed_tensors, gguf};

use crate::error::{Error, Exit};
use crate::flags::{ExportFlags, ExportFormat, ExportType};
use crate::interrupt::Partial;
use crate::{model, output};

/// Runs the command.
///
/// # Errors
/// `Exit::Input` for a container whose values the format does not hold exactly, and for options that do not go together; `Exit::Disk` for what cannot be read or
/// written; `Exit::Failed` where what was written is not what it should be.
pub(crate) fn run(flags: &ExportFlags) -> Result<(), Error> {
    let bytes = model::container_bytes(&flags.container)?;
    let container = model::container(&flags.container, &bytes)?;
    let output = &flags.output;
    let failed = |error| export_error(flags, &error);
    match flags.format {
        ExportFormat::Gguf => {
            if flags.model.is_some() {
                return Err(Error::input(
                    "--model is for --format compressed-tensors: a GGUF file needs the container alone",
                ));
            }
            let report = gguf::export(&container, flags.kind.into(), output, Partial::new).map_err(failed)?;
            if flags.json {
                output::line(&output::json(&report)?);
            } else {
                print_gguf(flags, &report);
            }
        }
        ExportFormat::CompressedTensors => {
            let Some(source) = &flags.model else {
                return Err(Error::input(
                    "--format compressed-tensors needs --model DIR, for config.json and the tokenizer",
                ));
            };
            if flags.kind != ExportType::Auto {
                return Err(Error::input("--type is for --format gguf"));
            }
            let source = model::path(Some(source))?;
            let report =
                compressed_tensors::export(&container, &source, output, Partial::new).map_err(failed)?;
            if flags.json {
                output::line(&output::json(&report)?);
            } else {
                print_folder(flags, &report);
            }
        }
    }
    Ok(())
}

fn export_error(flags: &ExportFlags, error: &ExportError) -> Error {
    let (container, output) = (flags.container.display(), flags.output.display());
    match error {
        ExportError::Write(_) => Error::new(Exit::Disk, format!("{output}: {error}")),
        ExportError::Differs { .. } | ExportError::Unreadable(_) | ExportError::UnreadableTokenizer(_) => {
            Error::failed(format!("{output}: {error}"))
        }
        ExportError::Source { .. } | ExportError::OtherCheckpoint { .. } => Error::input(error.to_string()),
        _ => Error::input(format!("{container}: {error}")),
    }
}

fn print_gguf(flags: &ExportFlags, report: &GgufReport) {
    let tensors: Vec<String> =
        report.tensors.iter().map(|(kind, count)| format!("{count} of {kind}")).collect();
    report.warnings.iter().for_each(|warning| output::line(&format!("WARNING: {warning}")));
    output::line(&format!("tensors: {}", tensors.join(", ")));
    output::line(&format!("read back: all {} weights are the container's, bit for bit", report.compared));
    output::line(&format!("wrote {}, {} bytes", flags.output.display(), report.file_bytes));
}

fn print_folder(flags: &ExportFlags, report: &CompressedTensorsReport) {
    let group = report.group_size.map_or("whole rows".to_owned(), |group| format!("groups of {group}"));
    output::line(&format!("pack-quantized: {} bits, {group}", report.bits));
    output::line(&format!("read back: all {} weights are the container's, bit for bit", report.compared));
    output::line(&format!("wrote {}, weights of {} bytes", flags.output.display(), report.file_bytes));
}
