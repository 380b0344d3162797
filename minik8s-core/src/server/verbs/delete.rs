//! `delete`: at once, or by a mark that finalizers, grace or the kind itself hold up.

use super::asking::Asking;
use super::commit::{Change, Outcome};
use super::create::{ATTEMPTS, unsaved};
use super::modify::{Current, may_vanish};
use super::prepare::raise_generation;
use super::resolve::method_not_allowed;
use super::{Served, view};
use crate::api::{ApiError, ApiResult, Object, Target};
use crate::client::{DeleteOptions, Deleted, Propagation};
use crate::clock::rfc3339;
use crate::server::{AdmissionRequest, ApiServer, Beside, Kind, encode};
use crate::store::Precondition;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What a deletion request does to an object.
#[derive(Debug, PartialEq)]
enum Plan {
    /// It goes now; this is its last state.
    Remove(Value),
    /// It stays, marked.
    Mark(Value),
    /// It is marked already, and this request changes nothing.
    Keep,
}

/// How an object ends.
pub(crate) struct Ending<'a> {
    /// What it becomes before it goes.
    pub(crate) last: &'a Value,
    /// What changes with it.
    pub(crate) beside: Option<Beside>,
}

impl ApiServer {
    pub(crate) async fn delete_object(&self, target: &Target, options: &DeleteOptions) -> ApiResult<Deleted> {
        if target.name.is_none() || target.subresource.is_some() {
            return Err(method_not_allowed());
        }
        let served = self.resolve(target)?;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let (key, object) = self.current(&served, target).await?;
            let value = view::value(&served, &object)?;
            let current = Current { key, object, value };
            let ending = Ending { last: &current.value, beside: None };
            match self.try_delete(&served, target, &current, ending, options).await? {
                Ok(deleted) => return Ok(deleted),
                Err(why) => last = Some(why),
            }
        }
        Err(last.unwrap_or_else(|| super::body::modified(target)))
    }

    /// The inner error says that somebody came between.
    pub(crate) async fn try_delete(
        &self,
        served: &Served,
        target: &Target,
        current: &Current,
        ending: Ending<'_>,
        options: &DeleteOptions,
    ) -> ApiResult<Result<Deleted, ApiError>> {
        let kind = served.kind.as_ref();
        check_preconditions(kind, &current.object, options)?;
        let asking = Asking { server: self, user: None };
        let request = AdmissionRequest { target, kind, old: Some(&current.value), dry_run: options.dry_run };
        for rule in &self.admission {
            rule.admit_delete(&request, &asking).await?;
        }
        let (gone, new) = match plan(kind, ending.last, options, self.clock.now()) {
            Plan::Keep => return view::show(served, current.object.clone()).map(|o| Ok(Deleted::Marked(o))),
            Plan::Remove(last) => (true, last),
            Plan::Mark(marked) => (false, marked),
        };
        if options.dry_run {
            let object = unsaved(served, &new)?;
            return Ok(Ok(if gone { Deleted::Gone(object) } else { Deleted::Marked(object) }));
        }
        let change = Change {
            served,
            key: current.key.clone(),
            when: Precondition::At(current.key.clone(), current.object.revision),
            also: None,
            old: Some(&current.value),
            new: (!gone).then_some(&new),
            beside: ending.beside.as_ref(),
        };
        Ok(match self.commit(change).await? {
            Outcome::Done(_, Some(object)) => Ok(Deleted::Marked(object)),
            Outcome::Done(revision, None) => {
                let stored = encode::stored_form(&new)?;
                let fields = current.object.fields.clone();
                let last = encode::object(&kind.names().gvr, &stored, revision, fields)?;
                Ok(Deleted::Gone(Arc::new(last)))
            }
            Outcome::Conflict(_) => Err(super::body::modified(target)),
        })
    }
}

/// The texts name the Kind here, as the real server's do.
fn check_preconditions(kind: &dyn Kind, object: &Object, options: &DeleteOptions) -> ApiResult<()> {
    let refuse = |why: String| {
        let name = &object.meta.name;
        let mut error = ApiError::conflict(&kind.names().gvr, name, "");
        error.message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.names().kind);
        error.details.kind = kind.names().kind.to_string();
        Err(error)
    };
    let (asked, have) = (&options.preconditions, &object.meta);
    if let Some(uid) = asked.uid.as_ref().filter(|uid| **uid != have.uid) {
        return refuse(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
             deleted and then recreated",
            have.uid
        ));
    }
    if let Some(version) = asked.resource_version.as_ref().filter(|v| **v != have.resource_version) {
        return refuse(format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). The \
             object might have been modified",
            have.resource_version
        ));
    }
    Ok(())
}

