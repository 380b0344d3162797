//! Files of jobs: found by patterns, without following links.

use minik8s_core::beneath::{Beneath, Found, digest};
use minik8s_core::job::{FileInfo, FileName, MOST_RESULTS, STDERR, STDOUT};
use std::fs::File;
use std::io;
use std::path::Path;

/// Output, and results that match a pattern.
pub(super) fn files(job: &Path, patterns: &[String]) -> io::Result<Vec<FileInfo>> {
    let outputs = [STDERR, STDOUT].map(str::to_owned);
    let mut files = listed(job, &outputs, outputs.len(), "")?;
    files.extend(listed(&job.join("work"), patterns, MOST_RESULTS + 1, "results/")?);
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn listed(directory: &Path, patterns: &[String], most: usize, prefix: &str) -> io::Result<Vec<FileInfo>> {
    let Some(beneath) = Beneath::open(directory)? else { return Ok(Vec::new()) };
    let files = beneath.visit(patterns, most, |found: Found| {
        let Ok(name) = FileName::new(format!("{prefix}{}", found.path)) else { return Ok(None) };
        Ok(Some(FileInfo { name, size: found.size, sha256: digest(found.file)? }))
    })?;
    Ok(files.into_iter().flatten().collect())
}

/// A file of a job, where it is one and no part of its path leads elsewhere.
pub(super) fn open(job: &Path, name: &FileName) -> io::Result<Option<File>> {
    let path = match name.result() {
        Some(path) => format!("work/{path}"),
        None if name.is_output() => name.as_str().to_owned(),
        None => return Ok(None),
    };
    match Beneath::open(job)? {
        Some(beneath) => beneath.file(&path),
        None => Ok(None),
    }
}
