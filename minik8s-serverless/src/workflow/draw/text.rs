//! The picture in characters, for terminals.

use super::StepState;
use super::layout::{Layout, Metrics, Rect, layout};
use super::scene::{Node, Scene, Way, scene};
use crate::workflow::machine::StepProgress;
use crate::workflow::program::Program;
use std::collections::BTreeMap;

const METRICS: Metrics = Metrics { char_width: 1, line: 1, pad_x: 2, pad_y: 1, gap_x: 3, gap_y: 4, margin: 1 };
const UP: u8 = 1;
const DOWN: u8 = 2;
const LEFT: u8 = 4;
const RIGHT: u8 = 8;

/// What a part of a line means, for whoever colours it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Ways and their texts.
    Way,
    /// A way that was gone.
    Taken,
    /// A way after a failure.
    Catch,
    /// A step.
    Step(StepState),
    /// What it does, in small.
    Detail,
}

#[derive(Clone, Copy)]
struct Cell {
    sign: char,
    /// The directions of lines that meet here.
    lines: u8,
    paint: Paint,
}

struct Canvas {
    width: usize,
    cells: Vec<Cell>,
}

/// A workflow in characters; `steps` is how a run's steps are doing. `paint` gives each part its colour.
pub fn text(
    program: &Program,
    steps: &BTreeMap<String, StepProgress>,
    paint: &dyn Fn(Paint, &str) -> String,
) -> String {
    let scene = scene(program, "", "", steps);
    let plan = layout(&scene, METRICS);
    let (width, height) = (plan.w.max(1) as usize + 2, plan.h.max(1) as usize + 1);
    let empty = Cell { sign: ' ', lines: 0, paint: Paint::Way };
    let mut canvas = Canvas { width, cells: vec![empty; width * height] };
    canvas.draw(&scene, &plan, 0, 0);
    canvas.print(paint)
}

impl Canvas {
    fn cell(&mut self, x: i32, y: i32) -> Option<&mut Cell> {
        let (x, y) = (usize::try_from(x).ok()?, usize::try_from(y).ok()?);
        if x < self.width { self.cells.get_mut(y * self.width + x) } else { None }
    }

    fn write(&mut self, x: i32, y: i32, text: &str, paint: Paint) {
        for (i, sign) in text.chars().enumerate() {
            if let Some(cell) = self.cell(x + i as i32, y) {
                *cell = Cell { sign, lines: 0, paint };
            }
        }
    }

    fn line(&mut self, x: i32, y: i32, lines: u8, paint: Paint) {
        if let Some(cell) = self.cell(x, y).filter(|cell| cell.sign == ' ') {
            cell.lines |= lines;
            // What was gone shows through.
            if cell.paint != Paint::Taken {
                cell.paint = paint;
            }
        }
    }

    fn draw(&mut self, scene: &Scene, plan: &Layout, x: i32, y: i32) {
        for route in &plan.routes {
            let edge = &scene.edges[route.edge];
            let paint = match (edge.kind, edge.taken) {
                (Way::Catch, _) => Paint::Catch,
                (Way::Next, true) => Paint::Taken,
                (Way::Next, false) => Paint::Way,
            };
            let points: Vec<(i32, i32)> = route.points.iter().map(|(px, py)| (px + x, py + y)).collect();
            if route.back { self.around(&points, paint) } else { self.down(&points, paint) }
        }
        for (node, rect) in scene.nodes.iter().zip(&plan.boxes) {
            self.step(node, Rect { x: rect.x + x, y: rect.y + y, ..*rect });
        }
        for route in &plan.routes {
            let (px, py) = route.points.last().copied().unwrap_or_default();
            let edge = &scene.edges[route.edge];
            let paint = if edge.kind == Way::Catch {
                Paint::Catch
            } else if edge.taken {
                Paint::Taken
            } else {
                Paint::Way
            };
            self.write(px + x, py - 1 + y, "▼", paint);
            self.write(route.label.0 + x, route.label.1 + y, &edge.label, paint);
        }
        for (node, inner) in scene.nodes.iter().zip(&plan.inner) {
            for (within, (dx, dy, plan)) in node.inner.iter().zip(inner) {
                self.write(x + dx, y + dy - 1, &within.title, Paint::Detail);
                self.draw(within, plan, x + dx, y + dy);
            }
        }
    }