/// Decides a deletion. Pure.
fn plan(kind: &dyn Kind, object: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    let mut new = object.clone();
    set_finalizers(&mut new, options.propagation);
    let asked = options.grace_period_seconds.map(|g| g.max(0));
    let marked = object.pointer("/metadata/deletionTimestamp").and_then(Value::as_str);
    match marked {
        None => mark(kind, &mut new, asked.unwrap_or_else(|| (kind.deletion().grace)(object)), now),
        Some(at) => shorten(&mut new, at, asked),
    }
    if may_vanish(kind, &new) {
        Plan::Remove(new)
    } else if new == *object {
        Plan::Keep
    } else {
        Plan::Mark(new)
    }
}

fn mark(kind: &dyn Kind, new: &mut Value, grace: i64, now: Timestamp) {
    let at = now.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    new["metadata"]["deletionTimestamp"] = rfc3339(at).into();
    new["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    raise_generation(new);
    kind.mark_deleted(new);
}

/// Grace that is running may only become shorter.
fn shorten(new: &mut Value, at: &str, asked: Option<i64>) {
    let running = new.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or_default();
    let Some(grace) = asked.filter(|grace| *grace < running) else { return };
    let Ok(end) = at.parse::<Timestamp>() else { return };
    let sooner = end.saturating_add(SignedDuration::from_secs(grace - running)).unwrap_or(end);
    new["metadata"]["deletionTimestamp"] = rfc3339(sooner).into();
    new["metadata"]["deletionGracePeriodSeconds"] = grace.into();
}

/// What happens to dependents is written down as a finalizer, which the garbage collector works off.
fn set_finalizers(new: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let Some(meta) = new.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let known = meta.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut finalizers: Vec<Value> = known.into_iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).collect();
    match propagation {
        Propagation::Orphan => finalizers.push(json!(ORPHAN)),
        Propagation::Foreground => finalizers.push(json!(FOREGROUND)),
        Propagation::Background => {}
    }
    if finalizers.is_empty() {
        meta.remove("finalizers");
    } else {
        meta.insert("finalizers".into(), finalizers.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Gvr;
    use crate::server::KindTable;

    fn planned(resource: &'static str, object: &Value, grace: Option<i64>, propagation: Option<Propagation>) -> Plan {
        let table = KindTable::new(crate::server::kinds::builtin());
        let kind = table.get(&Gvr::new("", "v1", resource)).unwrap().clone();
        let options = DeleteOptions { grace_period_seconds: grace, propagation, ..DeleteOptions::default() };
        plan(kind.as_ref(), object, &options, "2026-01-01T00:00:00Z".parse().unwrap())
    }

    fn marked(plan: Plan) -> (Value, Value) {
        let Plan::Mark(object) = plan else { panic!("wanted a mark, got {plan:?}") };
        (object["metadata"]["deletionTimestamp"].clone(), object["metadata"]["deletionGracePeriodSeconds"].clone())
    }

    #[test]
    fn grace_runs_once_and_only_shrinks() {
        let pod =
            json!({"metadata": {"generation": 1}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
        let first = planned("pods", &pod, None, None);
        let Plan::Mark(going) = &first else { panic!("{first:?}") };
        assert_eq!(going["metadata"]["generation"], 2);
        let going = going.clone();
        assert_eq!(marked(first), (json!("2026-01-01T00:00:30Z"), json!(30)));
        assert_eq!(planned("pods", &going, None, None), Plan::Keep);
        assert_eq!(planned("pods", &going, Some(40), None), Plan::Keep);
        assert_eq!(marked(planned("pods", &going, Some(5), None)), (json!("2026-01-01T00:00:05Z"), json!(5)));
        assert!(matches!(planned("pods", &going, Some(0), None), Plan::Remove(_)));
        assert!(matches!(planned("pods", &pod, Some(0), None), Plan::Remove(_)));
    }

    #[test]
    fn finalizers_and_namespaces_hold_back() {
        let held = json!({"metadata": {"finalizers": ["a/b"]}});
        assert_eq!(marked(planned("configmaps", &held, None, None)).1, json!(0));
        assert!(matches!(planned("configmaps", &json!({"metadata": {}}), None, None), Plan::Remove(_)));
        let orphaning = planned("configmaps", &json!({"metadata": {}}), None, Some(Propagation::Orphan));
        assert!(matches!(orphaning, Plan::Mark(o) if o["metadata"]["finalizers"] == json!([ORPHAN])));
        let background = json!({"metadata": {"finalizers": [FOREGROUND]}});
        assert!(matches!(planned("configmaps", &background, None, Some(Propagation::Background)), Plan::Remove(_)));
        let full = json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}});
        assert_eq!(marked(planned("namespaces", &full, None, None)).1, Value::Null);
        assert!(matches!(planned("namespaces", &json!({"metadata": {}, "spec": {}}), None, None), Plan::Remove(_)));
    }
}
