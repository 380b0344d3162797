//! From an archive of a user's files to a layer of an image. What leads out of its place, is neither file nor directory
//! nor link, or is larger than may be, is refused with its name. The same files make the same bytes: times, owners and
//! order of nothing matter.

use flate2::read::MultiGzDecoder;
use minik8s_core::digest::Digesting;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};
use tar::{Archive, Builder, EntryType, Header};

/// Where the user's files are in the image.
pub const PLACE: &str = "function";

/// Where the files of an archive go, and how many there may be.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Below this directory.
    pub below: &'static str,
    /// Most bytes of all files together.
    pub largest: u64,
    /// Most files and directories.
    pub most: usize,
}

/// The user's files.
pub const SOURCE: Kind = Kind { below: PLACE, largest: 256 << 20, most: 20_000 };
/// Packages that were installed, at places of their own.
pub const PACKAGES: Kind = Kind { below: "", largest: 1 << 30, most: 100_000 };
/// Most bytes that a byte of a compressed archive may become.
const RATIO: u64 = 200;
/// Archives smaller than this may unpack to anything that is allowed.
const SMALL: u64 = 64 << 10;

/// Why an archive makes no layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// A path that leads elsewhere.
    #[error("{0:?} leads out of the archive")]
    Outside(String),
    /// A link that leads elsewhere.
    #[error("the link {0:?} leads to {1:?}, which is out of the archive")]
    LinkOutside(String, String),
    /// A device, a pipe, or something unknown.
    #[error("{0:?} is neither a file nor a directory nor a link")]
    Unusual(String),
    /// Too many bytes.
    #[error("the files have more than {} MiB", .0 >> 20)]
    TooLarge(u64),
    /// Too many files.
    #[error("there are more than {0} files")]
    TooMany(usize),
    /// Grows by too much.
    #[error("the archive grows to more than {0} times its size: this looks like an archive made to fill disks")]
    Bomb(u64),
    /// It lacks what is called.
    #[error("there is no {0}, which the handler {1:?} is in; the archive has: {2}")]
    NoHandler(String, String, String),
    /// Not an archive, or the disk.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// A layer as it lies on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the layer, which is not compressed.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// The user's files, by path.
    pub files: BTreeSet<String>,
}

/// Writes the layer of an archive, with some `extra` files at places of their own. Blocking.
///
/// # Errors
/// [`ArchiveError`], with what is wrong by name.
pub fn write(archive: &Path, kind: Kind, extra: &[(&str, &[u8])], to: &Path) -> Result<Layer, ArchiveError> {
    let packed = std::fs::metadata(archive)?.len();
    let mut sum = Digesting::new(BufWriter::new(File::create(to)?));
    let limit = if packed < SMALL { kind.largest } else { kind.largest.min(packed.saturating_mul(RATIO)) };
    let mut out =
        Writing { out: Builder::new(&mut sum), kind, limit, total: 0, made: BTreeSet::new(), files: BTreeSet::new() };
    for (path, bytes) in extra {
        out.plain(Path::new(path), bytes)?;
    }
    // One byte more than may be, so that too many are noticed.
    let mut archive = Archive::new(open(archive)?.take(limit.saturating_add((kind.most as u64) * 2048)));
    for entry in archive.entries()? {
        out.entry(&mut entry?)?;
    }
    let files = out.end()?;
    let (file, digest, size) = sum.finish()?;
    file.get_ref().sync_all()?;
    Ok(Layer { digest, size, files })
}

/// A layer of a few files.
///
/// # Errors
/// None but those of memory.
pub fn plain(files: &[(&str, &[u8])]) -> io::Result<Vec<u8>> {
    let mut out = Writing {
        out: Builder::new(Vec::new()),
        kind: SOURCE,
        limit: 0,
        total: 0,
        made: BTreeSet::new(),
        files: BTreeSet::new(),
    };
    for (path, bytes) in files {
        out.plain(Path::new(path), bytes)?;
    }
    out.out.into_inner()
}

/// A layer that is being written.
struct Writing<W: Write> {
    out: Builder<W>,
    kind: Kind,
    /// Most bytes of all files together.
    limit: u64,
    /// Bytes so far.
    total: u64,
    /// Directories so far.
    made: BTreeSet<PathBuf>,
    files: BTreeSet<String>,
}

