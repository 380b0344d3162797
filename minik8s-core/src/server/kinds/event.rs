//! `Event`, of the core group and of `events.k8s.io`: two forms of one stored object.

use super::cells::{Cell, NAME, column, since, wide};
use super::util::{names, number, set, text, unset};
use crate::api::Gvr;
use crate::server::{Column, FieldErrors, Kind, KindNames, SelectableField};
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;

/// How long events are kept.
const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Names of the same field: in the core group, and in `events.k8s.io`.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

const CORE: Gvr = Gvr::new("", "v1", "events");

macro_rules! field {
    ($path:literal, $pointer:literal) => {
        SelectableField { path: $path, value: |o| text(o, $pointer).to_owned() }
    };
}

/// Selectable fields; both forms are read from the stored one, which is the core group's.
static CORE_FIELDS: [SelectableField; 11] = [
    field!("involvedObject.kind", "/involvedObject/kind"),
    field!("involvedObject.namespace", "/involvedObject/namespace"),
    field!("involvedObject.name", "/involvedObject/name"),
    field!("involvedObject.uid", "/involvedObject/uid"),
    field!("involvedObject.apiVersion", "/involvedObject/apiVersion"),
    field!("involvedObject.resourceVersion", "/involvedObject/resourceVersion"),
    field!("involvedObject.fieldPath", "/involvedObject/fieldPath"),
    field!("reason", "/reason"),
    field!("reportingComponent", "/reportingComponent"),
    SelectableField { path: "source", value: component },
    field!("type", "/type"),
];

static NEW_FIELDS: [SelectableField; 10] = [
    field!("regarding.kind", "/involvedObject/kind"),
    field!("regarding.namespace", "/involvedObject/namespace"),
    field!("regarding.name", "/involvedObject/name"),
    field!("regarding.uid", "/involvedObject/uid"),
    field!("regarding.apiVersion", "/involvedObject/apiVersion"),
    field!("regarding.resourceVersion", "/involvedObject/resourceVersion"),
    field!("regarding.fieldPath", "/involvedObject/fieldPath"),
    field!("reason", "/reason"),
    field!("reportingController", "/reportingComponent"),
    field!("type", "/type"),
];

fn component(event: &Value) -> String {
    let source = text(event, "/source/component");
    if source.is_empty() { text(event, "/reportingComponent") } else { source }.to_owned()
}

const fn columns(object: Cell, subobject: Cell, source: Cell, message: Cell, seen: (Cell, Cell, Cell)) -> [Column; 10] {
    [
        column("Last Seen", seen.0),
        column("Type", |o, _| text(o, "/type").into()),
        column("Reason", |o, _| text(o, "/reason").into()),
        column("Object", object),
        wide("Subobject", subobject),
        wide("Source", source),
        column("Message", message),
        wide("First Seen", seen.1),
        wide("Count", seen.2),
        Column { priority: 1, ..NAME },
    ]
}

static CORE_COLUMNS: [Column; 10] = columns(
    |o, _| object(o).into(),
    |o, _| text(o, "/involvedObject/fieldPath").into(),
    |o, _| source(o).into(),
    |o, _| text(o, "/message").trim().into(),
    (|o, now| last_seen(o, now).into(), |o, now| first_seen(o, now).into(), |o, _| count(o).into()),
);

static NEW_COLUMNS: [Column; 10] = columns(
    |o, _| object(&core_form(o)).into(),
    |o, _| text(o, "/regarding/fieldPath").into(),
    |o, _| source(&core_form(o)).into(),
    |o, _| text(o, "/note").trim().into(),
    (
        |o, now| last_seen(&core_form(o), now).into(),
        |o, now| first_seen(&core_form(o), now).into(),
        |o, _| count(&core_form(o)).into(),
    ),
);

/// Events of the core group: how they are stored.
pub(crate) struct CoreEventKind(KindNames);

impl CoreEventKind {
    pub(crate) fn new() -> Self {
        Self(names(CORE, "Event", &["ev"], false, true))
    }
}

impl Kind for CoreEventKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.core.v1.Event"
    }

    fn columns(&self) -> &'static [Column] {
        &CORE_COLUMNS
    }

    fn fields(&self) -> &'static [SelectableField] {
        &CORE_FIELDS
    }

    fn ttl(&self, _: &Value) -> Option<Duration> {
        Some(LIFETIME)
    }

    fn validate(&self, new: &Value, _: Option<&Value>, errors: &mut FieldErrors) {
        check_namespace(new, "involvedObject", errors);
    }
}

/// Events of `events.k8s.io`.
pub(crate) struct EventKind(KindNames);

impl EventKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("events.k8s.io", "v1", "events"), "Event", &["ev"], false, true))
    }
}

