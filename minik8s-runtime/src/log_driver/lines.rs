//! From bytes to log entries: `<time> <stream> F|P <text>\n`. Pure but for the clock.

use super::CHUNK;

/// Splits one output into entries.
pub(super) struct LineBuffer {
    stream: &'static str,
    /// Terminals and attached programs prompt without a line end; their partial lines are not held back.
    eager: bool,
    pending: Vec<u8>,
}

type Sink<'a> = &'a mut dyn FnMut(&[u8]);

impl LineBuffer {
    pub(super) fn new(stream: &'static str, eager: bool) -> Self {
        Self { stream, eager, pending: Vec::new() }
    }

    pub(super) fn feed(&mut self, bytes: &[u8], sink: Sink<'_>) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(text) => {
                    self.pending.extend_from_slice(text);
                    self.emit(b'F', sink);
                }
                None => {
                    self.pending.extend_from_slice(piece);
                    while self.pending.len() >= CHUNK {
                        let rest = self.pending.split_off(CHUNK);
                        self.emit(b'P', sink);
                        self.pending = rest;
                    }
                }
            }
        }
        if self.eager && !self.pending.is_empty() {
            self.emit(b'P', sink);
        }
    }

    /// The last line may lack its end.
    pub(super) fn finish(&mut self, sink: Sink<'_>) {
        if !self.pending.is_empty() {
            self.emit(b'F', sink);
        }
    }

    fn emit(&mut self, tag: u8, sink: Sink<'_>) {
        let mut entry = format!("{:.9} {} ", jiff::Timestamp::now(), self.stream).into_bytes();
        entry.extend_from_slice(&[tag, b' ']);
        entry.append(&mut self.pending);
        entry.push(b'\n');
        sink(&entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the pieces and returns `tag text` per entry.
    fn split(eager: bool, pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = LineBuffer::new("stdout", eager);
        let mut seen = Vec::new();
        let mut sink = |entry: &[u8]| {
            let text = String::from_utf8_lossy(entry).into_owned();
            let (time, rest) = text.split_once(' ').expect("time");
            time.parse::<jiff::Timestamp>().expect("RFC 3339");
            assert_eq!(time.len(), "2026-01-01T00:00:00.000000000Z".len());
            seen.push(rest.trim_end_matches('\n').trim_start_matches("stdout ").to_owned());
        };
        for piece in pieces {
            lines.feed(piece, &mut sink);
        }
        lines.finish(&mut sink);
        seen
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        assert_eq!(split(false, &[b"one\ntwo\n"]), ["F one", "F two"]);
        assert_eq!(split(false, &[b"o", b"ne\nt", b"wo"]), ["F one", "F two"]);
        assert_eq!(split(false, &[b"\n\n"]), ["F ", "F "]);
        assert_eq!(split(false, &[]), Vec::<String>::new());
    }

    #[test]
    fn prompts_of_terminals_are_not_held_back() {
        assert_eq!(split(true, &[b"$ ", b"ls\n"]), ["P $ ", "F ls"]);
    }

    #[test]
    fn long_lines_are_split() {
        let long = vec![b'x'; 2 * CHUNK + 5];
        let seen = split(false, &[&long, b"\nafter\n"]);
        let lengths: Vec<usize> = seen.iter().map(String::len).collect();
        assert_eq!(lengths, [CHUNK + 2, CHUNK + 2, 5 + 2, "F after".len()]);
        assert!(seen[0].starts_with("P ") && seen[2].starts_with("F "));
    }
}