impl<W: Write> Writing<W> {
    fn plain(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        parents(&mut self.out, path, &mut self.made)?;
        append(&mut self.out, path, EntryType::Regular, 0o644, bytes.len() as u64, bytes)
    }

    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), ArchiveError> {
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some(path) = inside(&shown)? else { return Ok(()) };
        let Kind { below, largest, most } = self.kind;
        self.total = self.total.saturating_add(entry.size());
        if self.total > self.limit {
            return Err(if self.limit < largest { ArchiveError::Bomb(RATIO) } else { ArchiveError::TooLarge(largest) });
        }
        // Directories that nobody named are made, too: a long path makes many.
        if self.files.len() + self.made.len() >= most {
            return Err(ArchiveError::TooMany(most));
        }
        let place = Path::new(below).join(&path);
        parents(&mut self.out, &place, &mut self.made)?;
        let runs = entry.header().mode().unwrap_or(0o644) & 0o111 != 0;
        match entry.header().entry_type() {
            EntryType::Directory => return Ok(directory(&mut self.out, &place, &mut self.made)?),
            EntryType::Regular | EntryType::Continuous => {
                let (mode, size) = (if runs { 0o755 } else { 0o644 }, entry.size());
                append(&mut self.out, &place, EntryType::Regular, mode, size, entry)?;
            }
            EntryType::Symlink => {
                let target = link(entry, &shown, &path)?;
                self.out.append_link(&mut header(EntryType::Symlink, 0o777, 0), &place, target)?;
            }
            EntryType::XGlobalHeader => return Ok(()),
            _ => return Err(ArchiveError::Unusual(shown)),
        }
        self.files.insert(path.to_string_lossy().into_owned());
        Ok(())
    }

    /// The files by path, once all are written.
    fn end(mut self) -> io::Result<BTreeSet<String>> {
        self.out.finish()?;
        Ok(self.files)
    }
}

/// The file that a handler is in must be there.
///
/// # Errors
/// `NoHandler`, with what is there instead.
pub fn check_handler(layer: &Layer, handler: &str, ending: &str) -> Result<(), ArchiveError> {
    let module = handler.rsplit_once('.').map_or(handler, |(module, _)| module).replace('.', "/");
    let (file, package) = (format!("{module}.{ending}"), format!("{module}/__init__.{ending}"));
    if layer.files.contains(&file) || layer.files.contains(&package) {
        return Ok(());
    }
    let mut some: Vec<&str> = layer.files.iter().take(10).map(String::as_str).collect();
    if layer.files.len() > some.len() {
        some.push("…");
    }
    if some.is_empty() {
        some.push("nothing");
    }
    Err(ArchiveError::NoHandler(file, handler.to_owned(), some.join(", ")))
}

fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut magic = [0; 2];
    let read = File::open(path)?.read(&mut magic)?;
    let file = BufReader::new(File::open(path)?);
    Ok(if read == 2 && magic == [0x1f, 0x8b] { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// The path within; `None` for the root itself.
fn inside(shown: &str) -> Result<Option<PathBuf>, ArchiveError> {
    let mut path = PathBuf::new();
    for part in Path::new(shown).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            _ => return Err(ArchiveError::Outside(shown.to_owned())),
        }
    }
    if shown.contains('\0') || path.as_os_str().len() > 1024 {
        return Err(ArchiveError::Outside(shown.to_owned()));
    }
    Ok((!path.as_os_str().is_empty()).then_some(path))
}

/// Where a link leads, if that is within.
fn link<R: Read>(entry: &tar::Entry<'_, R>, shown: &str, path: &Path) -> Result<PathBuf, ArchiveError> {
    let target = entry.link_name()?.unwrap_or_default().into_owned();
    let outside = || ArchiveError::LinkOutside(shown.to_owned(), target.to_string_lossy().into_owned());
    let mut depth = path.components().count().saturating_sub(1);
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return Err(outside()),
        }
    }
    Ok(target)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append<W: Write>(
    out: &mut Builder<W>,
    path: &Path,
    kind: EntryType,
    mode: u32,
    size: u64,
    data: impl Read,
) -> io::Result<()> {
    out.append_data(&mut header(kind, mode, size), path, data)
}

fn directory<W: Write>(out: &mut Builder<W>, path: &Path, made: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    if made.insert(path.to_owned()) {
        append(out, path, EntryType::Directory, 0o755, 0, io::empty())?;
    }
    Ok(())
}

