//! Bringing files home: a little while a job runs, all of it when it has ended.

use super::site::{Site, id_of};
use super::status;
use super::turn::in_time;
use crate::kinds::{GpuJob, GpuJobStatus, JobFile, Phase};
use minik8s_core::api::{ApiError, ApiResult};
use minik8s_core::controllers::Outcome;
use minik8s_core::job::{FileInfo, FileName, JobError, JobHandle, JobReport, MOST_RESULTS, SharedJobBackend};

const PIECE: usize = 1 << 20;
const OUTPUT_BYTES: u64 = 64 << 20;
const RESULT_BYTES: u64 = 1 << 30;
/// Names of results are kept in the object, which has its bounds.
const NAMES: usize = 256 << 10;

/// Why a file is not here yet.
enum Setback {
    There(JobError),
    Here(std::io::Error),
    /// It is not what it was said to be.
    Changed(String),
}

impl From<JobError> for Setback {
    fn from(error: JobError) -> Self {
        Self::There(error)
    }
}

impl From<std::io::Error> for Setback {
    fn from(error: std::io::Error) -> Self {
        Self::Here(error)
    }
}

fn output_limit(site: &Site) -> u64 {
    site.limits().output_bytes.map_or(OUTPUT_BYTES, i64::unsigned_abs)
}

/// Brings some of the output of a running job home; true where there is more.
pub(super) async fn mirror(site: &Site, backend: &SharedJobBackend, job: &JobHandle, report: &JobReport) -> bool {
    let limit = output_limit(site);
    let mut more = false;
    for (name, size) in &report.output {
        match grow(site, backend, job, name, (*size).min(limit), PIECE).await {
            Ok(left) => more |= left,
            // The end brings the rest.
            Err(Setback::There(error)) => tracing::debug!(%error, id = %job.id, "output cannot be read yet"),
            Err(Setback::Here(error)) => tracing::warn!(%error, id = %job.id, "output cannot be written"),
            Err(Setback::Changed(_)) => {}
        }
    }
    more
}

/// Brings a file closer to `size`, by `most` bytes; true where there is more.
async fn grow(
    site: &Site,
    backend: &SharedJobBackend,
    job: &JobHandle,
    name: &FileName,
    size: u64,
    most: usize,
) -> Result<bool, Setback> {
    let (outputs, uid, attempt) = (&site.shared.outputs, &job.id.uid, job.id.attempt);
    let mut here = outputs.size(uid, attempt, name).await?;
    if here > size {
        // Begun anew there.
        outputs.write(uid, attempt, name, 0, bytes::Bytes::new()).await?;
        here = 0;
    }
    if here == size {
        return Ok(false);
    }
    let wanted = usize::try_from(size - here).unwrap_or(most).min(most);
    let piece = in_time(backend.read(job, name, here, wanted)).await?;
    let got = piece.len() as u64;
    if got > 0 {
        outputs.write(uid, attempt, name, here, piece).await?;
    }
    Ok(got > 0 && here + got < size)
}

/// Brings all files of an ended job home.
pub(super) async fn fetch(site: &Site, backend: &SharedJobBackend, job: &GpuJob) -> ApiResult<Outcome> {
    let attempt = job.status.as_ref().map_or(1, |status| status.attempt);
    let native = job.status.as_ref().and_then(|status| status.job_id.clone()).unwrap_or_default();
    let handle = JobHandle::new(&id_of(job, attempt), native);
    let now = site.shared.ctx.clock.now();
    let (files, reason, sentence) = match all(site, backend, &handle, &job.spec.results).await {
        Ok((files, more)) => {
            let (reason, sentence) = told(&files, more);
            (files, reason, sentence)
        }
        Err(Setback::There(JobError::NotFound(_))) => (Vec::new(), "NotFound", "its files are gone there".to_owned()),
        Err(Setback::There(error)) => return site.trouble(job, &error).await,
        Err(Setback::Here(error)) => {
            let why = format!("files of the job cannot be written here: {error}");
            return Err(ApiError::internal(why));
        }
        Err(Setback::Changed(what)) => {
            return site.trouble(job, &JobError::Odd(format!("{what} changed while it was fetched"))).await;
        }
    };
    let change = |status: &mut GpuJobStatus| {
        status::relieve(status);
        status.phase = Phase::Cleaning;
        status.files = files;
        // Trouble on the way may have been said there.
        status.reason = status.end.clone().unwrap_or_default();
        status::condition(&mut status.conditions, "OutputFetched", reason != "NotFound", reason, &sentence, now);
    };
    status::write(&site.shared.ctx, job, change).await.map(|()| Outcome::Done)
}

