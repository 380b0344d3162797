//! Reading files of jobs through the API: `log` and `results/PATH` of a `GpuJob`.

use super::{Outputs, is_absent};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use minik8s_core::api::{ApiError, ApiResult, Reason};
use minik8s_core::job::{FileName, STDERR, STDOUT};
use minik8s_core::server::{Readable, Reading};
use serde_json::Value;
use std::io::{self, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::watch;

const PIECE: usize = 64 * 1024;
/// Another process may write the files; who follows looks for that now and then.
const LOOK: Duration = Duration::from_secs(1);

#[async_trait]
impl Readable for Outputs {
    async fn read(&self, reading: Reading) -> ApiResult<BoxStream<'static, ApiResult<Bytes>>> {
        let wanted = Wanted::of(&reading)?;
        let changes = self.follow(&wanted.uid);
        let directory = self.of_attempt(&wanted.uid, wanted.attempt);
        let path = directory.join(wanted.name.as_str());
        let size = self.size(&wanted.uid, wanted.attempt, &wanted.name).await.map_err(|e| failed(&e))?;
        let at = match wanted.tail {
            Some(lines) => tail(&path, size, lines).await.map_err(|e| failed(&e))?,
            None => wanted.offset,
        };
        let complete = self.is_complete(&wanted.uid, wanted.attempt).await;
        let known = wanted.name.is_output() || size > 0 || tokio::fs::try_exists(&path).await.unwrap_or(false);
        if !known {
            let why = format!("there is no file {} of this job here", wanted.name);
            return Err(ApiError::new(Reason::NotFound, why));
        }
        let state = Follower { path, directory, at, left: wanted.limit, follow: wanted.follow && !complete, changes };
        Ok(stream::unfold(state, Follower::next).boxed())
    }
}

/// What a request wants.
struct Wanted {
    uid: String,
    attempt: u32,
    name: FileName,
    follow: bool,
    tail: Option<u64>,
    offset: u64,
    limit: u64,
}

impl Wanted {
    fn of(reading: &Reading) -> ApiResult<Self> {
        let object = &reading.object;
        let number = |name: &str| match reading.get(name).map(str::parse::<u64>) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(ApiError::bad_request(format!("{name} must be a whole number"))),
        };
        let task = number("task")?.map(|task| u32::try_from(task).unwrap_or(u32::MAX));
        let stream = reading.get("stream").unwrap_or(STDOUT);
        let name = match reading.subresource.as_str() {
            "log" if [STDOUT, STDERR].contains(&stream) => FileName::output(stream, task),
            "log" => return Err(ApiError::bad_request("stream must be stdout or stderr")),
            path => FileName::new(path).map_err(|why| ApiError::bad_request(format!("the path {path} {why}")))?,
        };
        let last = object["status"]["attempt"].as_u64().unwrap_or_default().max(1);
        let attempt = u32::try_from(number("attempt")?.unwrap_or(last)).unwrap_or(u32::MAX);
        let tail = number("tailLines")?;
        if tail.is_some() && name.result().is_some() {
            return Err(ApiError::bad_request("tailLines is for logs"));
        }
        Ok(Self {
            uid: object["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
            attempt,
            follow: reading.flag("follow") && !ended(object, attempt),
            name,
            tail,
            offset: number("offset")?.unwrap_or_default(),
            limit: number("limitBytes")?.unwrap_or(u64::MAX),
        })
    }
}

/// True where nothing is added any more.
fn ended(object: &Value, attempt: u32) -> bool {
    let of_now = object["status"]["attempt"].as_u64().unwrap_or_default().max(1) == u64::from(attempt);
    let phase = object["status"]["phase"].as_str().unwrap_or_default();
    !of_now || matches!(phase, "Succeeded" | "Failed")
}

fn failed(error: &io::Error) -> ApiError {
    ApiError::internal(format!("a file of the job cannot be read: {error}"))
}

struct Follower {
    path: PathBuf,
    directory: PathBuf,
    at: u64,
    left: u64,
    follow: bool,
    changes: watch::Receiver<u64>,
}

impl Follower {
    async fn next(mut self) -> Option<(ApiResult<Bytes>, Self)> {
        loop {
            // Looked at before the file: what was written before its mark is read.
            let complete = tokio::fs::try_exists(self.directory.join(super::COMPLETE)).await.unwrap_or(false);
            self.changes.borrow_and_update();
            match self.piece().await {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => {
                    self.at += piece.len() as u64;
                    self.left -= piece.len() as u64;
                    return Some((Ok(piece), self));
                }
                Err(error) => {
                    self.left = 0;
                    return Some((Err(failed(&error)), self));
                }
            }
            if !self.follow || complete || self.left == 0 {
                return None;
            }
            if let Ok(Err(_)) = tokio::time::timeout(LOOK, self.changes.changed()).await {
                return None;
            }
        }
    }

