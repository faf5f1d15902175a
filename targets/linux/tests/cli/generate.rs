//! `rescomp generate`: the text is the reference's, wherever and however it runs, and ends where it should.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use crate::fixture::{
    BEGIN, Folder, assert_refused, container, continuation, end_line, errors, heapless_vec, program, run,
    spec, succeed, text_of,
};
use rescomp_formats::layouts::Layout;
use rescomp_formats::spec::ModelSpec;
use rescomp_runtime::kernels;
use rescomp_runtime::self_check::OPERATIONS;

/// "the h": the merge makes "he" one token.
const PROMPT: &str = "the h";
const PROMPT_TOKENS: [u32; 5] = [BEGIN, 116, 256, 32, 104];

#[test]
fn greedy_text_is_the_references_on_all_kernels_and_threads() {
    let folder = Folder::new();
    let bytes = container(&spec(), Layout::Nr8k4);
    let path = folder.file("model", &bytes);
    let expected = text_of(&continuation(&bytes, &PROMPT_TOKENS, 40));
    assert!(
        expected.chars().collect::<std::collections::BTreeSet<_>>().len() > 5,
        "{expected:?} says little"
    );
    for kernels in kernels::available() {
        for threads in ["1", "2", "3"] {
            let options =
                ["--prompt", PROMPT, "--max-tokens", "40", "--kernels", kernels.name, "--threads", threads];
            assert_eq!(succeed("generate", &path, &options), format!("{PROMPT}{expected}"));
        }
    }
    let summary =
        errors(&run("generate", &path, &["--prompt", PROMPT, "--max-tokens", "40", "--threads", "2"]));
    for part in ["stopped: the most tokens allowed", "prompt: 5 tokens", "generated: 40 tokens", "threads: 2"]
    {
        assert!(summary.contains(part), "{summary}");
    }
}

#[test]
fn kernels_are_checked_before_the_text_where_asked() {
    let folder = Folder::new();
    let path = folder.file("model", &container(&spec(), Layout::Nr8k4));
    for kernels in kernels::available() {
        let options = ["--prompt", PROMPT, "--max-tokens", "2", "--self-check", "--kernels", kernels.name];
        let said = errors(&run("generate", &path, &options));
        assert!(
            said.starts_with(&format!("self-check: {OPERATIONS} kernels give their known answers, ")),
            "{said}"
        );
    }
}

#[test]
fn a_seed_gives_one_text() {
    let folder = Folder::new();
    let path = folder.file("model", &container(&spec(), Layout::Nr8k4));
    let sampled = |seed, kernels: &str| {
        let options = ["--temperature", "1.5", "--top-k", "50", "--top-p", "0.95", "--seed", seed];
        let options: Vec<&str> = options.into_iter().chain(["--kernels", kernels, "--prompt", "a"]).collect();
        succeed("generate", &path, &options)
    };
    let reference = sampled("7", "scalar");
    assert_eq!(sampled("7", kernels::best().name), reference);
    assert_ne!(sampled("8", "scalar"), reference);
    assert_refused(&run("generate", &path, &["--top-p", "0"]), 2, &["--top-p"]);
    assert_refused(&run("generate", &path, &["--temperature", "nan"]), 2, &["--temperature"]);
}

