//! `workflow graph`: the picture of a workflow, or of a run of it.

use super::{fetch, find, path, told};
use crate::api::{Conn, is_not_found};
use crate::args::WorkflowGraph;
use crate::output::{note, say};
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use minik8s_serverless::workflow::draw::{self, Paint, StepState};
use minik8s_serverless::workflow::machine::StepProgress;
use minik8s_serverless::workflow::{compile, program, read};
use std::collections::BTreeMap;

pub(super) async fn run(conn: &Conn, options: &WorkflowGraph) -> Result<()> {
    let (workflow, title, steps) = subject(conn, &options.name).await?;
    match &options.svg {
        Some(file) if file.as_os_str() == "-" => say(draw::svg(&workflow.body, &title, &steps).trim_end()),
        Some(file) => {
            let picture = draw::svg(&workflow.body, &title, &steps);
            std::fs::write(file, picture).with_context(|| format!("cannot write {}", file.display()))?;
            note(&format!("{} written", file.display()));
        }
        None => say(draw::text(&workflow.body, &steps, &paint).trim_end()),
    }
    Ok(())
}

type Subject = (program::Workflow, String, BTreeMap<String, StepProgress>);

/// A run's name, or a workflow's.
async fn subject(conn: &Conn, name: &str) -> Result<Subject> {
    match find(conn, name).await {
        Ok(run) => {
            let status = run.status.clone().unwrap_or_default();
            let title = format!("{name} ({})", super::phase(&run));
            if status.revision.is_empty() {
                return Ok((of_workflow(conn, &run.spec.workflow).await?, title, BTreeMap::new()));
            }
            let workflow = read::revision(&status.revision, &*fetch(conn)).await.map_err(told)?;
            Ok((workflow, title, status.steps))
        }
        Err(error) if is_not_found(&error) => {
            let workflow =
                of_workflow(conn, name).await.with_context(|| format!("{name} is neither a run nor a workflow"))?;
            Ok((workflow, name.to_owned(), BTreeMap::new()))
        }
        Err(error) => Err(error),
    }
}

async fn of_workflow(conn: &Conn, name: &str) -> Result<program::Workflow> {
    let mut object = conn.get(&path(conn, "workflows", name)).await?;
    let spec =
        serde_json::from_value(object["spec"].take()).with_context(|| format!("workflow {name} cannot be read"))?;
    Ok(compile(&spec).map_err(|e| e.into_error("minik8s.io", "Workflow", name))?)
}

fn paint(part: Paint, text: &str) -> String {
    let style = match part {
        Paint::Way | Paint::Detail => Style::new().dimmed(),
        Paint::Taken => AnsiColor::Green.on_default(),
        Paint::Catch => AnsiColor::Yellow.on_default(),
        Paint::Step(StepState::Pending) => Style::new(),
        Paint::Step(StepState::Running) => AnsiColor::Blue.on_default().bold(),
        Paint::Step(StepState::Succeeded) => AnsiColor::Green.on_default(),
        Paint::Step(StepState::Failed) => AnsiColor::Red.on_default().bold(),
        Paint::Step(StepState::Caught) => AnsiColor::Yellow.on_default(),
        Paint::Step(StepState::Stopped) => Style::new().dimmed(),
    };
    format!("{}{text}{}", style.render(), style.render_reset())
}
