//! `PriorityClass`: a name for a priority, and what pods of it may do to lesser ones.

use super::cells::{AGE, NAME, column, integer};
use super::util::{names, number, set, set_default, text};
use crate::api::{ApiError, ApiResult, Gvr, Reason};
use crate::server::{Column, FieldErrors, Kind, KindNames, WriteContext};
use async_trait::async_trait;
use serde_json::Value;

const SYSTEM: &str = "system-";
/// The classes of the system itself: name, priority, description.
pub(crate) const SYSTEM_CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];
/// Highest priority of classes that are not the system's.
const HIGHEST: i64 = 1_000_000_000;
const POLICIES: [&str; 2] = ["Never", "PreemptLowerPriority"];

pub(crate) struct PriorityClassKind(KindNames);

fn gvr() -> Gvr {
    Gvr::new("scheduling.k8s.io", "v1", "priorityclasses")
}

impl PriorityClassKind {
    pub(crate) fn new() -> Self {
        Self(names(gvr(), "PriorityClass", &["pc"], false, false))
    }
}

static COLUMNS: [Column; 5] = [
    NAME,
    integer("Value", |o, _| number(o, "/value").unwrap_or_default().into()),
    column("Global-Default", |o, _| is_default(o).to_string().into()),
    AGE,
    column("PreemptionPolicy", |o, _| text(o, "/preemptionPolicy").into()),
];

#[async_trait]
impl Kind for PriorityClassKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.scheduling.v1.PriorityClass"
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn default(&self, object: &mut Value) {
        set_default(object, "preemptionPolicy", "PreemptLowerPriority");
    }

    async fn admit(&self, new: &mut Value, _: Option<&Value>, ctx: &dyn WriteContext) -> ApiResult<()> {
        if !is_default(new) {
            return Ok(());
        }
        let name = text(new, "/metadata/name");
        let classes = ctx.all(&gvr(), true).await?;
        match classes.iter().find(|class| is_default(class) && text(class, "/metadata/name") != name) {
            None => Ok(()),
            Some(other) => {
                let other = text(other, "/metadata/name");
                let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
                Err(forbidden("priorityclasses.scheduling.k8s.io", name, &why))
            }
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        let (name, value) = (text(new, "/metadata/name"), number(new, "/value").unwrap_or_default());
        if name.starts_with(SYSTEM) {
            if !SYSTEM_CLASSES.iter().any(|(known, of, _)| *known == name && *of == value) {
                let why = "priority class names with 'system-' prefix are reserved for system use only";
                errors.forbidden("metadata.name", why);
            }
        } else if value > HIGHEST {
            errors.forbidden("value", &format!("maximum allowed value of a user defined priority is {HIGHEST}"));
        }
        let policy = text(new, "/preemptionPolicy");
        if !POLICIES.contains(&policy) {
            errors.unsupported("preemptionPolicy", policy, &POLICIES);
        }
        if let Some(old) = old {
            if number(old, "/value").unwrap_or_default() != value {
                errors.forbidden("value", "may not be changed in an update.");
            }
            errors.immutable("preemptionPolicy", &new["preemptionPolicy"], &old["preemptionPolicy"]);
        }
    }
}

fn is_default(class: &Value) -> bool {
    class.get("globalDefault") == Some(&Value::Bool(true))
}

fn forbidden(resource: &str, name: &str, why: &str) -> ApiError {
    ApiError::new(Reason::Forbidden, format!("{resource} {name:?} is forbidden: {why}"))
}

/// Gives a new pod its class, its priority, and what it may do to lesser ones.
pub(super) async fn resolve(pod: &mut Value, ctx: &dyn WriteContext) -> ApiResult<()> {
    let wanted = text(pod, "/spec/priorityClassName").to_owned();
    let meant = |class: &Value| match wanted.as_str() {
        "" => is_default(class),
        name => text(class, "/metadata/name") == name,
    };
    let mut class = ctx.all(&gvr(), false).await?.into_iter().find(meant);
    if class.is_none() && !wanted.is_empty() {
        // It may have been made just now.
        class = ctx.all(&gvr(), true).await?.into_iter().find(meant);
    }
    decide(pod, &wanted, class.as_ref()).map_err(|why| {
        let meta = &pod["metadata"];
        let name = [text(meta, "/name"), text(meta, "/generateName")];
        forbidden("pods", name.iter().find(|n| !n.is_empty()).copied().unwrap_or_default(), &why)
    })
}

