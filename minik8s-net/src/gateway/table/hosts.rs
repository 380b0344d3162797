//! Routes by host: the name itself, then the longest suffix, then those for all.

use super::Found;
use super::paths::Paths;
use super::route::{Asked, Route};
use minik8s_core::routing::Host;
use std::collections::HashMap;
use std::sync::Arc;

/// Longest name that can be a host's.
const LONGEST: usize = 255;

#[derive(Default)]
pub(super) struct Hosts {
    exact: HashMap<Box<str>, Paths>,
    /// By what follows the wildcard: `.example.com`.
    below: HashMap<Box<str>, Below>,
    any: Paths,
}

/// Routes for `*.example.com`.
#[derive(Default)]
struct Below {
    /// Those of which the wildcard covers one label only.
    one: Paths,
    many: Paths,
}

impl Hosts {
    pub(super) fn insert(&mut self, host: &Host, route: Arc<Route>) {
        let paths = match host {
            Host::Any => &mut self.any,
            Host::Exact(name) => self.exact.entry(name.as_str().into()).or_default(),
            Host::Below { suffix, one_label } => {
                let below = self.below.entry(suffix.as_str().into()).or_default();
                if *one_label { &mut below.one } else { &mut below.many }
            }
        };
        paths.insert(route);
    }

    /// Makes what can only be made when all routes are in.
    pub(super) fn finish(&mut self) {
        let below = self.below.values_mut().flat_map(|below| [&mut below.one, &mut below.many]);
        self.exact.values_mut().chain(below).chain([&mut self.any]).for_each(Paths::finish);
    }

    pub(super) fn find(&self, asked: &Asked<'_>) -> Found<'_> {
        let mut host_known = false;
        for paths in self.candidates(asked.host) {
            host_known = true;
            if let Some(route) = paths.find(asked) {
                return Found::Route(route);
            }
        }
        match self.any.find(asked) {
            Some(route) => Found::Route(route),
            None => Found::Nothing { host_known },
        }
    }

    /// What is about this host and not about all, the most specific first.
    fn candidates<'a, 'h>(&'a self, host: &'h str) -> impl Iterator<Item = &'a Paths> + use<'a, 'h> {
        let host = if host.len() > LONGEST { "" } else { host };
        let dots = host.match_indices('.').map(|(at, _)| at).filter(|at| *at > 0);
        let below = dots.enumerate().filter_map(move |(nth, at)| {
            let below = self.below.get(&host[at..])?;
            Some((nth == 0).then_some(&below.one).into_iter().chain([&below.many]))
        });
        self.exact.get(host).into_iter().chain(below.flatten()).filter(|paths| !paths.is_empty())
    }
}
