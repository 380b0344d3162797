//! Files of jobs in the volumes of their pods. Each task of an array has a volume of its own, so its results are below its
//! number.

use super::judge::has_started;
use super::{NodesBackend, VOLUME, error, pod, task_of};
use bytes::Bytes;
use k8s_openapi::api::core::v1::Pod;
use minik8s_core::api::{ApiError, ApiResult, Gvr, Reason, Target};
use minik8s_core::job::{FileInfo, FileName, JobError, JobHandle, JobResult, MOST_RESULTS, STDERR, STDOUT};
use minik8s_core::node::{FilesWish, VolumeFile};
use std::collections::HashMap;
use std::time::Duration;

/// A node that does not say how much its jobs have written by then is asked again at the next look.
const ANSWER: Duration = Duration::from_secs(5);
/// A node that has not made its digests by then is asked another time.
const DIGESTS: Duration = Duration::from_secs(120);
const PODS: Gvr = Gvr::new("", "v1", "pods");

/// A file of a job as its pod has it: the task, and the path in the volume. `None` for what no job has.
fn place(name: &FileName, array: bool) -> Option<(Option<u32>, String)> {
    let numbered = |number: &str| number.parse::<u32>().ok();
    if name.is_output() {
        let (stem, task) =
            name.as_str().split_once('.').map_or((name.as_str(), None), |(stem, task)| (stem, numbered(task)));
        return (task.is_some() == array).then(|| (task, stem.to_owned()));
    }
    let path = name.result()?;
    let (task, path) = match array {
        true => path.split_once('/').map(|(task, path)| (numbered(task), path)).filter(|(task, _)| task.is_some())?,
        false => (None, path),
    };
    Some((task, format!("work/{path}")))
}

/// What a file in the volume of a task is called; `None` for what is nobody's to see.
fn name(path: &str, task: Option<u32>) -> Option<FileName> {
    if [STDOUT, STDERR].contains(&path) {
        return Some(FileName::output(path, task));
    }
    let path = path.strip_prefix("work/")?;
    let below = task.map_or_else(String::new, |task| format!("{task}/"));
    FileName::new(format!("results/{below}{path}")).ok()
}

impl NodesBackend {
    fn target(&self, pod: &str) -> Target {
        Target::object(PODS, &self.config.namespace, pod)
    }

    async fn list(&self, pod: &Pod, patterns: Vec<String>, most: usize, digests: bool) -> ApiResult<Vec<VolumeFile>> {
        let wish = FilesWish { patterns, most: u32::try_from(most).unwrap_or(u32::MAX), digests };
        let target = self.target(pod.metadata.name.as_deref().unwrap_or_default());
        let asking = self.client.transport().volume_files(&target, VOLUME, &wish);
        let late = |_| ApiError::new(Reason::ServiceUnavailable, "the node does not say which files there are");
        tokio::time::timeout(DIGESTS, asking).await.map_err(late)?
    }

    /// Output, and results that match.
    pub(super) async fn found(&self, job: &JobHandle, patterns: &[String]) -> JobResult<Vec<FileInfo>> {
        let mut pods = self.pods_of(&job.id).await?;
        // The files of one that goes, go with it.
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        if pods.is_empty() {
            return Err(JobError::NotFound(job.id.clone()));
        }
        let outputs = || [STDERR, STDOUT].map(str::to_owned).to_vec();
        let results: Vec<String> = patterns.iter().map(|pattern| format!("work/{pattern}")).collect();
        let (mut files, mut room, mut lost) = (Vec::new(), MOST_RESULTS + 1, 0);
        for pod in &pods {
            let mut there = match self.list(pod, outputs(), 2, true).await {
                Err(gone) if gone.is_not_found() => {
                    // What was never started has no files anybody could miss.
                    lost += usize::from(has_started(pod));
                    continue;
                }
                other => other.map_err(error::away)?,
            };
            if room > 0 && !results.is_empty() {
                let matching = self.list(pod, results.clone(), room, true).await.map_err(error::away)?;
                room = room.saturating_sub(matching.len());
                there.extend(matching);
            }
            let known = |file: VolumeFile| {
                Some(FileInfo { name: name(&file.path, task_of(pod))?, size: file.size, sha256: file.sha256 })
            };
            files.extend(there.into_iter().filter_map(known));
        }
        if lost == pods.len() {
            return Err(JobError::NotFound(job.id.clone()));
        }
        if lost > 0 {
            tracing::warn!(id = %job.id, lost, "nodes have lost the files of some tasks");
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    /// A piece of a file.
    pub(super) async fn piece(&self, job: &JobHandle, file: &FileName, from: u64, most: usize) -> JobResult<Bytes> {
        let Some((task, path)) = place(file, super::is_array(job)) else { return Ok(Bytes::new()) };
        let target = self.target(&pod::name(&job.id, task));
        match self.client.transport().read_volume(&target, VOLUME, &path, from, most as u64).await {
            Err(gone) if gone.is_not_found() => Err(JobError::NotFound(job.id.clone())),
            other => other.map_err(error::away),
        }
    }

    /// How much running pods have written, by their names. Nodes are asked at the same time; one that does not answer says
    /// nothing of its pods, and is not asked about all of them.
    pub(super) async fn sizes(&self, running: &[&Pod]) -> HashMap<String, Vec<(FileName, u64)>> {
        let mut nodes: HashMap<&str, Vec<&Pod>> = HashMap::new();
        for pod in running {
            nodes.entry(super::judge::node(pod)).or_default().push(pod);
        }
        let told = nodes.into_values().map(|pods| self.sizes_on_one(pods));
        futures::future::join_all(told).await.into_iter().flatten().collect()
    }

    async fn sizes_on_one(&self, pods: Vec<&Pod>) -> Vec<(String, Vec<(FileName, u64)>)> {
        let mut all = Vec::new();
        for pod in pods {
            let asking = self.list(pod, [STDERR, STDOUT].map(str::to_owned).to_vec(), 2, false);
            let Ok(told) = tokio::time::timeout(ANSWER, asking).await else { break };
            // One of them may just go; its node still tells of the others.
            let Ok(files) = told else { continue };
            let sizes =
                files.into_iter().filter_map(|file| Some((name(&file.path, task_of(pod))?, file.size))).collect();
            all.push((pod.metadata.name.clone().unwrap_or_default(), sizes));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_lead_to_volumes_and_back() {
        for (text, array, want) in [
            ("stdout", false, Some((None, "stdout"))),
            ("stderr.3", true, Some((Some(3), "stderr"))),
            ("results/a/b.txt", false, Some((None, "work/a/b.txt"))),
            ("results/3/b.txt", true, Some((Some(3), "work/b.txt"))),
            ("results/3/b.txt", false, Some((None, "work/3/b.txt"))),
            ("stdout", true, None),
            ("stdout.1", false, None),
            ("results/b.txt", true, None),
            ("env", false, None),
            ("job.sh", false, None),
        ] {
            let found = place(&FileName::new(text).unwrap(), array);
            assert_eq!(found.as_ref().map(|(task, path)| (*task, path.as_str())), want, "{text} {array}");
            if let Some((task, path)) = found {
                assert_eq!(name(&path, task).unwrap().as_str(), text);
            }
        }
        assert!(name("env", None).is_none() && name("work/a\nb", None).is_none());
    }
}
