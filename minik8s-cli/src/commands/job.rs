//! `job`: batch jobs, handed over with the files they start with, looked at, and their files fetched.

use super::{get, logs};
use crate::api::{Conn, MERGE};
use crate::args::{Job, JobLogs, JobResults, JobSubmit};
use crate::manifest;
use crate::output::{note, say};
use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::AsyncReadExt;
use minik8s_core::job::{FileName, SourceFile, digest};
use minik8s_gpu::archive;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The manifest in a directory.
const MANIFEST: &str = "job.yaml";
/// What an object may hold, less what surrounds it.
const MOST: usize = 1_000_000;
const LOOK: Duration = Duration::from_millis(300);

pub(crate) async fn run(conn: &Conn, command: &Job) -> Result<ExitCode> {
    match command {
        Job::Submit(options) => return submit(conn, options).await,
        Job::Get(options) => get::run(conn, &options.plain()).await?,
        Job::Logs(options) => print_log(conn, options).await?,
        Job::Results(options) => results(conn, options).await?,
        Job::Cancel(options) => change(conn, &options.names, &json!({"cancel": true}), "is being cancelled").await?,
        Job::Suspend(options) => change(conn, &options.names, &json!({"suspend": true}), "is being stopped").await?,
        Job::Resume(options) => change(conn, &options.names, &json!({"suspend": false}), "goes on").await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn path(conn: &Conn, name: &str) -> String {
    format!("/apis/minik8s.io/v1alpha1/namespaces/{}/gpujobs/{name}", conn.namespace)
}

async fn change(conn: &Conn, names: &[String], spec: &Value, how: &str) -> Result<()> {
    for name in names {
        conn.patch(&path(conn, name), MERGE, &json!({"spec": spec})).await?;
        say(&format!("gpujob.minik8s.io/{name} {how}"));
    }
    Ok(())
}

/// A job's output; `minik8s logs job/NAME` comes here too. Who follows a job goes on with its next attempt.
pub(crate) async fn print_log(conn: &Conn, options: &JobLogs) -> Result<()> {
    if !options.follow || options.attempt.is_some() {
        return print_attempt(conn, options, options.attempt).await;
    }
    let mut printed = 0;
    loop {
        let job = conn.get(&path(conn, &options.name)).await?;
        let status = &job["status"];
        let attempt = status["attempt"].as_u64().and_then(|attempt| u32::try_from(attempt).ok()).unwrap_or_default();
        let attempt = attempt.max(1);
        let done = matches!(status["phase"].as_str(), Some("Succeeded" | "Failed"));
        if attempt > printed {
            // An attempt that was begun and ended meanwhile is not passed over.
            let next = if printed == 0 { attempt } else { printed + 1 };
            if printed > 0 {
                note(&format!("attempt {next}, because attempt {printed} failed"));
            }
            print_attempt(conn, options, Some(next)).await?;
            printed = next;
        } else if done {
            return Ok(());
        } else {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The output of one attempt; of the present one if none is named.
async fn print_attempt(conn: &Conn, options: &JobLogs, attempt: Option<u32>) -> Result<()> {
    let stream = if options.stderr { "stderr" } else { "stdout" };
    let mut path = format!("{}/log?stream={stream}&follow={}", path(conn, &options.name), options.follow);
    let numbers =
        [("tailLines", options.tail), ("task", options.task.map(i64::from)), ("attempt", attempt.map(i64::from))];
    for (name, value) in numbers {
        value.iter().for_each(|value| path.push_str(&format!("&{name}={value}")));
    }
    let request = http::Request::get(path).body(Vec::new())?;
    logs::copy(conn.client.request_stream(request).await.map_err(crate::api::explain)?).await
}

async fn submit(conn: &Conn, options: &JobSubmit) -> Result<ExitCode> {
    let (file, directory) = match options.path.is_dir() {
        true => (options.path.join(MANIFEST), Some(options.path.as_path())),
        false => (options.path.clone(), None),
    };
    let mut all = manifest::read_all(std::slice::from_ref(&file), false)?;
    let (Some(mut job), true) = (all.pop(), all.is_empty()) else {
        bail!("{} must hold one GpuJob", file.display());
    };
    if job.kind() != "GpuJob" {
        bail!("{}: holds a {}, not a GpuJob; other kinds are for `minik8s apply`", job.place(), job.kind());
    }
    let namespace = job.namespace().unwrap_or(&conn.namespace).to_owned();
    let source = directory.map(pack).transpose()?;
    let map = format!("{}-source", job.name());
    if source.is_some() {
        job.object["spec"]["source"] = json!({"archive": {"name": map, "key": "source.tar.gz"}});
    }
    let base = format!("/apis/minik8s.io/v1alpha1/namespaces/{namespace}/gpujobs");
    let place = job.place();
    let made = conn.post(&format!("{base}?fieldValidation=Strict"), &job.object).await.with_context(|| place)?;
    if let Some(source) = source {
        // The job waits for it; with the job it goes.
        let owner = json!({"apiVersion": "minik8s.io/v1alpha1", "kind": "GpuJob", "name": made["metadata"]["name"], "uid": made["metadata"]["uid"]});
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": map, "ownerReferences": [owner]},
            "binaryData": {"source.tar.gz": STANDARD.encode(source)},
        });
        conn.post(&format!("/api/v1/namespaces/{namespace}/configmaps"), &map).await.context(
            "the job is there, but not its files: delete it (`minik8s delete gpujob NAME`), then submit it again",
        )?;
    }
    say(&format!("gpujob.minik8s.io/{} submitted", job.name()));
    if options.wait { wait(conn, &format!("{base}/{}", job.name()), job.name()).await } else { Ok(ExitCode::SUCCESS) }
}

/// Follows a job to its end, and ends as it did.
async fn wait(conn: &Conn, path: &str, name: &str) -> Result<ExitCode> {
    let logs = JobLogs { name: name.to_owned(), follow: true, stderr: false, tail: None, task: None, attempt: None };
    print_log(conn, &logs).await?;
    loop {
        let job = conn.get(path).await?;
        let status = &job["status"];
        let code = status["exitCode"].as_i64();
        match status["phase"].as_str() {
            Some("Succeeded") => return Ok(ExitCode::SUCCESS),
            Some("Failed") => {
                let message = status["message"].as_str().unwrap_or_default();
                crate::output::print_error(&anyhow!("the job failed: {message}"));
                return Ok(ExitCode::from(
                    code.and_then(|code| u8::try_from(code).ok()).filter(|c| *c > 0).unwrap_or(1),
                ));
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// The files of a directory, but its manifest and what version control keeps, as an archive.
fn pack(directory: &Path) -> Result<Vec<u8>> {
    let mut files = Vec::new();
    collect(directory, &mut PathBuf::new(), &mut files)?;
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&archive::pack("", &files)?)?;
    let packed = packed.finish()?;
    if packed.len() > MOST {
        bail!(
            "{} is {} bytes when it is packed, and an object holds {MOST}: leave out what can be made or fetched there",
            directory.display(),
            packed.len()
        );
    }
    Ok(packed)
}

fn collect(base: &Path, below: &mut PathBuf, files: &mut Vec<SourceFile>) -> Result<()> {
    let here = base.join(&below);
    let mut entries: Vec<_> = std::fs::read_dir(&here)
        .and_then(Iterator::collect)
        .with_context(|| format!("cannot read {}", here.display()))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let top = below.as_os_str().is_empty();
        if name == ".git" || top && name == MANIFEST {
            continue;
        }
        below.push(&name);
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            collect(base, below, files)?;
        } else if kind.is_file() {
            let name = below.to_str().map(FileName::new).and_then(Result::ok);
            let name = name.with_context(|| format!("{} has a name that cannot be sent", path.display()))?;
            let executable = entry.metadata()?.permissions().mode() & 0o111 != 0;
            let content = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.push(SourceFile { name, content: content.into(), executable });
        } else {
            bail!("{} is neither a file nor a directory: jobs take no links", path.display());
        }
        below.pop();
    }
    Ok(())
}

async fn results(conn: &Conn, options: &JobResults) -> Result<()> {
    let job = conn.get(&path(conn, &options.name)).await?;
    let files = job["status"]["files"].as_array().cloned().unwrap_or_default();
    let phase = job["status"]["phase"].as_str().unwrap_or_default();
    if files.is_empty() {
        bail!("no files of job {} are here yet: it is {phase}", options.name);
    }
    for file in files {
        let name = file["name"].as_str().unwrap_or_default();
        let target = target(&job, name).map_err(|why| anyhow!("the file name {name:?} {why}"))?;
        let request = request(conn, options, name)?;
        let mut stream = Box::pin(conn.client.request_stream(request).await.map_err(crate::api::explain)?);
        let mut content = Vec::new();
        stream.read_to_end(&mut content).await?;
        let whole = !file["truncated"].as_bool().unwrap_or(false);
        if whole && file["sha256"].as_str() != Some(digest(&content).as_str()) {
            bail!("{name} did not arrive as it is: try again");
        }
        let place = options.directory.join(target.as_str());
        if let Some(parent) = place.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        std::fs::write(&place, &content).with_context(|| format!("cannot write {}", place.display()))?;
        let cut = if whole { "" } else { " (only its beginning)" };
        say(&format!("{} {} bytes{cut}", place.display(), content.len()));
    }
    Ok(())
}

/// What a file is called here: output by the names that the job gives it, results by their own.
fn target(job: &Value, name: &str) -> Result<FileName, String> {
    let (stem, task) = name.split_once('.').map_or((name, String::new()), |(stem, task)| (stem, format!(".{task}")));
    let named = |field: &str| job["spec"][field].as_str().map(|file| format!("{file}{task}"));
    let own = match stem {
        "stdout" => named("output"),
        "stderr" => named("error"),
        _ => name.strip_prefix("results/").map(str::to_owned),
    };
    FileName::new(own.unwrap_or_else(|| name.to_owned()))
}

fn request(conn: &Conn, options: &JobResults, name: &str) -> Result<http::Request<Vec<u8>>> {
    let (stem, task) = name.split_once('.').unwrap_or((name, ""));
    let base = path(conn, &options.name);
    let uri = match (stem, task) {
        ("stdout" | "stderr", "") => format!("{base}/log?stream={stem}"),
        ("stdout" | "stderr", task) => format!("{base}/log?stream={stem}&task={task}"),
        _ => {
            let parts: Vec<String> = name.split('/').map(get::encode).collect();
            format!("{base}/{}", parts.join("/"))
        }
    };
    Ok(http::Request::get(uri).body(Vec::new())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_packed_without_their_manifest_and_links_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("src/.git")).unwrap();
        for name in ["job.yaml", "a.cu", "src/job.yaml", "src/.git/x"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let packed = pack(dir.path()).unwrap();
        let names: Vec<String> =
            archive::unpack(&packed, 1 << 20).unwrap().iter().map(|file| file.name.to_string()).collect();
        assert_eq!(names, ["a.cu", "src/job.yaml"]);
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        assert!(pack(dir.path()).is_err());
    }

    #[test]
    fn files_are_called_as_the_job_says() {
        let job = json!({"spec": {"output": "out/a.txt"}});
        for (name, want) in
            [("stdout", "out/a.txt"), ("stdout.3", "out/a.txt.3"), ("stderr", "stderr"), ("results/x/y.bin", "x/y.bin")]
        {
            assert_eq!(target(&job, name).unwrap().as_str(), want);
        }
        assert!(target(&job, "results/../x").is_err());
    }
}