/// What a class makes of a pod's spec; without any, priority 0.
fn decide(pod: &mut Value, wanted: &str, class: Option<&Value>) -> Result<(), String> {
    if class.is_none() && !wanted.is_empty() {
        return Err(format!("no PriorityClass with name {wanted} was found"));
    }
    let Some(spec) = pod.get_mut("spec") else { return Ok(()) };
    let priority = class.and_then(|c| number(c, "/value")).unwrap_or_default();
    if let Some(given) = number(spec, "/priority").filter(|given| *given != priority) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        ));
    }
    set(spec, "priority", priority.into());
    let policy = class.map_or("PreemptLowerPriority", |c| text(c, "/preemptionPolicy")).to_owned();
    let given = text(spec, "/preemptionPolicy");
    if class.is_some() && !given.is_empty() && given != policy {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        ));
    }
    set_default(spec, "preemptionPolicy", policy);
    if let Some(name) = class.map(|c| text(c, "/metadata/name")) {
        set(spec, "priorityClassName", name.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes_decide_priority_and_policy() {
        let class = json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"});
        // spec, the class found, what comes of it
        let table = [
            (json!({}), false, Ok(json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}))),
            (json!({"preemptionPolicy": "Never"}), false, Ok(json!({"priority": 0, "preemptionPolicy": "Never"}))),
            (json!({"priority": 7}), false, Err("the integer value of priority (7) must not")),
            (
                json!({"priorityClassName": "high"}),
                true,
                Ok(json!({"priorityClassName": "high", "priority": 1000, "preemptionPolicy": "Never"})),
            ),
            (json!({}), true, Ok(json!({"priorityClassName": "high", "priority": 1000, "preemptionPolicy": "Never"}))),
            (json!({"priorityClassName": "high"}), false, Err("no PriorityClass with name high was found")),
            (
                json!({"priorityClassName": "high", "preemptionPolicy": "PreemptLowerPriority"}),
                true,
                Err("the string value of PreemptionPolicy (PreemptLowerPriority) must not"),
            ),
        ];
        for (spec, found, expected) in table {
            let mut pod = json!({"spec": spec});
            let wanted = text(&pod, "/spec/priorityClassName").to_owned();
            let outcome = decide(&mut pod, &wanted, found.then_some(&class));
            match expected {
                Ok(expected) => assert_eq!((outcome, &pod["spec"]), (Ok(()), &expected), "{spec}"),
                Err(begins) => assert!(outcome.as_ref().is_err_and(|why| why.starts_with(begins)), "{outcome:?}"),
            }
        }
    }

    #[test]
    fn names_and_values_of_the_system_are_its_own() {
        let faults = |class: Value, old: Option<&Value>| {
            let mut errors = FieldErrors::default();
            PriorityClassKind::new().validate(&class, old, &mut errors);
            errors.0.into_iter().map(|c| c.field).collect::<Vec<_>>()
        };
        let class = |name: &str, value: i64| {
            let mut class = json!({"metadata": {"name": name}, "value": value});
            PriorityClassKind::new().default(&mut class);
            class
        };
        assert!(faults(class("high", HIGHEST), None).is_empty());
        assert!(faults(class("system-node-critical", 2_000_001_000), None).is_empty());
        assert_eq!(faults(class("high", HIGHEST + 1), None), ["value"]);
        assert_eq!(faults(class("system-mine", 1), None), ["metadata.name"]);
        let mut never = class("high", 2);
        never["preemptionPolicy"] = "Never".into();
        assert_eq!(faults(never, Some(&class("high", 1))), ["value", "preemptionPolicy"]);
        let odd = json!({"metadata": {"name": "x"}, "preemptionPolicy": "Sometimes"});
        assert_eq!(faults(odd, None), ["preemptionPolicy"]);
    }
}
