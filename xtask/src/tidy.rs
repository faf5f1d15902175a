//! `cargo xtask tidy`: the repository's rules, checked on every file.
//!
//! Each rule is a function from a file (or the whole checkout) to findings; a finding names file and line. The rules also run
//! as a test, so a plain `cargo test` notices a broken one.

mod source;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Exit};
use crate::output;
use crate::root;
use source::Source;

/// Most lines of a Rust file, tests included.
const MOST_LINES: usize = 800;

/// The only places with code for one instruction set (below them, or the file itself).
const PLACES_OF_INSTRUCTION_SETS: [&str; 3] =
    ["runtime/src/kernels/", "targets/bare-aarch64/src/board.rs", "targets/cortex-m/src/board.rs"];

/// What marks such code. `asm!` also stands for `global_asm!` and `naked_asm!`.
const MARKS_OF_INSTRUCTION_SETS: [&str; 4] = ["core::arch", "std::arch", "asm!", "target_arch"];

/// Macros that stand for code that is not there.
const UNFINISHED_CODE: [&str; 2] = ["todo!", "unimplemented!"];

/// Words that stand for work that is not done.
const UNFINISHED_COMMENTS: [&str; 2] = ["TODO", "FIXME"];

/// Folders that are not the repository's own.
const LEFT_OUT: [&str; 6] = ["target", "dist", "node_modules", "corpus", "artifacts", "coverage"];

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    file: PathBuf,
    /// Counted from 1; absent where the finding is about the whole file.
    line: Option<usize>,
    problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// Checks every rule and prints what breaks one.
///
/// # Errors
/// `Exit::Failed` when a rule is broken, `Exit::Disk` when a file cannot be read.
pub(crate) fn run() -> Result<(), Error> {
    let (files, findings) = check(&root::root()?)?;
    for finding in &findings {
        output::line(&finding.to_string());
    }
    if !findings.is_empty() {
        return Err(Error::failed(format!("{} places break the repository's rules", findings.len())));
    }
    output::line(&format!("tidy: {files} files keep the rules"));
    Ok(())
}

/// The number of files looked at, and everything that breaks a rule.
fn check(root: &Path) -> Result<(usize, Vec<Finding>), Error> {
    let mut files = Vec::new();
    list(root, root, &mut files)?;
    files.sort();
    let mut findings = Vec::new();
    for file in &files {
        let read = || {
            let path = root.join(file);
            std::fs::read_to_string(&path).map_err(|source| Error::disk("read", &path, &source))
        };
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(".rs") {
            findings.extend(check_rust(file, &read()?));
        } else if name.ends_with(".md") {
            findings.extend(check_links(root, file, &read()?));
        } else if name == "Cargo.toml" {
            findings.extend(check_lints(file, &read()?));
        }
    }
    findings.extend(check_exit_codes(root)?);
    Ok((files.len(), findings))
}

/// Adds the files below `folder`, relative to `root`. Hidden folders other than `.ci`, `.cargo` and `.github` are left out.
fn list(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let failed = |source: &std::io::Error| Error::disk("list", folder, source);
    for entry in std::fs::read_dir(folder).map_err(|source| failed(&source))? {
        let entry = entry.map_err(|source| failed(&source))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kind = entry.file_type().map_err(|source| failed(&source))?;
        if kind.is_dir() {
            let is_hidden = name.starts_with('.') && ![".ci", ".cargo", ".github"].contains(&&*name);
            if !is_hidden && !LEFT_OUT.contains(&&*name) {
                list(root, &entry.path(), files)?;
            }
        } else if let (true, Ok(file)) = (kind.is_file(), entry.path().strip_prefix(root)) {
            files.push(file.to_path_buf());
        }
    }
    Ok(())
}

