//! The options of `bench kernels`.

use std::fmt;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use crate::flags::{GroupSize, Levels, at_least_one, bits};

/// Options of `bench kernels`.
#[derive(Debug, Args)]
pub(crate) struct KernelsFlags {
    /// Bits a weight, separated by commas.
    #[arg(long, value_name = "BITS,...", value_delimiter = ',', default_value = "2,3,4,5,6,8", value_parser = bits)]
    pub(crate) bits: Vec<u8>,
    /// Matrices, rows (outputs, a multiple of 8) by columns (inputs), separated by commas.
    #[arg(long, value_name = "ROWSxCOLS,...", value_delimiter = ',', default_value = "1536x576,576x1536")]
    pub(crate) shapes: Vec<Shape>,
    /// Weights of a row that share one scale: 32, 64, 128, or `row` for the whole row.
    #[arg(long, value_name = "32|64|128|row", default_value_t = GroupSize::Elements(64))]
    pub(crate) group: GroupSize,
    /// How the levels of 2 to 4 bits are spaced.
    #[arg(long, value_enum, value_name = "SPACING", default_value_t = Levels::Normal)]
    pub(crate) levels: Levels,
    /// Tokens at once, separated by commas: 1 as in decode, several as in prefill.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,4,8", value_parser = at_least_one)]
    pub(crate) tokens: Vec<usize>,
    /// Kernels by the names that `rescomp info` gives, separated by commas, or `all` that a processor has [default: all where they are
    /// timed, the fastest where they are counted].
    #[arg(long, value_name = "NAME,...|all", value_delimiter = ',')]
    pub(crate) kernels: Vec<String>,
    /// ARM processors to count for, separated by commas.
    #[arg(long, value_enum, value_name = "NAME,...", value_delimiter = ',', default_values_t = [Core::CortexA72, Core::CortexA76, Core::I8mm])]
    pub(crate) cores: Vec<Core>,
    /// Only time on this machine, or only count for ARM processors [default: both].
    #[arg(long, value_enum)]
    pub(crate) only: Option<Part>,
    /// Times to measure; the median is reported.
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = at_least_one)]
    pub(crate) repeats: usize,
    /// Version of LLVM whose llvm-mca models cycles: versions differ in their models [default: the newest on the search path].
    #[arg(long, value_name = "N")]
    pub(crate) llvm: Option<u32>,
    /// Print the report as one JSON object on standard output.
    #[arg(long)]
    pub(crate) json: bool,
    /// Never install anything.
    #[arg(long)]
    pub(crate) no_install: bool,
}

impl KernelsFlags {
    /// Whether this part is asked for.
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}

/// What the command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Time on this machine.
    Timed,
    /// Count instructions and model cycles of ARM processors.
    Counted,
}

/// Processors that are counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Core {
    /// Plain NEON: Raspberry Pi 4.
    CortexA72,
    /// Dot products: Raspberry Pi 5.
    CortexA76,
    /// Matrix products of int8: processors of ARMv8.6 and later.
    I8mm,
}

impl Core {
    /// The name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Core::CortexA72 => "Cortex-A72",
            Core::CortexA76 => "Cortex-A76",
            Core::I8mm => "ARMv8.6 with i8mm",
        }
    }

    /// QEMU's processor: it decides which kernels run.
    pub(crate) fn emulated(self) -> &'static str {
        match self {
            Core::CortexA72 => "cortex-a72",
            Core::CortexA76 => "cortex-a76",
            Core::I8mm => "max",
        }
    }

    /// llvm-mca's model. Its `cortex-a76` stands for another pipeline; the Neoverse N1 is the A76's kin.
    pub(crate) fn model(self) -> &'static str {
        match self {
            Core::CortexA72 => "cortex-a72",
            Core::CortexA76 => "neoverse-n1",
            Core::I8mm => "neoverse-n2",
        }
    }
}

/// Rows and columns of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    rows: u32,
    cols: u32,
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
            (rows > 0 && rows % 8 == 0 && cols > 0).then_some(Shape { rows, cols })
        });
        parsed.ok_or_else(|| "expected ROWSxCOLS, such as 1536x576, with rows a multiple of 8".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_and_shown() {
        assert_eq!("1536x576".parse::<Shape>().map(|shape| shape.to_string()), Ok("1536x576".to_owned()));
        for wrong in ["", "8", "8x", "x8", "7x8", "8x0", "0x8", "8x8x8", "-8x8"] {
            assert!(wrong.parse::<Shape>().is_err(), "{wrong}");
        }
    }
}
