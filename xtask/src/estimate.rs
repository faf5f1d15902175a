//! `cargo xtask estimate`: how many tokens a second a board can decode at most.
//!
//! ```text
//! memory:      bandwidth(threads) / (bytes of the matrices that a token reads + bytes of the keys and values before it)
//! arithmetic:  threads * clock / (sum over those matrices of weights * cycles a weight)
//! ```
//! The lower one binds. Both are upper bounds: attention, norms, synchronization and everything else of a system come on top.

use std::path::PathBuf;

use rescomp_formats::container::CheckedContainer;
use rescomp_formats::matrix::{MatrixShape, Scaling};
use rescomp_formats::section::SectionName;
use rescomp_quantizer::grids::{Grid, Spacing};
use serde::Serialize;

use crate::board::{Board, encoding_name};
use crate::check::{CONTAINER_FILE, dist};
use crate::error::Error;
use crate::flags::EstimateFlags;
use crate::target::Target;
use crate::{encoder, model, output, root};

/// Position of the decoded token where none is given, at most.
const DEFAULT_POSITION: usize = 256;

/// The report of the command.
#[derive(Debug, PartialEq, Serialize)]
struct Estimate {
    target: String,
    core: String,
    container: String,
    position: usize,
    /// Bytes of the matrices that a token reads.
    weight_bytes: u64,
    /// Bytes of the keys and values that it reads.
    cache_bytes: u64,
    /// Cycles of one core for the products with these matrices.
    cycles: f64,
    /// By threads, from 1 to the board's processors.
    by_threads: Vec<Bounds>,
}

/// Tokens a second at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Bounds {
    threads: usize,
    memory: f64,
    arithmetic: f64,
    /// The lower one.
    tokens_per_second: f64,
    binds: &'static str,
}

/// What a decoded token reads and computes.
struct Work {
    weight_bytes: u64,
    cache_bytes: u64,
    cycles: f64,
}

/// Runs the command.
///
/// # Errors
/// `Exit::Input` for a target without a board, a container or a position that cannot be; `Exit::Disk` for a container that is not there.
pub(crate) fn run(flags: &EstimateFlags) -> Result<(), Error> {
    let root = root::root()?;
    let target = Target::load(&flags.target)?;
    let board = target.board.as_ref().ok_or_else(|| {
        Error::input(format!("the target `{}` has no table [board], so its speed is not known", target.name))
            .remedy("give a board, e.g. rpi5 (`cargo xtask targets` lists them), or a TOML file with such a table")
    })?;
    let path = match &flags.container {
        Some(path) => path.clone(),
        None => packed(&root, &target),
    };
    let bytes = model::container_bytes(&path).map_err(|error| {
        error.remedy(format!("cargo xtask pack --target {}, or give --container FILE", target.name))
    })?;
    let container = model::container(&path, &bytes)?;
    encoder::expect_decoder(&container.manifest().spec, "decoding to estimate")?;
    let context = container.manifest().spec.context as usize;
    let position = flags.position.unwrap_or(DEFAULT_POSITION.min(context / 2));
    if position >= context {
        return Err(Error::input(format!(
            "--position {position}: the model's positions are 0 to {}",
            context - 1
        )));
    }
    let work = work(&container, board, position)?;
    let estimate = Estimate {
        target: target.name.clone(),
        core: board.core.clone(),
        container: path.display().to_string(),
        position,
        weight_bytes: work.weight_bytes,
        cache_bytes: work.cache_bytes,
        cycles: work.cycles,
        by_threads: (1..=board.processors).map(|threads| bounds(board, &work, threads)).collect(),
    };
    match flags.json {
        true => output::line(&output::json(&estimate)?),
        false => output::line(&text_of(&estimate)),
    }
    Ok(())
}

/// What `pack` wrote for this target, or for its architecture as a whole: the weights are the same.
fn packed(root: &std::path::Path, target: &Target) -> PathBuf {
    let own = dist(root, target).join(CONTAINER_FILE);
    let shared = root.join("dist").join(target.architecture.name()).join(CONTAINER_FILE);
    if !own.exists() && shared.exists() { shared } else { own }
}

fn work(container: &CheckedContainer<'_>, board: &Board, position: usize) -> Result<Work, Error> {
    let (mut weight_bytes, mut cycles) = (0, 0.0);
    for (name, shape, _) in container.products() {
        weight_bytes += shape.section_bytes() as u64;
        let of_weight =
            board.cycles(shape.width(), has_even_levels(container, name, &shape)).ok_or_else(|| {
                let encoding = encoding_name(shape.width());
                Error::input(format!(
                    "the board's table cycles_per_weight has no {encoding}, which the container needs"
                ))
            })?;
        cycles += shape.rows() as f64 * shape.cols() as f64 * of_weight;
    }
    let manifest = container.manifest();
    let spec = &manifest.spec;
    let heads = 2 * u64::from(spec.kv_heads) * u64::from(spec.layers);
    let a_position = heads * manifest.cache.head_bytes(spec.head_dim);
    Ok(Work { weight_bytes, cache_bytes: a_position * (position as u64 + 1), cycles })
}