fn check_rust(file: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line: Option<usize>, problem: String| {
        findings.push(Finding { file: file.to_path_buf(), line, problem });
    };
    if !text.starts_with("//! ") {
        find(Some(1), "begins without a `//!` comment that says what the file is for".to_owned());
    }
    let count = text.lines().count();
    if count > MOST_LINES {
        find(None, format!("has {count} lines; at most {MOST_LINES} are allowed"));
    }
    let path = file.to_string_lossy().replace('\\', "/");
    let may_name_instruction_sets = PLACES_OF_INSTRUCTION_SETS.iter().any(|place| path.starts_with(place));
    let source = Source::new(text);
    for (index, code) in source.code.iter().enumerate() {
        let line = Some(index + 1);
        if let Some(mark) = MARKS_OF_INSTRUCTION_SETS.iter().find(|mark| code.contains(**mark))
            && !may_name_instruction_sets
        {
            find(line, format!("`{mark}` outside {}", PLACES_OF_INSTRUCTION_SETS.join(", ")));
        }
        if let Some(mark) = UNFINISHED_CODE.iter().find(|mark| code.contains(**mark)) {
            find(line, format!("`{mark}`: unfinished code"));
        }
        if has_unexplained_attribute(text, &source, index) {
            find(
                line,
                "allows or expects a lint without a reason (`reason = \"...\"`, or a comment above)"
                    .to_owned(),
            );
        }
    }
    for (index, comment) in source.comments.iter().enumerate() {
        if let Some(word) = UNFINISHED_COMMENTS.iter().find(|word| comment.contains(**word)) {
            find(Some(index + 1), format!("`{word}`: unfinished work belongs in an issue"));
        }
    }
    findings
}

/// Whether line `index` begins an `allow` or `expect` attribute that no `reason` in it and no plain comment explains: behind
/// it, or in the line above it and its fellow attributes.
fn has_unexplained_attribute(text: &str, source: &Source, index: usize) -> bool {
    let is_attribute = |code: &str| {
        let code: String = code.split_whitespace().collect();
        ["#[allow(", "#[expect(", "#![allow(", "#![expect("].iter().any(|start| code.contains(start))
            || (code.contains("cfg_attr(") && (code.contains(",allow(") || code.contains(",expect(")))
    };
    if !is_attribute(&source.code[index]) {
        return false;
    }
    // The attribute ends at the first line with a closing bracket.
    let length = source.code[index..].iter().position(|code| code.contains(']')).map_or(1, |lines| lines + 1);
    let attribute = index..index + length;
    let is_plain = |comment: &str| {
        let comment = comment.trim();
        comment.starts_with("// ") || comment.starts_with("/* ")
    };
    if text.lines().skip(index).take(length).any(|line| line.contains("reason =")) {
        return false;
    }
    if source.comments[attribute].iter().any(|comment| is_plain(comment)) {
        return false;
    }
    let above = (0..index).rev().find(|&line| !source.code[line].trim_start().starts_with('#'));
    !above.is_some_and(|line| source.code[line].trim().is_empty() && is_plain(&source.comments[line]))
}

/// Links of a Markdown file to files that are not there.
fn check_links(root: &Path, file: &Path, text: &str) -> Vec<Finding> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut findings = Vec::new();
    for (line, link) in links(text) {
        let path = link.split(['#', '?']).next().unwrap_or_default();
        let is_elsewhere = link.contains("://") || link.starts_with("mailto:");
        if is_elsewhere || path.is_empty() {
            continue;
        }
        let wanted = match path.strip_prefix('/') {
            Some(from_root) => PathBuf::from(from_root),
            None => folder.join(path),
        };
        let problem = match without_dots(&wanted) {
            None => "leads out of the repository",
            Some(inside) if !root.join(&inside).exists() => "leads to a file that is not there",
            Some(_) => continue,
        };
        findings.push(Finding {
            file: file.to_path_buf(),
            line: Some(line),
            problem: format!("link `{link}` {problem}"),
        });
    }
    findings
}

/// The targets of `[text](target)` and `[label]: target`, with their lines, outside code.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~") {
            in_code = !in_code;
            continue;
        }
        if in_code {
            continue;
        }
        // Between backquotes is code: every second piece.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        let target = |rest: &str, end: char| {
            let inside = rest.split(end).next().unwrap_or_default();
            let word = inside.split_whitespace().next().unwrap_or_default();
            word.trim_start_matches('<').trim_end_matches('>').to_owned()
        };
        links.extend(prose.split("](").skip(1).map(|rest| (index + 1, target(rest, ')'))));
        if prose.starts_with('[')
            && let Some((_, rest)) = prose.split_once("]: ")
        {
            links.push((index + 1, target(rest, '\n')));
        }
    }
    links
}

