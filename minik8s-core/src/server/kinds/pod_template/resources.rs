//! Requests and limits of containers, and the class of service they lead to.

use super::defaults::CONTAINER_LISTS;
use crate::api::Quantity;
use crate::server::FieldErrors;
use serde_json::Value;

const COMPUTE: [&str; 2] = ["cpu", "memory"];

fn amount(container: &Value, list: &str, name: &str) -> Option<Quantity> {
    let value = container.get("resources")?.get(list)?.get(name)?;
    Quantity::from_value(value).ok().filter(|q| !q.is_zero())
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn qos_class(spec: &Value) -> &'static str {
    let lists = CONTAINER_LISTS.iter().filter_map(|list| spec.get(*list).and_then(Value::as_array));
    let containers: Vec<&Value> = lists.flatten().collect();
    let pairs = || containers.iter().flat_map(|c| COMPUTE.iter().map(move |name| (*c, *name)));
    let any = pairs().any(|(c, name)| amount(c, "requests", name).or_else(|| amount(c, "limits", name)).is_some());
    let guaranteed = pairs().all(|(c, name)| {
        let limit = amount(c, "limits", name);
        limit.is_some() && amount(c, "requests", name).or(limit) == limit
    });
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// A resource of every node, or one that somebody's domain defines.
fn known(name: &str) -> bool {
    COMPUTE.contains(&name) || name == "ephemeral-storage" || name.starts_with("hugepages-") || name.contains('/')
}

/// A resource that is counted in pieces and not shared.
fn extended(name: &str) -> bool {
    name.contains('/') && !name.starts_with("kubernetes.io/") && !name.contains(".kubernetes.io/")
}

/// Pieces cannot be had beyond what is asked for: request and limit are the same, and there is no request without limit.
fn whole_devices(path: &str, container: &Value, errors: &mut FieldErrors) {
    let list = |list: &str| container.get("resources").and_then(|r| r.get(list)).and_then(Value::as_object);
    let requests = list("requests").into_iter().flatten().filter(|(name, _)| extended(name));
    for (name, request) in requests {
        match list("limits").and_then(|limits| limits.get(name)) {
            None => errors
                .required(format!("{path}.resources.limits"), "Limit must be set for non overcommitable resources"),
            Some(limit) => {
                let same = Quantity::from_value(request).ok() == Quantity::from_value(limit).ok();
                if !same {
                    let why = format!("must be equal to {name} limit of {}", limit.as_str().unwrap_or_default());
                    errors.invalid(format!("{path}.resources.requests"), request, &why);
                }
            }
        }
    }
}

/// Amounts that can be read, are not negative, and requests within limits.
pub(super) fn validate(path: &str, container: &Value, errors: &mut FieldErrors) {
    for list in ["limits", "requests"] {
        let given = container.get("resources").and_then(|r| r.get(list)).and_then(Value::as_object);
        for (name, value) in given.into_iter().flatten() {
            let at = format!("{path}.resources.{list}[{name}]");
            if !known(name) {
                errors.invalid(
                    at.as_str(),
                    &name.as_str().into(),
                    "must be a standard resource type or fully qualified",
                );
            }
            match Quantity::from_value(value) {
                Err(error) => errors.invalid(at, value, &error.to_string()),
                Ok(q) if q.is_negative() => errors.invalid(at, value, "must be greater than or equal to 0"),
                Ok(q) if extended(name) && q.milli_value() % 1000 != 0 => {
                    errors.invalid(at, value, "must be an integer")
                }
                Ok(_) => {}
            }
        }
    }
    whole_devices(path, container, errors);
    let limits = container.pointer("/resources/limits").and_then(Value::as_object);
    for (name, limit) in limits.into_iter().flatten().filter(|(name, _)| !extended(name)) {
        let request = container.pointer("/resources/requests").and_then(|r| r.get(name));
        let (Some(Ok(asked)), Ok(most)) = (request.map(Quantity::from_value), Quantity::from_value(limit)) else {
            continue;
        };
        if asked > most {
            let why = format!("must be less than or equal to {name} limit of {}", limit.as_str().unwrap_or_default());
            errors.invalid(format!("{path}.resources.requests"), request.unwrap_or(&Value::Null), &why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pieces_are_whole_and_asked_for_as_they_are_allowed() {
        let told = |resources: Value| {
            let mut errors = FieldErrors::default();
            validate("spec.containers[0]", &json!({"name": "c", "resources": resources}), &mut errors);
            errors.0.into_iter().map(|cause| (cause.field, cause.message)).collect::<Vec<_>>()
        };
        let gpu = "nvidia.com/gpu";
        assert_eq!(told(json!({"limits": {gpu: "2"}, "requests": {gpu: 2}})), []);
        assert_eq!(told(json!({"limits": {gpu: "2"}})), []);
        for (resources, field, words) in [
            (json!({"requests": {gpu: "1"}}), "limits", "Limit must be set for non overcommitable resources"),
            (
                json!({"limits": {gpu: "2"}, "requests": {gpu: "1"}}),
                "requests",
                "must be equal to nvidia.com/gpu limit of 2",
            ),
            (
                json!({"limits": {gpu: "1"}, "requests": {gpu: "2"}}),
                "requests",
                "must be equal to nvidia.com/gpu limit of 1",
            ),
            (json!({"limits": {gpu: "500m"}}), "limits[nvidia.com/gpu]", "must be an integer"),
        ] {
            let told = told(resources.clone());
            assert!(
                told.len() == 1 && told[0].0.ends_with(field) && told[0].1.contains(words),
                "{resources}: {told:?}"
            );
        }
    }

    #[test]
    fn classes_of_service() {
        let of = |resources: Value| qos_class(&json!({"containers": [{"name": "c", "resources": resources}]}));
        assert_eq!(of(json!({})), "BestEffort");
        assert_eq!(of(json!({"requests": {"cpu": "1"}})), "Burstable");
        let limits = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(of(json!({"limits": limits})), "Guaranteed");
        assert_eq!(of(json!({"limits": limits, "requests": {"cpu": "1000m", "memory": "1024Mi"}})), "Guaranteed");
        assert_eq!(of(json!({"limits": limits, "requests": {"cpu": "500m", "memory": "1Gi"}})), "Burstable");
        assert_eq!(of(json!({"limits": {"cpu": "1"}})), "Burstable");
    }
}
