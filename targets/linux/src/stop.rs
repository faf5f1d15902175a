//! Ending a stream of text at a stop string, wherever the pieces of the stream are cut.

/// Hands text on, but for the end that may be the start of a stop string.
#[derive(Clone, Debug)]
pub(crate) struct StopFilter {
    stops: Vec<String>,
    held: String,
}

impl StopFilter {
    /// A filter for these stop strings; none of them is empty.
    pub(crate) fn new(stops: &[String]) -> StopFilter {
        StopFilter { stops: stops.to_vec(), held: String::new() }
    }

    /// Takes some text and returns what may be printed, and the stop string where one is complete: the text before it is the
    /// last.
    pub(crate) fn push(&mut self, text: &str) -> (String, Option<&str>) {
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop))).min();
        if let Some((at, stop)) = found {
            let before = self.held[..at].to_owned();
            self.held.clear();
            return (before, Some(stop));
        }
        let rest = self.held.split_off(self.open_start());
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// The text held back: no stop string was complete at the end of the stream.
    pub(crate) fn finish(self) -> String {
        self.held
    }

    /// Where the longest end that begins a stop string starts.
    fn open_start(&self) -> usize {
        let begins_stop = |&at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[at..]));
        self.held.char_indices().map(|(at, _)| at).find(begins_stop).unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
        let (mut filter, mut all) = (StopFilter::new(&stops), String::new());
        for piece in pieces {
            let (text, stop) = filter.push(piece);
            all.push_str(&text);
            if let Some(stop) = stop {
                return (all, Some(stop.to_owned()));
            }
        }
        (all + &filter.finish(), None)
    }

    #[test]
    fn a_stop_string_is_found_across_pieces() {
        assert_eq!(run(&["END"], &["ab", "E", "N", "Dxy"]), ("ab".into(), Some("END".into())));
        assert_eq!(run(&["END"], &["abE", "EN", "D"]), ("abE".into(), Some("END".into())));
        assert_eq!(run(&["zz", "b"], &["abzz"]), ("a".into(), Some("b".into())));
        assert_eq!(run(&["é!"], &["caf", "é", "?"]), ("café?".into(), None));
    }

    #[test]
    fn text_is_held_back_no_longer_than_needed() {
        let mut filter = StopFilter::new(&["END".to_owned()]);
        assert_eq!(filter.push("abEN"), ("ab".to_owned(), None));
        assert_eq!(filter.push("x"), ("ENx".to_owned(), None));
        assert_eq!(filter.push("E"), (String::new(), None));
        assert_eq!(filter.finish(), "E");
        assert_eq!(run(&[], &["a", "b"]), ("ab".into(), None));
    }
}