/// Resolves `.` and `..`; `None` when the path leaves its root.
fn without_dots(path: &Path) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => inside.push(name),
            std::path::Component::ParentDir if !inside.pop() => return None,
            _ => {}
        }
    }
    Some(inside)
}

/// A crate that does not take the workspace's lints.
fn check_lints(file: &Path, text: &str) -> Vec<Finding> {
    let finding = |problem: String| vec![Finding { file: file.to_path_buf(), line: None, problem }];
    match text.parse::<toml::Table>() {
        Err(error) => finding(format!("cannot be read: {}", error.message())),
        Ok(manifest) => {
            let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
            // A package that is a workspace of its own (fuzzing) has no workspace to take lints from.
            let takes = lints.and_then(toml::Value::as_bool) == Some(true);
            if manifest.contains_key("package") && !manifest.contains_key("workspace") && !takes {
                finding("does not take the workspace's lints (`[lints] workspace = true`)".to_owned())
            } else {
                Vec::new()
            }
        }
    }
}

/// Differences between `docs/exit-codes.md` and [`Exit`].
fn check_exit_codes(root: &Path) -> Result<Vec<Finding>, Error> {
    let file = Path::new("docs/exit-codes.md");
    let path = root.join(file);
    let text = std::fs::read_to_string(&path).map_err(|source| Error::disk("read", &path, &source))?;
    Ok(compare_exit_codes(file, &text))
}

