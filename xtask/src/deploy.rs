//! `cargo xtask deploy`: what `pack` wrote goes live on a device, whole and checked there, or not at all.
//!
//! ```text
//! DIR/releases/ID          a complete release; ID follows from the contents of its files
//! DIR/releases/ID/previous which release was live before it
//! DIR/releases/ID.partial  a copy that is not complete, or not checked yet
//! DIR/current              symbolic link to the live release
//! ```
//! The files are copied into ID.partial, where an earlier copy was broken off from where it ended; their digests are verified on the
//! device; the program there runs `check`; then ID.partial becomes ID, and one rename switches `current`. Whatever fails before leaves
//! the live release as it was, and so does a loss of power or connection at any moment. Releases other than the live one and the
//! one before are then removed.

mod bundle;
mod remote;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::check::{CONTAINER_FILE, RUNNER_FILE, dist};
use crate::error::{Error, Exit};
use crate::flags::{DeployFlags, RemoteFlags};
use crate::runner::{self, DeviceReport};
use crate::target::{Bounds, Target};
use crate::{output, root};
use bundle::{Bundle, BundleFile, SUMS_FILE, digest_of};
use remote::{Remote, quoted};

/// Kibibytes of the device's disk that must stay free.
const SPARE_KIBIBYTES: u64 = 1024;

/// The report of the command.
#[derive(Debug, Serialize)]
struct Report {
    host: String,
    folder: String,
    /// The release that is live now.
    release: String,
    /// The one that was live before.
    previous: Option<String>,
    /// Bytes of all files, and how many of them were sent.
    bytes: u64,
    bytes_sent: u64,
    check: DeviceReport,
}

