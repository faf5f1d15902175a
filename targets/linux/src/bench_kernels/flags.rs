//! The options of `bench-kernels`.

use std::fmt;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use crate::flags::at_least_one;

/// Options of `bench-kernels`.
#[derive(Debug, Args)]
pub(crate) struct BenchKernelsFlags {
    /// Kernels by the names that `info` gives, separated by commas, or `all` that the processor has [default: the fastest].
    #[arg(long, value_name = "NAME,...|all", value_delimiter = ',')]
    pub(crate) kernels: Vec<String>,
    /// Matrices, rows (outputs, a multiple of 8) by columns (inputs), separated by commas.
    #[arg(long, value_name = "ROWSxCOLS,...", value_delimiter = ',', default_value = "1536x576,576x1536")]
    pub(crate) shapes: Vec<Shape>,
    /// Bits a weight, separated by commas.
    #[arg(long, value_name = "BITS,...", value_delimiter = ',', default_value = "2,3,4,5,6,8")]
    pub(crate) bits: Vec<u8>,
    /// Weights of a row that share one scale: 32, 64, 128, or `row` for the whole row.
    #[arg(long, value_name = "32|64|128|row", default_value_t = Group::Elems(64))]
    pub(crate) group: Group,
    /// How the levels of 2 to 4 bits are spaced, as `pack --levels` has them.
    #[arg(long, value_enum, value_name = "SPACING", default_value_t = Levels::Normal)]
    pub(crate) levels: Levels,
    /// Tokens at once, separated by commas: 1 as in decode, several as in prefill.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,4,8", value_parser = tokens())]
    pub(crate) tokens: Vec<usize>,
    /// Times to measure; the median is reported.
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = at_least_one())]
    pub(crate) repeats: usize,
    /// Time nothing: quantize and multiply once, for a profiler to count. Before, between and after a function is called whose symbol has
    /// `kernel_boundary` in it.
    #[arg(long, conflicts_with = "repeats")]
    pub(crate) once: bool,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

fn tokens() -> impl clap::builder::TypedValueParser<Value = usize> {
    clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024)
}

/// Rows and columns of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Outputs.
    pub(crate) rows: u32,
    /// Inputs.
    pub(crate) cols: u32,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.rows, self.cols)
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Shape, String> {
        let parsed = text.split_once('x').and_then(|(rows, cols)| {
            let (rows, cols) = (rows.parse::<u32>().ok()?, cols.parse::<u32>().ok()?);
            // A gigabyte of weights is beyond anything that a benchmark needs.
            let weights = u64::from(rows) * u64::from(cols);
            (rows % 8 == 0 && (1..=1 << 30).contains(&weights)).then_some(Shape { rows, cols })
        });
        parsed.ok_or_else(|| "expected ROWSxCOLS, such as 1536x576, with rows a multiple of 8".to_owned())
    }
}

/// How the levels of a matrix are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Levels {
    /// Over the whole range: kernels look them up.
    Normal,
    /// Consecutive integers: -2..=1, -4..=3, -8..=7.
    Uniform,
    /// Evenly: -3, -1, 1, 3; -7, -5 .. 7; -8..=7.
    Even,
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Levels::Normal => "normal",
            Levels::Uniform => "uniform",
            Levels::Even => "even",
        })
    }
}

/// Weights that share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// So many columns.
    Elems(u32),
    /// All of a row.
    Row,
}

impl Group {
    /// In columns, for rows of `cols`.
    pub(crate) fn elems(self, cols: u32) -> u32 {
        match self {
            Group::Elems(elems) => elems,
            Group::Row => rescomp_formats::matrix::MatrixShape::whole_row(cols),
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Group::Elems(elems) => elems.fmt(f),
            Group::Row => f.write_str("row"),
        }
    }
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Group, String> {
        match text {
            "32" | "64" | "128" => text.parse().map(Group::Elems).map_err(|_| text.to_owned()),
            "row" => Ok(Group::Row),
            _ => Err("expected 32, 64, 128 or row".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_groups_are_read() {
        assert_eq!("1536x576".parse(), Ok(Shape { rows: 1536, cols: 576 }));
        for wrong in ["", "8", "8x", "x8", "7x8", "8x0", "0x8", "8x8x8", "65536x65536", "-8x8"] {
            assert!(wrong.parse::<Shape>().is_err(), "{wrong}");
        }
        assert_eq!("row".parse::<Group>().map(|group| group.elems(100)), Ok(128));
        assert_eq!("64".parse::<Group>().map(|group| group.to_string()), Ok("64".to_owned()));
        assert!("48".parse::<Group>().is_err());
    }
}