    fn down(&mut self, points: &[(i32, i32)], paint: Paint) {
        for pair in points.windows(2) {
            let ((ax, ay), (bx, by)) = (pair[0], pair[1]);
            if ay == by {
                continue;
            }
            // Straight down to the row in which ways turn, across, and straight down again.
            let turn = (by - METRICS.gap_y + 1).max(ay);
            (ay..turn).for_each(|y| self.line(ax, y, UP | DOWN, paint));
            if ax == bx {
                self.line(ax, turn, UP | DOWN, paint);
            } else {
                let (here, there) = if ax < bx { (RIGHT, LEFT) } else { (LEFT, RIGHT) };
                self.line(ax, turn, UP | here, paint);
                (ax.min(bx) + 1..ax.max(bx)).for_each(|x| self.line(x, turn, LEFT | RIGHT, paint));
                self.line(bx, turn, there | DOWN, paint);
            }
            (turn + 1..by).for_each(|y| self.line(bx, y, UP | DOWN, paint));
        }
    }

    /// Along straight lines, from corner to corner.
    fn around(&mut self, points: &[(i32, i32)], paint: Paint) {
        let toward = |a: (i32, i32), b: (i32, i32)| match ((b.0 - a.0).signum(), (b.1 - a.1).signum()) {
            (1, _) => RIGHT,
            (-1, _) => LEFT,
            (_, 1) => DOWN,
            (_, -1) => UP,
            _ => 0,
        };
        for pair in points.windows(2) {
            let ((ax, ay), (bx, by)) = (pair[0], pair[1]);
            (ax.min(bx) + 1..ax.max(bx)).for_each(|x| self.line(x, ay, LEFT | RIGHT, paint));
            (ay.min(by) + 1..ay.max(by)).for_each(|y| self.line(ax, y, UP | DOWN, paint));
        }
        for corner in points.windows(3) {
            let lines = toward(corner[1], corner[0]) | toward(corner[1], corner[2]);
            // Right below a node, a way comes out of it.
            let lines = if corner[0] == corner[1] { lines | UP } else { lines };
            self.line(corner[1].0, corner[1].1, lines, paint);
        }
    }

    fn step(&mut self, node: &Node, r: Rect) {
        let paint = Paint::Step(node.state);
        let across = "─".repeat((r.w - 2).max(0) as usize);
        self.write(r.x, r.y, &format!("╭{across}╮"), paint);
        self.write(r.x, r.y + r.h - 1, &format!("╰{across}╯"), paint);
        for y in r.y + 1..r.y + r.h - 1 {
            let blank = " ".repeat((r.w - 2).max(0) as usize);
            self.write(r.x, y, &format!("│{blank}│"), paint);
        }
        let name = format!("{} {}", node.state.sign(), node.name);
        self.write(r.x + METRICS.pad_x, r.y + 1, &name, paint);
        let kind = r.x + r.w - METRICS.pad_x - node.kind.len() as i32;
        self.write(kind, r.y + 1, node.kind, Paint::Detail);
        for (i, detail) in node.details.iter().enumerate() {
            self.write(r.x + METRICS.pad_x + 2, r.y + 2 + i as i32, detail, Paint::Detail);
        }
    }

    fn print(&self, paint: &dyn Fn(Paint, &str) -> String) -> String {
        let mut out = String::new();
        for row in self.cells.chunks(self.width) {
            let end = row.iter().rposition(|cell| cell.sign != ' ' || cell.lines != 0).map_or(0, |last| last + 1);
            let mut cells = row[..end].iter().peekable();
            while let Some(first) = cells.next() {
                let mut run = String::from(sign(first));
                while let Some(next) = cells.next_if(|next| next.paint == first.paint) {
                    run.push(sign(next));
                }
                out.push_str(&paint(first.paint, &run));
            }
            out.push('\n');
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    }
}

/// The character in which lines of these directions meet.
fn sign(cell: &Cell) -> char {
    const SIGNS: [char; 16] = [' ', '│', '│', '│', '─', '╯', '╮', '┤', '─', '╰', '╭', '├', '─', '┴', '┬', '┼'];
    if cell.sign == ' ' { SIGNS[usize::from(cell.lines & 15)] } else { cell.sign }
}
