//! Where everything stands: nodes in layers from top to bottom, by the longest way from the start; in each layer near what
//! they are connected with; long ways lead around nodes, ways back along the right side.

use super::scene::{Scene, Way};
use std::collections::BTreeMap;

/// Sizes, in whatever is drawn on.
#[derive(Clone, Copy)]
pub(super) struct Metrics {
    /// A character's width.
    pub(super) char_width: i32,
    /// A line's height.
    pub(super) line: i32,
    /// Room within a box, left and right.
    pub(super) pad_x: i32,
    /// Room within a box, above and below.
    pub(super) pad_y: i32,
    /// Room between boxes.
    pub(super) gap_x: i32,
    /// Room between layers.
    pub(super) gap_y: i32,
    /// Room around scenes within a box.
    pub(super) margin: i32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) w: i32,
    pub(super) h: i32,
}

impl Rect {
    fn middle(&self) -> i32 {
        self.x + self.w / 2
    }
}

/// Where a scene's parts stand, from its own upper left corner.
#[derive(Default)]
pub(super) struct Layout {
    pub(super) w: i32,
    pub(super) h: i32,
    pub(super) boxes: Vec<Rect>,
    /// Scenes within each box, and where they begin.
    pub(super) inner: Vec<Vec<(i32, i32, Layout)>>,
    pub(super) routes: Vec<Route>,
}

pub(super) struct Route {
    pub(super) points: Vec<(i32, i32)>,
    /// Which edge.
    pub(super) edge: usize,
    /// Where its text begins.
    pub(super) label: (i32, i32),
    /// It leads back.
    pub(super) back: bool,
}

/// A node, or a place where a long way passes a layer.
struct Spot {
    layer: usize,
    w: i32,
    h: i32,
    /// Room that is needed right of the middle, for a text beside the arrow.
    right: i32,
    x: i32,
}

struct Work<'a> {
    scene: &'a Scene,
    metrics: Metrics,
    spots: Vec<Spot>,
    layers: Vec<Vec<usize>>,
    /// For each edge that leads down, the spots it goes through.
    chains: Vec<(usize, Vec<usize>)>,
    back: Vec<usize>,
}

pub(super) fn layout(scene: &Scene, metrics: Metrics) -> Layout {
    let inner: Vec<Vec<Layout>> =
        scene.nodes.iter().map(|node| node.inner.iter().map(|s| layout(s, metrics)).collect()).collect();
    let sizes: Vec<(i32, i32)> =
        scene.nodes.iter().zip(&inner).map(|(node, inner)| size(node, inner, metrics)).collect();
    let mut work = Work { scene, metrics, spots: Vec::new(), layers: Vec::new(), chains: Vec::new(), back: Vec::new() };
    work.rank(&sizes);
    work.order();
    work.spread();
    work.place(inner)
}

/// Lines of a node's text.
pub(super) fn lines(node: &super::scene::Node) -> i32 {
    1 + node.details.len() as i32
}

fn size(node: &super::scene::Node, inner: &[Layout], m: Metrics) -> (i32, i32) {
    let longest = node.details.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    let text = (node.name.chars().count() + 2 + 2 + node.kind.len()).max(longest + 2) as i32 * m.char_width;
    let within: i32 = inner.iter().map(|l| l.w + m.margin).sum::<i32>() + if inner.is_empty() { 0 } else { m.margin };
    let height =
        inner.iter().zip(&node.inner).map(|(l, scene)| l.h + title(scene, m)).max().map_or(0, |h| h + 2 * m.margin);
    (text.max(within) + 2 * m.pad_x, lines(node) * m.line + 2 * m.pad_y + height)
}

/// Room for the title of a scene.
fn title(scene: &Scene, m: Metrics) -> i32 {
    if scene.title.is_empty() { 0 } else { m.line }
}