/// Runs the command.
///
/// # Errors
/// `Exit::Input` and `Exit::Disk` for a folder that is not complete, `Exit::Missing` where the device cannot be reached,
/// `Exit::Failed` where a step on the device fails or its check misses a bound. The live release is then as it was.
pub(crate) fn run(flags: &DeployFlags) -> Result<(), Error> {
    let target = Target::load(&flags.target)?;
    if target.image.is_some() {
        let name = &target.name;
        return Err(Error::input(format!("{name}: an image is not deployed over ssh")).remedy(format!(
            "`cargo xtask pack --target {name}` writes it; flash it, or give it to the board's boot loader"
        )));
    }
    let folder = match &flags.from {
        Some(folder) => folder.clone(),
        None => dist(&root::root()?, &target),
    };
    let remote = &flags.remote;
    let device = Device {
        remote: Remote::new(&flags.host, &remote.ssh_options)?,
        folder: device_folder(&remote.dir)?,
        run_with: remote.run_with.clone().unwrap_or_default(),
    };
    let report = match flags.rollback {
        true => device.roll_back(&target.bounds)?,
        false => device.deploy(&Bundle::read(&folder)?, &target.bounds)?,
    };
    if flags.json {
        output::line(&output::json(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

/// A folder on the device; relative ones are in the user's home, where ssh begins.
fn device_folder(dir: &str) -> Result<String, Error> {
    let folder = dir.strip_prefix("~/").unwrap_or(dir).trim_end_matches('/');
    if folder.is_empty() || folder.starts_with(['~', '-']) || folder.contains(['\n', '\0']) {
        return Err(Error::input(format!("--dir {dir:?}: expected a folder on the device")));
    }
    Ok(folder.to_owned())
}

/// Checks what is live on a device.
///
/// # Errors
/// `Exit::Missing` where the device cannot be reached, `Exit::Failed` where nothing is live there or the check gives no report.
pub(crate) fn check_live(host: &str, flags: &RemoteFlags, bounds: &Bounds) -> Result<DeviceReport, Error> {
    let device = Device {
        remote: Remote::new(host, &flags.ssh_options)?,
        folder: device_folder(&flags.dir)?,
        run_with: flags.run_with.clone().unwrap_or_default(),
    };
    match device.live()? {
        Some(id) => device.measure(&format!("releases/{id}"), bounds),
        None => Err(Error::failed(format!("{host}: nothing is deployed in {}", device.folder))
            .remedy(format!("cargo xtask deploy --host {host}"))),
    }
}

/// Where releases live.
#[derive(Debug)]
struct Device {
    remote: Remote,
    folder: String,
    /// A command that starts programs there, such as an emulator.
    run_with: String,
}

impl Device {
    fn deploy(&self, bundle: &Bundle, bounds: &Bounds) -> Result<Report, Error> {
        let id = &bundle.id;
        let live = self.live()?;
        let before = match &live {
            // Again: what it replaced stays what it replaced.
            Some(live) if live == id => self.previous(id)?,
            other => other.clone(),
        };
        let (place, sent) = match self.exists(id)? {
            true => (format!("releases/{id}"), 0),
            false => (format!("releases/{id}.partial"), self.copy(bundle)?),
        };
        self.verify(&place, bundle)?;
        let check = self.check(&place, bounds)?;
        if live.as_ref() != Some(id) {
            let previous = quoted(before.as_deref().unwrap_or_default());
            let write = format!(
                "printf '%s' {previous} > {place}/previous.new && mv {place}/previous.new {place}/previous"
            );
            self.run("complete the release", &format!("{write} && sync"))?;
        }
        if place.ends_with(".partial") {
            self.run("complete the release", &format!("mv {place} releases/{id} && sync"))?;
        }
        self.switch(id)?;
        self.prune(id, before.as_deref())?;
        Ok(self.report(id, before, bundle.bytes(), sent, check))
    }

    /// Makes the release live that was live before the present one.
    fn roll_back(&self, bounds: &Bounds) -> Result<Report, Error> {
        let none = |why: String| Error::failed(format!("{}: {why}", self.remote.host()));
        let live = self.live()?.ok_or_else(|| none(format!("nothing is deployed in {}", self.folder)))?;
        let id = self.previous(&live)?.ok_or_else(|| none(format!("no release was live before {live}")))?;
        if !self.exists(&id)? {
            return Err(none(format!("release {id}, which was live before {live}, is gone")));
        }
        let place = format!("releases/{id}");
        self.run("verify the release", &format!("cd {place} && sha256sum -c {SUMS_FILE} > /dev/null"))?;
        let check = self.check(&place, bounds)?;
        self.switch(&id)?;
        Ok(self.report(&id, Some(live), 0, 0, check))
    }

    fn report(
        &self,
        id: &str,
        previous: Option<String>,
        bytes: u64,
        bytes_sent: u64,
        check: DeviceReport,
    ) -> Report {
        let (host, folder) = (self.remote.host().to_owned(), self.folder.clone());
        Report { host, folder, release: id.to_owned(), previous, bytes, bytes_sent, check }
    }

    /// Runs a script in the folder of releases, which is made where it is missing.
    fn run(&self, doing: &str, script: &str) -> Result<String, Error> {
        self.remote.run(doing, &format!("{} && {{ {script}\n}}", self.enter()))
    }

    fn enter(&self) -> String {
        let folder = quoted(&self.folder);
        format!("mkdir -p {folder}/releases && cd {folder}")
    }

    /// The live release.
    fn live(&self) -> Result<Option<String>, Error> {
        let link = self.run("read which release is live", "if [ -L current ]; then readlink current; fi")?;
        Ok(identifier(link.trim().trim_start_matches("releases/")))
    }

    /// What was live before a release.
    fn previous(&self, id: &str) -> Result<Option<String>, Error> {
        let script = format!("if [ -f releases/{id}/previous ]; then cat releases/{id}/previous; fi");
        Ok(identifier(self.run("read which release was live before", &script)?.trim()))
    }

    fn exists(&self, id: &str) -> Result<bool, Error> {
        let script = format!("if [ -d releases/{id} ]; then echo yes; fi");
        Ok(self.run("look for the release", &script)?.trim() == "yes")
    }

    /// Copies what is not there yet; returns the bytes that were sent.
    fn copy(&self, bundle: &Bundle) -> Result<u64, Error> {
        let partial = format!("releases/{}.partial", bundle.id);
        let there = self.run(
            "look for an earlier copy",
            &format!(
                "mkdir -p {partial} && cd {partial} && for file in *; do \
                 [ -f \"$file\" ] && echo \"$(wc -c < \"$file\") $(sha256sum < \"$file\" | cut -c 1-64) $file\"; done; \
                 echo \"free $(df -Pk . | tail -n 1 | awk '{{print $4}}')\""
            ),
        )?;
        let missing: Vec<(&BundleFile, usize)> =
            bundle.files.iter().map(|file| (file, already_there(file, &there))).collect();
        let bytes: u64 = missing.iter().map(|(file, from)| (file.bytes.len() - from) as u64).sum();
        self.check_space(bytes, &there)?;
        let bar = ProgressBar::new(bundle.bytes()).with_position(bundle.bytes() - bytes);
        let style = "copying {bytes} of {total_bytes} {wide_bar} {binary_bytes_per_sec}, {eta} left";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        for (file, from) in missing {
            let path = format!("{partial}/{}", file.name);
            if from == 0 {
                self.run("begin a file", &format!(": > {path}"))?;
            }
            let whole_path = format!("{}/{path}", quoted(&self.folder));
            self.remote.append(&whole_path, &file.bytes[from..], |sent| bar.inc(sent)).map_err(|error| {
                bar.abandon();
                error.remedy("the same command goes on where the copy was broken off")
            })?;
        }
        bar.finish_and_clear();
        Ok(bytes)
    }

    /// Refuses to fill the device's disk.
    fn check_space(&self, bytes: u64, listing: &str) -> Result<(), Error> {
        let free = listing.lines().find_map(|line| line.strip_prefix("free ")?.trim().parse::<u64>().ok());
        let needed = bytes.div_ceil(1024) + SPARE_KIBIBYTES;
        match free {
            Some(free) if free < needed => Err(Error::failed(format!(
                "{}: {needed} KiB are needed in {}, and {free} KiB are free",
                self.remote.host(),
                self.folder
            ))),
            _ => Ok(()),
        }
    }

    /// Verifies every digest on the device.
    fn verify(&self, place: &str, bundle: &Bundle) -> Result<(), Error> {
        let sums = bundle.files.iter().find(|file| file.name == SUMS_FILE);
        let expected = sums.map(|sums| digest_of(&sums.bytes)).unwrap_or_default();
        let script = format!(
            "cd {place} && [ \"$(sha256sum < {SUMS_FILE} | cut -c 1-64)\" = {expected} ] && \
             sha256sum -c {SUMS_FILE} > /dev/null && chmod +x {RUNNER_FILE} && sync"
        );
        let verified = self.run("verify the copy's digests", &script);
        if verified.as_ref().is_err_and(|error| error.exit() == Exit::Failed) {
            // The next try begins anew: what is there cannot be gone on with.
            let _ = self.run("remove the copy", &format!("rm -rf releases/{}.partial", bundle.id));
        }
        verified.map(|_| ())
    }

    /// Runs the check on the device: what it measured, whether it kept the bounds or not.
    fn measure(&self, place: &str, bounds: &Bounds) -> Result<DeviceReport, Error> {
        let arguments: Vec<String> =
            runner::bounds_arguments(bounds).iter().map(|word| quoted(word)).collect();
        let script = format!(
            "{} && cd {place} && exec {} ./{RUNNER_FILE} check {CONTAINER_FILE} --json {}",
            self.enter(),
            self.run_with,
            arguments.join(" ")
        );
        let output = self.remote.run_any(&script)?;
        let mut report: DeviceReport = serde_json::from_slice(&output.stdout).map_err(|error| {
            let said = String::from_utf8_lossy(&output.stderr);
            self.failed()
                .because(format!("it ended with {}", output.status))
                .because(said.trim())
                .caused_by(&error)
        })?;
        report.place = self.remote.host().to_owned();
        report.passed &= output.status.success();
        Ok(report)
    }

    fn failed(&self) -> Error {
        Error::failed(format!("{}: the check failed; the live release stays", self.remote.host()))
    }

    /// Runs the check on the device, which is to keep the bounds.
    fn check(&self, place: &str, bounds: &Bounds) -> Result<DeviceReport, Error> {
        let report = self.measure(place, bounds)?;
        match report.passed {
            true => Ok(report),
            false => Err(self.failed().because(format!("{} on the device", report.device.in_words()))),
        }
    }

    /// Makes a release live, by one rename.
    fn switch(&self, id: &str) -> Result<(), Error> {
        let script = format!("ln -sfn releases/{id} current.new && mv -T current.new current && sync");
        self.run("switch to the release", &script).map(|_| ())
    }

    /// Removes releases other than these, and what is left of broken copies.
    fn prune(&self, live: &str, before: Option<&str>) -> Result<(), Error> {
        let before = before.unwrap_or(live);
        let digits = "[0-9a-f]".repeat(16);
        let script = format!(
            "for release in releases/{digits} releases/{digits}.partial; do case \"$release\" in \
             releases/{live}|releases/{before}) ;; *) rm -rf \"$release\" ;; esac; done"
        );
        self.run("remove old releases", &script).map(|_| ())
    }
}

/// Sixteen hexadecimal digits, or nothing.
fn identifier(text: &str) -> Option<String> {
    let is_digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    (text.len() == 16 && text.chars().all(is_digit)).then(|| text.to_owned())
}

/// How many bytes of a file are there, by the device's list of sizes, digests and names: a whole one, or the beginning of one.
fn already_there(file: &BundleFile, listing: &str) -> usize {
    let found = listing.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (size, digest, name) = (words.next()?, words.next()?, words.next()?);
        (name == file.name).then_some((size.parse::<usize>().ok()?, digest))
    });
    match found {
        Some((size, digest)) if file.bytes.get(..size).is_some_and(|part| digest_of(part) == digest) => size,
        _ => 0,
    }
}

fn print(report: &Report) {
    let Report { host, folder, release, previous, bytes, bytes_sent, check } = report;
    output::line(&format!("{host}: release {release} is live in {folder}/current"));
    if *bytes > 0 {
        output::line(&format!("{bytes} bytes, of which {bytes_sent} were sent"));
    }
    output::line(&format!(
        "check there: {}, kernels {}, {:.1} s: passed",
        check.device.in_words(),
        check.kernels,
        check.seconds
    ));
    match previous {
        Some(previous) => {
            output::line(&format!("release {previous} was live before; --rollback returns to it"))
        }
        None => output::line("it is the first release there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_goes_on_where_what_is_there_is_its_beginning() {
        let file = BundleFile { name: "a.bin".to_owned(), bytes: b"0123456789".to_vec() };
        let listing =
            |bytes: &[u8]| format!("3 x other\n{} {} a.bin\nfree 9\n", bytes.len(), digest_of(bytes));
        assert_eq!(already_there(&file, &listing(b"01234")), 5);
        assert_eq!(already_there(&file, &listing(b"0123456789")), 10);
        assert_eq!(already_there(&file, &listing(b"")), 0);
        for other in [&b"01x34"[..], b"0123456789a"] {
            assert_eq!(already_there(&file, &listing(other)), 0);
        }
        assert_eq!(already_there(&file, "free 9\n"), 0);
    }

    #[test]
    fn folders_and_releases_are_what_they_can_be() {
        assert_eq!(device_folder("~/a b/").expect("a folder"), "a b");
        assert_eq!(device_folder("/srv/models").expect("a folder"), "/srv/models");
        for bad in ["", "/", "~", "~root/x", "-x", "a\nb"] {
            assert!(device_folder(bad).is_err(), "{bad:?}");
        }
        assert_eq!(identifier("0123456789abcdef").as_deref(), Some("0123456789abcdef"));
        assert!(
            ["", "0123456789abcde", "0123456789abcdeg", "../3456789abcdef"]
                .iter()
                .all(|text| identifier(text).is_none())
        );
    }
}
