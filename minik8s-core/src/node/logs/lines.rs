//! One line of a log: `<time> <stream> <F|P> <text>` in, text for people out.

use crate::node::access::LogOptions;
use jiff::Timestamp;

/// Prints lines as the options say.
#[derive(Debug)]
pub(super) struct Printer {
    timestamps: bool,
    since: Option<i128>,
    left: Option<u64>,
    /// The line goes on: no time is written in its middle.
    within: bool,
}

impl Printer {
    pub(super) fn new(options: &LogOptions) -> Self {
        Self {
            timestamps: options.timestamps,
            since: options.since.map(i128::from),
            left: options.limit_bytes,
            within: false,
        }
    }

    /// The limit is reached.
    pub(super) fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// The text of some whole lines.
    pub(super) fn print(&mut self, lines: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            self.line(line.strip_suffix(b"\n").unwrap_or(line), &mut out);
        }
        if let Some(left) = &mut self.left {
            out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= out.len() as u64;
        }
        out
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (time, tag, text) = (parts.next(), parts.nth(1), parts.next().unwrap_or_default());
        let Some(time) = time.and_then(|time| std::str::from_utf8(time).ok()) else { return };
        let Ok(at) = time.parse::<Timestamp>() else { return };
        if self.since.is_some_and(|since| at.as_nanosecond() < since) {
            return;
        }
        if self.timestamps && !self.within {
            out.extend_from_slice(time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(text);
        self.within = tag == Some(b"P");
        if !self.within {
            out.push(b'\n');
        }
    }
}
