//! Options of the commands that bring a model to devices: `deploy`, `keygen`, `sign`.

use std::path::PathBuf;

use clap::Args;

/// Options of `deploy`.
#[derive(Debug, Args)]
pub(crate) struct DeployFlags {
    /// The device, as ssh names it.
    #[arg(long, value_name = "USER@BOARD")]
    pub(crate) host: String,
    /// How the device is reached.
    #[command(flatten)]
    pub(crate) remote: RemoteFlags,
    /// The target whose folder is copied, and whose bounds the check on the device must keep.
    #[arg(long, value_name = "NAME|FILE.toml", default_value = "aarch64")]
    pub(crate) target: String,
    /// Folder that `pack` wrote [default: dist/TARGET in the project].
    #[arg(long, value_name = "DIR")]
    pub(crate) from: Option<PathBuf>,
    /// Instead, return to the release that was live before the present one.
    #[arg(long, conflicts_with = "from")]
    pub(crate) rollback: bool,
    /// Print the report as one JSON object on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a device is reached.
#[derive(Debug, Args)]
pub(crate) struct RemoteFlags {
    /// Folder on the device, created where missing; relative ones are in the user's home.
    #[arg(long, value_name = "DIR", default_value = "rescomp")]
    pub(crate) dir: String,
    /// An option of ssh, as in its configuration file (Port=2222); may be given several times.
    #[arg(long = "ssh-option", value_name = "NAME=VALUE")]
    pub(crate) ssh_options: Vec<String>,
    /// A command of the device that starts the program, such as an emulator with its options.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) run_with: Option<String>,
}

/// Options of `keygen`.
#[derive(Debug, Args)]
pub(crate) struct KeygenFlags {
    /// File of the new secret key, readable by its owner alone; the public key goes beside it, with `.pub` after its name.
    #[arg(long, value_name = "KEY", default_value = "rescomp.key")]
    pub(crate) output: PathBuf,
}

/// Options of `sign`.
#[derive(Debug, Args)]
pub(crate) struct SignFlags {
    /// The container.
    pub(crate) container: PathBuf,
    /// The secret key: a file that `keygen` made, or another one of Ed25519 (PKCS #8, PEM).
    #[arg(long, value_name = "KEY")]
    pub(crate) key: PathBuf,
    /// Which release it is: a device refuses one that is lower than what it has used [default: seconds since 1970].
    #[arg(long, value_name = "N")]
    pub(crate) release: Option<u64>,
    /// File to write [default: the container itself].
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}
