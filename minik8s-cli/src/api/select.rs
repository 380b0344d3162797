//! What commands are about: `pods`, `pods,services`, `pod NAME...`, `deploy/NAME`, `all`.

use super::{Resource, Resources};
use anyhow::{Result, bail};

/// A kind, and the objects of it that were named; none means all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selected {
    pub(crate) resource: Resource,
    pub(crate) names: Vec<String>,
}

/// Reads the words after a command.
pub(crate) fn parse_what(known: &Resources, words: &[String]) -> Result<Vec<Selected>> {
    let Some(first) = words.first() else { bail!("say what: a kind, such as `pods`, or `pod/NAME`") };
    if words.iter().any(|w| w.contains('/')) {
        return words.iter().map(|w| slashed(known, w)).collect();
    }
    let names = &words[1..];
    let mut out = Vec::new();
    for word in first.split(',').filter(|w| !w.is_empty()) {
        let category = known.category(word);
        if category.is_empty() {
            out.push(Selected { resource: known.find(word)?.clone(), names: names.to_vec() });
        } else if names.is_empty() {
            out.extend(category.into_iter().map(|r| Selected { resource: r.clone(), names: Vec::new() }));
        } else {
            bail!("{word:?} stands for several kinds and takes no names");
        }
    }
    Ok(out)
}

fn slashed(known: &Resources, word: &str) -> Result<Selected> {
    match word.split_once('/') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Selected { resource: known.find(kind)?.clone(), names: vec![name.to_owned()] })
        }
        _ => bail!("{word:?} is not TYPE/NAME; write all of them that way, or TYPE NAME..."),
    }
}
