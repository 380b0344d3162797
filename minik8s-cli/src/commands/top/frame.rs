//! One picture of the live screen: lines for a width and a height. Pure.

use super::model::{Sort, Used, View};
use crate::output::{Rows, render};
use anstyle::{AnsiColor, Style};

/// Columns of a bar.
const BAR: usize = 20;

/// What the keys have chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) sort: Sort,
    pub(super) containers: bool,
    pub(super) everywhere: bool,
    /// Pods above the first one shown.
    pub(super) scroll: usize,
}

/// The lines, and how far down the choice is at most; never more than `height`, each at most `width` wide.
pub(super) fn draw(view: &View, choice: &mut Choice, title: &str, width: usize, height: usize) -> Vec<String> {
    let mut lines = vec![reversed(&header(view, choice, title), width), String::new()];
    lines.extend(nodes(view));
    lines.push(String::new());
    let rows = view.pod_rows(choice.sort, choice.containers, choice.everywhere, false);
    let room = height.saturating_sub(lines.len() + 2);
    // Keys count from what is shown, not from where one more press had led.
    choice.scroll = choice.scroll.min(rows.rows.len().saturating_sub(room.max(1)));
    lines.extend(pods(&rows, choice.scroll, room));
    lines.truncate(height.saturating_sub(1));
    lines.resize(height.saturating_sub(1), String::new());
    lines.push(reversed(
        " c cpu  m memory  n name  k containers  a all namespaces  \u{2191}\u{2193} scroll  q quit",
        width,
    ));
    lines.truncate(height);
    lines.iter().map(|line| cut(line, width)).collect()
}

fn header(view: &View, choice: &Choice, title: &str) -> String {
    let total = |of: fn(&Used) -> i64| -> i64 { view.nodes.iter().filter_map(|n| n.uses.as_ref()).map(of).sum() };
    let used = Used { milli_cpu: total(|u| u.milli_cpu), bytes: total(|u| u.bytes) };
    let sort = match choice.sort {
        Sort::Name => "name",
        Sort::Cpu => "cpu",
        Sort::Memory => "memory",
    };
    let (nodes, pods) = (view.nodes.len(), view.pods.len());
    format!(" {title}  {nodes} nodes  {pods} pods  {}  {}  by {sort}", used.cpu(), used.memory())
}

fn nodes(view: &View) -> Vec<String> {
    let rows = view.node_rows(Sort::Name);
    let mut lines = render(&rows, true);
    let mut nodes: Vec<_> = view.nodes.iter().collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let plain = |line: &str| anstream::adapter::strip_str(line).to_string().chars().count();
    let widest = lines.iter().map(|line| plain(line)).max().unwrap_or_default();
    for (line, node) in lines.iter_mut().skip(1).zip(nodes) {
        let pad = " ".repeat(widest - plain(line) + 3);
        let (cpu, memory) = (bar(node.percent(|u| u.milli_cpu)), bar(node.percent(|u| u.bytes)));
        line.push_str(&format!("{pad}{cpu}  {memory}"));
    }
    lines
}

fn bar(percent: Option<i64>) -> String {
    let percent = usize::try_from(percent.unwrap_or(0)).unwrap_or(0).min(100);
    let full = (percent * BAR).div_ceil(100);
    let colour = match percent {
        0..70 => AnsiColor::Green,
        70..90 => AnsiColor::Yellow,
        _ => AnsiColor::Red,
    };
    let style = colour.on_default();
    format!("[{style}{}{style:#}{}]", "|".repeat(full), " ".repeat(BAR - full))
}

fn pods(rows: &Rows, scroll: usize, room: usize) -> Vec<String> {
    let lines = render(rows, true);
    let heading = lines.first().cloned().into_iter();
    heading.chain(lines.iter().skip(1 + scroll).take(room).cloned()).collect()
}

fn reversed(text: &str, width: usize) -> String {
    let style = Style::new().invert();
    format!("{style}{text:<width$}{style:#}")
}

/// As much of a line as fits, colours not counted.
fn cut(line: &str, width: usize) -> String {
    let (mut out, mut shown, mut escape) = (String::with_capacity(line.len()), 0, false);
    for c in line.chars() {
        if c == '\x1b' {
            escape = true;
        }
        if escape || shown < width {
            out.push(c);
        }
        match (escape, c) {
            (true, 'm') => escape = false,
            (true, _) => {}
            (false, _) => shown += 1,
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::view;
    use super::*;

    fn plain(lines: &[String]) -> Vec<String> {
        lines.iter().map(|line| anstream::adapter::strip_str(line).to_string().trim_end().to_owned()).collect()
    }

    #[test]
    fn the_picture_has_nodes_with_bars_and_pods() {
        let mut choice = Choice { everywhere: true, sort: Sort::Cpu, ..Choice::default() };
        let lines = plain(&draw(&view(), &mut choice, "minik8s", 100, 12));
        assert_eq!(lines.len(), 12);
        assert_eq!(lines[0], " minik8s  2 nodes  2 pods  501m  256Mi  by cpu");
        assert!(
            lines[3].starts_with("n1     501m         25%") && lines[3].contains("[|||||               ]"),
            "{lines:?}"
        );
        assert_eq!(
            lines[6..9],
            [
                "NAMESPACE   NAME   CPU(cores)   MEMORY(bytes)",
                "a           web    150m         300Mi",
                "b           db     120m         50Mi"
            ]
        );
        assert!(lines[11].contains("q quit"));
    }

    #[test]
    fn a_small_screen_is_never_overrun() {
        for (width, height) in [(10, 5), (1, 1), (0, 0), (200, 3)] {
            let mut choice = Choice { scroll: 99, ..Choice::default() };
            let lines = plain(&draw(&view(), &mut choice, "t", width, height));
            assert!(choice.scroll < 2, "no further than there are pods");
            assert!(lines.len() <= height && lines.iter().all(|l| l.chars().count() <= width), "{lines:?}");
        }
    }
}