fn compare_exit_codes(file: &Path, text: &str) -> Vec<Finding> {
    let rows: Vec<(usize, &str, &str)> = text
        .lines()
        .enumerate()
        .filter_map(|(index, line)| {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            let (code, meaning) = (cells.next()?, cells.next()?);
            code.starts_with(|c: char| c.is_ascii_digit()).then_some((index + 1, code, meaning))
        })
        .collect();
    let mut findings = Vec::new();
    let mut find = |line, problem| findings.push(Finding { file: file.to_path_buf(), line, problem });
    for exit in Exit::ALL {
        match rows.iter().find(|(_, code, _)| *code == exit.code().to_string()) {
            None => find(None, format!("has no row for exit code {} ({})", exit.code(), exit.meaning())),
            Some((line, code, meaning)) if *meaning != exit.meaning() => {
                let expected = exit.meaning();
                find(Some(*line), format!("exit code {code}: expected `{expected}`, found `{meaning}`"));
            }
            Some(_) => {}
        }
    }
    for (line, code, _) in &rows {
        if Exit::ALL.iter().all(|exit| exit.code().to_string() != *code) {
            find(Some(*line), format!("exit code {code} is none of the program's"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_keeps_its_rules() {
        let (files, findings) = check(&root::root().expect("in the checkout")).expect("readable");
        assert!(files > 20, "only {files} files were looked at");
        let findings: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert!(findings.is_empty(), "\n{}", findings.join("\n"));
    }

    fn rust(file: &str, text: &str) -> Vec<String> {
        check_rust(Path::new(file), text).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_file_needs_a_head_and_a_bearable_length() {
        assert_eq!(rust("a.rs", "//! Adds.\nfn f() {}\n"), [""; 0]);
        assert!(rust("a.rs", "fn f() {}\n")[0].starts_with("a.rs:1: begins without"));
        let long = format!("//! Long.\n{}", "\n".repeat(MOST_LINES));
        assert_eq!(rust("a.rs", &long), ["a.rs: has 801 lines; at most 800 are allowed"]);
    }

    #[test]
    fn instruction_sets_stay_in_their_place() {
        for code in ["use core::arch::aarch64::*;", "asm!(\"nop\");", "#[cfg(target_arch = \"x86_64\")]"] {
            let text = format!("//! Head.\n{code}\n");
            assert_eq!(rust("runtime/src/ops/linear.rs", &text).len(), 1, "{code}");
            assert_eq!(rust("runtime/src/kernels/neon/gemv.rs", &text).len(), 0, "{code}");
        }
        assert_eq!(rust("a.rs", "//! Head, without core::arch.\nlet x = \"asm!\";\n"), [""; 0]);
    }

    #[test]
    fn unfinished_work_is_found_in_code_and_comments_only() {
        assert!(rust("a.rs", "//! Head.\ntodo!()\n")[0].starts_with("a.rs:2: `todo!`"));
        assert!(rust("a.rs", "//! Head.\nunimplemented!()\n")[0].contains("`unimplemented!`"));
        assert!(rust("a.rs", "//! Head.\nf(); // TODO: more\n")[0].starts_with("a.rs:2: `TODO`"));
        assert!(rust("a.rs", "//! Head.\n/* FIXME */\n")[0].contains("`FIXME`"));
        assert_eq!(rust("a.rs", "//! Head.\nf(\"TODO\", \"todo!\");\n"), [""; 0]);
    }

    #[test]
    fn lints_are_switched_off_with_a_reason_only() {
        for bad in [
            "#[allow(dead_code)]\nfn f() {}",
            "/// Documented.\n#[expect(dead_code)]\nfn f() {}",
            "#![allow(unsafe_code)]",
            "#[cfg_attr(test, allow(dead_code))]\nfn f() {}",
            "#[allow(\n    dead_code\n)]\nfn f() {}",
        ] {
            assert_eq!(rust("a.rs", &format!("//! Head.\n\n{bad}\n")).len(), 1, "{bad}");
        }
        for good in [
            "#[allow(dead_code, reason = \"used by the tests\")]\nfn f() {}",
            "#[expect(\n    dead_code,\n    reason = \"used by the tests\"\n)]\nfn f() {}",
            "// Used by the tests.\n#[inline]\n#[allow(dead_code)]\nfn f() {}",
            "#[allow(dead_code)] // used by the tests\nfn f() {}",
        ] {
            assert_eq!(rust("a.rs", &format!("//! Head.\n\n{good}\n")), [""; 0], "{good}");
        }
    }

    #[test]
    fn links_must_lead_to_files() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("docs")).expect("writable");
        std::fs::write(folder.path().join("docs/a.md"), "").expect("writable");
        std::fs::write(folder.path().join("README.md"), "").expect("writable");
        let text = "[a](a.md#head) [up](../README.md) [root](/docs/a.md) [web](https://x.y/z) [here](#head)\n\
                    `[code](none.md)`\n```\n[code](none.md)\n```\n[gone](none.md) [out](../../x.md)\n\
                    [label]: gone.md\n![picture](<a.md> \"title\")\n";
        let findings = check_links(folder.path(), Path::new("docs/b.md"), text);
        let findings: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert_eq!(
            findings,
            [
                "docs/b.md:6: link `none.md` leads to a file that is not there",
                "docs/b.md:6: link `../../x.md` leads out of the repository",
                "docs/b.md:7: link `gone.md` leads to a file that is not there",
            ]
        );
    }

    #[test]
    fn crates_take_the_workspaces_lints() {
        let lints = |text: &str| check_lints(Path::new("a/Cargo.toml"), text).len();
        assert_eq!(lints("[package]\nname = \"a\"\n[lints]\nworkspace = true\n"), 0);
        assert_eq!(lints("[package]\nname = \"a\"\n"), 1);
        assert_eq!(lints("[package]\nname = \"a\"\n[lints.rust]\nunsafe_code = \"allow\"\n"), 1);
        assert_eq!(lints("[package]\nname = \"fuzz\"\n[workspace]\n"), 0);
        assert_eq!(lints("[workspace]\nmembers = []\n"), 0);
        assert_eq!(lints("[package\n"), 1);
    }

    #[test]
    fn the_table_of_exit_codes_is_compared_both_ways() {
        let row = |exit: &Exit| format!("| {} | {} |\n", exit.code(), exit.meaning());
        let full: String = Exit::ALL.iter().map(row).collect();
        let compare = |text: &str| compare_exit_codes(Path::new("e.md"), text).len();
        assert_eq!(compare(&format!("| code | meaning |\n|---|---|\n{full}")), 0);
        assert_eq!(compare(&full.replace("| 4 |", "| 5 |")), 2);
        assert_eq!(compare(&full.replace("interrupted", "stopped")), 1);
    }
}
