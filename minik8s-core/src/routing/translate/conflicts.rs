//! Rules that say of the very same requests something else than an older object does.

use super::Problem;
use crate::routing::{At, Host, Owner, PathRule, Rule, Wanted};
use std::collections::{BTreeMap, HashMap};

type Matches<'a> = (At, &'a Host, &'a PathRule, &'a Option<String>, &'a [(String, Wanted)], &'a [(String, Wanted)]);

/// The objects that lose, and to whom.
pub(super) fn find(rules: &[Rule]) -> BTreeMap<Owner, Vec<Problem>> {
    let mut first: HashMap<Matches<'_>, &Rule> = HashMap::with_capacity(rules.len());
    let mut found: BTreeMap<Owner, Vec<Problem>> = BTreeMap::new();
    let mut sorted: Vec<&Rule> = rules.iter().collect();
    sorted.sort_by(|a, b| a.owner.cmp(&b.owner).then(a.place.cmp(&b.place)));
    for rule in sorted {
        let matches = (rule.at, &rule.host, &rule.path, &rule.method, &rule.headers[..], &rule.query[..]);
        let winner = *first.entry(matches).or_insert(rule);
        if winner.owner != rule.owner && winner.plan != rule.plan {
            found.entry(rule.owner.clone()).or_default().push(Problem::new("Conflict", sentence(rule, winner)));
        }
    }
    found
}

fn sentence(rule: &Rule, winner: &Rule) -> String {
    let Owner { namespace, name, kind, .. } = &winner.owner;
    let path = match &rule.path {
        PathRule::Exact(path) | PathRule::Prefix(path) | PathRule::Regex(path) => path,
    };
    format!("host {} and path {path} belong to the older {kind} {namespace}/{name}", rule.host)
}
