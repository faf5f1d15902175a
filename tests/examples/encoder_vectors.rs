//! Prints what the full-precision forward makes of a text a line, as a JSON object a line: its tokens and its vector. `tests/encoder_vectors.py`
//! compares both with transformers.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for the terminal")]

use rescomp_quantizer::checkpoint::Checkpoint;
use rescomp_quantizer::embeddings::dense_embeddings;
use rescomp_quantizer::{sequences, texts};
use std::path::Path;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, text] = &arguments[..] else { panic!("expected a folder and a text") };
    let checkpoint = Checkpoint::open(Path::new(folder)).unwrap();
    let section = texts::tokenizer_section(&checkpoint).unwrap();
    let tokenizer = texts::tokenizer(&section).unwrap();
    let path = Path::new(text);
    let lines = sequences::lines(path).unwrap();
    let longest = checkpoint.spec.context as usize;
    let all = sequences::sequences(&tokenizer, path, &lines, longest, usize::MAX).unwrap();
    let vectors = dense_embeddings(conformance::serial_machine(), &checkpoint, &all, |_| ()).unwrap();
    for ((text, tokens), embedding) in lines.iter().zip(&all).zip(&vectors) {
        println!("{}", serde_json::json!({ "text": text, "tokens": tokens, "embedding": embedding }));
    }
}
