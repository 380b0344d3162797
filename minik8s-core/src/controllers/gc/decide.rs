//! What becomes of an object whose owners go. Pure.

use crate::api::{Meta, OwnerReference};
use crate::client::Propagation;

/// Finalizer of an owner that waits for what it owns to go first.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an owner that leaves what it owns behind.
pub const ORPHAN: &str = "orphan";

/// What is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It is there, or nothing can be said of it.
    Solid,
    /// It is there, and waits for what it owns to go.
    Waiting,
    /// It is not there, or never was.
    Gone,
}

/// What to do about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// Strip the references to these uids: others own it still.
    Strip(Vec<String>),
    /// Delete it.
    Delete(Propagation),
}

/// Decides about an object by its owners, in the order of its references.
pub fn verdict(meta: &Meta, owners: &[Owner], has_dependents: bool) -> Verdict {
    if owners.is_empty() || owners.iter().all(|o| *o == Owner::Solid) {
        return Verdict::Keep;
    }
    let lost = |(r, _): &(&OwnerReference, &Owner)| r.uid.clone();
    if owners.contains(&Owner::Solid) {
        let gone = meta.owner_references.iter().zip(owners).filter(|(_, o)| **o != Owner::Solid);
        return Verdict::Strip(gone.map(|pair| lost(&pair)).collect());
    }
    if meta.deletion_timestamp.is_some() {
        return Verdict::Keep;
    }
    let has = |finalizer: &str| meta.finalizers.iter().any(|f| f == finalizer);
    Verdict::Delete(if has(ORPHAN) {
        Propagation::Orphan
    } else if has(FOREGROUND) || (owners.contains(&Owner::Waiting) && has_dependents) {
        Propagation::Foreground
    } else {
        Propagation::Background
    })
}

/// What an owner that is being deleted waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing of ours.
    None,
    /// Those it owns must lose their reference to it.
    Orphaning,
    /// Those it owns must go.
    Emptying,
}

/// What an object waits for, as its finalizers say.
pub fn phase(meta: &Meta) -> Phase {
    let has = |finalizer: &str| meta.finalizers.iter().any(|f| f == finalizer);
    match meta.deletion_timestamp {
        Some(_) if has(ORPHAN) => Phase::Orphaning,
        Some(_) if has(FOREGROUND) => Phase::Emptying,
        _ => Phase::None,
    }
}

/// True where an object keeps the owner of that uid from going in the foreground.
pub fn blocks(dependent: &Meta, owner: &str) -> bool {
    dependent.owner_references.iter().any(|r| r.uid == owner && r.block_owner_deletion == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(finalizers: &[&str], deleted: bool) -> Meta {
        let owner = |uid: &str| OwnerReference { uid: uid.into(), ..OwnerReference::default() };
        Meta {
            owner_references: vec![owner("a"), owner("b")],
            finalizers: finalizers.iter().map(|f| (*f).to_owned()).collect(),
            deletion_timestamp: deleted.then(|| "2026-01-01T00:00:00Z".to_owned()),
            ..Meta::default()
        }
    }

    #[test]
    fn verdicts() {
        use Owner::{Gone, Solid, Waiting};
        use Propagation::{Background, Foreground, Orphan};
        let table = [
            (meta(&[], false), vec![Solid, Solid], false, Verdict::Keep),
            (meta(&[], false), vec![Solid, Gone], false, Verdict::Strip(vec!["b".into()])),
            (meta(&[], false), vec![Waiting, Solid], true, Verdict::Strip(vec!["a".into()])),
            (meta(&[], false), vec![Gone, Gone], true, Verdict::Delete(Background)),
            (meta(&[], false), vec![Gone, Waiting], false, Verdict::Delete(Background)),
            (meta(&[], false), vec![Gone, Waiting], true, Verdict::Delete(Foreground)),
            (meta(&[ORPHAN], false), vec![Gone, Gone], true, Verdict::Delete(Orphan)),
            (meta(&[FOREGROUND], false), vec![Gone, Gone], false, Verdict::Delete(Foreground)),
            (meta(&["mine"], true), vec![Gone, Gone], false, Verdict::Keep),
            (meta(&[], false), vec![], false, Verdict::Keep),
        ];
        for (meta, owners, dependents, want) in table {
            assert_eq!(verdict(&meta, &owners, dependents), want, "{owners:?} {:?}", meta.finalizers);
        }
    }

    #[test]
    fn phases() {
        assert_eq!(phase(&meta(&[ORPHAN], true)), Phase::Orphaning);
        assert_eq!(phase(&meta(&["mine", FOREGROUND], true)), Phase::Emptying);
        assert_eq!(phase(&meta(&[FOREGROUND], false)), Phase::None);
        assert_eq!(phase(&meta(&["mine"], true)), Phase::None);
    }

    #[test]
    fn only_the_right_owner_is_blocked() {
        let mut dependent = meta(&[], false);
        dependent.owner_references[0].block_owner_deletion = Some(true);
        assert!(blocks(&dependent, "a") && !blocks(&dependent, "b"));
    }
}
