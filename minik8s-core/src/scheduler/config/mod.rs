//! Profiles from a configuration file of upstream's shape (`KubeSchedulerConfiguration`): pure, from text to profiles.
//!
//! Each profile begins with the default plug-ins; `plugins` takes some out and adds others, `pluginConfig` says more about
//! them. The named policies are scores here: a profile that disables `*` and enables `RoundRobin` is that policy.

mod file;
mod table;
#[cfg(test)]
mod tests;

pub use table::PluginTable;

use super::framework::{Enough, Profile, Weighted};
use super::plugins::{LeastRequested, MostRequested};
use super::{FilterPlugin, Policy, ScorePlugin};
use crate::api::Schemas;
use crate::client::Payload;
use file::{API_VERSIONS, File, FileProfile, FitArgs, KIND, PluginConfig, Points, Set};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

const DEFAULT: &str = "default-scheduler";
const ALL: &str = "*";
/// What makes room for pods by sending others away.
const PREEMPTION: &str = "DefaultPreemption";
const FIT: &str = "NodeResourcesFit";

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It is not of the right shape.
    #[error("{0}")]
    Shape(String),
    /// A plug-in is named that there is not.
    #[error("{place}: there is no plug-in {name:?} here; known are {known}")]
    UnknownPlugin {
        /// Where it is named.
        place: String,
        /// Its name.
        name: String,
        /// Those that may be named here.
        known: String,
    },
    /// Something is said that has no meaning.
    #[error("{place}: {why}")]
    Invalid {
        /// Where.
        place: String,
        /// What is wrong.
        why: String,
    },
}

/// Reads the profiles of a configuration, YAML or JSON.
///
/// # Errors
/// Where it names what there is not, or says what cannot be done.
pub fn profiles(text: &str, table: &PluginTable) -> Result<Vec<Profile>, ConfigError> {
    let parsed = Schemas::builtin().parse(&Payload::Yaml(text.to_owned().into()));
    let value = parsed.map_err(|e| ConfigError::Shape(e.message))?;
    let file: File = read(value, "")?;
    if file.kind != KIND || !API_VERSIONS.contains(&file.api_version.as_str()) {
        let (kind, version) = (&file.kind, &file.api_version);
        let why = format!("it is a {kind} of {version}, and should be a {KIND} of {}", API_VERSIONS[0]);
        return Err(ConfigError::Shape(why));
    }
    let given = if file.profiles.is_empty() { vec![FileProfile::default()] } else { file.profiles };
    let mut names = BTreeSet::new();
    let several = given.len() > 1;
    let mut profiles = Vec::new();
    for (index, given) in given.into_iter().enumerate() {
        let place = format!("profiles[{index}]");
        let name = match given.scheduler_name.clone().filter(|n| !n.is_empty()) {
            Some(name) => name,
            None if several => {
                return Err(invalid(&place, "where there are several profiles, each needs a schedulerName"));
            }
            None => DEFAULT.to_owned(),
        };
        if !names.insert(name.clone()) {
            return Err(invalid(&format!("{place}.schedulerName"), &format!("{name:?} is another profile's already")));
        }
        profiles.push(profile(name, &given, file.percentage_of_nodes_to_score, &place, table)?);
    }
    Ok(profiles)
}

fn profile(
    name: String,
    given: &FileProfile,
    percentage: Option<u8>,
    place: &str,
    table: &PluginTable,
) -> Result<Profile, ConfigError> {
    let mut profile = Policy::Default.profile().named(name);
    profile.enough = match given.percentage_of_nodes_to_score.or(percentage) {
        None | Some(0) => Enough::Adaptive,
        Some(percent) if percent <= 100 => Enough::Percent(percent),
        Some(_) => return Err(invalid(&format!("{place}.percentageOfNodesToScore"), "it must be 100 or less")),
    };
    let at = format!("{place}.plugins");
    let points = &given.plugins;
    let mut filters = default_filters(table);
    let mut scores = default_scores(&profile);
    for (point, set) in [("multiPoint", &points.multi_point), ("filter", &points.filter)] {
        apply(&mut filters, set, &format!("{at}.{point}"), &Names::of(table, point), |name, _| {
            Ok(table.filter_named(name))
        })?;
    }
    for (point, set) in [("multiPoint", &points.multi_point), ("score", &points.score)] {
        let at = format!("{at}.{point}");
        apply(&mut scores, set, &at, &Names::of(table, point), |name, weight| match weight.unwrap_or(1) {
            weight @ 1..=100 => Ok(table.score_named(name).map(|plugin| Weighted { plugin, weight })),
            _ => Err(invalid(&at, &format!("the weight of {name:?} must be between 1 and 100"))),
        })?;
    }
    profile.preempts = preempts(points, &at)?;
    profile.filters = filters.into_iter().map(|(_, plugin)| plugin).collect();
    for (index, config) in given.plugin_config.iter().enumerate() {
        configure(&mut scores, config, &format!("{place}.pluginConfig[{index}]"))?;
    }
    profile.scores = scores.into_iter().map(|(_, weighted)| weighted).collect();
    Ok(profile)
}

type Chosen<T> = Vec<(String, T)>;

