//! What is asked for, made of a job's object and of what it refers to.

use super::site::{Site, handle_of, id_of};
use crate::archive;
use crate::kinds::{ArchiveReference, GpuJob, JobEnv, KeyReference, Phase};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use minik8s_core::api::{ApiError, Quantity};
use minik8s_core::job::{After, AfterWhen, Array, FileName, Gpus, JobRequest, Placement, SourceFile, digest};
use std::collections::BTreeMap;
use std::time::Duration;

const SOURCE_BYTES: u64 = 64 << 20;

/// Why there is no request.
pub(super) enum Flaw {
    /// The API does not answer.
    Api(ApiError),
    /// Something it refers to is not there, but may come.
    Missing(String),
    /// It can never be.
    Bad(String),
}

/// Whether what a job waits for has come.
pub(super) enum Readiness {
    /// It has, or may be waited for there: for these.
    Ready(Vec<After>),
    Waits(String),
    Never(String),
}

/// Looks at the jobs that a job waits for. One that is with the same batch system, and is not tried again, may be waited
/// for there. One look answers for all: what has ended since then is the batch system's to judge.
pub(super) fn ready(site: &Site, job: &GpuJob) -> Readiness {
    let mut after = Vec::new();
    for dependency in &job.spec.dependencies {
        let Some(other) = find(site, job, &dependency.job) else {
            return Readiness::Waits(format!("it waits for the job {:?}, which does not exist", dependency.job));
        };
        let phase = other.status.as_ref().map(|status| status.phase).unwrap_or_default();
        match (phase, dependency.condition.as_str()) {
            (Phase::Succeeded, "Failed") | (Phase::Failed, "Succeeded" | "") => {
                let why = format!("the job {:?} ended as {}", dependency.job, phase.as_str());
                return Readiness::Never(why);
            }
            (phase, _) if phase.is_final() => {}
            (_, condition) => match waited_for_there(site, job, &other, condition) {
                Some(there) => after.push(there),
                None => return Readiness::Waits(format!("it waits for the job {:?}", dependency.job)),
            },
        }
    }
    Readiness::Ready(after)
}

fn find(site: &Site, job: &GpuJob, name: &str) -> Option<std::sync::Arc<GpuJob>> {
    site.shared.jobs.get(&format!("{}/{name}", job.metadata.namespace.as_deref().unwrap_or_default()))
}

fn waited_for_there(site: &Site, job: &GpuJob, other: &GpuJob, condition: &str) -> Option<After> {
    let can = site.opened().is_some_and(|backend| backend.capabilities().dependencies);
    let same = other.spec.cluster == job.spec.cluster && other.spec.backoff_limit.unwrap_or(0) == 0;
    let handle = handle_of(other).filter(|_| can && same)?;
    let when = match condition {
        "Failed" => AfterWhen::NotOk,
        "Ended" => AfterWhen::Any,
        _ => AfterWhen::Ok,
    };
    Some(After { job: handle, when })
}

/// Makes the request.
pub(super) async fn build(site: &Site, job: &GpuJob, after: Vec<After>) -> Result<JobRequest, Flaw> {
    let (spec, status) = (&job.spec, job.status.clone().unwrap_or_default());
    let limits = site.limits();
    let count = |value: i32| u32::try_from(value).unwrap_or(0);
    if let (Some(gpus), Some(most)) = (&spec.gpus, limits.gpus)
        && gpus.count > most
    {
        return Err(Flaw::Bad(format!("spec.gpus.count: a job of this cluster may have {most}, not {}", gpus.count)));
    }
    let memory = match spec.memory.as_ref().map(|memory| memory.parse::<Quantity>()) {
        None => None,
        Some(Ok(memory)) => Some(memory.value().unsigned_abs()),
        Some(Err(error)) => return Err(Flaw::Bad(format!("spec.memory: {error}"))),
    };
    let array = spec.array.as_ref().map(|array| Array::parse(array, crate::kinds::MOST_TASKS)).transpose();
    Ok(JobRequest {
        id: id_of(job, status.attempt),
        name: job.metadata.name.clone().unwrap_or_default(),
        image: spec.image.clone(),
        placement: Placement {
            partition: spec.partition.clone(),
            account: spec.account.clone(),
            qos: spec.qos.clone(),
            constraint: spec.constraint.clone(),
            exclude: status.excluded_nodes,
        },
        tasks: count(spec.tasks.unwrap_or(1)),
        tasks_per_node: spec.tasks_per_node.map(count),
        cpus_per_task: spec.cpus_per_task.map(count),
        memory,
        gpus: spec.gpus.as_ref().map(|gpus| Gpus { count: count(gpus.count), kind: gpus.kind.clone() }),
        time_limit: spec.time_limit_seconds.map(|seconds| Duration::from_secs(seconds.unsigned_abs())),
        array: array.map_err(|why| Flaw::Bad(format!("spec.array: {why}")))?,
        after,
        modules: spec.modules.clone(),
        env: environment(site, job).await?,
        source: source(site, job, limits.source_bytes.map_or(SOURCE_BYTES, i64::unsigned_abs)).await?,
        compile: spec.compile.clone(),
        run: spec.run.clone(),
    })
}

