//! Kubeconfig files: how clients find a cluster and what they show it.

use super::tls::{Identity, TlsError, write_private};
use crate::api::ApiResult;
use crate::client::{ClientIdentity, GrpcConfig};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::fmt;
use std::path::Path;

/// A kubeconfig with one cluster and one user, credentials embedded. `Debug` hides them.
#[derive(Clone)]
pub struct Kubeconfig {
    /// Name of cluster, user and context.
    pub name: String,
    /// `https://127.0.0.1:6443`
    pub server: String,
    /// The CA's certificate, as PEM.
    pub ca_certificate: String,
    /// Who the user is.
    pub user: Identity,
}

impl fmt::Debug for Kubeconfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kubeconfig({} at {}, credentials hidden)", self.name, self.server)
    }
}

impl Kubeconfig {
    /// The file's text. Holds the user's private key.
    pub fn to_yaml(&self) -> String {
        let Self { name, server, .. } = self;
        let (ca, certificate, key) = (
            STANDARD.encode(&self.ca_certificate),
            STANDARD.encode(&self.user.certificate),
            STANDARD.encode(&self.user.key),
        );
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {name}\npreferences: {{}}\nclusters:\n- name: {name}\n  \
             cluster:\n    server: {server}\n    certificate-authority-data: {ca}\nusers:\n- name: {name}\n  user:\n    \
             client-certificate-data: {certificate}\n    client-key-data: {key}\ncontexts:\n- name: {name}\n  \
             context:\n    cluster: {name}\n    user: {name}\n"
        )
    }

    /// Reads a file as [`write`](Self::write) makes them.
    ///
    /// # Errors
    /// [`TlsError::File`] and [`TlsError::Unreadable`].
    pub fn read(path: &Path) -> Result<Self, TlsError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| TlsError::File { operation: "read", path: path.to_owned(), source })?;
        let unreadable = |cause: String| TlsError::Unreadable { what: "kubeconfig", cause };
        let value: Value = serde_saphyr::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
        let field = |pointer: &str| {
            let text = value.pointer(pointer).and_then(Value::as_str);
            text.map(str::to_owned).ok_or_else(|| unreadable(format!("it has no {}", pointer.replace('/', "."))))
        };
        let pem = |pointer: &str| {
            let bytes = STANDARD.decode(field(pointer)?).map_err(|e| unreadable(e.to_string()))?;
            String::from_utf8(bytes).map_err(|e| unreadable(e.to_string()))
        };
        Ok(Self {
            name: field("/clusters/0/name")?,
            server: field("/clusters/0/cluster/server")?,
            ca_certificate: pem("/clusters/0/cluster/certificate-authority-data")?,
            user: Identity {
                certificate: pem("/users/0/user/client-certificate-data")?,
                key: pem("/users/0/user/client-key-data")?,
            },
        })
    }

    /// The way to the API over gRPC.
    ///
    /// # Errors
    /// `BadRequest` where the certificate cannot be used.
    pub fn grpc(&self) -> ApiResult<GrpcConfig> {
        Ok(GrpcConfig {
            url: self.server.clone(),
            ca: self.ca_certificate.clone().into_bytes(),
            identity: Some(ClientIdentity::new(&self.user.certificate, &self.user.key)?),
            ..GrpcConfig::default()
        })
    }

    /// Writes the file, readable by its owner alone.
    ///
    /// # Errors
    /// [`TlsError::File`].
    pub fn write(&self, path: &Path) -> Result<(), TlsError> {
        write_private(path, self.to_yaml().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_file_holds_everything_and_is_private() {
        let user = Identity { certificate: "CERT".into(), key: "KEY".into() };
        let config = Kubeconfig {
            name: "minik8s".into(),
            server: "https://127.0.0.1:6443".into(),
            ca_certificate: "CA".into(),
            user,
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.kubeconfig");
        config.write(&path).unwrap();
        config.write(&path).unwrap();
        let value: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let read = Kubeconfig::read(&path).unwrap();
        assert_eq!((read.server, read.user.key), ("https://127.0.0.1:6443".to_owned(), "KEY".to_owned()));
        assert_eq!(value["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
        assert_eq!(value["users"][0]["user"]["client-key-data"], STANDARD.encode("KEY"));
        assert_eq!(value["contexts"][0]["context"]["user"], value["users"][0]["name"]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{config:?}").contains("KEY"));
    }
}
