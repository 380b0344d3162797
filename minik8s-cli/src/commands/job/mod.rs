//! `job`: batch jobs, handed over with the files they start with, looked at, and their files fetched.

mod source;

use super::{get, logs};
use crate::api::{Conn, MERGE};
use crate::args::{Job, JobLogs, JobResults, JobSubmit};
use crate::manifest;
use crate::output::{note, say};
use anyhow::{Context, Result, anyhow, bail};
use futures::{AsyncRead, AsyncReadExt};
use minik8s_core::job::FileName;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use source::{MANIFEST, Source};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

const LOOK: Duration = Duration::from_millis(300);
/// Bytes of a file that are held at a time.
const PIECE: usize = 64 << 10;

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
    if directory.is_some() && !file.exists() {
        bail!(
            "{} has no {MANIFEST}, the manifest of the job: write one, or name the manifest itself",
            options.path.display()
        );
    }
    let mut all = manifest::read_all(std::slice::from_ref(&file), false)?;
    let (Some(mut job), true) = (all.pop(), all.is_empty()) else {
        bail!("{} must hold one GpuJob", file.display());
    };
    if job.kind() != "GpuJob" {
        bail!("{}: holds a {}, not a GpuJob; other kinds are for `minik8s apply`", job.place(), job.kind());
    }
    let namespace = job.namespace().unwrap_or(&conn.namespace).to_owned();
    let source = match directory {
        Some(directory) => Some(Source::of(conn, &namespace, &job.object, directory).await?),
        None => None,
    };
    if let (Some(source), Some(spec)) = (&source, job.object["spec"].as_object_mut()) {
        if spec.contains_key("source") {
            bail!("{}: spec.source is the directory itself: leave it out, or submit the manifest alone", job.place());
        }
        spec.insert("source".to_owned(), source.reference());
    }
    let base = format!("/apis/minik8s.io/v1alpha1/namespaces/{namespace}/gpujobs");
    let place = job.place();
    let made = conn.post(&format!("{base}?fieldValidation=Strict"), &job.object).await.with_context(|| place)?;
    if let Some(source) = source {
        // The job waits for it; with the job it goes.
        let owner = json!({"apiVersion": "minik8s.io/v1alpha1", "kind": "GpuJob", "name": made["metadata"]["name"], "uid": made["metadata"]["uid"]});
        source.upload(conn, &namespace, &owner).await.with_context(|| {
            let name = job.name();
            format!("job {name} is there, but not its files: `minik8s delete gpujob {name}`, then submit it again")
        })?;
    }
    say(&format!("gpujob.minik8s.io/{} submitted", job.name()));
    if !options.wait {
        return Ok(ExitCode::SUCCESS);
    }
    let mut there = conn.clone();
    there.namespace = namespace;
    wait(&there, job.name()).await
}

/// Follows a job to its end, and ends as it did.
async fn wait(conn: &Conn, name: &str) -> Result<ExitCode> {
    let logs = JobLogs { name: name.to_owned(), follow: true, stderr: false, tail: None, task: None, attempt: None };
    print_log(conn, &logs).await?;
    loop {
        let job = conn.get(&path(conn, name)).await?;
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
        let stream = conn.client.request_stream(request).await.map_err(crate::api::explain)?;
        let whole = !file["truncated"].as_bool().unwrap_or(false);
        let wanted = file["sha256"].as_str().filter(|_| whole);
        let place = options.directory.join(target.as_str());
        let bytes = save(Box::pin(stream), &place, wanted).await.with_context(|| format!("cannot fetch {name}"))?;
        let cut = if whole { "" } else { " (only its beginning)" };
        say(&format!("{} {bytes} bytes{cut}", place.display()));
    }
    Ok(())
}

/// Writes what comes beside its place, and puts it there once it is what it should be: a result may be larger than memory.
async fn save(mut stream: impl AsyncRead + Unpin, place: &Path, sha256: Option<&str>) -> Result<u64> {
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let usual = std::fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().prefix(".minik8s-").permissions(usual).tempfile_in(parent)?;
    let (mut sum, mut piece, mut bytes) = (Sha256::new(), vec![0; PIECE], 0);
    loop {
        let count = stream.read(&mut piece).await?;
        if count == 0 {
            break;
        }
        sum.update(&piece[..count]);
        file.write_all(&piece[..count])?;
        bytes += count as u64;
    }
    let found: String = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if sha256.is_some_and(|wanted| wanted != found) {
        bail!("it did not arrive as it is: try again");
    }
    file.persist(place)?;
    Ok(bytes)
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
