//! `image`: what images this machine's cluster has, and ways to bring more. Talks to containerd, not to the API.

use crate::args::{Image, ImageBuild, ImageHost};
use crate::output::{Rows, render, say};
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use minik8s_core::runtime::{ImageInfo, Images, PullProgress};
use minik8s_runtime::{ContainerdRuntime, ImageBuilder};
use std::time::Duration;
use tokio::sync::mpsc;

pub(crate) async fn run(command: &Image) -> Result<()> {
    match command {
        Image::List { host } => list(&connect(host).await?).await,
        Image::Pull { host, name } => pull(&connect(host).await?, name).await,
        Image::Import { host, archive, name } => {
            let images = connect(host).await?.import(archive.clone(), name.as_deref()).await?;
            images.iter().flat_map(|i| &i.names).for_each(|n| say(&format!("{n} imported")));
            Ok(())
        }
        Image::Build(options) => build(options).await,
        Image::Remove { host, names } => {
            let runtime = connect(host).await?;
            for name in names {
                if runtime.image(name).await?.is_none() {
                    bail!("there is no image {name:?}; `minik8s image list` shows those there are");
                }
                runtime.remove_image(name).await?;
                say(&format!("{name} removed"));
            }
            Ok(())
        }
    }
}

/// The containerd that `up` uses; a private one is started where it does not run (and stays, as `up` finds it again).
async fn connect(host: &ImageHost) -> Result<ContainerdRuntime> {
    let config = crate::up::containerd_config(&host.data.data_dir, host.containerd.as_deref())?;
    Ok(ContainerdRuntime::connect(config).await?)
}

async fn list(runtime: &ContainerdRuntime) -> Result<()> {
    let images = runtime.images().await?;
    let row = |image: &ImageInfo| {
        let id = image.id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
        // One that was fetched by its digest has no other name.
        let name = image.names.first().or(image.repo_digests.first()).cloned().unwrap_or_else(|| "<none>".into());
        vec![name, id, bytes(image.size)]
    };
    let headings = ["NAME", "IMAGE ID", "SIZE"].map(str::to_owned).to_vec();
    render(&Rows { headings, rows: images.iter().map(row).collect() }, true).iter().for_each(|line| say(line));
    Ok(())
}

/// `12.3 MB`, in powers of ten as image tools show it.
fn bytes(n: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", units[unit]) }
}

async fn pull(runtime: &ContainerdRuntime, name: &str) -> Result<()> {
    let (sender, receiver) = mpsc::channel(16);
    let progress = tokio::spawn(show(receiver));
    let image = runtime.pull(name, None, Some(sender)).await;
    progress.await?;
    let image = image?;
    say(&format!("{} pulled, {}", image.names.first().map_or(name, String::as_str), bytes(image.size)));
    Ok(())
}

async fn show(mut progress: mpsc::Receiver<PullProgress>) {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg:12} {bytes:>10} of {total_bytes} {wide_bar}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    while let Some(step) = progress.recv().await {
        bar.set_message(step.phase);
        bar.set_length(step.total);
        bar.set_position(step.bytes);
    }
    bar.finish_and_clear();
}

async fn build(options: &ImageBuild) -> Result<()> {
    if !options.directory.is_dir() {
        bail!("{} is not a directory; it becomes the root of the image", options.directory.display());
    }
    let mut builder = ImageBuilder::new(&options.tag).tree(&options.directory, "/")?.working_dir(&options.workdir);
    for (text, is_entrypoint) in [(&options.entrypoint, true), (&options.cmd, false)] {
        let list = words(text)?;
        if !list.is_empty() {
            builder = if is_entrypoint { builder.entrypoint(list) } else { builder.cmd(list) };
        }
    }
    for pair in &options.env {
        let Some((name, value)) = pair.split_once('=') else { bail!("--env {pair:?} is not NAME=VALUE") };
        builder = builder.env(name, value);
    }
    if !options.user.is_empty() {
        builder = builder.user(&options.user);
    }
    if let Some(output) = &options.output {
        builder.write(output)?;
        say(&format!("{} written", output.display()));
        return Ok(());
    }
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let archive = directory.path().join("image.tar");
    builder.write(&archive)?;
    let images = connect(&options.host).await?.import(archive, Some(&options.tag)).await?;
    let size = images.first().map(|i| i.size).unwrap_or_default();
    say(&format!("{} built, {}", options.tag, bytes(size)));
    Ok(())
}

/// A JSON list of words, or one word.
fn words(text: &str) -> Result<Vec<String>> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).with_context(|| format!("{text:?} is not a JSON list of strings"));
    }
    Ok(if text.is_empty() { Vec::new() } else { vec![text.to_owned()] })
}
