//! Search of the tokens that are sorted by their bytes.

use super::TokenizerView;

/// The ordered tokens that begin with some bytes, which are added one at a time.
///
/// A byte costs two binary searches among the tokens that are left.
#[derive(Clone, Copy, Debug)]
pub struct Narrowing {
    /// Positions in the order.
    low: u32,
    high: u32,
    /// Bytes that all of them begin with.
    depth: u32,
}

impl<'a> TokenizerView<'a> {
    /// All the ordered tokens.
    pub fn narrowing(&self) -> Narrowing {
        Narrowing { low: 0, high: self.ordered_tokens(), depth: 0 }
    }

    /// Keeps the tokens that go on with a byte; `false` where there are none.
    #[inline]
    pub fn narrow(&self, narrowing: &mut Narrowing, byte: u8) -> bool {
        let Narrowing { low, high, depth } = *narrowing;
        let bytes_at = |position: u32| {
            let bytes = self.ordered_token(position).and_then(|id| self.token_bytes(id));
            bytes.and_then(|bytes| bytes.get(depth as usize)).copied()
        };
        // A token that ends here sorts before all that go on.
        let first = |mut low: u32, mut high: u32, goes_left: &dyn Fn(Option<u8>) -> bool| {
            while low < high {
                let middle = low + (high - low) / 2;
                if goes_left(bytes_at(middle)) { low = middle + 1 } else { high = middle }
            }
            low
        };
        let start = first(low, high, &|found| found < Some(byte));
        let end = first(start, high, &|found| found <= Some(byte));
        *narrowing = Narrowing { low: start, high: end, depth: depth.saturating_add(1) };
        start < end
    }

    /// The token that has no more than the bytes so far: its id and its place in the order.
    pub fn narrowed_token(&self, narrowing: &Narrowing) -> Option<(u32, u32)> {
        if narrowing.low >= narrowing.high || narrowing.depth == 0 {
            return None;
        }
        let id = self.ordered_token(narrowing.low)?;
        (self.token_bytes(id)?.len() == narrowing.depth as usize).then_some((id, narrowing.low))
    }

    /// The ordered token with exactly these bytes.
    pub fn ordered_token_of(&self, bytes: impl IntoIterator<Item = u8>) -> Option<(u32, u32)> {
        let mut narrowing = self.narrowing();
        bytes.into_iter().all(|byte| self.narrow(&mut narrowing, byte)).then_some(())?;
        self.narrowed_token(&narrowing)
    }
}