fn default_filters(table: &PluginTable) -> Chosen<Arc<dyn FilterPlugin>> {
    let defaults = Policy::Default.profile().filters;
    let named = |plugin: &Arc<dyn FilterPlugin>| (plugin.name().to_owned(), plugin.clone());
    let known = |(name, _): &(String, _)| table.filter_named(name).is_some();
    defaults.iter().map(named).filter(known).collect()
}

fn default_scores(profile: &Profile) -> Chosen<Weighted> {
    let named = |weighted: &Weighted| {
        let name = weighted.plugin.name();
        // The measure of this plug-in is its own choice.
        (if name == "LeastRequested" { FIT } else { name }.to_owned(), weighted.clone())
    };
    profile.scores.iter().map(named).collect()
}

/// The names that mean something at a point.
struct Names(BTreeSet<String>);

impl Names {
    fn of(table: &PluginTable, point: &str) -> Self {
        let filters = table.filters.iter().map(|(name, _)| name.clone());
        let scores = table.scores.iter().map(|(name, _)| name.clone());
        Self(match point {
            "filter" => filters.collect(),
            "score" => scores.collect(),
            _ => filters.chain(scores).collect(),
        })
    }

    fn check(&self, name: &str, place: &str) -> Result<(), ConfigError> {
        if self.0.contains(name) {
            return Ok(());
        }
        let known = self.0.iter().cloned().collect::<Vec<_>>().join(", ");
        Err(ConfigError::UnknownPlugin { place: place.to_owned(), name: name.to_owned(), known })
    }
}

/// Takes out what is disabled and adds what is enabled; one that is there already gets its new weight in its place.
fn apply<T>(
    chosen: &mut Chosen<T>,
    set: &Set,
    place: &str,
    names: &Names,
    find: impl Fn(&str, Option<i64>) -> Result<Option<T>, ConfigError>,
) -> Result<(), ConfigError> {
    for off in &set.disabled {
        if off.name == ALL {
            chosen.clear();
            continue;
        }
        names.check(&off.name, &format!("{place}.disabled"))?;
        chosen.retain(|(name, _)| *name != off.name);
    }
    for on in &set.enabled {
        names.check(&on.name, &format!("{place}.enabled"))?;
        // At `multiPoint`, a plug-in takes part wherever it can.
        let Some(plugin) = find(&on.name, on.weight)? else { continue };
        match chosen.iter_mut().find(|(name, _)| *name == on.name) {
            Some((_, there)) => *there = plugin,
            None => chosen.push((on.name.clone(), plugin)),
        }
    }
    Ok(())
}

/// Whether pods may displace others.
fn preempts(points: &Points, place: &str) -> Result<bool, ConfigError> {
    let set = &points.post_filter;
    if let Some(other) = set.enabled.iter().chain(&set.disabled).find(|p| p.name != PREEMPTION && p.name != ALL) {
        let (place, name) = (format!("{place}.postFilter"), other.name.clone());
        return Err(ConfigError::UnknownPlugin { place, name, known: PREEMPTION.to_owned() });
    }
    Ok(set.disabled.is_empty() || !set.enabled.is_empty())
}

/// Applies what is said about one plug-in.
fn configure(scores: &mut Chosen<Weighted>, config: &PluginConfig, place: &str) -> Result<(), ConfigError> {
    if config.name != FIT {
        let why = format!("{:?} takes no arguments here; {FIT:?} does", config.name);
        return Err(invalid(place, &why));
    }
    let args: FitArgs = read(config.args.clone(), &format!("{place}.args"))?;
    let Some(strategy) = args.scoring_strategy else { return Ok(()) };
    let at = format!("{place}.args.scoringStrategy");
    if let Some(uneven) = strategy.resources.iter().find(|r| r.weight.unwrap_or(1) != 1) {
        return Err(invalid(&at, &format!("{} has a weight other than 1: resources count alike here", uneven.name)));
    }
    let mut resources: Vec<&str> = strategy.resources.iter().map(|r| r.name.as_str()).collect();
    resources.sort_unstable();
    let plugin: Arc<dyn ScorePlugin> = match (strategy.kind.as_str(), resources.as_slice()) {
        ("LeastAllocated", [] | ["cpu", "memory"]) => Arc::new(LeastRequested::CPU_AND_MEMORY),
        ("LeastAllocated", ["cpu"]) => Arc::new(LeastRequested::CPU),
        ("LeastAllocated", ["memory"]) => Arc::new(LeastRequested::MEMORY),
        ("MostAllocated", [] | ["cpu", "memory"]) => Arc::new(MostRequested),
        (kind, resources) => {
            let why = format!(
                "{kind} of {resources:?} is not known; LeastAllocated of cpu, memory or both and MostAllocated of both are"
            );
            return Err(invalid(&at, &why));
        }
    };
    if let Some((_, weighted)) = scores.iter_mut().find(|(name, _)| name == FIT) {
        weighted.plugin = plugin;
    }
    Ok(())
}

fn read<T: DeserializeOwned>(value: Value, place: &str) -> Result<T, ConfigError> {
    serde_json::from_value(value).map_err(|e| match place {
        "" => ConfigError::Shape(e.to_string()),
        place => invalid(place, &e.to_string()),
    })
}

fn invalid(place: &str, why: &str) -> ConfigError {
    ConfigError::Invalid { place: place.to_owned(), why: why.to_owned() }
}
