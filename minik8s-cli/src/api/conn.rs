//! The connection to a cluster's API, and requests on it.

use super::Resource;
use crate::args::Args;
use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::ErrorKind;
#[cfg(test)]
use std::path::Path;
use std::path::PathBuf;

/// A cluster, and the namespace commands are about.
#[derive(Clone)]
pub(crate) struct Conn {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// The certificate authority that the kubeconfig names, PEM.
    pub(crate) ca: Option<String>,
    /// The namespace that `-n` says.
    asked: Option<String>,
}

/// Content types of patches.
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

impl Conn {
    /// Connects with the kubeconfig that the arguments, the environment or the usual places name.
    pub(crate) async fn open(args: &Args) -> Result<Self> {
        let path = match &args.kubeconfig {
            Some(path) => path.clone(),
            None => Places::of_the_environment().find()?,
        };
        let file =
            Kubeconfig::read_from(&path).with_context(|| format!("cannot read kubeconfig {}", path.display()))?;
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .with_context(|| format!("kubeconfig {} is not usable", path.display()))?;
        // Streams (logs -f, get -w) may be silent for as long as they like.
        config.read_timeout = None;
        // A refusal is to be shown, or dealt with by who asked: a client that hides it only keeps people waiting.
        config.default_retry = false;
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let ca = config.root_cert.as_ref().and_then(|all| all.first()).map(|der| pem(der));
        Ok(Self { client: Client::try_from(config)?, namespace, ca, asked: args.namespace.clone() })
    }

    /// The namespace of an object whose manifest says `own`.
    pub(crate) fn namespace_of<'a>(&'a self, resource: &Resource, own: Option<&'a str>) -> Result<&'a str> {
        let asked = self.asked.as_deref().filter(|_| resource.namespaced);
        namespace(asked, &self.namespace, own)
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.send("GET", path, None, "", "application/json").await
    }

    /// The answer of a server that knows tables; any other answers the objects themselves.
    pub(crate) async fn table(&self, path: &str) -> Result<Value> {
        self.send("GET", path, None, "", TABLE).await
    }

    pub(crate) fn table_request(path: &str) -> Result<http::Request<Vec<u8>>> {
        Ok(http::Request::get(path).header("Accept", TABLE).body(Vec::new())?)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.send("POST", path, Some(body), "application/json", "application/json").await
    }

    pub(crate) async fn patch(&self, path: &str, kind: &str, body: &Value) -> Result<Value> {
        self.send("PATCH", path, Some(body), kind, "application/json").await
    }

    pub(crate) async fn delete(&self, path: &str, options: &Value) -> Result<Value> {
        self.send("DELETE", path, Some(options), "application/json", "application/json").await
    }

    async fn send(&self, method: &str, path: &str, body: Option<&Value>, content: &str, accept: &str) -> Result<Value> {
        let mut request = http::Request::builder().method(method).uri(path).header("Accept", accept);
        if body.is_some() {
            request = request.header("Content-Type", content);
        }
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        self.client.request(request.body(body)?).await.map_err(explain)
    }
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
}

/// Which namespace an object goes to; a manifest must not contradict what was asked for.
fn namespace<'a>(asked: Option<&str>, default: &'a str, own: Option<&'a str>) -> Result<&'a str> {
    match (asked, own) {
        (Some(asked), Some(own)) if asked != own => bail!(
            "the namespace from the provided object {own:?} does not match the namespace {asked:?}. \
             You must pass '--namespace={own}' to perform this operation."
        ),
        (_, own) => Ok(own.unwrap_or(default)),
    }
}

/// True for an error that says the object does not exist.
pub(crate) fn is_not_found(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if status.code == 404)
}

/// Adds the way out to errors whose own text lacks it.
pub(crate) fn explain(error: kube::Error) -> anyhow::Error {
    let hint = match &error {
        kube::Error::HyperError(_) | kube::Error::Service(_) => {
            "cannot reach the cluster: is it running? (`minik8s up` starts one; --kubeconfig names another)"
        }
        kube::Error::Api(status) if status.code == 401 => {
            "the cluster does not know these credentials: the kubeconfig may belong to an earlier cluster"
        }
        _ => return error.into(),
    };
    anyhow::Error::from(error).context(hint)
}

