//! What there is to draw: steps as nodes, ways between them as edges, steps within steps as scenes within nodes.

use super::StepState;
use crate::workflow::machine::StepProgress;
use crate::workflow::program::{Action, Condition, Next, Program, Step, Target, Task, WaitFor};
use std::collections::BTreeMap;

/// The longest text on an edge.
const LABEL: usize = 28;
/// The longest line in a node.
const LINE: usize = 34;

/// Nodes, and edges between them.
pub(super) struct Scene {
    /// What stands above it, for branches.
    pub(super) title: String,
    pub(super) nodes: Vec<Node>,
    pub(super) edges: Vec<Edge>,
}

pub(super) struct Node {
    /// What kind of step it is.
    pub(super) kind: &'static str,
    /// Its name.
    pub(super) name: String,
    /// What it does, and how it went.
    pub(super) details: Vec<String>,
    pub(super) state: StepState,
    pub(super) inner: Vec<Scene>,
}

pub(super) struct Edge {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) label: String,
    pub(super) kind: Way,
    /// The run may have gone this way.
    pub(super) taken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Next,
    Catch,
}

/// The scene of a program; `place` is where it stands, as steps of a run are named.
pub(super) fn scene(program: &Program, place: &str, title: &str, steps: &BTreeMap<String, StepProgress>) -> Scene {
    let index = |name: &str| program.order.iter().position(|other| other == name);
    let progress = |name: &str| steps.get(&format!("{place}{name}"));
    let mut scene = Scene { title: title.to_owned(), nodes: Vec::new(), edges: Vec::new() };
    for (from, name) in program.order.iter().enumerate() {
        let Some(step) = program.steps.get(name) else { continue };
        scene.nodes.push(node(step, place, progress(name), steps));
        for (next, label, kind) in ways(step) {
            let Some(to) = index(next) else { continue };
            let taken = [name.as_str(), next].iter().all(|n| progress(n).is_some())
                && (kind == Way::Next || progress(name).is_some_and(|p| p.caught > 0));
            // Several ways between two steps are drawn as one.
            match scene.edges.iter_mut().find(|e| e.from == from && e.to == to && e.kind == kind) {
                Some(edge) if !label.is_empty() => edge.label = clip(&format!("{} | {label}", edge.label), LABEL),
                Some(_) => {}
                None => scene.edges.push(Edge { from, to, label: clip(&label, LABEL), kind, taken }),
            }
        }
    }
    // The first step leads.
    if let Some(start) = index(&program.start).filter(|start| *start > 0) {
        scene.nodes.swap(0, start);
        let moved = |i: usize| {
            if i == 0 {
                start
            } else if i == start {
                0
            } else {
                i
            }
        };
        scene.edges.iter_mut().for_each(|e| (e.from, e.to) = (moved(e.from), moved(e.to)));
    }
    scene
}

fn ways(step: &Step) -> Vec<(&str, String, Way)> {
    let mut ways: Vec<(&str, String, Way)> = match &step.action {
        Action::Choice { rules, default } => {
            let rules = rules.iter().map(|rule| (rule.next.as_str(), condition(&rule.condition), Way::Next));
            rules.chain(default.as_deref().map(|next| (next, "else".to_owned(), Way::Next))).collect()
        }
        _ => match &step.next {
            Next::Step(next) => vec![(next.as_str(), String::new(), Way::Next)],
            Next::End => Vec::new(),
        },
    };
    let errors =
        |names: &[String]| if names.iter().any(|name| name == "*") { "any error".to_owned() } else { names.join(", ") };
    ways.extend(step.catch.iter().map(|catch| (catch.next.as_str(), errors(&catch.errors), Way::Catch)));
    ways
}

fn condition(condition: &Condition) -> String {
    match condition {
        Condition::Expr(expr) => expr.source().replace("input.", ""),
        Condition::Check { variable, check } => {
            let name = variable.source().trim_start_matches("$.").trim_start_matches("$['").trim_end_matches("']");
            format!("{name} {}", check.shown())
        }
    }
}

fn node(step: &Step, place: &str, progress: Option<&StepProgress>, steps: &BTreeMap<String, StepProgress>) -> Node {
    let inner = match &step.action {
        Action::Parallel(branches) => {
            let each = |(i, branch)| scene(branch, &format!("{place}{}[{i}]/", step.name), "", steps);
            branches.iter().enumerate().map(each).collect()
        }
        Action::Map { body, .. } => vec![scene(body, &format!("{place}{}/", step.name), "for each item", steps)],
        _ => Vec::new(),
    };
    let mut details: Vec<String> = what(step).into_iter().collect();
    details.extend(progress.and_then(how));
    Node {
        kind: step.kind(),
        name: clip(&step.name, LINE),
        details: details.iter().map(|line| clip(line, LINE)).collect(),
        state: StepState::of(progress),
        inner,
    }
}

/// What a step does, in a few words.
fn what(step: &Step) -> Option<String> {
    Some(match &step.action {
        Action::Task(Task { target: Target::Function(function), .. }) => {
            let slash = if function.namespace.is_empty() { "" } else { "/" };
            format!("{}{slash}{}()", function.namespace, function.name)
        }
        Action::Task(Task { target: Target::Http(http), .. }) => {
            let method = if http.method.is_empty() { "POST" } else { &http.method };
            format!("{method} {}", http.url)
        }
        Action::Task(Task { target: Target::Job(job), .. }) => job.image.clone(),
        Action::Task(Task { target: Target::GpuJob(job), .. }) => {
            format!("on {}", job.0.get("cluster").and_then(|cluster| cluster.as_str()).unwrap_or_default())
        }
        Action::Map { concurrency, .. } if *concurrency < usize::MAX => format!("{concurrency} at once"),
        Action::Wait(WaitFor::Millis(millis)) => format!("{} s", *millis as f64 / 1000.0),
        Action::Wait(WaitFor::SecondsAt(path) | WaitFor::UntilAt(path)) => path.source().to_owned(),
        Action::Wait(WaitFor::Until(moment)) => jiff::Timestamp::from_millisecond(*moment).ok()?.to_string(),
        Action::Fail { error, .. } => error.clone(),
        Action::Choice { .. } | Action::Parallel(_) | Action::Map { .. } | Action::Pass(_) | Action::Succeed => {
            return None;
        }
    })
}

/// How it went, where that is more than its state says.
fn how(progress: &StepProgress) -> Option<String> {
    let all = progress.running + progress.succeeded + progress.failed + progress.caught + progress.stopped;
    let mut words = Vec::new();
    if all > 1 {
        words.push(format!("{} of {all} done", progress.succeeded));
    }
    if progress.retried > 0 {
        words.push(format!("{} tried again", progress.retried));
    }
    if !progress.error.is_empty() && (progress.failed > 0 || progress.caught > 0) {
        words.push(progress.error.clone());
    }
    (!words.is_empty()).then(|| words.join(", "))
}

fn clip(text: &str, most: usize) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if plain.chars().count() <= most { plain } else { plain.chars().take(most - 1).chain(['…']).collect() }
}