impl Work<'_> {
    /// Gives each node a layer, and long edges a spot in each they pass.
    fn rank(&mut self, sizes: &[(i32, i32)]) {
        let count = self.scene.nodes.len();
        self.back = back_edges(self.scene);
        let down: Vec<usize> = (0..self.scene.edges.len()).filter(|e| !self.back.contains(e)).collect();
        let mut layer = vec![0; count];
        // As many rounds as the longest way has steps.
        for _ in 0..count {
            for &e in &down {
                let edge = &self.scene.edges[e];
                layer[edge.to] = layer[edge.to].max(layer[edge.from] + 1);
            }
        }
        let spot = |layer, (w, h)| Spot { layer, w, h, right: 0, x: 0 };
        self.spots = layer.iter().zip(sizes).map(|(layer, size)| spot(*layer, *size)).collect();
        for e in down {
            let edge = &self.scene.edges[e];
            let (from, to) = (layer[edge.from], layer[edge.to]);
            let mut chain = vec![edge.from];
            for between in from + 1..to {
                chain.push(self.spots.len());
                self.spots.push(spot(between, (self.metrics.char_width, 0)));
            }
            chain.push(edge.to);
            // The text stands beside the arrow's first step down.
            let room = (edge.label.chars().count() as i32 + 2) * self.metrics.char_width;
            let first = chain[1];
            self.spots[first].right = self.spots[first].right.max(room);
            self.chains.push((e, chain));
        }
        self.layers = vec![Vec::new(); self.spots.iter().map(|s| s.layer + 1).max().unwrap_or_default()];
        for (index, spot) in self.spots.iter().enumerate() {
            self.layers[spot.layer].push(index);
        }
    }

    fn neighbours(&self, above: bool) -> BTreeMap<usize, Vec<usize>> {
        let mut near: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (_, chain) in &self.chains {
            for pair in chain.windows(2) {
                let (of, other) = if above { (pair[1], pair[0]) } else { (pair[0], pair[1]) };
                near.entry(of).or_default().push(other);
            }
        }
        near
    }

    /// Orders each layer by the middle of what its spots are connected with, from both sides in turn.
    fn order(&mut self) {
        for round in 0..8 {
            let above = round % 2 == 0;
            let near = self.neighbours(above);
            let mut place = vec![0.0; self.spots.len()];
            for layer in &self.layers {
                layer.iter().enumerate().for_each(|(i, spot)| place[*spot] = i as f64);
            }
            let count = self.layers.len();
            for step in 0..count {
                let at = if above { step } else { count - 1 - step };
                let middle = |spot: &usize| {
                    let near = near.get(spot).map(Vec::as_slice).unwrap_or_default();
                    if near.is_empty() {
                        place[*spot]
                    } else {
                        near.iter().map(|n| place[*n]).sum::<f64>() / near.len() as f64
                    }
                };
                let mut keyed: Vec<(f64, usize)> = self.layers[at].iter().map(|spot| (middle(spot), *spot)).collect();
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
                self.layers[at] = keyed.into_iter().map(|(_, spot)| spot).collect();
                self.layers[at].iter().enumerate().for_each(|(i, spot)| place[*spot] = i as f64);
            }
        }
    }

    /// Room between the left edges of a spot and of the next beside it.
    fn apart(&self, left: usize) -> i32 {
        let left = &self.spots[left];
        left.w.max(left.w / 2 + left.right) + self.metrics.gap_x
    }

    /// Moves spots under and over the middle of what they are connected with, without touching each other.
    fn spread(&mut self) {
        for layer in 0..self.layers.len() {
            let mut x = 0;
            for i in 0..self.layers[layer].len() {
                let spot = self.layers[layer][i];
                self.spots[spot].x = x;
                x += self.apart(spot);
            }
        }
        for round in 0..12 {
            let near = self.neighbours(round % 2 == 0);
            let count = self.layers.len();
            for step in 0..count {
                let at = if round % 2 == 0 { step } else { count - 1 - step };
                let wanted: Vec<i32> = self.layers[at].iter().map(|spot| self.wanted(*spot, &near)).collect();
                self.settle(at, &wanted);
            }
        }
    }

    fn wanted(&self, spot: usize, near: &BTreeMap<usize, Vec<usize>>) -> i32 {
        let own = &self.spots[spot];
        let near = near.get(&spot).map(Vec::as_slice).unwrap_or_default();
        if near.is_empty() {
            return own.x;
        }
        let middle: i32 = near.iter().map(|n| self.spots[*n].x + self.spots[*n].w / 2).sum::<i32>() / near.len() as i32;
        middle - own.w / 2
    }

    /// Places a layer as near to what is wanted as its order allows: spots that would touch move together, to their mean.
    fn settle(&mut self, layer: usize, wanted: &[i32]) {
        let spots = self.layers[layer].clone();
        // Groups of spots that touch: where the first stands, what it wants, and how many there are.
        let mut groups: Vec<(f64, usize, Vec<i32>)> = Vec::new();
        for (i, want) in wanted.iter().enumerate() {
            let mut group = (f64::from(*want), 1, vec![0]);
            while let Some(before) = groups.last() {
                let last = spots[i + 1 - group.1 - 1];
                let width = before.2.last().copied().unwrap_or_default() + self.apart(last);
                if before.0 + f64::from(width) <= group.0 {
                    break;
                }
                let Some(before) = groups.pop() else { break };
                let (a, b) = (before.1 as f64, group.1 as f64);
                let x = (before.0 * a + (group.0 - f64::from(width)) * b) / (a + b);
                let offsets = before.2.iter().copied().chain(group.2.iter().map(|o| o + width)).collect();
                group = (x, before.1 + group.1, offsets);
            }
            groups.push(group);
        }
        let places = groups.iter().flat_map(|(x, _, offsets)| offsets.iter().map(|o| x.round() as i32 + o));
        for (spot, x) in spots.iter().zip(places.collect::<Vec<_>>()) {
            self.spots[*spot].x = x;
        }
    }

    fn place(self, inner: Vec<Vec<Layout>>) -> Layout {
        let (m, count) = (self.metrics, self.scene.nodes.len());
        let left = self.spots.iter().map(|s| s.x).min().unwrap_or_default();
        let heights: Vec<i32> =
            self.layers.iter().map(|l| l.iter().map(|s| self.spots[*s].h).max().unwrap_or_default()).collect();
        // A way back to the first layer needs a gap above it.
        let first = |edge: &usize| self.spots[self.scene.edges[*edge].to].layer == 0;
        let head = if self.back.iter().any(first) { m.gap_y } else { 0 };
        let tops: Vec<i32> = heights
            .iter()
            .scan(head, |y, h| {
                let top = *y;
                *y += h + m.gap_y;
                Some(top)
            })
            .collect();
        let rects: Vec<Rect> = self
            .spots
            .iter()
            .enumerate()
            .map(|(i, s)| {
                // Spots of long ways are as high as their layer.
                let h = if i < count { s.h } else { heights[s.layer] };
                Rect { x: s.x - left, y: tops[s.layer], w: s.w, h }
            })
            .collect();
        let mut routes: Vec<Route> =
            self.chains.iter().map(|(edge, chain)| self.route(*edge, chain, &rects, &heights)).collect();
        let text = |r: &Route| r.label.0 + self.scene.edges[r.edge].label.chars().count() as i32 * m.char_width;
        let mut w = rects.iter().map(|r| r.x + r.w).chain(routes.iter().map(text)).max().unwrap_or_default();
        let bottoms: Vec<i32> = tops.iter().zip(&heights).map(|(top, height)| top + height).collect();
        for edge in &self.back {
            w += m.gap_x;
            let route = self.way_back(*edge, &rects, &bottoms, w);
            w = w.max(text(&route));
            routes.push(route);
        }
        let lowest = routes.iter().flat_map(|r| &r.points).map(|p| p.1 + 1).max().unwrap_or_default();
        let h = bottoms.last().copied().unwrap_or_default().max(lowest);
        let inner = inner.into_iter().enumerate().map(|(i, inner)| self.within(i, inner, rects[i])).collect();
        let w = if self.back.is_empty() { w } else { w + m.char_width };
        Layout { w, h, boxes: rects[..count].to_vec(), inner, routes }
    }

    fn within(&self, node: usize, inner: Vec<Layout>, rect: Rect) -> Vec<(i32, i32, Layout)> {
        let m = self.metrics;
        let used: i32 = inner.iter().map(|l| l.w + m.margin).sum::<i32>() - m.margin;
        let top = rect.y + m.pad_y + lines(&self.scene.nodes[node]) * m.line + m.margin;
        let mut x = rect.x + (rect.w - used) / 2;
        let each = |(layout, scene): (Layout, &Scene)| {
            let at = (x, top + title(scene, m), layout);
            x += at.2.w + m.margin;
            at
        };
        inner.into_iter().zip(&self.scene.nodes[node].inner).map(each).collect()
    }

    fn route(&self, edge: usize, chain: &[usize], rects: &[Rect], heights: &[i32]) -> Route {
        let m = self.metrics;
        // Ways out of a node leave it side by side, those of one end enter it in the middle.
        let outs: Vec<usize> = {
            let mut outs: Vec<(i32, usize)> =
                self.chains.iter().filter(|(_, c)| c[0] == chain[0]).map(|(e, c)| (rects[c[1]].middle(), *e)).collect();
            outs.sort_unstable();
            outs.into_iter().map(|(_, e)| e).collect()
        };
        let place = outs.iter().position(|e| *e == edge).unwrap_or_default() as i32;
        let from = rects[chain[0]];
        let x = if outs.len() == 1 { from.middle() } else { from.x + from.w * (place + 1) / (outs.len() as i32 + 1) };
        let mut points = vec![(x, from.y + from.h)];
        let bottom = from.y + heights[self.spots[chain[0]].layer];
        if bottom > from.y + from.h {
            points.push((x, bottom));
        }
        for spot in &chain[1..chain.len() - 1] {
            let rect = rects[*spot];
            points.extend([(rect.middle(), rect.y), (rect.middle(), rect.y + rect.h)]);
        }
        let to = rects[chain[chain.len() - 1]];
        points.push((to.middle(), to.y));
        let first = rects[chain[1]];
        let label = (first.middle() + m.char_width, first.y - m.line - m.gap_y / 4);
        Route { points, edge, label, back: false }
    }

    /// Down out of a node, along the gap below it to a lane at the right, up, and down into the other from the gap above.
    fn way_back(&self, edge: usize, rects: &[Rect], bottoms: &[i32], x: i32) -> Route {
        let (e, m) = (&self.scene.edges[edge], self.metrics);
        let (from, to) = (rects[e.from], rects[e.to]);
        let out = from.x + from.w - 2 * m.char_width;
        let enter = to.x + (to.w / 4).max(m.char_width);
        let low = bottoms[self.spots[e.from].layer] + m.gap_y / 5;
        let high = to.y - m.gap_y + m.gap_y / 5;
        let points = vec![(out, from.y + from.h), (out, low), (x, low), (x, high), (enter, high), (enter, to.y)];
        let label = (x + m.char_width, i32::midpoint(low, high) - m.line / 2);
        Route { points, edge, label, back: true }
    }
}

/// Edges that lead back to where one came from.
fn back_edges(scene: &Scene) -> Vec<usize> {
    let outs = |node: usize| -> Vec<usize> {
        let mut outs: Vec<usize> = (0..scene.edges.len()).filter(|e| scene.edges[*e].from == node).collect();
        outs.sort_by_key(|e| scene.edges[*e].kind == Way::Catch);
        outs
    };
    let (mut state, mut back) = (vec![0_u8; scene.nodes.len()], Vec::new());
    for start in 0..scene.nodes.len() {
        let mut path: Vec<(usize, Vec<usize>)> = Vec::new();
        if state[start] == 0 {
            state[start] = 1;
            path.push((start, outs(start)));
        }
        while let Some((node, ahead)) = path.last_mut() {
            let Some(edge) = (!ahead.is_empty()).then(|| ahead.remove(0)) else {
                state[*node] = 2;
                path.pop();
                continue;
            };
            let to = scene.edges[edge].to;
            match state[to] {
                0 => {
                    state[to] = 1;
                    path.push((to, outs(to)));
                }
                1 => back.push(edge),
                _ => {}
            }
        }
    }
    back
}
