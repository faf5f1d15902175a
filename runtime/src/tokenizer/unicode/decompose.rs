//! Canonical decomposition (NFD).
//!
//! Marks that follow each other have to be sorted by their combining class, and there may be any number of them. Instead of
//! a buffer there is a second look: the run of marks is read once for each class that occurs in it (there are 54 in Unicode).

use super::{combining_class, decomposition};

/// Characters in their decompositions, in the order of the text.
#[derive(Clone, Debug)]
struct Parts<I> {
    characters: I,
    /// Parts of the last character that are still to come, the last first.
    pending: [char; 4],
    pending_count: usize,
}

impl<I: Iterator<Item = char>> Iterator for Parts<I> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let mut character = if self.pending_count > 0 {
            self.pending_count -= 1;
            return self.pending.get(self.pending_count).copied();
        } else {
            self.characters.next()?
        };
        // At most three steps: no decomposition has more than four characters.
        while let Some((first, second)) = decomposition(character) {
            if let (Some(second), Some(place)) = (second, self.pending.get_mut(self.pending_count)) {
                *place = second;
                self.pending_count += 1;
            }
            character = first;
        }
        Some(character)
    }
}

/// A run of marks that is being read once for each class.
#[derive(Clone, Debug)]
struct Run<I> {
    /// Its beginning.
    start: Parts<I>,
    /// Class of the marks of this reading, and the least above it that this reading saw; 0 for the first reading, of which no
    /// mark is.
    class: u8,
    next_class: Option<u8>,
}

/// The characters of a text in canonical decomposition.
#[derive(Clone, Debug)]
pub(in super::super) struct Decomposed<I> {
    /// Where the text goes on: in a run, where its reading is.
    parts: Parts<I>,
    run: Option<Run<I>>,
}

impl<I: Iterator<Item = char> + Clone> Decomposed<I> {
    pub(in super::super) fn new(characters: I) -> Self {
        Decomposed { parts: Parts { characters, pending: ['\0'; 4], pending_count: 0 }, run: None }
    }

    /// What is still to be read of the source.
    pub(in super::super) fn source(&self) -> &I {
        &self.parts.characters
    }
}

impl<I: Iterator<Item = char> + Clone> Iterator for Decomposed<I> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        loop {
            let before = self.parts.clone();
            let character = self.parts.next();
            let class = character.map_or(0, combining_class);
            match &mut self.run {
                None if class == 0 => return character,
                None => {
                    self.run = Some(Run { start: before.clone(), class: 0, next_class: None });
                    self.parts = before;
                }
                Some(run) if class > 0 => {
                    if class == run.class {
                        return character;
                    }
                    if class > run.class && run.next_class.is_none_or(|next| class < next) {
                        run.next_class = Some(class);
                    }
                }
                // The end of the run.
                Some(run) => match run.next_class.take() {
                    Some(next) => {
                        run.class = next;
                        self.parts = run.start.clone();
                    }
                    None => {
                        self.run = None;
                        self.parts = before;
                    }
                },
            }
        }
    }
}
