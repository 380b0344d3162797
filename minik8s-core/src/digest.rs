//! What is written, and its digest at the same time: layers and archives are too large to be read twice.

use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::{self, Write};

/// A writer that knows the SHA-256 and the length of what went through it.
///
/// ```
/// use minik8s_core::digest::Digesting;
/// use std::io::Write;
///
/// let mut file = Digesting::new(Vec::new());
/// file.write_all(b"abc")?;
/// let (_, digest, length) = file.finish()?;
/// assert_eq!(digest, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
/// assert_eq!(length, 3);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Digesting<W> {
    inner: W,
    digest: Sha256,
    length: u64,
}

impl<W: Write> Digesting<W> {
    /// Writes to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, digest: Sha256::new(), length: 0 }
    }

    /// How many bytes went through.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What was written to, once all is there, the digest as OCI spells it (`sha256:…`), and the number of bytes.
    ///
    /// # Errors
    /// What the writer fails with when it is flushed.
    pub fn finish(mut self) -> io::Result<(W, String, u64)> {
        self.inner.flush()?;
        let mut text = String::from("sha256:");
        for byte in self.digest.finalize() {
            let _ = write!(text, "{byte:02x}");
        }
        Ok((self.inner, text, self.length))
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or_default());
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