    async fn piece(&self) -> io::Result<Bytes> {
        let most = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
        let mut file = match tokio::fs::File::open(&self.path).await {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Ok(Bytes::new()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.at)).await?;
        let mut piece = Vec::with_capacity(most.min(PIECE));
        file.take(most as u64).read_to_end(&mut piece).await?;
        Ok(piece.into())
    }
}

/// Where the last so many lines of a file begin.
async fn tail(path: &std::path::Path, size: u64, lines: u64) -> io::Result<u64> {
    if lines == 0 || size == 0 {
        return Ok(size);
    }
    let mut file = tokio::fs::File::open(path).await?;
    let (mut end, mut seen) = (size, 0);
    while end > 0 {
        let start = end.saturating_sub(PIECE as u64);
        file.seek(SeekFrom::Start(start)).await?;
        let mut piece = vec![0; (end - start) as usize];
        file.read_exact(&mut piece).await?;
        for (index, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let place = start + index as u64;
            // The last line's own end does not begin another.
            seen += u64::from(place + 1 != size);
            if seen == lines {
                return Ok(place + 1);
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;
    use serde_json::json;

    fn reading(subresource: &str, query: &[(&str, &str)]) -> Reading {
        let query = query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let object = json!({"metadata": {"uid": "u-1"}, "status": {"attempt": 1, "phase": "Running"}});
        Reading { object, subresource: subresource.to_owned(), query }
    }

    async fn all(outputs: &Outputs, reading: Reading) -> ApiResult<String> {
        let pieces: Vec<Bytes> = outputs.read(reading).await?.try_collect().await?;
        Ok(String::from_utf8(pieces.concat()).unwrap())
    }

    #[tokio::test]
    async fn logs_are_read_from_their_end_an_offset_and_up_to_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = Outputs::new(dir.path());
        let stdout = FileName::new(STDOUT).unwrap();
        assert_eq!(all(&outputs, reading("log", &[])).await.unwrap(), "", "nothing was written yet");
        outputs.write("u-1", 1, &stdout, 0, "one\ntwo\nthree\n".into()).await.unwrap();
        for (query, want) in [
            (&[][..], "one\ntwo\nthree\n"),
            (&[("tailLines", "1")], "three\n"),
            (&[("tailLines", "2")], "two\nthree\n"),
            (&[("tailLines", "9")], "one\ntwo\nthree\n"),
            (&[("tailLines", "0")], ""),
            (&[("offset", "4"), ("limitBytes", "3")], "two"),
            (&[("stream", "stderr")], ""),
        ] {
            assert_eq!(all(&outputs, reading("log", query)).await.unwrap(), want, "{query:?}");
        }
        let none = all(&outputs, reading("results/none", &[])).await.unwrap_err();
        assert_eq!(none.reason, Reason::NotFound);
        let out = all(&outputs, reading("results/../../x", &[])).await.unwrap_err();
        assert_eq!(out.reason, Reason::BadRequest);
    }

    #[tokio::test]
    async fn a_follower_sees_what_comes_and_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = std::sync::Arc::new(Outputs::new(dir.path()));
        let follower = outputs.clone();
        let following = tokio::spawn(async move { all(&follower, reading("log", &[("follow", "true")])).await });
        let stdout = FileName::new(STDOUT).unwrap();
        let mut at = 0;
        for number in 0..50 {
            let line = format!("line {number}\n");
            outputs.write("u-1", 1, &stdout, at, line.clone().into()).await.unwrap();
            at += line.len() as u64;
            tokio::task::yield_now().await;
        }
        outputs.complete("u-1", 1).await.unwrap();
        let seen = following.await.unwrap().unwrap();
        assert_eq!(seen, (0..50).map(|number| format!("line {number}\n")).collect::<String>());
    }

    #[tokio::test]
    async fn a_follower_ends_with_the_job() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = Outputs::new(dir.path());
        let mut stream = outputs.read(reading("log", &[("follow", "true")])).await.unwrap();
        outputs.remove("u-1").await.unwrap();
        assert!(stream.next().await.is_none());
    }
}
