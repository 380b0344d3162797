//! `logs`: a container's output, or a job's.

use super::pods;
use crate::api::Conn;
use crate::args::{JobLogs, Logs};
use anyhow::Result;
use futures::{AsyncReadExt, io::AsyncBufRead};
use std::io::Write;

pub(crate) async fn run(conn: &Conn, options: &Logs) -> Result<()> {
    if let Some(name) = ["job/", "gpujob/", "gpujobs/"].iter().find_map(|prefix| options.pod.strip_prefix(prefix)) {
        let (follow, tail) = (options.follow, options.tail);
        let of_job = JobLogs { name: name.to_owned(), follow, stderr: false, tail, task: None, attempt: None };
        return super::job::print_log(conn, &of_job).await;
    }
    let (pod, container) = pods::find(conn, &options.pod, options.container.as_deref()).await?;
    let mut path = format!("/api/v1/namespaces/{}/pods/{pod}/log?container={container}", conn.namespace);
    for (flag, name) in [(options.follow, "follow"), (options.previous, "previous"), (options.timestamps, "timestamps")]
    {
        if flag {
            path.push_str(&format!("&{name}=true"));
        }
    }
    for (number, name) in [(options.tail, "tailLines"), (options.since, "sinceSeconds")] {
        if let Some(number) = number {
            path.push_str(&format!("&{name}={number}"));
        }
    }
    let request = http::Request::get(path).body(Vec::new())?;
    let stream = conn.client.request_stream(request).await.map_err(crate::api::explain)?;
    copy(stream).await
}

pub(super) async fn copy(stream: impl AsyncBufRead) -> Result<()> {
    let mut stream = std::pin::pin!(stream);
    let mut out = std::io::stdout();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 || out.write_all(&buffer[..n]).and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
    }
}
