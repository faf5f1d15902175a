//! `cargo xtask targets`: lists the target descriptions.

use crate::error::Error;
use crate::flags::TargetsFlags;
use crate::output;
use crate::root;
use crate::target::{self, Target};

/// Lists the targets, as lines for people or as JSON.
///
/// # Errors
/// `Exit::Input` when a description is not valid, `Exit::Disk` when the folder cannot be listed.
pub(crate) fn run(flags: &TargetsFlags) -> Result<(), Error> {
    let folder = root::targets_directory(&root::root()?);
    let targets: Vec<Target> =
        target::files(&folder)?.iter().map(|file| Target::read(file)).collect::<Result<_, _>>()?;
    if flags.json {
        let json = serde_json::to_string_pretty(&targets)
            .map_err(|source| Error::failed("cannot write the targets as JSON").caused_by(&source))?;
        output::line(&json);
        return Ok(());
    }
    for target in &targets {
        output::line(&format!("{:<18}{}", target.name, target.description));
        let memory = match (&target.image, target.memory_bytes) {
            (Some(image), _) => match image.data {
                Some(data) => format!("{} bytes of code, {} of data", image.code.bytes, data.bytes),
                None => format!("{} bytes", image.code.bytes),
            },
            (None, Some(bytes)) => format!("{bytes} bytes"),
            (None, None) => "no limit".to_owned(),
        };
        output::line(&format!(
            "{:<18}{}; layout {}; memory {memory}",
            "",
            target.triples.join(" or "),
            target.layout
        ));
    }
    Ok(())
}
