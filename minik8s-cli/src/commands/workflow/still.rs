//! Waiting for a run, and saying what it waits for where that takes long.

use super::{each_change, fetch, phase};
use crate::api::{Conn, is_not_found};
use crate::commands::invoke;
use crate::output::note;
use anyhow::Result;
use minik8s_serverless::workflow::spec::FunctionRef;
use minik8s_serverless::workflow::{WorkflowRun, read};
use std::cell::RefCell;
use std::pin::pin;
use std::time::Duration;

/// After so long it is said where a run stands.
const LONG: Duration = Duration::from_secs(3);

/// Waits for the end of a run.
pub(super) async fn wait(conn: &Conn, name: &str) -> Result<WorkflowRun> {
    let seen = RefCell::new(None);
    let mut over = pin!(each_change(conn, name, async |run| {
        seen.replace(Some(run.clone()));
        Ok(())
    }));
    let mut told = String::new();
    loop {
        tokio::select! {
            biased;
            run = over.as_mut() => return run,
            () = tokio::time::sleep(LONG) => {}
        }
        let run = seen.borrow().clone();
        let Some(run) = run else { continue };
        // What cannot be found out is not worth a word.
        let text = said(&run, &look(conn, &run).await.unwrap_or_default());
        if text != told {
            note(&text);
            told = text;
        }
    }
}

/// What stands in a run's way.
#[derive(Debug, Default)]
struct Trouble {
    /// It calls functions, and nowhere a gateway takes calls.
    no_gateway: bool,
    /// Functions that are not there, by `namespace/name`.
    missing: Vec<String>,
}

async fn look(conn: &Conn, run: &WorkflowRun) -> Result<Trouble> {
    let revision = run.status.as_ref().map(|status| status.revision.as_str()).unwrap_or_default();
    if revision.is_empty() {
        return Ok(Trouble::default());
    }
    let workflow = read::revision(revision, &*fetch(conn)).await.map_err(super::told)?;
    let functions = workflow.body.functions();
    let mut trouble = Trouble::default();
    for FunctionRef { name, namespace } in &functions {
        let namespace = if namespace.is_empty() { &conn.namespace } else { namespace };
        let path = format!("/apis/minik8s.io/v1alpha1/namespaces/{namespace}/functions/{name}");
        if let Err(error) = conn.get(&path).await
            && is_not_found(&error)
        {
            trouble.missing.push(format!("{namespace}/{name}"));
        }
    }
    trouble.no_gateway = !functions.is_empty() && invoke::find(conn).await.is_err();
    Ok(trouble)
}

/// Where a run stands, for people. Pure.
fn said(run: &WorkflowRun, trouble: &Trouble) -> String {
    let steps = run.status.iter().flat_map(|status| &status.steps);
    let running: Vec<&str> = steps.filter(|(_, step)| step.running > 0).map(|(name, _)| name.as_str()).collect();
    let mut text = match (phase(run), running.is_empty()) {
        ("Pending", _) => "nobody has begun the run yet: no controllers run, or they have much to do".to_owned(),
        (_, true) => "the run goes on".to_owned(),
        (_, false) => format!("waiting for {}", running.join(", ")),
    };
    if !trouble.missing.is_empty() {
        text.push_str(&format!("; there is no function {}", trouble.missing.join(", ")));
    }
    if trouble.no_gateway {
        text.push_str("; no node's gateway listens, so that no function can be called");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_is_said_what_a_run_waits_for_and_what_is_in_its_way() {
        let run = |status: serde_json::Value| -> WorkflowRun {
            serde_json::from_value(json!({"metadata": {"name": "r"}, "spec": {"workflow": "w"}, "status": status}))
                .unwrap()
        };
        let none = Trouble::default();
        assert!(said(&run(json!({})), &none).starts_with("nobody has begun the run yet"));
        let running =
            json!({"phase": "Running", "steps": {"a": {"succeeded": 1}, "b": {"running": 2}, "c": {"running": 1}}});
        assert_eq!(said(&run(running.clone()), &none), "waiting for b, c");
        let trouble = Trouble { no_gateway: true, missing: vec!["default/f".into(), "x/g".into()] };
        let want = "waiting for b, c; there is no function default/f, x/g; no node's gateway listens, so that no function can be called";
        assert_eq!(said(&run(running), &trouble), want);
        assert_eq!(said(&run(json!({"phase": "Running"})), &none), "the run goes on");
    }
}
