//! Archives of source files: read without trusting them, and written the same way every time.

use bytes::Bytes;
use flate2::read::GzDecoder;
use minik8s_core::job::{FileName, JobError, JobRequest, JobResult, SourceFile};
use std::io::Read;
use tar::{Archive, Builder, EntryType, Header};

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The files of a tar archive, gzipped or not, which may hold `most` bytes.
///
/// # Errors
/// What is wrong with it: links, devices, names that lead out, too much of it.
pub fn unpack(packed: &[u8], most: u64) -> Result<Vec<SourceFile>, String> {
    // One byte more than allowed tells that there is more.
    match packed.starts_with(&GZIP) {
        true => files(GzDecoder::new(packed), most),
        false => files(packed, most),
    }
}

fn files(reader: impl Read, most: u64) -> Result<Vec<SourceFile>, String> {
    let broken = |error: std::io::Error| format!("is no tar archive: {error}");
    let mut archive = Archive::new(reader.take(most.saturating_mul(2).saturating_add(1 << 20)));
    let (mut files, mut sum) = (Vec::new(), 0);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        match entry.header().entry_type() {
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {}
            _ => return Err(format!("holds {path:?}, which is no plain file")),
        }
        let name = FileName::new(path.strip_prefix("./").unwrap_or(&path));
        let name = name.map_err(|why| format!("holds {path:?}: a name {why}"))?;
        sum += entry.size();
        if sum > most {
            return Err(format!("holds more than {most} bytes"));
        }
        let executable = entry.header().mode().unwrap_or(0) & 0o111 != 0;
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(broken)?;
        files.push(SourceFile { name, content: Bytes::from(content), executable });
    }
    Ok(files)
}

/// A tar archive of these files, below `prefix`; only their owner may read them.
///
/// # Errors
/// For names that do not fit into an archive.
pub fn pack(prefix: &str, files: &[SourceFile]) -> std::io::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for file in files {
        let mut header = Header::new_gnu();
        header.set_size(file.content.len() as u64);
        header.set_mode(if file.executable { 0o700 } else { 0o600 });
        header.set_mtime(1_000_000_000);
        builder.append_data(&mut header, format!("{prefix}{}", file.name), file.content.as_ref())?;
    }
    builder.into_inner()
}

/// A tar archive of all that a job needs where it runs: these files, and those it starts with below `work`.
pub(crate) fn of_job(job: &JobRequest, mut files: Vec<SourceFile>) -> JobResult<Vec<u8>> {
    let refused = |why: String| JobError::Refused { field: Some("source"), why };
    for file in &job.source {
        let name = FileName::new(format!("work/{}", file.name)).map_err(refused)?;
        files.push(SourceFile { name, ..file.clone() });
    }
    pack("", &files).map_err(|error| refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &str, executable: bool) -> SourceFile {
        SourceFile { name: FileName::new(name).unwrap(), content: content.to_owned().into(), executable }
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let files = vec![file("a b/c'$", "x", true), file(&format!("{}/d", "long".repeat(60)), "", false)];
        assert_eq!(unpack(&pack("", &files).unwrap(), 100).unwrap(), files);
        assert!(unpack(b"no archive at all", 100).is_err() || unpack(b"no archive at all", 100).unwrap().is_empty());
        assert!(unpack(&pack("", &[file("a", &"x".repeat(101), false)]).unwrap(), 100).is_err());
    }

    #[test]
    fn what_leads_out_is_refused() {
        for (path, kind, link) in [
            ("link", EntryType::Symlink, "/etc/passwd"),
            ("hard", EntryType::Link, "/etc/passwd"),
            ("fifo", EntryType::Fifo, ""),
            ("../out", EntryType::Regular, ""),
            ("/abs", EntryType::Regular, ""),
        ] {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_mode(0o600);
            if !link.is_empty() {
                header.set_link_name(link).unwrap();
            }
            header.set_cksum();
            let mut builder = Builder::new(Vec::new());
            builder.append(&header, std::io::empty()).unwrap();
            assert!(unpack(&builder.into_inner().unwrap(), 100).is_err(), "{path}");
        }
    }
}