/// Where a kubeconfig is looked for.
#[derive(Default)]
struct Places {
    /// $KUBECONFIG
    named: Option<OsString>,
    /// Of this machine's cluster.
    data: PathBuf,
    home: PathBuf,
}

impl Places {
    fn of_the_environment() -> Self {
        let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            named: var("KUBECONFIG"),
            data: var("MINIK8S_DATA_DIR").map_or_else(|| PathBuf::from("/var/lib/minik8s"), PathBuf::from),
            home: var("HOME").map(PathBuf::from).unwrap_or_default(),
        }
    }

    /// The first there is. One that is there but cannot be read is an error: the next might be another cluster's.
    fn find(&self) -> Result<PathBuf> {
        if let Some(list) = &self.named {
            return first_of(list);
        }
        let (own, usual) = (self.data.join("admin.kubeconfig"), self.home.join(".kube/config"));
        match File::open(&own) {
            Ok(_) => return Ok(own),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let hint = "run with sudo (`sudo minik8s …`), or name another cluster's with --kubeconfig";
                return Err(error).with_context(|| format!("cannot read {}; {hint}", own.display()));
            }
        }
        if usual.is_file() {
            return Ok(usual);
        }
        bail!(
            "no kubeconfig: looked at $KUBECONFIG, {} and {}. Start a cluster with `minik8s up`, or name one with --kubeconfig",
            own.display(),
            usual.display()
        )
    }
}

/// The first file of a list; those that do not exist are passed over as long as another does.
fn first_of(list: &OsStr) -> Result<PathBuf> {
    let mut missing = None;
    for path in std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()) {
        let refused = |error| anyhow!("$KUBECONFIG names {}, which cannot be read: {error}", path.display());
        match File::open(&path) {
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::NotFound => missing = missing.or(Some(refused(error))),
            Err(error) => return Err(refused(error)),
        }
    }
    Err(missing.unwrap_or_else(|| anyhow!("$KUBECONFIG names no file")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_and_cannot_be_read_never_means_another_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let (data, home) = (dir.path().join("data"), dir.path().join("home"));
        std::fs::create_dir_all(home.join(".kube")).unwrap();
        std::fs::write(home.join(".kube/config"), "").unwrap();
        let find = |named: Option<String>, data: &Path| {
            Places { named: named.map(Into::into), data: data.to_owned(), home: home.clone() }.find()
        };
        let told = |found: Result<PathBuf>| format!("{:#}", found.unwrap_err());
        assert_eq!(find(None, &data).unwrap(), home.join(".kube/config"));
        let (none, usual) = ("/no/such/file", home.join(".kube/config").display().to_string());
        let said = told(find(Some(none.to_owned()), &data));
        assert!(said.contains("$KUBECONFIG names /no/such/file, which cannot be read: No such file"), "{said}");
        assert_eq!(find(Some(format!("{none}:{usual}")), &data).unwrap(), home.join(".kube/config"));
        // A file in the place of a directory is refused to root too.
        std::fs::write(&data, "").unwrap();
        let said = told(find(None, &data));
        assert!(said.contains("data/admin.kubeconfig") && said.contains("run with sudo"), "{said}");
        let said = told(find(Some(format!("{}:{usual}", data.join("x").display())), &data));
        assert!(said.contains("data/x, which cannot be read"), "{said}");
    }

    #[test]
    fn a_namespace_that_contradicts_the_one_asked_for_is_refused() {
        assert_eq!(namespace(Some("prod"), "prod", None).unwrap(), "prod");
        assert_eq!(namespace(Some("prod"), "prod", Some("prod")).unwrap(), "prod");
        assert_eq!(namespace(None, "default", Some("dev")).unwrap(), "dev");
        assert_eq!(namespace(None, "default", None).unwrap(), "default");
        let told = namespace(Some("prod"), "prod", Some("dev")).unwrap_err().to_string();
        let expected = "the namespace from the provided object \"dev\" does not match the namespace \"prod\". \
                        You must pass '--namespace=dev' to perform this operation.";
        assert_eq!(told, expected);
    }
}
