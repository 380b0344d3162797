//! What a log driver is told, in the one argument it gets.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// First argument of a log driver process.
pub const VERB: &str = "container-log";

/// What to write where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// The log file.
    pub path: PathBuf,
    /// It is rotated beyond this size; 0 never.
    pub max_bytes: u64,
    /// Files kept, the current one included.
    pub max_files: u32,
    /// Partial lines are written at once (terminals, attached programs).
    pub eager: bool,
    /// Read these instead of the inherited descriptors (containers whose standard input stays open).
    pub fifos: Option<(PathBuf, PathBuf)>,
}

impl Order {
    /// The argument that [`Order::from_str`] reads back. Paths come last, separated by a character no path of ours has.
    pub fn to_argument(&self) -> String {
        let mut text =
            format!("{}:{}:{}:{}", self.max_bytes, self.max_files, u8::from(self.eager), self.path.display());
        if let Some((out, err)) = &self.fifos {
            text.push_str(&format!("\u{1}{}\u{1}{}", out.display(), err.display()));
        }
        text
    }

    /// The log URI that makes containerd start `program` with this order.
    pub fn to_uri(&self, program: &Path) -> String {
        format!("binary://{}?{VERB}={}", escape(&program.to_string_lossy(), true), escape(&self.to_argument(), false))
    }
}

impl FromStr for Order {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("not a log order: {text:?}"));
        let mut fields = text.splitn(4, ':');
        let mut number = || fields.next().and_then(|f| f.parse::<u64>().ok()).ok_or_else(wrong);
        let (max_bytes, max_files, eager) = (number()?, number()?, number()? != 0);
        let mut paths = fields.next().ok_or_else(wrong)?.split('\u{1}').map(PathBuf::from);
        let path = paths.next().filter(|p| p.is_absolute()).ok_or_else(wrong)?;
        let max_files = u32::try_from(max_files).map_err(|_| wrong())?;
        Ok(Self { path, max_bytes, max_files, eager, fifos: paths.next().zip(paths.next()) })
    }
}

fn escape(text: &str, keep_slash: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => out.push(byte.into()),
            b'/' if keep_slash => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_the_trip_through_an_argument() {
        let plain = Order { path: "/var/log/a: b/c.log".into(), max_bytes: 1 << 40, max_files: 5, ..Order::default() };
        let fifos = Some(("/run/o".into(), "/run/e".into()));
        let full = Order { eager: true, fifos, ..plain.clone() };
        for order in [plain, full] {
            assert_eq!(order.to_argument().parse::<Order>().expect("order"), order);
        }
    }

    #[test]
    fn uris_escape_what_containerd_would_read_as_syntax() {
        let order = Order { path: "/l/a&b".into(), max_bytes: 1, max_files: 2, ..Order::default() };
        assert_eq!(
            order.to_uri(Path::new("/opt/my bin/x")),
            "binary:///opt/my%20bin/x?container-log=1%3A2%3A0%3A%2Fl%2Fa%26b"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "1:2:0", "x:2:0:/a", "1:2:0:relative"] {
            text.parse::<Order>().expect_err(text);
        }
    }
}
