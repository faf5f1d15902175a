//! Writes `tests/data/hostile`: the files, and the manifest with the error that each is refused with now. Read what changed before it is
//! committed: the tests hold every later change against it.

use conformance::hostile::{self, Entry, Manifest};
use std::error::Error;
use std::fs;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = hostile::folder();
    let scratch = tempfile::tempdir()?;
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let mut manifest = Manifest::new();
    for file in hostile::files() {
        let path = folder.join(file.name);
        fs::create_dir_all(path.parent().unwrap_or(&folder))?;
        fs::write(&path, &file.bytes)?;
        let error = hostile::refusal(file.name, &file.bytes, scratch.path());
        let error = error.ok_or_else(|| format!("{} is accepted", file.name))?;
        let entry = Entry { attack: file.attack.to_owned(), error, offset: file.offset };
        manifest.insert(file.name.to_owned(), entry);
    }
    let text = format!(
        "# Made by `cargo run --package conformance --example hostile_files`.\n\n{}",
        toml::to_string(&manifest)?
    );
    fs::write(folder.join("manifest.toml"), text)?;
    println!("{} files in {}", manifest.len(), folder.display());
    Ok(())
}
