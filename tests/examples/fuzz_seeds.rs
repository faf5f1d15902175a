//! Writes `fuzz/seeds`: small sound inputs of every fuzz target.

use conformance::fuzz;
use std::error::Error;
use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for (target, _) in fuzz::TARGETS {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in fuzz::seeds(target) {
            fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}