/// Whether a matrix has the levels of `--levels even`, which kernels need not look up. (A product under its name may also be its correction's.)
fn has_even_levels(container: &CheckedContainer<'_>, name: SectionName, shape: &MatrixShape) -> bool {
    let Ok(grid) = Grid::new(shape.width().bits() as u8, Spacing::Even) else { return false };
    let scaling =
        container.matrix(name).filter(|matrix| matrix.shape() == shape).map(|matrix| matrix.scaling());
    matches!(scaling, Some(Scaling::Codebook(book)) if book.levels.starts_with(&grid.levels()))
}

fn bounds(board: &Board, work: &Work, threads: usize) -> Bounds {
    let memory = board.bandwidth(threads) / (work.weight_bytes + work.cache_bytes) as f64;
    let arithmetic = threads as f64 * board.clock_hz / work.cycles;
    let binds = if memory < arithmetic { "memory" } else { "arithmetic" };
    Bounds { threads, memory, arithmetic, tokens_per_second: memory.min(arithmetic), binds }
}

fn text_of(estimate: &Estimate) -> String {
    let mut lines = vec![
        format!("{} on {} ({})", estimate.container, estimate.target, estimate.core),
        format!(
            "a token at position {} reads {} bytes of weights and {} of keys and values, and takes {:.1} million cycles for its products",
            estimate.position,
            estimate.weight_bytes,
            estimate.cache_bytes,
            estimate.cycles / 1e6
        ),
        String::new(),
        "| threads | tokens a second at most | memory's bound | arithmetic's bound | which binds |"
            .to_owned(),
        "|---:|---:|---:|---:|---|".to_owned(),
    ];
    lines.extend(estimate.by_threads.iter().map(|bounds| {
        format!(
            "| {} | {:.1} | {:.1} | {:.1} | {} |",
            bounds.threads, bounds.tokens_per_second, bounds.memory, bounds.arithmetic, bounds.binds
        )
    }));
    lines.push(String::new());
    lines.push("Estimated, not measured: `rescomp bench` on the board measures.".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::ReadBandwidth;
    use rescomp_formats::encodings::CodeWidth;

    fn board() -> Board {
        let bandwidth = |threads, bytes_per_second| ReadBandwidth { threads, bytes_per_second };
        Board {
            core: "core".to_owned(),
            processors: 4,
            clock_hz: 1e9,
            read_bandwidth: vec![bandwidth(1, 5e9), bandwidth(2, 8e9), bandwidth(4, 6e9)],
            cycles_per_weight: [("int4".to_owned(), 0.25)].into(),
        }
    }

    #[test]
    fn the_lower_bound_binds() {
        let work = Work { weight_bytes: 90_000_000, cache_bytes: 10_000_000, cycles: 25e6 };
        let found: Vec<Bounds> = (1..=4).map(|threads| bounds(&board(), &work, threads)).collect();
        assert_eq!(found.iter().map(|bounds| bounds.memory).collect::<Vec<_>>(), [50.0, 80.0, 80.0, 60.0]);
        assert_eq!(
            found.iter().map(|bounds| bounds.arithmetic).collect::<Vec<_>>(),
            [40.0, 80.0, 120.0, 160.0]
        );
        let best: Vec<_> = found.iter().map(|bounds| (bounds.tokens_per_second, bounds.binds)).collect();
        assert_eq!(best, [(40.0, "arithmetic"), (80.0, "arithmetic"), (80.0, "memory"), (60.0, "memory")]);
    }

    #[test]
    fn evenly_spaced_levels_have_cycles_of_their_own_where_the_board_says_so() {
        let mut board = board();
        let cycles = |board: &Board| [false, true].map(|even| board.cycles(CodeWidth::Int4, even));
        assert_eq!(cycles(&board), [Some(0.25); 2]);
        board.cycles_per_weight.insert("int4_even".to_owned(), 0.15);
        assert_eq!((board.validate(), cycles(&board)), (Ok(()), [Some(0.25), Some(0.15)]));
        assert_eq!(board.cycles(CodeWidth::Int2, true), None);
    }

    #[test]
    fn boards_that_cannot_be_are_refused_by_field() {
        assert_eq!(board().validate(), Ok(()));
        let refused = |change: fn(&mut Board), field: &str| {
            let mut board = board();
            change(&mut board);
            assert_eq!(board.validate().expect_err("refused").0, field);
        };
        refused(|board| board.processors = 0, "board.processors");
        refused(|board| board.clock_hz = f64::NAN, "board.clock_hz");
        refused(|board| board.read_bandwidth.clear(), "board.read_bandwidth");
        refused(|board| board.read_bandwidth.swap(1, 2), "board.read_bandwidth");
        refused(
            |board| board.read_bandwidth[1].bytes_per_second = 0.0,
            "board.read_bandwidth.bytes_per_second",
        );
        refused(
            |board| board.cycles_per_weight.extend([("int7".to_owned(), 0.1)]),
            "board.cycles_per_weight",
        );
        refused(
            |board| board.cycles_per_weight.extend([("int4_odd".to_owned(), 0.1)]),
            "board.cycles_per_weight",
        );
        refused(
            |board| board.cycles_per_weight.extend([("int8".to_owned(), -0.1)]),
            "board.cycles_per_weight",
        );
    }
}