async fn environment(site: &Site, job: &GpuJob) -> Result<BTreeMap<String, String>, Flaw> {
    let mut env = BTreeMap::new();
    for variable in &job.spec.env {
        env.insert(variable.name.clone(), value(site, job, variable).await?);
    }
    Ok(env)
}

async fn value(site: &Site, job: &GpuJob, variable: &JobEnv) -> Result<String, Flaw> {
    let Some(from) = &variable.value_from else { return Ok(variable.value.clone().unwrap_or_default()) };
    let bytes = match (&from.secret_key_ref, &from.config_map_key_ref) {
        (Some(key), _) => secret_entry(site, job, key).await?,
        (None, Some(key)) => config_entry(site, job, key).await?,
        (None, None) => Vec::new(),
    };
    // The value may be secret: it is not told.
    let odd = |_| Flaw::Bad(format!("spec.env: the value of {} is no text", variable.name));
    let text = String::from_utf8(bytes).map_err(odd)?;
    match text.contains('\0') {
        true => Err(Flaw::Bad(format!("spec.env: the value of {} has a zero byte", variable.name))),
        false => Ok(text),
    }
}

fn absent(kind: &str, key: &KeyReference) -> Flaw {
    Flaw::Missing(format!("{kind} {:?} has no entry {:?}", key.name, key.key))
}

async fn secret_entry(site: &Site, job: &GpuJob, key: &KeyReference) -> Result<Vec<u8>, Flaw> {
    let secret = site.shared.ctx.client.api::<Secret>(job.metadata.namespace.as_deref().unwrap_or_default());
    let secret = secret.get_opt(&key.name).await.map_err(Flaw::Api)?;
    let entry = secret.and_then(|secret| secret.data?.remove(&key.key));
    entry.map(|bytes| bytes.0).ok_or_else(|| absent("Secret", key))
}

async fn config_map(site: &Site, job: &GpuJob, name: &str) -> Result<ConfigMap, Flaw> {
    let api = site.shared.ctx.client.api::<ConfigMap>(job.metadata.namespace.as_deref().unwrap_or_default());
    let found = api.get_opt(name).await.map_err(Flaw::Api)?;
    found.ok_or_else(|| Flaw::Missing(format!("there is no ConfigMap {name:?}")))
}

async fn config_entry(site: &Site, job: &GpuJob, key: &KeyReference) -> Result<Vec<u8>, Flaw> {
    let mut map = config_map(site, job, &key.name).await?;
    let text = map.data.as_mut().and_then(|data| data.remove(&key.key)).map(String::into_bytes);
    let binary = map.binary_data.as_mut().and_then(|data| data.remove(&key.key)).map(|bytes| bytes.0);
    text.or(binary).ok_or_else(|| absent("ConfigMap", key))
}

/// The parts of an archive. The last is looked for first: who uploads it writes that last.
async fn packed(site: &Site, job: &GpuJob, archive: &ArchiveReference) -> Result<Vec<Vec<u8>>, Flaw> {
    let mut parts = Vec::new();
    for name in archive.names().into_iter().rev() {
        parts.push(config_entry(site, job, &KeyReference { name, key: archive.key.clone() }).await?);
    }
    parts.reverse();
    Ok(parts)
}

/// The files of an archive in parts.
fn opened(parts: &[Vec<u8>], sha256: Option<&str>, most: u64) -> Result<Vec<SourceFile>, String> {
    let whole = parts.concat();
    if let Some(wanted) = sha256 {
        let found = digest(&whole);
        if found != wanted {
            return Err(format!(".sha256: what is in its ConfigMaps has {found}: submit it again"));
        }
    }
    archive::unpack(&whole, most).map_err(|why| format!(": {why}"))
}

async fn source(site: &Site, job: &GpuJob, most: u64) -> Result<Vec<SourceFile>, Flaw> {
    let Some(source) = &job.spec.source else { return Ok(Vec::new()) };
    let large = || Flaw::Bad(format!("spec.source: its files are more than {most} bytes"));
    if let Some(archive) = &source.archive {
        let (parts, sha256) = (packed(site, job, archive).await?, archive.sha256.clone());
        // Millions of bytes: not on a thread that others need.
        let files = tokio::task::spawn_blocking(move || opened(&parts, sha256.as_deref(), most)).await;
        let files = files.unwrap_or_else(|error| Err(format!(": cannot be unpacked: {error}")));
        return files.map_err(|why| Flaw::Bad(format!("spec.source.archive{why}")));
    }
    let map = config_map(site, job, source.config_map.as_deref().unwrap_or_default()).await?;
    let text = map.data.unwrap_or_default().into_iter().map(|(name, text)| (name, text.into_bytes()));
    let binary = map.binary_data.unwrap_or_default().into_iter().map(|(name, bytes)| (name, bytes.0));
    let mut files = Vec::new();
    for (name, content) in text.chain(binary) {
        let name = FileName::new(name).map_err(|why| Flaw::Bad(format!("spec.source.configMap: {why}")))?;
        files.push(SourceFile { name, content: content.into(), executable: false });
    }
    let sum: u64 = files.iter().map(|file| file.content.len() as u64).sum();
    if sum > most { Err(large()) } else { Ok(files) }
}