fn parents<W: Write>(out: &mut Builder<W>, path: &Path, made: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let mut all: Vec<&Path> = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
    all.reverse();
    all.into_iter().try_for_each(|parent| directory(out, parent, made))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive whose headers say whatever they like.
    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut out = Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            let mut header = header(*kind, 0o644, if is_link { 0 } else { content.len() as u64 });
            let field = &mut header.as_old_mut().name;
            field[..name.len()].copy_from_slice(name.as_bytes());
            if is_link {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            header.set_cksum();
            out.append(&header, if is_link { &b""[..] } else { content.as_bytes() }).unwrap();
        }
        out.into_inner().unwrap()
    }

    fn pack(bytes: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    fn layer(bytes: &[u8]) -> Result<Layer, ArchiveError> {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&from, bytes).unwrap();
        write(&from, SOURCE, &[("minik8s/shim.py", b"x")], &to)
    }

    #[test]
    fn the_same_files_make_the_same_layer_packed_or_not() {
        let bytes = archive(&[("./main.py", EntryType::Regular, "x"), ("lib/a.py", EntryType::Regular, "y")]);
        let one = layer(&bytes).unwrap();
        assert_eq!(one.files.iter().map(String::as_str).collect::<Vec<_>>(), ["lib/a.py", "main.py"]);
        assert_eq!(layer(&pack(&bytes)).unwrap(), one);
        // In several parts, as bgzip packs, and as `cat` puts together.
        let parts: Vec<u8> = bytes.chunks(700).flat_map(pack).collect();
        assert_eq!(layer(&parts).unwrap(), one);
        assert!(check_handler(&one, "main.main", "py").is_ok() && check_handler(&one, "lib.a.f", "py").is_ok());
        let told = check_handler(&one, "other.main", "py").unwrap_err().to_string();
        assert!(told.contains("other.py") && told.contains("main.py"), "{told}");
    }

    #[test]
    fn what_leads_out_or_is_no_file_is_refused_by_name() {
        let table: [(&str, EntryType, &str, &str); 8] = [
            ("../x", EntryType::Regular, "", "leads out"),
            ("a/../../x", EntryType::Regular, "", "leads out"),
            ("/etc/passwd", EntryType::Regular, "", "leads out"),
            ("l", EntryType::Symlink, "/etc/passwd", "leads to"),
            ("a/l", EntryType::Symlink, "../../x", "leads to"),
            ("h", EntryType::Link, "/etc/passwd", "neither"),
            ("dev", EntryType::Char, "", "neither"),
            ("pipe", EntryType::Fifo, "", "neither"),
        ];
        for (name, kind, content, word) in table {
            let told = layer(&archive(&[(name, kind, content)])).unwrap_err().to_string();
            assert!(told.contains(word) && told.contains(name), "{name}: {told}");
        }
        assert!(layer(&archive(&[("a/l", EntryType::Symlink, "../b")])).is_ok());
        assert!(matches!(layer(b"this is no archive at all"), Err(ArchiveError::Unreadable(_)) | Ok(_)));
    }

    #[test]
    fn what_would_fill_the_disk_is_refused_before_it_does() {
        // A gigabyte of nothing, packed.
        let mut head = header(EntryType::Regular, 0o644, 1 << 30);
        head.as_old_mut().name[..4].copy_from_slice(b"zero");
        head.set_cksum();
        let mut nothing = head.as_bytes().to_vec();
        nothing.resize(64 << 20, 0);
        let told = layer(&pack(&nothing)).unwrap_err();
        assert!(matches!(told, ArchiveError::Bomb(_) | ArchiveError::TooLarge(_)), "{told}");
        // In parts, each with a file that is what it says: all of them count.
        head.set_size(1 << 20);
        head.set_cksum();
        let mut file = head.as_bytes().to_vec();
        file.resize(512 + (1 << 20), 0);
        let part = pack(&file);
        let parts = part.repeat(SMALL as usize / part.len() + 1);
        assert!(matches!(layer(&parts), Err(ArchiveError::Bomb(_))), "{} became {}", parts.len(), file.len());
        let names: Vec<String> = (0..=SOURCE.most).map(|n| format!("f{n}")).collect();
        let entries: Vec<_> = names.iter().map(|n| (n.as_str(), EntryType::Regular, "")).collect();
        assert!(matches!(layer(&archive(&entries)), Err(ArchiveError::TooMany(_))));
        // Few files, each in many directories of its own.
        let names: Vec<String> = (0..=SOURCE.most / 40).map(|n| format!("{n}/{}f", "a/".repeat(40))).collect();
        let entries: Vec<_> = names.iter().map(|n| (n.as_str(), EntryType::Regular, "")).collect();
        assert!(matches!(layer(&archive(&entries)), Err(ArchiveError::TooMany(_))));
    }
}
