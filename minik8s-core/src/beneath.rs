//! Files below a directory whose content is somebody else's, who may change it at any moment: found by patterns, and read,
//! without ever following a link. Every part of a path is opened by itself, from the directory before it, so that whatever is
//! put in its place meanwhile leads nowhere; and nothing but a plain file is opened for reading.

use rustix::fs::{Dir, FileType, Mode, OFlags, fstat, open, openat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// What is opened to be looked at only: devices and pipes do not notice.
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const ENTER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Patterns that lead deeper fit nothing: each part holds a directory open.
const DEEPEST: usize = 32;

/// A directory that is looked into.
#[derive(Debug)]
pub struct Beneath(OwnedFd);

/// A plain file that was found.
#[derive(Debug)]
pub struct Found {
    /// Its path below the directory.
    pub path: String,
    /// Its size when it was found.
    pub size: u64,
    /// It, open.
    pub file: File,
}

impl Beneath {
    /// Opens a directory; `None` where there is none.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(root: &Path) -> io::Result<Option<Self>> {
        there(open(root, ENTER, Mode::empty())).map(|found| found.map(Self))
    }

    /// The plain file of this path; `None` where there is none, or something else, or the way to it is no plain way down.
    ///
    /// # Errors
    /// The disk's.
    pub fn file(&self, path: &str) -> io::Result<Option<File>> {
        let (above, name) = path.rsplit_once('/').map_or((None, path), |(above, name)| (Some(above), name));
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Ok(None);
        }
        let mut place = self.0.try_clone()?;
        for part in above.into_iter().flat_map(|above| above.split('/')) {
            let Some(next) = there(openat(&place, part, ENTER, Mode::empty()))? else { return Ok(None) };
            place = next;
        }
        plain(&place, name)
    }

    /// Visits plain files whose paths match a pattern of `*`, `?`, `[abc]` and `[!a-z]`, none of which reaches over a `/`; as
    /// in a shell, a point in front must be asked for. In order of names; `most` at most. Patterns have 32 parts at most.
    /// One file is open at a time.
    ///
    /// # Errors
    /// The disk's, and those of a visit.
    pub fn visit<T>(
        &self,
        patterns: &[String],
        most: usize,
        mut one: impl FnMut(Found) -> io::Result<T>,
    ) -> io::Result<Vec<T>> {
        let mut names = Names { first: BTreeSet::new(), most };
        for pattern in patterns {
            let parts: Vec<&str> = pattern.split('/').collect();
            if parts.len() <= DEEPEST {
                matching(&self.0, "", &parts, &mut names)?;
            }
        }
        let mut all = Vec::new();
        for path in names.first {
            if let Some(file) = self.file(&path)? {
                all.push(one(Found { size: file.metadata()?.len(), path, file })?);
            }
        }
        Ok(all)
    }
}

/// The first names of all that were found.
struct Names {
    first: BTreeSet<String>,
    most: usize,
}

impl Names {
    fn add(&mut self, path: String) {
        if self.first.len() == self.most && self.first.last().is_none_or(|last| *last <= path) {
            return;
        }
        self.first.insert(path);
        if self.first.len() > self.most {
            self.first.pop_last();
        }
    }
}

/// What is gone, or is not what it was taken for, is not there.
fn there<T>(result: Result<T, Errno>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS | Errno::NAMETOOLONG) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn plain(place: &OwnedFd, name: &str) -> io::Result<Option<File>> {
    let Some(found) = there(openat(place, name, LOOK, Mode::empty()))? else { return Ok(None) };
    if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    // The very thing that was looked at, whatever has its name by now.
    match File::open(format!("/proc/self/fd/{}", found.as_fd().as_raw_fd())) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        opened => opened.map(Some),
    }
}

