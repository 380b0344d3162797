//! Revisions: what of a function makes one, what they are called, how they are numbered. Pure.

use super::api::{Function, FunctionRevision, FunctionRevisionSpec, FunctionSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use minik8s_core::controllers::controller_reference;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Label and annotation: the function something belongs to.
pub const FUNCTION_LABEL: &str = "minik8s.io/function";
/// Label: the revision.
pub const REVISION_LABEL: &str = "minik8s.io/revision";
/// Revisions that are kept to go back to.
const KEPT: usize = 10;

/// What of a function makes a revision: what an instance runs, not how many there are and what calls may do.
pub fn template(spec: &FunctionSpec) -> FunctionSpec {
    FunctionSpec { scale: None, queue: 0, max_body_bytes: 0, canary_percent: None, ..spec.clone() }
}

/// The name of the revision that a function asks for: the same for the same template, so that going back to one that
/// was there before makes nothing new.
pub fn name(function: &Function) -> String {
    let text = serde_json::to_vec(&template(&function.spec)).unwrap_or_default();
    let hash = Sha256::digest(&text);
    let hex: String = hash[..5].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{hex}", function.metadata.name.as_deref().unwrap_or_default())
}

/// The revision that a function asks for, as one to be made.
pub fn made(function: &Function, number: i64) -> FunctionRevision {
    let name_of = function.metadata.name.clone().unwrap_or_default();
    FunctionRevision {
        metadata: ObjectMeta {
            name: Some(name(function)),
            namespace: function.metadata.namespace.clone(),
            labels: Some([(FUNCTION_LABEL.to_owned(), name_of.clone())].into()),
            owner_references: Some(vec![controller_reference(function)]),
            ..ObjectMeta::default()
        },
        spec: FunctionRevisionSpec { function: name_of, number, template: template(&function.spec) },
        status: None,
    }
}

/// The number for a revision that is now the newest.
pub fn next_number(revisions: &[Arc<FunctionRevision>]) -> i64 {
    revisions.iter().map(|r| r.spec.number).max().unwrap_or(0) + 1
}

/// Those that nobody will go back to, oldest first; none that is in use.
pub fn superfluous(revisions: &[Arc<FunctionRevision>], in_use: impl Fn(&str) -> bool) -> Vec<String> {
    let mut all: Vec<_> =
        revisions.iter().map(|r| (r.spec.number, r.metadata.name.clone().unwrap_or_default())).collect();
    all.sort();
    let count = all.len().saturating_sub(KEPT);
    all.into_iter().take(count).map(|(_, name)| name).filter(|name| !in_use(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::api::FunctionScale;
    use super::*;

    fn function(image: &str) -> Function {
        let metadata = ObjectMeta { name: Some("f".into()), ..ObjectMeta::default() };
        Function { metadata, spec: FunctionSpec { image: image.into(), ..FunctionSpec::default() }, status: None }
    }

    #[test]
    fn what_does_not_change_an_instance_makes_no_revision() {
        let one = function("a");
        let mut same = one.clone();
        same.spec.scale = Some(FunctionScale { min: Some(3), ..FunctionScale::default() });
        (same.spec.queue, same.spec.canary_percent) = (7, Some(10));
        assert_eq!(name(&one), name(&same));
        assert_ne!(name(&one), name(&function("b")));
        // An instance ends calls that take too long, and has as long to end by itself.
        let patient = FunctionSpec { timeout_seconds: 7, ..one.spec.clone() };
        assert_ne!(name(&one), name(&Function { spec: patient, ..one.clone() }));
        assert!(name(&one).starts_with("f-") && name(&one).len() == 12);
    }

    #[test]
    fn ten_are_kept_and_all_that_are_in_use() {
        let all: Vec<_> = (1..=13)
            .map(|number| {
                let mut revision = made(&function("a"), number);
                revision.metadata.name = Some(format!("f-{number}"));
                Arc::new(revision)
            })
            .collect();
        assert_eq!(next_number(&all), 14);
        assert_eq!(superfluous(&all, |name| name == "f-2"), ["f-1", "f-3"]);
    }
}
