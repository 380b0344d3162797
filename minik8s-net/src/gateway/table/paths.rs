//! Routes of one host by path: this very path, then expressions, then the longest prefix of whole elements.

use super::route::{Asked, Route};
use minik8s_core::routing::{PathRule, whole_regexes};
use regex::RegexSet;
use std::collections::HashMap;
use std::sync::Arc;

/// Expressions that are looked for at once; more in one automaton would take long to make.
const AT_ONCE: usize = 64;

#[derive(Default)]
pub(super) struct Paths {
    exact: HashMap<Box<str>, Vec<Arc<Route>>>,
    /// In order of precedence.
    patterns: Vec<(Box<str>, Vec<Arc<Route>>)>,
    compiled: Vec<RegexSet>,
    prefixes: Node,
    count: usize,
}

/// A tree over the elements of paths.
#[derive(Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    routes: Vec<Arc<Route>>,
}

impl Paths {
    /// Adds a route; of two under the same key, the one that is added first comes first.
    pub(super) fn insert(&mut self, route: Arc<Route>) {
        self.count += 1;
        match &route.path {
            PathRule::Exact(path) => self.exact.entry(path.as_str().into()).or_default().push(route.clone()),
            PathRule::Prefix(prefix) => {
                let mut node = &mut self.prefixes;
                for element in elements(prefix) {
                    node = node.children.entry(element.into()).or_default();
                }
                node.routes.push(route.clone());
            }
            PathRule::Regex(pattern) => match self.patterns.iter_mut().find(|(known, _)| **known == **pattern) {
                Some((_, routes)) => routes.push(route.clone()),
                None => self.patterns.push((pattern.as_str().into(), vec![route.clone()])),
            },
        }
    }

    pub(super) fn finish(&mut self) {
        let set = |part: &[(Box<str>, Vec<Arc<Route>>)]| whole_regexes(part.iter().map(|(pattern, _)| &**pattern));
        self.compiled = self.patterns.chunks(AT_ONCE).map(|part| set(part).unwrap_or_default()).collect();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn find(&self, asked: &Asked<'_>) -> Option<&Arc<Route>> {
        if self.count == 0 {
            return None;
        }
        let exact = self.exact.get(asked.path).and_then(|routes| first(routes, asked));
        exact.or_else(|| self.find_pattern(asked)).or_else(|| self.prefixes.find(&mut elements(asked.path), asked))
    }

    fn find_pattern(&self, asked: &Asked<'_>) -> Option<&Arc<Route>> {
        for (set, part) in self.compiled.iter().zip(self.patterns.chunks(AT_ONCE)) {
            for hit in set.matches(asked.path) {
                if let Some(route) = first(&part[hit].1, asked) {
                    return Some(route);
                }
            }
        }
        None
    }
}

impl Node {
    /// The deepest node on the way that has a route for the request. As deep as the deepest prefix, not as the path.
    fn find<'a>(&self, rest: &mut impl Iterator<Item = &'a str>, asked: &Asked<'_>) -> Option<&Arc<Route>> {
        let child = if self.children.is_empty() { None } else { rest.next().and_then(|name| self.children.get(name)) };
        child.and_then(|child| child.find(rest, asked)).or_else(|| first(&self.routes, asked))
    }
}

fn first<'a>(routes: &'a [Arc<Route>], asked: &Asked<'_>) -> Option<&'a Arc<Route>> {
    routes.iter().find(|route| route.fits(asked))
}

/// What stands between the slashes; nothing for `/`.
fn elements(path: &str) -> impl Iterator<Item = &str> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let parts = if path.is_empty() { None } else { Some(path.split('/')) };
    parts.into_iter().flatten()
}
