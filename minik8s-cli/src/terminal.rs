//! The terminal this program runs in: its keys, its size, its modes.

use anyhow::{Context, Result};
use nix::sys::termios::{self, SetArg, Termios};
use std::io::{Read, Write};
use tokio::sync::mpsc;

/// Standard input, read by a thread of its own: a blocked read must not keep the program from ending.
pub(crate) fn keyboard() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(8);
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(n) = std::io::stdin().read(&mut buffer) {
            if n == 0 || sender.blocking_send(buffer[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Columns and rows of the terminal.
#[allow(unsafe_code, reason = "asking the terminal for its size has no safe wrapper in the tree")]
pub(crate) fn size() -> Option<(u16, u16)> {
    nix::ioctl_read_bad!(window_size, nix::libc::TIOCGWINSZ, nix::libc::winsize);
    let mut size = nix::libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the pointer is to a live winsize, which is what TIOCGWINSZ fills.
    unsafe { window_size(0, &mut size) }.ok()?;
    Some((size.ws_col, size.ws_row))
}

/// The terminal passes every key on while this lives.
pub(crate) struct RawTerminal(Termios);

impl RawTerminal {
    pub(crate) fn enter() -> Result<Self> {
        let before = termios::tcgetattr(std::io::stdin()).context("cannot read the terminal's mode")?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw).context("cannot set the terminal's mode")?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing can be done where even this fails.
        let _ = termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// A screen of its own, in place of what was there, while this lives: also where the program panics.
pub(crate) struct Screen {
    /// Restores the modes after the screen was given back.
    _raw: RawTerminal,
}

impl Screen {
    pub(crate) fn enter() -> Result<Self> {
        let raw = RawTerminal::enter()?;
        write("\x1b[?1049h\x1b[?25l")?;
        Ok(Self { _raw: raw })
    }

    /// Writes lines that differ from those that are there, from the top.
    pub(crate) fn draw(&self, old: &[String], new: &[String]) -> Result<()> {
        let mut out = String::new();
        for (row, line) in new.iter().enumerate().filter(|(row, line)| old.get(*row) != Some(*line)) {
            out.push_str(&format!("\x1b[{};1H\x1b[0m{line}\x1b[0m\x1b[K", row + 1));
        }
        if new.len() < old.len() {
            out.push_str(&format!("\x1b[{};1H\x1b[0m\x1b[J", new.len() + 1));
        }
        if out.is_empty() { Ok(()) } else { write(&out) }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = write("\x1b[0m\x1b[?25h\x1b[?1049l");
    }
}

fn write(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to the terminal")
}
