//! The picture as SVG: it stands alone, and needs no fonts or styles of others.

use super::StepState;
use super::layout::{Layout, Metrics, Rect, layout};
use super::scene::{Node, Scene, Way, scene};
use crate::workflow::machine::StepProgress;
use crate::workflow::program::Program;
use std::collections::BTreeMap;
use std::fmt::Write;

const METRICS: Metrics = Metrics { char_width: 7, line: 18, pad_x: 14, pad_y: 12, gap_x: 36, gap_y: 52, margin: 20 };
/// Room around everything.
const BORDER: i32 = 24;
/// Room above, for the title.
const TITLE: i32 = 34;

/// Ink, paper and edge of a state.
fn colours(state: StepState) -> (&'static str, &'static str, &'static str) {
    match state {
        StepState::Pending => ("#475569", "#f8fafc", "#cbd5e1"),
        StepState::Running => ("#1d4ed8", "#eff6ff", "#3b82f6"),
        StepState::Succeeded => ("#166534", "#f0fdf4", "#22c55e"),
        StepState::Failed => ("#991b1b", "#fef2f2", "#ef4444"),
        StepState::Caught => ("#92400e", "#fffbeb", "#f59e0b"),
        StepState::Stopped => ("#475569", "#f1f5f9", "#94a3b8"),
    }
}

/// A workflow as SVG; `steps` is how a run's steps are doing.
pub fn svg(program: &Program, title: &str, steps: &BTreeMap<String, StepProgress>) -> String {
    let scene = scene(program, "", "", steps);
    let plan = layout(&scene, METRICS);
    let (w, h) = (plan.w.max(title.chars().count() as i32 * 9) + 2 * BORDER, plan.h + 2 * BORDER + TITLE);
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" \
         font-family=\"ui-sans-serif, system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\" font-size=\"13\">\n\
         <rect width=\"{w}\" height=\"{h}\" fill=\"#ffffff\"/>\n\
         <text x=\"{BORDER}\" y=\"{}\" font-size=\"16\" font-weight=\"600\" fill=\"#0f172a\">{}</text>\n",
        BORDER + 10,
        escape(title)
    );
    let left = (w - 2 * BORDER - plan.w) / 2;
    draw(&mut out, &scene, &plan, BORDER + left, BORDER + TITLE);
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, scene: &Scene, plan: &Layout, x: i32, y: i32) {
    for (node, rect) in scene.nodes.iter().zip(&plan.boxes) {
        step(out, node, Rect { x: rect.x + x, y: rect.y + y, ..*rect });
    }
    for (node, inner) in scene.nodes.iter().zip(&plan.inner) {
        for (within, (dx, dy, plan)) in node.inner.iter().zip(inner) {
            let (left, top) = (x + dx, y + dy);
            if !within.title.is_empty() {
                let middle = left + plan.w / 2;
                let _ = writeln!(
                    out,
                    "<text x=\"{middle}\" y=\"{}\" font-size=\"11\" text-anchor=\"middle\" fill=\"#64748b\">{}</text>",
                    top - 8,
                    escape(&within.title)
                );
            }
            draw(out, within, plan, left, top);
        }
    }
    for route in &plan.routes {
        let edge = &scene.edges[route.edge];
        let colour = match (edge.kind, edge.taken) {
            (Way::Catch, _) => "#d97706",
            (Way::Next, true) => "#16a34a",
            (Way::Next, false) => "#94a3b8",
        };
        let mut points: Vec<(i32, i32)> = route.points.iter().map(|(px, py)| (px + x, py + y)).collect();
        let (lx, ly) = (route.label.0 + x, route.label.1 + y + 14);
        // Beside its label an edge goes straight down.
        if let (false, false, [.., before, last]) = (route.back, edge.label.is_empty(), points.as_slice())
            && before.1 < ly - 12
        {
            points.insert(points.len() - 1, (last.0, ly - 12));
        }
        let path = if route.back { around(&points) } else { curve(&points) };
        let dash = if edge.kind == Way::Catch { " stroke-dasharray=\"5 4\"" } else { "" };
        let width = if edge.taken { 2.2 } else { 1.5 };
        let _ = writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"{dash}/>");
        let _ = writeln!(out, "<path d=\"{}\" fill=\"{colour}\"/>", arrow(&points));
        if !edge.label.is_empty() {
            let _ = writeln!(
                out,
                "<text x=\"{lx}\" y=\"{ly}\" font-size=\"11\" fill=\"#334155\" stroke=\"#ffffff\" stroke-width=\"3\" paint-order=\"stroke\">{}</text>",
                escape(&edge.label)
            );
        }
    }
}