/// What is said of files that are here.
fn told(files: &[JobFile], more: bool) -> (&'static str, String) {
    let cut = files.iter().filter(|file| file.truncated).count();
    let mut sentence = format!("{} files are here", files.len());
    if cut > 0 {
        sentence.push_str(&format!(", of {cut} only the beginning: see spec.limits of the JobCluster"));
    }
    if more {
        let most =
            format!("; more results match than are fetched ({MOST_RESULTS}, whose names are {NAMES} bytes together)");
        sentence.push_str(&format!("{most}: have the job pack them into one file"));
    }
    (if cut == 0 && !more { "Fetched" } else { "Truncated" }, sentence)
}

/// Drops the results that are too many to be named in an object; true where there were such.
fn bound(files: &mut Vec<FileInfo>) -> bool {
    let (all, mut count, mut bytes) = (files.len(), 0, 0);
    files.retain(|file| {
        if file.name.is_output() {
            return true;
        }
        (count, bytes) = (count + 1, bytes + file.name.as_str().len());
        count <= MOST_RESULTS && bytes <= NAMES
    });
    files.len() < all
}

/// Brings all files home; true beside them where there are more than may be.
async fn all(
    site: &Site,
    backend: &SharedJobBackend,
    job: &JobHandle,
    patterns: &[String],
) -> Result<(Vec<JobFile>, bool), Setback> {
    let mut results = site.limits().result_bytes.map_or(RESULT_BYTES, i64::unsigned_abs);
    let mut files = Vec::new();
    let mut there = backend.files(job, patterns).await?;
    let more = bound(&mut there);
    for file in there {
        let limit = if file.name.is_output() { output_limit(site) } else { results };
        let size = file.size.min(limit);
        if !file.name.is_output() {
            results -= size;
        }
        whole(site, backend, job, &file, size).await?;
        files.push(JobFile {
            name: file.name.to_string(),
            bytes: i64::try_from(file.size).unwrap_or(i64::MAX),
            sha256: file.sha256,
            truncated: size < file.size,
        });
    }
    Ok((files, more))
}

/// Brings a file home up to `size`, from where it is here, and compares it where that is all of it.
async fn whole(
    site: &Site,
    backend: &SharedJobBackend,
    job: &JobHandle,
    file: &FileInfo,
    size: u64,
) -> Result<(), Setback> {
    let (outputs, uid, attempt) = (&site.shared.outputs, &job.id.uid, job.id.attempt);
    if size == 0 {
        outputs.write(uid, attempt, &file.name, 0, bytes::Bytes::new()).await?;
    }
    // What was fetched while the job ran may be of a file that was begun anew since: then once more from the start.
    for _ in 0..2 {
        while grow(site, backend, job, &file.name, size, PIECE).await? {}
        let here = outputs.size(uid, attempt, &file.name).await?;
        // Of very large files no digest is made there.
        let unknown = size < file.size || file.sha256.is_empty();
        if here == size && (unknown || outputs.digest(uid, attempt, &file.name).await? == file.sha256) {
            return Ok(());
        }
        outputs.write(uid, attempt, &file.name, 0, bytes::Bytes::new()).await?;
    }
    Err(Setback::Changed(file.name.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_object_names_is_bounded_and_that_is_told() {
        let result = |length: usize| move |number: usize| FileInfo::of(&format!("results/{number:0length$}"), b"x");
        let listed = |length: usize, count: usize| {
            let mut files = vec![FileInfo::of("stdout", b""), FileInfo::of("stderr.3", b"")];
            files.splice(0..0, (0..count).map(result(length)));
            let more = bound(&mut files);
            (files.len(), more)
        };
        assert_eq!(listed(10, 7), (9, false));
        assert_eq!(listed(10, MOST_RESULTS), (MOST_RESULTS + 2, false));
        assert_eq!(listed(10, MOST_RESULTS + 1), (MOST_RESULTS + 2, true));
        let (kept, more) = listed(240, 2 * MOST_RESULTS);
        assert_eq!((kept, more), (MOST_RESULTS + 2, true));
        let long =
            |number: usize| FileInfo::of(&format!("results/{}/{number}", vec!["d".repeat(250); 15].join("/")), b"");
        let mut files: Vec<FileInfo> = (0..200).map(long).collect();
        assert!(bound(&mut files) && files.len() < 70, "{} long names", files.len());
        let (reason, sentence) = told(&[], true);
        assert!(reason == "Truncated" && sentence.contains("pack them"), "{sentence}");
    }
}