#[test]
fn the_prompt_comes_from_the_option_a_file_or_a_pipe() {
    let folder = Folder::new();
    let bytes = container(&spec(), Layout::Nr8k4);
    let path = folder.file("model", &bytes);
    let file = folder.file("prompt", PROMPT.as_bytes());
    let options = ["--prompt-file", file.to_str().expect("UTF-8"), "--no-echo", "--max-tokens", "9"];
    let expected = text_of(&continuation(&bytes, &PROMPT_TOKENS, 9));
    assert_eq!(succeed("generate", &path, &options), expected);

    let mut child = start(program("generate", &path, &options[2..]).stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().expect("a pipe");
    writeln!(stdin, "{PROMPT}").expect("writable");
    drop(stdin);
    let output = child.wait_with_output().expect("ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);

    // No prompt: the begin token alone.
    let alone = text_of(&continuation(&bytes, &[BEGIN], 9));
    assert_eq!(succeed("generate", &path, &options[3..]), alone);
    // Special tokens are text unless asked for: 5 bytes more than one token.
    let prompt_tokens = |options: &[&str]| errors(&run("generate", &path, options));
    let special = ["--prompt", "<end>", "--max-tokens", "1", "--special-tokens"];
    assert!(prompt_tokens(&special).contains("prompt: 2 tokens"));
    assert!(prompt_tokens(&special[..4]).contains("prompt: 6 tokens"));
}

#[test]
fn prompts_that_cannot_be_run_are_refused() {
    let folder = Folder::new();
    let path = folder.file("model", &container(&spec(), Layout::Nr8k4));
    let long = "x".repeat(64);
    assert_refused(
        &run("generate", &path, &["--prompt", &long]),
        2,
        &["the prompt has 65 tokens, but the context is 64"],
    );
    assert_refused(&run("generate", &path, &["--context", "65"]), 2, &["context: expected 1 to 64"]);
    let latin = folder.file("latin", b"caf\xe9");
    let options = ["--prompt-file", latin.to_str().expect("UTF-8")];
    assert_refused(&run("generate", &path, &options), 2, &["latin: byte 3: expected UTF-8, found byte 0xe9"]);
    let absent = folder.path().join("absent");
    let options = ["--prompt-file", absent.to_str().expect("UTF-8")];
    assert_refused(&run("generate", &path, &options), 4, &["absent: cannot read"]);
    let beginless = ModelSpec { begin_token: None, ..spec() };
    let path = folder.file("beginless", &container(&beginless, Layout::Nr8k4));
    assert_refused(&run("generate", &path, &[]), 2, &["prompt is empty", "no begin token"]);
}

#[test]
fn the_text_ends_at_a_stop_string_an_end_token_or_the_context() {
    let folder = Folder::new();
    let bytes = container(&spec(), Layout::Nr8k4);
    let path = folder.file("model", &bytes);
    let tokens = continuation(&bytes, &[BEGIN], 50);
    let whole = text_of(&tokens);

    let characters: Vec<char> = whole.chars().collect();
    let stop: String = characters
        .windows(2)
        .skip(6)
        .find(|pair| !pair.contains(&'\0'))
        .expect("some characters")
        .iter()
        .collect();
    let output = run("generate", &path, &["--stop", "never there", "--stop", &stop, "--max-tokens", "50"]);
    let before = &whole[..whole.find(&stop).expect("it was taken from there")];
    assert_eq!(String::from_utf8_lossy(&output.stdout), end_line(before));
    assert!(errors(&output).contains(&format!("stopped: stop text {stop:?}")), "{}", errors(&output));

    // The end token of this model is what the other says sixth.
    let end = tokens[5];
    let at = tokens.iter().position(|&token| token == end).expect("it is there");
    let ending = ModelSpec { end_tokens: heapless_vec(&[end]), ..spec() };
    let ending = folder.file("ending", &container(&ending, Layout::Nr8k4));
    let output = run("generate", &ending, &[]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), text_of(&tokens[..at]));
    assert!(errors(&output).contains(&format!("stopped: end token {end}")), "{}", errors(&output));

    // 10 positions: the begin token, and nine tokens that run; the tenth is known from the last one's logits.
    let output = run("generate", &path, &["--context", "10"]);
    assert!(errors(&output).contains("stopped: the context of 10 positions is full"), "{}", errors(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), text_of(&tokens[..10]));
}

/// A model that goes on for minutes.
fn endless(folder: &Folder) -> std::path::PathBuf {
    let spec = ModelSpec { context: 1 << 16, ..spec() };
    folder.file("endless", &container(&spec, Layout::Nr8k4))
}

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

const ENDLESS: [&str; 4] = ["--max-tokens", "65536", "--threads", "2"];

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let folder = Folder::new();
    let path = endless(&folder);
    let mut child = start(&mut program("generate", &path, &ENDLESS));
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut [0]).expect("some text");
    drop(stdout);
    let output = child.wait_with_output().expect("ends");
    assert_eq!((output.status.code(), errors(&output)), (Some(4), String::new()));
}

#[test]
fn an_interrupt_finishes_the_line_and_reports() {
    let folder = Folder::new();
    let path = endless(&folder);
    let mut child = start(&mut program("generate", &path, &ENDLESS));
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut [0]).expect("some text");
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill starts");
    assert!(status.success());
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("readable");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(130), "{}", errors(&output));
    assert_eq!(rest.last(), Some(&b'\n'));
    assert!(errors(&output).contains("stopped: interrupted\nprompt: 1 tokens"), "{}", errors(&output));
}