fn matching(place: &OwnedFd, below: &str, parts: &[&str], names: &mut Names) -> io::Result<()> {
    let Some((pattern, rest)) = parts.split_first() else { return Ok(()) };
    for entry in Dir::read_from(place)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let hidden = name.starts_with('.') != pattern.starts_with('.') || matches!(name, "." | "..");
        if hidden || !fits(pattern.as_bytes(), name.as_bytes()) {
            continue;
        }
        let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
        if rest.is_empty() {
            // Some file systems do not say.
            if matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown) {
                names.add(path);
            }
        } else if let Some(inner) = there(openat(place, name, ENTER, Mode::empty()))? {
            matching(&inner, &path, rest, names)?;
        }
    }
    Ok(())
}

/// SHA-256 of all of a file, in lower-case hexadecimal digits.
///
/// # Errors
/// The disk's.
pub fn digest(mut file: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&buffer[..count]);
    }
}

/// Never looks back further than to the last star: what a star before that took does not matter any more.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut rest, mut at, mut star) = (pattern, 0, None);
    while at < text.len() {
        if let Some((b'*', behind)) = rest.split_first() {
            star = Some((behind, at));
            rest = behind;
        } else if let Some(length) = takes(rest, text[at]) {
            (rest, at) = (&rest[length..], at + 1);
        } else if let Some((behind, from)) = star {
            star = Some((behind, from + 1));
            (rest, at) = (behind, from + 1);
        } else {
            return false;
        }
    }
    rest.iter().all(|byte| *byte == b'*')
}

/// How long the beginning of a pattern is that takes this byte.
fn takes(pattern: &[u8], byte: u8) -> Option<usize> {
    let (first, rest) = pattern.split_first()?;
    let set = if *first == b'[' { rest.iter().skip(1).position(|byte| *byte == b']') } else { None };
    match (first, set) {
        (_, Some(end)) => has(&rest[..=end], byte).then_some(end + 3),
        (b'?', _) => Some(1),
        _ => (*first == byte).then_some(1),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn text(file: Option<File>) -> Option<String> {
        let mut text = String::new();
        file?.read_to_string(&mut text).unwrap();
        Some(text)
    }

    #[test]
    fn nothing_is_reached_but_plain_files_below() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), "secret").unwrap();
        std::fs::write(root.join("a/b/file"), "own").unwrap();
        std::fs::write(root.join(".hidden"), "h").unwrap();
        symlink(&outside, root.join("way")).unwrap();
        symlink(outside.join("secret"), root.join("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let beneath = Beneath::open(&root).unwrap().unwrap();
        assert_eq!(text(beneath.file("a/b/file").unwrap()).as_deref(), Some("own"));
        for odd in
            ["link", "way/secret", "a/../../outside/secret", "/etc/passwd", "pipe", "a", "a//b/file", "", "no/no"]
        {
            assert!(beneath.file(odd).unwrap().is_none(), "{odd}");
        }
        let all = |patterns: &[&str], most| {
            let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
            beneath.visit(&patterns, most, |found| Ok((found.path, found.size))).unwrap()
        };
        assert_eq!(all(&["*", "*/*", "*/*/*", "way/*", "../outside/*"], 9), [("a/b/file".to_owned(), 3)]);
        assert_eq!(all(&[".*", "a/b/f*", "a/*/file"], 9), [(".hidden".to_owned(), 1), ("a/b/file".to_owned(), 3)]);
        assert_eq!(all(&["a/b/f*", ".*"], 1), [(".hidden".to_owned(), 1)], "the first of them");
        assert!(all(&[".*"], 0).is_empty() && all(&[&vec!["*"; DEEPEST + 1].join("/")], 9).is_empty());
        assert!(
            Beneath::open(&root.join("way")).unwrap().is_none() && Beneath::open(&root.join("no")).unwrap().is_none()
        );
    }

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
            ("***", "", true),
            ("*", "", true),
            ("a*b*c", "abbcbc", true),
            ("a*b*c", "abbcb", false),
            ("*[ab]x*", "aabxy", true),
            // Tried from every place anew, this would take for ever.
            (&("*a".repeat(40) + "b"), &"a".repeat(255), false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), fit, "{pattern} {text}");
        }
    }
}
