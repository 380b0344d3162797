//! `workflow get` and `workflow logs`: how far runs are, and what happened in them.

use super::{collection, each_change, fetch, find, output, phase, told};
use crate::api::Conn;
use crate::args::WorkflowLogs;
use crate::output::{Rows, render, say};
use anyhow::Result;
use jiff::Timestamp;
use minik8s_serverless::workflow::draw::StepState;
use minik8s_serverless::workflow::read;
use minik8s_serverless::workflow::{Line, WorkflowRun, narrate};

/// All runs, or one with its steps.
pub(super) async fn get(conn: &Conn, name: Option<&str>) -> Result<()> {
    let Some(name) = name else {
        let table = conn.table(&collection(conn, "workflowruns")).await?;
        render(&Rows::from_table(&table, false, false), true).iter().for_each(|line| say(line));
        return Ok(());
    };
    let run = find(conn, name).await?;
    let status = run.status.clone().unwrap_or_default();
    say(&format!("{name}: {} of workflow {}", phase(&run), run.spec.workflow));
    for (what, text) in [
        ("Message", Some(status.message.clone()).filter(|m| !m.is_empty())),
        ("Started", status.started_at.clone()),
        ("Finished", status.finished_at.clone()),
    ] {
        if let Some(text) = text {
            say(&format!("{what}: {text}"));
        }
    }
    if let Some(output) = output(conn, &run).await? {
        say(&format!("Output: {output}"));
    }
    if status.steps.is_empty() {
        return Ok(());
    }
    let headings = ["", "STEP", "RUNNING", "DONE", "FAILED", "RETRIED", "ERROR"];
    let rows = status.steps.iter().map(|(name, step)| {
        let failed = step.failed + step.caught;
        vec![
            StepState::of(Some(step)).sign().to_string(),
            name.clone(),
            step.running.to_string(),
            step.succeeded.to_string(),
            failed.to_string(),
            step.retried.to_string(),
            step.error.clone(),
        ]
    });
    let rows = Rows { headings: headings.map(str::to_owned).to_vec(), rows: rows.collect() };
    render(&rows, true).iter().for_each(|line| say(line));
    Ok(())
}

/// What happened, line by line.
pub(super) async fn logs(conn: &Conn, options: &WorkflowLogs) -> Result<()> {
    let mut shown = 0;
    let mut show = async |run: &WorkflowRun| {
        let lines = history(conn, run).await?;
        lines.iter().skip(shown).for_each(|line| say(&line_of(line)));
        shown = shown.max(lines.len());
        Ok(())
    };
    if options.follow {
        each_change(conn, &options.run, show).await?;
    } else {
        show(&find(conn, &options.run).await?).await?;
    }
    Ok(())
}

async fn history(conn: &Conn, run: &WorkflowRun) -> Result<Vec<Line>> {
    let history = run.status.as_ref().map(|status| status.history.clone()).unwrap_or_default();
    let events = read::events(&history, &*fetch(conn)).await.map_err(told)?;
    Ok(narrate(&events))
}

fn line_of(line: &Line) -> String {
    let at = Timestamp::from_millisecond(line.at).map(|at| format!("{at:.3}")).unwrap_or_default();
    let step = if line.step.is_empty() { String::new() } else { format!("{}: ", line.step) };
    let text = format!("{at}  {step}{}", line.text.replace(['\n', '\r'], " "));
    if line.bad { format!("{}{text}{}", anstyle::AnsiColor::Red.render_fg(), anstyle::Reset.render()) } else { text }
}
