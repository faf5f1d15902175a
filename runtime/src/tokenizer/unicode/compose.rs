//! Canonical composition (NFC).
//!
//! What a starter composes to shows only after all the marks behind it, some of which may remain. Instead of a buffer there is
//! a second look: the first goes ahead for the composed starter, the second makes the same compositions for the marks that
//! remain.

use super::{Decomposed, combining_class, composition};

/// A starter on its way through the characters behind it.
#[derive(Clone, Copy, Debug)]
struct Starter {
    character: char,
    /// Class of the last mark that remained; 0 where none has.
    last_class: u8,
}

/// What becomes of a character behind a starter.
enum Fate {
    Composed,
    Remains,
    Starter,
}

impl Starter {
    fn meet(&mut self, character: char) -> Fate {
        let class = combining_class(character);
        // Behind a mark that remains, one of the same class or a starter is blocked.
        if (self.last_class == 0 || self.last_class < class)
            && let Some(composed) = composition(self.character, character)
        {
            self.character = composed;
            return Fate::Composed;
        }
        if class == 0 {
            return Fate::Starter;
        }
        self.last_class = class;
        Fate::Remains
    }
}

/// The characters of a text in canonical composition.
#[derive(Clone, Debug)]
pub(in super::super) struct Composed<I> {
    decomposed: Decomposed<I>,
    /// The starter whose remaining marks come next, as far as the second look has composed it.
    starter: Option<Starter>,
}

impl<I: Iterator<Item = char> + Clone> Composed<I> {
    pub(in super::super) fn new(characters: I) -> Self {
        Composed { decomposed: Decomposed::new(characters), starter: None }
    }

    /// What is still to be read of the source.
    pub(in super::super) fn source(&self) -> &I {
        self.decomposed.source()
    }

    /// Begins with a starter; returns what it composes to.
    fn begin(&mut self, character: char) -> char {
        let starter = Starter { character, last_class: 0 };
        self.starter = Some(starter);
        let mut ahead = starter;
        for character in self.decomposed.clone() {
            if let Fate::Starter = ahead.meet(character) {
                break;
            }
        }
        ahead.character
    }
}

impl<I: Iterator<Item = char> + Clone> Iterator for Composed<I> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        loop {
            let character = self.decomposed.next()?;
            match &mut self.starter {
                // Marks at the beginning of a text have no starter.
                None if combining_class(character) > 0 => return Some(character),
                None => return Some(self.begin(character)),
                Some(starter) => match starter.meet(character) {
                    Fate::Composed => {}
                    Fate::Remains => return Some(character),
                    Fate::Starter => return Some(self.begin(character)),
                },
            }
        }
    }
}
