//! From an event to a delivery: filtered, shaped, and written under a name that follows from the event, so that what is seen
//! twice is delivered once.

use super::kinds::VARIABLES;
use super::objects::{DeliverySpec, Trigger, TriggerDelivery};
use crate::expr::{Expr, Template};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use minik8s_core::api::{ApiError, ApiResult, Reason};
use minik8s_core::client::{Client, EventRecorder, EventType, reference_of};
use minik8s_core::controllers::controller_reference;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Label of a trigger's deliveries.
pub const TRIGGER_LABEL: &str = "minik8s.io/trigger";

/// What comes of an event.
#[derive(Debug, PartialEq)]
pub(super) enum Shaped {
    /// The trigger does not want it.
    Unwanted,
    /// It goes to the target with this.
    Input(Value),
    /// The trigger cannot tell.
    Failed(String),
}

/// Whether a trigger wants an event, and what its target is given then.
pub(super) fn shape(trigger: &Trigger, event: &Value) -> Shaped {
    let variables = [("event", event)];
    if !trigger.spec.filter.is_empty() {
        match Expr::compile(&trigger.spec.filter, &VARIABLES).and_then(|filter| filter.holds(&variables)) {
            Ok(true) => {}
            Ok(false) => return Shaped::Unwanted,
            Err(e) => return Shaped::Failed(format!("filter: {e}")),
        }
    }
    let Some(parameters) = &trigger.spec.parameters else { return Shaped::Input(event.clone()) };
    match Template::compile("parameters", parameters, &VARIABLES) {
        Ok(template) => match template.fill(&variables) {
            Ok(input) => Shaped::Input(input),
            Err((source, e)) => Shaped::Failed(format!("parameters: ${{{source}}}: {e}")),
        },
        Err((field, _, e)) => Shaped::Failed(format!("{field}: {e}")),
    }
}

/// Whether a write that failed like this fails whenever it is tried.
pub(super) fn is_hopeless(error: &ApiError) -> bool {
    matches!(error.reason, Reason::Invalid | Reason::BadRequest | Reason::RequestEntityTooLarge)
}

/// Takes the states of an object out of an event about it, so that only who it is remains; false where that was done, or
/// there are none.
pub(super) fn slim(event: &mut Value) -> bool {
    let data = &mut event["data"];
    if data["partial"] == true || !data["object"]["metadata"].is_object() {
        return false;
    }
    let object = data["object"].take();
    let metadata: serde_json::Map<String, Value> = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"]
        .into_iter()
        .filter_map(|field| Some((field.to_owned(), object["metadata"].get(field)?.clone())))
        .collect();
    data["object"] = json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata});
    data["old"] = Value::Null;
    data["partial"] = true.into();
    true
}

/// Where events of triggers are written.
#[derive(Clone)]
pub(super) struct Emitter {
    pub(super) client: Client,
    pub(super) events: EventRecorder,
}

impl Emitter {
    /// Tells whoever looks at the trigger that an event cannot be delivered.
    pub(super) fn dropped(&self, trigger: &Trigger, event: &Value, error: &ApiError) {
        let about = [&event["source"], &event["id"]].map(|text| text.as_str().unwrap_or_default());
        let note = format!("The event {} of {} cannot be delivered: {error}", about[1], about[0]);
        tracing::warn!(trigger = trigger.metadata.name, %error, "an event cannot be delivered");
        self.events.event(&reference_of(trigger), EventType::Warning, "EventDropped", note);
    }

    /// Writes a delivery of an event, if the trigger wants it; answers with its name.
    pub(super) async fn emit(&self, trigger: &Trigger, event: Value) -> ApiResult<Option<String>> {
        if trigger.spec.suspend {
            return Ok(None);
        }
        let input = match shape(trigger, &event) {
            Shaped::Unwanted => return Ok(None),
            Shaped::Input(input) => input,
            Shaped::Failed(why) => {
                self.events.event(&reference_of(trigger), EventType::Warning, "EventNotUnderstood", why);
                return Ok(None);
            }
        };
        let name = name(trigger, &event);
        let namespace = trigger.metadata.namespace.clone().unwrap_or_default();
        let label = trigger.metadata.name.clone().unwrap_or_default();
        let labels = (label.len() <= 63).then(|| [(TRIGGER_LABEL.to_owned(), label.clone())].into());
        let delivery = TriggerDelivery {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                labels,
                owner_references: Some(vec![controller_reference(trigger)]),
                ..ObjectMeta::default()
            },
            spec: DeliverySpec {
                trigger: label,
                event,
                target: trigger.spec.target.clone(),
                input,
                retry: trigger.spec.retry.clone(),
            },
            status: None,
        };
        match self.client.api::<TriggerDelivery>(&namespace).create(&delivery).await {
            Err(e) if !e.is_already_exists() => Err(e),
            _ => Ok(Some(name)),
        }
    }
}

/// An event's `source` and `id` tell it from all others.
fn name(trigger: &Trigger, event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    let uid = trigger.metadata.uid.as_deref().unwrap_or_default();
    let digest = Sha256::digest(format!("{uid}\n{}\n{}", text("source"), text("id")));
    let digest: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("{}-{digest}", trigger.metadata.name.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_are_filtered_and_shaped() {
        let trigger =
            |spec: Value| serde_json::from_value::<Trigger>(json!({"metadata": {"name": "t"}, "spec": spec})).unwrap();
        let event = json!({"id": "1", "type": "order", "data": {"total": 7}});
        let table = [
            (json!({}), Shaped::Input(event.clone())),
            (json!({"filter": "event.data.total > 10"}), Shaped::Unwanted),
            (
                json!({"filter": "event.type == 'order'", "parameters": {"n": "${event.data.total}"}}),
                Shaped::Input(json!({"n": 7})),
            ),
        ];
        for (spec, want) in table {
            assert_eq!(shape(&trigger(spec.clone()), &event), want, "{spec}");
        }
        for spec in [
            json!({"filter": "event.nothing > 1"}),
            json!({"filter": "event.data.total"}),
            json!({"parameters": "${event.x.y}"}),
        ] {
            assert!(matches!(shape(&trigger(spec.clone()), &event), Shaped::Failed(_)), "{spec}");
        }
    }

    #[test]
    fn an_event_that_is_too_large_still_says_what_it_is_about() {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"large": "…"}});
        let mut event = json!({"id": "1", "data": {"event": "Modified", "object": object, "old": object}});
        assert!(slim(&mut event));
        let want = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        assert_eq!(event["data"], json!({"event": "Modified", "object": want, "old": null, "partial": true}));
        assert!(!slim(&mut event), "less cannot be said");
        assert!(!slim(&mut json!({"data": {"path": "/a"}})) && !slim(&mut json!({"data": "text"})));
    }

    #[test]
    fn one_event_has_one_name() {
        let trigger = Trigger {
            metadata: ObjectMeta { name: Some("t".into()), uid: Some("u".into()), ..ObjectMeta::default() },
            ..Trigger::default()
        };
        let event = |source: &str, id: &str| json!({"source": source, "id": id});
        assert_eq!(name(&trigger, &event("a", "1")), name(&trigger, &event("a", "1")));
        let others = [event("a", "2"), event("b", "1"), event("a\n1", "")];
        assert!(others.iter().all(|other| name(&trigger, other) != name(&trigger, &event("a", "1"))));
    }
}
