//! Files of jobs: found by patterns, without following links.

use crate::outputs::digest_of;
use minik8s_core::job::{FileInfo, FileName, MOST_RESULTS, STDERR, STDOUT};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Output, and results that match a pattern.
pub(super) fn files(job: &Path, patterns: &[String]) -> io::Result<Vec<FileInfo>> {
    let work = job.join("work");
    let mut results = BTreeMap::new();
    for pattern in patterns {
        let parts: Vec<&str> = pattern.split('/').collect();
        let mut paths = Vec::new();
        matching(&work, String::new(), &parts, &mut paths)?;
        let named = |path: String| Some((FileName::new(format!("results/{path}")).ok()?, work.join(path)));
        results.extend(paths.into_iter().filter_map(named));
    }
    let output = |stream| (FileName::output(stream, None), job.join(stream));
    let mut found: BTreeMap<FileName, PathBuf> = [STDERR, STDOUT].map(output).into();
    found.extend(results.into_iter().take(MOST_RESULTS + 1));
    let mut files = Vec::new();
    for (name, path) in found {
        match path.symlink_metadata() {
            Ok(meta) if meta.is_file() => files.push(FileInfo { name, size: meta.len(), sha256: digest_of(&path)? }),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

fn matching(base: &Path, below: String, parts: &[&str], found: &mut Vec<String>) -> io::Result<()> {
    let Some((pattern, rest)) = parts.split_first() else { return Ok(()) };
    for entry in std::fs::read_dir(base.join(&below))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // As a shell has it, a point in front must be asked for.
        if name.starts_with('.') != pattern.starts_with('.') || !fits(pattern.as_bytes(), name.as_bytes()) {
            continue;
        }
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let kind = entry.file_type()?;
        if rest.is_empty() && kind.is_file() {
            found.push(path);
        } else if !rest.is_empty() && kind.is_dir() {
            matching(base, path, rest, found)?;
        }
    }
    Ok(())
}

/// A pattern of `*`, `?` and `[abc]`, `[!a-z]`.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|n| fits(rest, &text[n..])),
        Some((b'?', rest)) => !text.is_empty() && fits(rest, &text[1..]),
        Some((b'[', rest)) => match rest.iter().skip(1).position(|byte| *byte == b']') {
            Some(end) => {
                let (set, rest) = (&rest[..=end], &rest[end + 2..]);
                text.first().is_some_and(|byte| has(set, *byte)) && fits(rest, &text[1..])
            }
            None => text.first() == Some(&b'[') && fits(rest, &text[1..]),
        },
        Some((byte, rest)) => text.first() == Some(byte) && fits(rest, &text[1..]),
    }
}

fn has(set: &[u8], byte: u8) -> bool {
    let (negative, set) = match set.split_first() {
        Some((b'!' | b'^', rest)) if !rest.is_empty() => (true, rest),
        _ => (false, set),
    };
    let range = set.windows(3).any(|three| three[1] == b'-' && (three[0]..=three[2]).contains(&byte));
    (range || set.contains(&byte)) != negative
}

/// A file of a job, where it is one and no part of its path leads elsewhere.
pub(super) fn open(job: &Path, name: &FileName) -> io::Result<Option<File>> {
    let path: PathBuf = match name.result() {
        Some(path) => Path::new("work").join(path),
        None if name.is_output() => name.as_str().into(),
        None => return Ok(None),
    };
    let mut place = job.to_owned();
    for part in path.components() {
        place.push(part);
        match place.symlink_metadata() {
            Ok(meta) if meta.is_dir() || meta.is_file() => {}
            Ok(_) => return Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    if place.is_file() { File::open(place).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_a_shell() {
        for (pattern, text, fit) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "a.txt2", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[ab]*", "bx", true),
            ("[!ab]*", "bx", false),
            ("[a-c]x", "bx", true),
            ("[", "[", true),
            ("", "", true),
            ("it*", "it's $(odd) `name`; *", true),
            ("*a*b*", "xxaxxbxx", true),
            ("[]]", "]", true),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), fit, "{pattern} {text}");
        }
    }
}
