//! Unigram: the sequence of tokens with the greatest sum of scores.
//!
//! Viterbi's algorithm over the characters of a pre-token (Kudo, "Subword Regularization", ACL 2018, section 3.2):
//!
//! ```text
//! best[0] = 0
//! for each place: for each token of length l there: best[place + l] = max(best[place + l], best[place] + score)
//!     where no token has just the next character: it is unknown, with the unknown score
//! ```
//!
//! Scores are added in binary64 in the order of the `tokenizers` crate, so that ties fall as they do there. n characters
//! take at most n searches of at most 255 bytes, and 4 elements each.

use rescomp_formats::tokenizer::TokenizerView;

/// Elements of memory for one character.
pub(super) const WORDS: usize = 4;

/// The best token that ends at a place.
#[derive(Clone, Copy, Debug)]
struct Node {
    score: f64,
    id: u32,
    /// Characters of the token: 0 where none ends here yet.
    characters: u32,
}

/// The nodes behind each character.
struct Nodes<'w>(&'w mut [u32]);

impl Nodes<'_> {
    /// The node behind so many characters, at least one.
    fn get(&self, end: usize) -> Node {
        let words = &self.0[(end - 1) * WORDS..end * WORDS];
        let score = f64::from_bits(u64::from(words[1]) << 32 | u64::from(words[0]));
        Node { score, id: words[2], characters: words[3] }
    }

    fn set(&mut self, end: usize, node: Node) {
        let bits = node.score.to_bits();
        let words = [bits as u32, (bits >> 32) as u32, node.id, node.characters];
        self.0[(end - 1) * WORDS..end * WORDS].copy_from_slice(&words);
    }

    fn offer(&mut self, end: usize, node: Node) {
        let best = self.get(end);
        if best.characters == 0 || node.score > best.score {
            self.set(end, node);
        }
    }
}

/// Encodes one pre-token: its ids are at the front of `words` afterwards; returns their number and the sum of the scores with
/// `score`, the sum of those before it.
///
/// `None` where `words` has fewer than [`WORDS`] elements a character.
pub(super) fn encode(
    view: &TokenizerView<'_>,
    text: impl Iterator<Item = char> + Clone,
    characters: usize,
    score: f64,
    words: &mut [u32],
) -> Option<(usize, f64)> {
    let unknown = view.unknown_token()?;
    let words = words.get_mut(..characters.checked_mul(WORDS)?)?;
    words.fill(0);
    let mut nodes = Nodes(words);
    let mut rest = text.clone();
    for place in 0..characters {
        let so_far = if place == 0 { score } else { nodes.get(place).score };
        let mut single = false;
        tokens_at(view, rest.clone().take(characters - place), |id, score, length| {
            single |= length == 1;
            let node = Node { score: score + so_far, id, characters: length as u32 };
            nodes.offer(place + length, node);
        });
        if !single {
            let score = view.unknown_score() + so_far;
            nodes.offer(place + 1, Node { score, id: unknown, characters: 1 });
        }
        rest.next();
    }
    let total = if characters == 0 { score } else { nodes.get(characters).score };
    let first = turn_links(&mut nodes, characters);
    Some((write_ids(view, text, &mut nodes, characters, first, unknown), total))
}

/// Hands on every token at the beginning of a text: its id, score and characters.
fn tokens_at(
    view: &TokenizerView<'_>,
    text: impl Iterator<Item = char> + Clone,
    mut found: impl FnMut(u32, f64, usize),
) {
    if let Some(byte) = byte_spelling(text.clone())
        && let (Some(id), Some(score)) = (view.byte_token(byte), view.byte_score(byte))
    {
        found(id, score, BYTE_SPELLING);
    }
    let mut narrowing = view.narrowing();
    for (characters, character) in (1..).zip(text) {
        if !character.encode_utf8(&mut [0; 4]).bytes().all(|byte| view.narrow(&mut narrowing, byte)) {
            return;
        }
        if let Some((id, position)) = view.narrowed_token(&narrowing) {
            found(id, view.ordered_score(position).unwrap_or(0.0), characters);
        }
    }
}

const BYTE_SPELLING: usize = "<0x00>".len();

/// The byte whose token is spelled at the beginning of a text: its spelling is a token as any other.
fn byte_spelling(mut text: impl Iterator<Item = char>) -> Option<u8> {
    if !"<0x".chars().all(|expected| text.next() == Some(expected)) {
        return None;
    }
    let mut digit = || text.next().filter(|digit| !digit.is_ascii_lowercase())?.to_digit(16);
    let byte = digit()? * 16 + digit()?;
    (text.next() == Some('>')).then_some(byte as u8)
}

/// Turns the links back along the best path into links forward; returns the length of its first token.
///
/// A node's score, which isn't needed any more, becomes the length of the token behind it.
fn turn_links(nodes: &mut Nodes<'_>, characters: usize) -> usize {
    let (mut end, mut behind) = (characters, 0);
    while end > 0 {
        let node = nodes.get(end);
        nodes.set(end, Node { score: f64::from_bits(behind as u64), ..node });
        behind = node.characters as usize;
        // Every node on a path has a token.
        end = end.saturating_sub(behind.max(1));
    }
    behind
}

/// Writes the path's ids over the nodes: a token of n characters is at most 4n ids, as many elements as its nodes had.
fn write_ids(
    view: &TokenizerView<'_>,
    text: impl Iterator<Item = char> + Clone,
    nodes: &mut Nodes<'_>,
    characters: usize,
    first: usize,
    unknown: u32,
) -> usize {
    let (mut count, mut place, mut length) = (0, 0, first);
    let mut rest = text.clone();
    // Unknown characters that follow each other are one stretch.
    let (mut stretch, mut stretch_characters) = (text, 0);
    loop {
        let end = place + length;
        let node = (length > 0 && end <= characters).then(|| nodes.get(end));
        match node {
            Some(node) if node.id == unknown => {
                if stretch_characters == 0 {
                    stretch = rest.clone();
                }
                stretch_characters += length;
            }
            _ => {
                if stretch_characters > 0 {
                    write_unknown(
                        view,
                        stretch.clone().take(stretch_characters),
                        unknown,
                        nodes.0,
                        &mut count,
                    );
                    stretch_characters = 0;
                }
                let Some(node) = node else { return count };
                nodes.0[count] = node.id;
                count += 1;
            }
        }
        rest.nth(length - 1);
        length = node.map_or(0, |node| node.score.to_bits() as usize);
        place = end;
    }
}

/// A stretch of unknown characters: the token that it is as a whole, else its bytes' tokens, else the unknown token.
fn write_unknown(
    view: &TokenizerView<'_>,
    stretch: impl Iterator<Item = char> + Clone,
    unknown: u32,
    out: &mut [u32],
    count: &mut usize,
) {
    let mut write = |id: u32| {
        if let Some(place) = out.get_mut(*count) {
            *place = id;
            *count += 1;
        }
    };
    let bytes = stretch.flat_map(|character| {
        let mut bytes = [0; 4];
        let length = character.encode_utf8(&mut bytes).len();
        bytes.into_iter().take(length)
    });
    if let Some((id, _)) = view.ordered_token_of(bytes.clone()) {
        write(id);
    } else if view.has_byte_tokens() {
        bytes.filter_map(|byte| view.byte_token(byte)).for_each(write);
    } else {
        write(unknown);
    }
}
