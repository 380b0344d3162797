//! `exec`: a command inside a container, with its input, output and exit code.

use super::pods;
use crate::api::Conn;
use crate::args::Exec;
use crate::terminal::{RawTerminal, keyboard, size};
use anyhow::{Context, Result, bail};
use futures::SinkExt;
use futures::channel::mpsc::Sender;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

pub(crate) async fn run(conn: &Conn, options: &Exec) -> Result<ExitCode> {
    let (pod, container) = pods::find(conn, &options.pod, options.container.as_deref()).await?;
    let api: Api<Pod> = Api::namespaced(conn.client.clone(), &conn.namespace);
    let tty = options.tty && std::io::stdin().is_terminal();
    let params = AttachParams { stdin: options.stdin, stdout: true, stderr: !tty, tty, ..AttachParams::default() }
        .container(container);
    let process = api.exec(&pod, &options.command, &params).await.map_err(crate::api::explain)?;
    let _raw = tty.then(RawTerminal::enter).transpose()?;
    let code = relay(process, options.stdin).await?;
    Ok(ExitCode::from(code))
}

/// Passes bytes both ways until the command ends; its exit code.
async fn relay(mut process: AttachedProcess, stdin: bool) -> Result<u8> {
    let status = process.take_status().context("the server sends no exit status")?;
    if let Some(sizes) = process.terminal_size() {
        tokio::spawn(report_size(sizes));
    }
    if let Some(to) = process.stdin().filter(|_| stdin) {
        tokio::spawn(feed(keyboard(), to));
    }
    let out = process.stdout().map(|r| tokio::spawn(print(r, std::io::stdout())));
    let err = process.stderr().map(|r| tokio::spawn(print(r, std::io::stderr())));
    for task in [out, err].into_iter().flatten() {
        task.await?;
    }
    let status = status.await.context("the connection broke before the command ended")?;
    exit_code(&status)
}

fn exit_code(status: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Status) -> Result<u8> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.iter().flat_map(|d| d.causes.iter().flatten());
    let code = causes.into_iter().find(|c| c.reason.as_deref() == Some("ExitCode")).and_then(|c| c.message.clone());
    match code.and_then(|c| c.parse::<u32>().ok()) {
        Some(code) => Ok(u8::try_from(code & 0xff).unwrap_or(1)),
        None => bail!("{}", status.message.clone().unwrap_or_else(|| "the command could not be run".into())),
    }
}

/// Passes input on, and its end. The command may end first; then nobody wants the rest.
async fn feed(mut from: mpsc::Receiver<Vec<u8>>, mut to: impl AsyncWrite + Unpin) {
    while let Some(bytes) = from.recv().await {
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn print(mut from: impl AsyncRead + Unpin, mut to: impl Write) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n) = from.read(&mut buffer).await {
        if n == 0 || to.write_all(&buffer[..n]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

/// Tells the other side the terminal's size, now and at each change.
async fn report_size(mut sizes: Sender<TerminalSize>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Some((width, height)) = size()
            && sizes.send(TerminalSize { width, height }).await.is_err()
        {
            return;
        }
        changes.recv().await;
    }
}
