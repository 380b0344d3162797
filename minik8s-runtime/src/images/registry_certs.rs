//! Certificates that a registry's own is checked against, beside those the machine trusts anyway.

use oci_client::client::{Certificate, CertificateEncoding};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Every certificate kept for `registry` below one of `directories`. Blocking.
pub(super) fn read(directories: &[PathBuf], registry: &str) -> io::Result<Vec<Certificate>> {
    let mut found = Vec::new();
    for directory in directories {
        for path in files(&directory.join(registry))? {
            let pem = fs::read_to_string(&path).map_err(|e| named(&path, &e))?;
            found.extend(split(&pem).map(|data| Certificate { encoding: CertificateEncoding::Pem, data }));
        }
    }
    Ok(found)
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(named(directory, &e)),
    };
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|ending| ending == "crt")).collect())
}

/// A file may hold a chain.
fn split(pem: &str) -> impl Iterator<Item = Vec<u8>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    pem.split(BEGIN).skip(1).map(|rest| format!("{BEGIN}{rest}").into_bytes())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot read the registry certificates {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_those_of_the_registry_and_end_in_crt() {
        let dir = tempfile::tempdir().expect("dir");
        let one = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (path, text) in
            [("a:5000/ca.crt", one.repeat(2)), ("a:5000/client.key", one.to_owned()), ("b/ca.crt", one.to_owned())]
        {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            fs::write(path, text).expect("write");
        }
        let of = |registry: &str| read(&[dir.path().into(), "/nowhere".into()], registry).expect("read").len();
        assert_eq!((of("a:5000"), of("b"), of("c")), (2, 1, 0));
    }
}
