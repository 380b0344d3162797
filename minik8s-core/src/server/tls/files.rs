//! Certificates in a directory: `<name>.crt` and `<name>.key`, written whole or not at all.

use super::{Identity, TlsError};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A directory of certificates.
pub(super) struct Files(PathBuf);

/// What was found of a certificate and its key.
pub(super) enum Pair {
    Both(Identity),
    Neither,
    /// Only one half is there; this one is not.
    Missing(PathBuf),
}

impl Files {
    /// The directory, made where it is missing, open to its owner alone.
    pub(super) fn new(directory: &Path) -> Result<Self, TlsError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| TlsError::File { operation: "create", path: directory.to_owned(), source })?;
        Ok(Self(directory.to_owned()))
    }

    fn path(&self, name: &str, kind: &str) -> PathBuf {
        self.0.join(format!("{name}.{kind}"))
    }

    /// Reads a pair.
    pub(super) fn read(&self, name: &str) -> Result<Pair, TlsError> {
        let (certificate, key) = (self.path(name, "crt"), self.path(name, "key"));
        Ok(match (read_file(&certificate)?, read_file(&key)?) {
            (Some(certificate), Some(key)) => Pair::Both(Identity { certificate, key }),
            (None, None) => Pair::Neither,
            (None, Some(_)) => Pair::Missing(certificate),
            (Some(_), None) => Pair::Missing(key),
        })
    }

    /// Writes a pair, the key first: a certificate without its key is of no use.
    pub(super) fn write(&self, name: &str, pair: Identity) -> Result<Identity, TlsError> {
        write_private(&self.path(name, "key"), pair.key.as_bytes())?;
        write_private(&self.path(name, "crt"), pair.certificate.as_bytes())?;
        Ok(pair)
    }
}

fn read_file(path: &Path) -> Result<Option<String>, TlsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TlsError::File { operation: "read", path: path.to_owned(), source }),
    }
}

/// Replaces a file by one that only its owner can read; readers see the old content or the new.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), TlsError> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let failed = |operation| move |source| TlsError::File { operation, path: path.to_owned(), source };
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed("replace")(e)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&fresh).map_err(failed("write"))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed("write"))?;
    fs::rename(&fresh, path).map_err(failed("replace"))
}

/// Key and certificates of a machine that joins: `node.key`, `node.crt`, `ca.crt`, and `api.servers`, where the cluster
/// was. The key comes first, and stays.
pub struct Credentials(Files);

impl Credentials {
    /// Those in this directory, which is made where it is missing.
    ///
    /// # Errors
    /// [`TlsError::File`].
    pub fn new(directory: &Path) -> Result<Self, TlsError> {
        Files::new(directory).map(Self)
    }

    /// The private key, PEM.
    ///
    /// # Errors
    /// [`TlsError::File`].
    pub fn key(&self) -> Result<Option<String>, TlsError> {
        read_file(&self.0.path("node", "key"))
    }

    /// The certificate, PEM.
    ///
    /// # Errors
    /// [`TlsError::File`].
    pub fn certificate(&self) -> Result<Option<String>, TlsError> {
        read_file(&self.0.path("node", "crt"))
    }

    /// The authority, PEM.
    ///
    /// # Errors
    /// [`TlsError::File`].
    pub fn ca(&self) -> Result<Option<String>, TlsError> {
        read_file(&self.0.path("ca", "crt"))
    }

    /// Keeps a new key.
    ///
    /// # Errors
    /// [`TlsError::File`].
    pub fn keep_key(&self, key: String) -> Result<String, TlsError> {
        write_private(&self.0.path("node", "key"), key.as_bytes())?;
        Ok(key)
    }

    /// Keeps a certificate.
    ///
    /// # Errors
    /// [`TlsError::File`].
    pub fn keep_certificate(&self, certificate: &str) -> Result<(), TlsError> {
        write_private(&self.0.path("node", "crt"), certificate.as_bytes())
    }

    /// The addresses of the cluster's API servers, as far as they are known.
    ///
    /// # Errors
    /// [`TlsError::File`].
    pub fn servers(&self) -> Result<Vec<String>, TlsError> {
        let text = read_file(&self.0.path("api", "servers"))?.unwrap_or_default();
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Keeps the addresses of the cluster's API servers.
    ///
    /// # Errors
    /// [`TlsError::File`].
    pub fn keep_servers(&self, urls: &[String]) -> Result<(), TlsError> {
        write_private(&self.0.path("api", "servers"), urls.join("\n").as_bytes())
    }

    /// Keeps the authority and the certificate that it signed, which goes last: without it the others count nothing.
    /// Servers that were known may be of another cluster.
    ///
    /// # Errors
    /// [`TlsError::File`].
    pub fn keep(&self, ca: &str, certificate: &str) -> Result<(), TlsError> {
        self.keep_servers(&[])?;
        write_private(&self.0.path("ca", "crt"), ca.as_bytes())?;
        self.keep_certificate(certificate)
    }
}
