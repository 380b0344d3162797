//! The connection to a cluster's API, and requests on it.

use crate::args::Args;
use anyhow::{Context, Result, bail};
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A cluster, and the namespace commands are about.
pub(crate) struct Conn {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

/// Content types of patches.
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

impl Conn {
    /// Connects with the kubeconfig that the arguments, the environment or the usual places name.
    pub(crate) async fn open(args: &Args) -> Result<Self> {
        let path = kubeconfig_path(args.kubeconfig.as_deref())?;
        let file =
            Kubeconfig::read_from(&path).with_context(|| format!("cannot read kubeconfig {}", path.display()))?;
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .with_context(|| format!("kubeconfig {} is not usable", path.display()))?;
        // Streams (logs -f, get -w) may be silent for as long as they like.
        config.read_timeout = None;
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self { client: Client::try_from(config)?, namespace })
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

fn kubeconfig_path(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    if let Some(list) = std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty())
        && let Some(first) = std::env::split_paths(&list).find(|p| p.is_file())
    {
        return Ok(first);
    }
    let data = std::env::var_os("MINIK8S_DATA_DIR").map_or_else(|| PathBuf::from("/var/lib/minik8s"), PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let places = [data.join("admin.kubeconfig"), home.join(".kube/config")];
    match places.iter().find(|p| p.is_file()) {
        Some(path) => Ok(path.clone()),
        None => bail!(
            "no kubeconfig: looked at $KUBECONFIG, {} and {}. Start a cluster with `minik8s up`, or name one with --kubeconfig",
            places[0].display(),
            places[1].display()
        ),
    }
}