fn step(out: &mut String, node: &Node, r: Rect) {
    let (ink, paper, line) = colours(node.state);
    let dash = if node.state == StepState::Stopped { " stroke-dasharray=\"4 3\"" } else { "" };
    let paper = if node.inner.is_empty() { paper } else { "#fcfcfd" };
    let _ = writeln!(
        out,
        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"9\" fill=\"{paper}\" stroke=\"{line}\" stroke-width=\"1.6\"{dash}/>",
        r.x, r.y, r.w, r.h
    );
    let (left, mut base) = (r.x + METRICS.pad_x, r.y + METRICS.pad_y + 13);
    mark(out, node.state, left + 4, base - 4);
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{base}\" font-weight=\"600\" fill=\"{ink}\">{}</text>",
        left + 16,
        escape(&node.name)
    );
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{base}\" font-size=\"10\" text-anchor=\"end\" fill=\"#94a3b8\">{}</text>",
        r.x + r.w - METRICS.pad_x,
        node.kind
    );
    for detail in &node.details {
        base += METRICS.line;
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{base}\" font-size=\"11.5\" fill=\"#64748b\">{}</text>",
            left + 16,
            escape(detail)
        );
    }
}

/// A sign for a state, drawn: fonts may lack it.
fn mark(out: &mut String, state: StepState, x: i32, y: i32) {
    let (_, _, line) = colours(state);
    let _ = match state {
        StepState::Pending => writeln!(
            out,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"5\" fill=\"#ffffff\" stroke=\"{line}\" stroke-width=\"1.6\"/>"
        ),
        StepState::Running => writeln!(
            out,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"5\" fill=\"#ffffff\" stroke=\"{line}\" stroke-width=\"1.6\"/><path d=\"M{x} {} a5 5 0 0 1 0 10 z\" fill=\"{line}\"/>",
            y - 5
        ),
        _ => writeln!(out, "<circle cx=\"{x}\" cy=\"{y}\" r=\"5.8\" fill=\"{line}\"/>"),
    };
    let sign = match state {
        StepState::Succeeded => format!("M{} {y} l2 2.4 l3.6 -4.6", x - 3),
        StepState::Failed => format!("M{} {} l5 5 m0 -5 l-5 5", f64::from(x) - 2.5, f64::from(y) - 2.5),
        StepState::Caught => format!("M{} {} a3 3 0 0 1 5.6 0 l0 1.6 m-1.7 -1.5 l1.7 1.9 l1.5 -2.1", x - 3, y + 1),
        StepState::Stopped => format!("M{} {y} h5", f64::from(x) - 2.5),
        StepState::Pending | StepState::Running => return,
    };
    let _ = writeln!(
        out,
        "<path d=\"{sign}\" fill=\"none\" stroke=\"#ffffff\" stroke-width=\"1.6\" stroke-linecap=\"round\" stroke-linejoin=\"round\"/>"
    );
}

/// A smooth way down through all points.
fn curve(points: &[(i32, i32)]) -> String {
    let Some(((x, y), rest)) = points.split_first() else { return String::new() };
    let mut path = format!("M{x} {y}");
    let (mut px, mut py) = (*x, *y);
    for (index, (x, y)) in rest.iter().enumerate() {
        // The arrow's tip covers the end.
        let y = if index + 1 == rest.len() { y - 6 } else { *y };
        if px == *x {
            let _ = write!(path, " L{x} {y}");
        } else {
            let half = (y - py) / 2;
            let _ = write!(path, " C{px} {} {x} {} {x} {y}", py + half, y - half);
        }
        (px, py) = (*x, y);
    }
    path
}

/// Along the side, with round corners.
fn around(points: &[(i32, i32)]) -> String {
    let Some(((x, y), _)) = points.split_first() else { return String::new() };
    let mut path = format!("M{x} {y}");
    for corner in points.windows(3) {
        let [a, b, c] = corner else { continue };
        let turn =
            (((a.0 - b.0).abs() + (a.1 - b.1).abs()) / 2).min(((c.0 - b.0).abs() + (c.1 - b.1).abs()) / 2).min(10);
        let near = |p: &(i32, i32)| (b.0 + (p.0 - b.0).signum() * turn, b.1 + (p.1 - b.1).signum() * turn);
        let (before, after) = (near(a), near(c));
        let _ = write!(path, " L{} {} Q{} {} {} {}", before.0, before.1, b.0, b.1, after.0, after.1);
    }
    if let Some((x, y)) = points.last() {
        let _ = write!(path, " L{x} {}", y - 6);
    }
    path
}

fn arrow(points: &[(i32, i32)]) -> String {
    let (x, y) = points.last().copied().unwrap_or_default();
    format!("M{x} {y} l-4.5 -9 l9 0 z")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
