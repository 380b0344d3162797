//! Container logs in CRI format, as the real runtime's writer makes them: one line each, rotated by size.

use crate::runtime::{ContainerSpec, Output};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Appends to one container's log. Errors are swallowed: a full disk must not stop a process.
#[derive(Debug)]
pub(super) struct LogWriter {
    path: PathBuf,
    max_bytes: u64,
    max_files: u32,
    partial: [Vec<u8>; 2],
}

impl LogWriter {
    pub(super) fn new(spec: &ContainerSpec) -> Self {
        Self {
            path: spec.log_path.clone(),
            max_bytes: spec.log_max_bytes,
            max_files: spec.log_max_files,
            partial: [Vec::new(), Vec::new()],
        }
    }

    /// Makes the (empty) file.
    pub(super) fn open(&self) {
        self.append(&[]);
    }

    pub(super) fn write(&mut self, output: &Output) {
        let (slot, name, bytes) = match output {
            Output::Stdout(bytes) => (0, "stdout", bytes),
            Output::Stderr(bytes) => (1, "stderr", bytes),
        };
        let mut buffer = std::mem::take(&mut self.partial[slot]);
        buffer.extend_from_slice(bytes);
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            self.line(name, "F", &line[..line.len() - 1]);
        }
        self.partial[slot] = buffer;
    }

    /// Writes what has no line end yet.
    pub(super) fn finish(&mut self) {
        for (slot, name) in [(0, "stdout"), (1, "stderr")] {
            let rest = std::mem::take(&mut self.partial[slot]);
            if !rest.is_empty() {
                self.line(name, "P", &rest);
            }
        }
    }

    fn line(&self, stream: &str, tag: &str, text: &[u8]) {
        let mut line = format!("{:.9} {stream} {tag} ", jiff::Timestamp::now()).into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        self.append(&line);
    }

    fn append(&self, bytes: &[u8]) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        self.rotate(bytes.len() as u64);
        let _ = self.path.parent().map(fs::create_dir_all);
        if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(&self.path) {
            let _ = file.write_all(bytes);
        }
    }

    fn rotate(&self, more: u64) {
        let size = fs::metadata(&self.path).map_or(0, |m| m.len());
        if self.max_bytes == 0 || size == 0 || size + more <= self.max_bytes {
            return;
        }
        let keep = self.max_files.max(1);
        let numbered = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
        if keep == 1 {
            let _ = fs::remove_file(&self.path);
            return;
        }
        let _ = fs::remove_file(numbered(keep - 1));
        for n in (1..keep - 1).rev() {
            let _ = fs::rename(numbered(n), numbered(n + 1));
        }
        let _ = fs::rename(&self.path, numbered(1));
    }
}

/// Where a path inside a container lies on the host, by its mounts, and whether it may be written.
pub(super) fn host_path(spec: &ContainerSpec, inside: &str) -> Option<(PathBuf, bool)> {
    let inside = Path::new(inside);
    let mount =
        spec.mounts.iter().filter(|m| inside.starts_with(&m.target)).max_by_key(|m| m.target.components().count())?;
    let rest = inside.strip_prefix(&mount.target).ok()?;
    let path = if rest.as_os_str().is_empty() { mount.source.clone() } else { mount.source.join(rest) };
    Some((path, !mount.read_only))
}