impl Kind for EventKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.events.v1.Event"
    }

    fn columns(&self) -> &'static [Column] {
        &NEW_COLUMNS
    }

    fn fields(&self) -> &'static [SelectableField] {
        &NEW_FIELDS
    }

    fn ttl(&self, _: &Value) -> Option<Duration> {
        Some(LIFETIME)
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        check_namespace(new, "regarding", errors);
        if old.is_some() {
            return;
        }
        for field in ["eventTime", "reportingController", "reportingInstance", "action", "reason"] {
            if new.get(field).is_none_or(|v| v.is_null() || v == "") {
                errors.required(field, "");
            }
        }
    }

    fn stored_as(&self) -> Option<Gvr> {
        Some(CORE)
    }

    fn to_storage(&self, object: &mut Value) {
        rename(object, |(core, new)| (new, core));
        set(object, "apiVersion", "v1".into());
    }

    fn from_storage(&self, object: &mut Value) {
        rename(object, |names| names);
        set(object, "apiVersion", "events.k8s.io/v1".into());
    }
}

fn rename(object: &mut Value, direction: fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    for (from, to) in RENAMED.map(direction) {
        let value = object.get_mut(from).map(Value::take);
        unset(object, from);
        if let Some(value) = value.filter(|v| !v.is_null()) {
            set(object, to, value);
        }
    }
}

fn core_form(event: &Value) -> Value {
    let mut core = event.clone();
    rename(&mut core, |(core, new)| (new, core));
    core
}

/// An event lives where its object does; those of cluster-wide objects live in `default`, and some in `kube-system`.
fn check_namespace(event: &Value, field: &str, errors: &mut FieldErrors) {
    let (own, of) = (text(event, "/metadata/namespace"), text(event, &format!("/{field}/namespace")));
    let fits = if of.is_empty() { own == "default" || own == "kube-system" } else { of == own };
    if !fits {
        errors.invalid(format!("{field}.namespace"), &of.into(), "does not match event.namespace");
    }
}

fn object(event: &Value) -> String {
    format!("{}/{}", text(event, "/involvedObject/kind").to_lowercase(), text(event, "/involvedObject/name"))
}

fn source(event: &Value) -> String {
    let pick = |old: &str, new: &str| {
        let old = text(event, old);
        if old.is_empty() { text(event, new) } else { old }.to_owned()
    };
    let component = pick("/source/component", "/reportingComponent");
    let host = pick("/source/host", "/reportingInstance");
    if host.is_empty() { component } else { format!("{component}, {host}") }
}

fn first_of(event: &Value, pointers: &[&'static str], now: Timestamp) -> String {
    let found = pointers.iter().find(|p| !text(event, p).is_empty());
    found.map_or_else(|| "<unknown>".to_owned(), |pointer| since(event, pointer, now))
}

fn last_seen(event: &Value, now: Timestamp) -> String {
    first_of(event, &["/series/lastObservedTime", "/lastTimestamp", "/firstTimestamp", "/eventTime"], now)
}

fn first_seen(event: &Value, now: Timestamp) -> String {
    first_of(event, &["/firstTimestamp", "/eventTime"], now)
}

fn count(event: &Value) -> i64 {
    let counted = number(event, "/series/count").or_else(|| number(event, "/count"));
    counted.filter(|n| *n != 0).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_two_forms_are_one_object() {
        let new = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "n", "reason": "r",
            "regarding": {"kind": "Pod"}, "reportingController": "c", "deprecatedCount": 2});
        let mut stored = new.clone();
        let kind = EventKind::new();
        kind.to_storage(&mut stored);
        let want = json!({"apiVersion": "v1", "kind": "Event", "message": "n", "reason": "r",
            "involvedObject": {"kind": "Pod"}, "reportingComponent": "c", "count": 2});
        assert_eq!(stored, want);
        kind.from_storage(&mut stored);
        assert_eq!(stored, new);
    }

    #[test]
    fn cells_of_both_forms_agree() {
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        let core = json!({"type": "Normal", "reason": "Started", "message": "m\n", "count": 3,
            "involvedObject": {"kind": "Pod", "name": "p"}, "source": {"component": "agent", "host": "n1"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:08Z"});
        let mut new = core.clone();
        EventKind::new().from_storage(&mut new);
        let row = |columns: &[Column], event: &Value| columns.iter().map(|c| (c.cell)(event, now)).collect::<Vec<_>>();
        let want = json!(["2s", "Normal", "Started", "pod/p", "", "agent, n1", "m", "10s", 3, ""]);
        assert_eq!(Value::from(row(&CORE_COLUMNS, &core)), want);
        assert_eq!(Value::from(row(&NEW_COLUMNS, &new)), want);
    }
}
