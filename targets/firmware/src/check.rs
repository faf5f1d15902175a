//! The accuracy check: this device computes what the host recorded.

use core::fmt;

use rescomp_formats::container::CheckedContainer;
use rescomp_formats::manifest::{Check, CheckRecord};
use rescomp_runtime::Machine;
use rescomp_runtime::eval::{self, Measured};
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels::Kernels;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::MemoryBlock;
use rescomp_runtime::self_check::self_check;
use rescomp_runtime::session::{Limits, Session};

use crate::failure::Failure;

/// Tokens that prefill runs at once: enough that each weight is unpacked for several, and little memory.
pub const TILE: usize = 4;

/// What the check found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// The kernel table.
    pub kernels: &'static str,
    /// What the host recorded.
    pub host: CheckRecord,
    /// What this device measured, a token at a time.
    pub device: Measured,
    /// SHA-256 of this device's logits in tiles of several tokens.
    pub prefill_logits_sha256: [u8; 32],
}

impl Report {
    /// Whether every logit has the host's bits, however the tokens were run.
    pub fn passed(&self) -> bool {
        let recorded = self.host.logits_sha256;
        self.device.logits_sha256 == recorded && self.prefill_logits_sha256 == recorded
    }
}

/// One line for programs: `report ` and the figures as `name=value`, numbers such that they are read back exactly.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Measured { nll, mean_kl, same_top1, positions, logits_sha256 } = self.device;
        write!(f, "report kernels={} nll={nll} kl={mean_kl} top1={same_top1}", self.kernels)?;
        write!(f, " positions={positions} digest={}", Hex(&logits_sha256))?;
        write!(f, " prefill={} passed={}", Hex(&self.prefill_logits_sha256), self.passed())
    }
}

/// Bytes in hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Compares every kernel with its known answer, then runs the windows twice, since one token and several use different kernels.
/// `progress` hears how many of the windows were run, and of how many.
///
/// # Errors
/// [`Failure::NoDecoder`]; [`Failure::SelfCheck`]; [`Failure::Runtime`] where the model doesn't run in `memory`.
#[inline(never)]
pub fn check(
    container: &CheckedContainer<'_>,
    kernels: &'static Kernels,
    memory: &mut [MemoryBlock],
    mut progress: impl FnMut(usize, usize),
) -> Result<Report, Failure> {
    let (Some(windows), Check::Windows(host)) = (container.check_windows(), &container.manifest().check)
    else {
        return Err(Failure::NoDecoder);
    };
    self_check(kernels)?;
    let sizes = windows.sizes();
    let limits = Limits { context: sizes.positions, tile: TILE.min(sizes.positions) };
    let machine = Machine { kernels, executor: &Serial };
    let mut session = Session::new(container, machine, limits, ActivationFormat::Int8, memory)?;
    let device = eval::measure(&mut session, &windows, |done| progress(done, 2 * sizes.windows))?;
    let prefill_logits_sha256 = eval::digest_in_tiles(&mut session, &windows, |done| {
        progress(sizes.windows + done, 2 * sizes.windows)
    })?;
    Ok(Report { kernels: kernels.name, host: *host, device, prefill_logits_sha256 })
}
