//! `cargo xtask report`: one HTML page for what `pack` wrote, with nothing from anywhere else: styles and drawings are in it, no script.
//!
//! ```text
//! report.json of pack, JSON of checks, of `bench quality`, of `bench methods`      read as data (inputs)
//!     -> page: sections; one whose input isn't there says which command makes it
//!         -> charts: SVG, in colours that follow light and dark
//! ```
//! Every text goes into the page through maud's macro, which escapes it.

mod charts;
mod inputs;
mod page;

use crate::check::dist;
use crate::error::Error;
use crate::flags::ReportFlags;
use crate::interrupt::write_whole;
use crate::target::Target;
use crate::{output, root};
use inputs::{Inputs, read};

/// The page in a target's output folder.
const PAGE_FILE: &str = "report.html";
/// What `pack` writes there.
const PACK_FILE: &str = "report.json";

/// Writes the page.
///
/// # Errors
/// `Exit::Input` for a file that is no such report, `Exit::Disk` for one that can't be read or written.
pub(crate) fn run(flags: &ReportFlags) -> Result<(), Error> {
    let target = Target::load(&flags.target)?;
    let folder = dist(&root::root()?, &target);
    let pack = flags.pack.clone().unwrap_or_else(|| folder.join(PACK_FILE));
    if flags.pack.is_none() && !pack.exists() {
        return Err(Error::input(format!("{}: there is no such file", pack.display()))
            .remedy(format!("cargo xtask pack --target {}", target.name)));
    }
    let mut checks = Vec::new();
    for path in &flags.check {
        let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        checks.push((name, read(path)?));
    }
    let inputs = Inputs {
        pack: read(&pack)?,
        checks,
        quality: flags.quality.as_deref().map(read).transpose()?,
        methods: flags.methods.as_deref().map(read).transpose()?,
    };
    let path = flags.output.clone().unwrap_or_else(|| folder.join(PAGE_FILE));
    write_whole(&path, page::page(&inputs).into_string().as_bytes())?;
    output::line(&format!("wrote {}", path.display()));
    Ok(())
}
