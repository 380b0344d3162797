use super::*;
use serde_json::json;

const POD: &str = "io.k8s.api.core.v1.Pod";
const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";

fn smp(type_name: &str, target: Value, patch: Value) -> Value {
    strategic(&Schemas::builtin(), type_name, target, patch).unwrap()
}

fn pod(containers: Value) -> Value {
    json!({"spec": {"containers": containers}})
}

#[test]
fn lists_merge_by_key_and_new_items_come_first() {
    let target = pod(json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}]));
    let patch = pod(json!([{"name": "b", "image": "2"}, {"name": "a", "env": [{"name": "Y", "value": "2"}]}]));
    assert_eq!(
        smp(POD, target, patch)["spec"]["containers"],
        json!([{"name": "b", "image": "2"},
            {"name": "a", "image": "1", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]}])
    );
}

#[test]
fn set_element_order_decides_the_order() {
    let names = |value: &Value| -> Vec<String> {
        let items = value["spec"]["containers"].as_array().unwrap();
        items.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
    };
    let order = |order: &[&str], patch: Value| {
        let list: Vec<Value> = order.iter().map(|n| json!({"name": n})).collect();
        json!({"spec": {"$setElementOrder/containers": list, "containers": patch}})
    };
    let three = || pod(json!([{"name": "a"}, {"name": "b"}, {"name": "c"}]));
    let cases: [(&[&str], Value, &[&str]); 5] = [
        (&["c", "b", "a"], json!([]), &["c", "b", "a"]),
        (&["a", "n", "c"], json!([{"name": "n"}]), &["a", "n", "b", "c"]),
        (&["n", "a", "b", "c"], json!([{"name": "n"}]), &["n", "a", "b", "c"]),
        (&["a", "b", "c", "n"], json!([{"name": "n"}]), &["a", "b", "c", "n"]),
        (&["a", "c"], json!([{"name": "b", "$patch": "delete"}]), &["a", "c"]),
    ];
    for (wanted, patch, expected) in cases {
        assert_eq!(names(&smp(POD, three(), order(wanted, patch))), expected, "{wanted:?}");
    }
    let alone = json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}});
    assert_eq!(names(&smp(POD, three(), alone)), ["b", "a", "c"]);
    let absent = smp(POD, json!({"spec": {}}), order(&["x", "y"], json!([{"name": "y"}, {"name": "x"}])));
    assert_eq!(names(&absent), ["x", "y"]);
}

#[test]
fn set_image_as_kubectl_sends_it() {
    let target = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "web", "image": "nginx:1", "ports": [{"containerPort": 80}]}, {"name": "side", "image": "x"}]}}}});
    let patch = json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "web"}, {"name": "side"}],
        "containers": [{"image": "nginx:2", "name": "web"}]}}}});
    assert_eq!(
        smp(DEPLOYMENT, target, patch)["spec"]["template"]["spec"],
        json!({"containers": [{"name": "web", "image": "nginx:2", "ports": [{"containerPort": 80}]},
            {"name": "side", "image": "x"}]})
    );
}

#[test]
fn directives_replace_and_delete() {
    let target = || json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
    let deleted = smp(POD, target(), pod(json!([{"name": "a", "$patch": "delete"}])));
    assert_eq!(deleted["spec"]["containers"], json!([{"name": "b"}]));
    let replaced = smp(POD, target(), pod(json!([{"$patch": "replace"}, {"name": "z"}])));
    assert_eq!(replaced["spec"]["containers"], json!([{"name": "z"}]));
    let labels = smp(POD, target(), json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}));
    assert_eq!(labels["metadata"]["labels"], json!({"c": "3"}));
    let none = smp(POD, target(), json!({"metadata": {"labels": {"$patch": "delete"}}}));
    assert_eq!(none["metadata"]["labels"], json!({}));
    let merged = smp(POD, target(), json!({"metadata": {"labels": {"$patch": "merge", "c": "3"}}}));
    assert_eq!(merged["metadata"]["labels"], json!({"a": "1", "b": "2", "c": "3"}));
}

#[test]
fn nulls_delete_and_leave_no_trace() {
    let target = json!({"metadata": {"annotations": {"a": "1"}}, "spec": {"paused": true, "replicas": 1}});
    let patch = json!({"metadata": {"annotations": {"a": null, "b": null}, "labels": {"x": null, "y": "1"}}, "spec": {"paused": null}});
    assert_eq!(
        smp(DEPLOYMENT, target, patch),
        json!({"metadata": {"annotations": {}, "labels": {"y": "1"}}, "spec": {"replicas": 1}})
    );
}

#[test]
fn scalars_merge_where_the_type_says_so() {
    let target = || json!({"metadata": {"finalizers": ["a/b", "c/d"]}, "spec": {"tolerations": [{"key": "x"}]}});
    let added = smp(POD, target(), json!({"metadata": {"finalizers": ["e/f", "a/b"]}}));
    assert_eq!(added["metadata"]["finalizers"], json!(["e/f", "a/b", "c/d"]));
    let removed = smp(POD, target(), json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/b"]}}));
    assert_eq!(removed["metadata"]["finalizers"], json!(["c/d"]));
    let both = json!({"metadata": {"$setElementOrder/finalizers": ["g/h", "c/d"], "finalizers": ["g/h"],
        "$deleteFromPrimitiveList/finalizers": ["a/b"]}});
    assert_eq!(smp(POD, target(), both)["metadata"]["finalizers"], json!(["g/h", "c/d"]));
    let atomic = smp(POD, target(), json!({"spec": {"tolerations": [{"key": "y"}]}}));
    assert_eq!(atomic["spec"]["tolerations"], json!([{"key": "y"}]));
}

#[test]
fn retain_keys_clears_the_rest() {
    let target = || json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(smp(DEPLOYMENT, target(), patch), json!({"spec": {"strategy": {"type": "Recreate"}}}));
    let volumes = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
    let patch =
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]}});
    assert_eq!(smp(POD, volumes, patch), json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}}));
    let stray = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
    let error = strategic(&Schemas::builtin(), DEPLOYMENT, target(), stray).unwrap_err();
    assert_eq!(error.to_string(), "invalid patch format of retainKeys");
}

#[test]
fn merge_keys_of_ports_mounts_and_conditions() {
    let service = "io.k8s.api.core.v1.Service";
    let target = json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 443, "name": "b"}]}});
    let patched = smp(service, target, json!({"spec": {"ports": [{"port": 443, "targetPort": 8443}]}}));
    assert_eq!(
        patched["spec"]["ports"],
        json!([{"port": 80, "name": "a"}, {"port": 443, "name": "b", "targetPort": 8443}])
    );
    let node = "io.k8s.api.core.v1.Node";
    let target = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "x"}, {"type": "Disk", "status": "False"}]}});
    let patched = smp(node, target, json!({"status": {"conditions": [{"type": "Disk", "status": "True"}]}}));
    assert_eq!(patched["status"]["conditions"][1], json!({"type": "Disk", "status": "True"}));
    assert_eq!(patched["status"]["conditions"][0]["reason"], "x");
}

#[test]
fn mistakes_in_directives_are_refused() {
    let fails = |patch: Value| {
        let mut target = pod(json!([{"name": "a"}]));
        target["metadata"] = json!({});
        strategic(&Schemas::builtin(), POD, target, patch).unwrap_err().to_string()
    };
    assert!(fails(json!({"spec": {"$patch": "shred"}})).starts_with("unknown patch type"));
    assert!(fails(pod(json!([{"image": "x"}]))).ends_with("does not contain declared merge key: name"));
    assert!(fails(pod(json!(["x"]))).contains("is no object"));
    assert_eq!(
        fails(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}})),
        "invalid patch format of primitive list"
    );
    assert_eq!(
        fails(json!({"spec": {"$setElementOrder/containers": 1}})),
        "invalid patch format of setElementOrder list"
    );
    assert!(strategic(&Schemas::builtin(), POD, json!({}), json!([])).is_err());
}

fn request(kind: PatchType, current: Value, patch: Value, validation: FieldValidation) -> ApiResult<Decoded> {
    let body = Payload::Json(patch.to_string().into());
    Schemas::builtin().patch("io.k8s.api.core.v1.ConfigMap", kind, current, &body, validation)
}

#[test]
fn json_patches_apply_or_are_refused_whole() {
    let current = || json!({"metadata": {"name": "c"}, "data": {"a": "b"}});
    let patch = json!([{"op": "test", "path": "/data/a", "value": "b"}, {"op": "replace", "path": "/data/a", "value": "c"},
        {"op": "add", "path": "/data/x~1y", "value": "z"}]);
    let patched = request(PatchType::Json, current(), patch, FieldValidation::Warn).unwrap();
    assert_eq!(patched.value["data"], json!({"a": "c", "x/y": "z"}));
    let failed = json!([{"op": "test", "path": "/data/a", "value": "zz"}]);
    let error = request(PatchType::Json, current(), failed, FieldValidation::Warn).unwrap_err();
    assert_eq!(error.reason, Reason::Invalid);
    assert_eq!(error.message, "the server rejected our request due to an error in our request");
    let malformed = request(PatchType::Json, current(), json!({"op": "test"}), FieldValidation::Warn).unwrap_err();
    assert_eq!(malformed.reason, Reason::BadRequest);
    let many = Value::Array(vec![json!({"op": "test", "path": "/data/a", "value": "b"}); json::MAX_OPERATIONS + 1]);
    assert_eq!(
        request(PatchType::Json, current(), many, FieldValidation::Warn).unwrap_err().reason,
        Reason::RequestEntityTooLarge
    );
}

#[test]
fn outcomes_of_patches_are_validated() {
    let current = || json!({"metadata": {"name": "c"}, "data": {"a": "b"}});
    let unknown = json!({"data": {"a": null}, "bogus": 1});
    let patched = request(PatchType::Merge, current(), unknown.clone(), FieldValidation::Warn).unwrap();
    assert_eq!(patched.value, json!({"metadata": {"name": "c"}}));
    assert_eq!(patched.warnings, ["unknown field \"bogus\""]);
    let strict = request(PatchType::StrategicMerge, current(), unknown, FieldValidation::Strict).unwrap_err();
    assert_eq!(strict.reason, Reason::Invalid);
    assert!(strict.message.ends_with("strict decoding error: unknown field \"bogus\""), "{}", strict.message);
    let mistyped =
        request(PatchType::Merge, current(), json!({"data": {"a": 1}}), FieldValidation::Ignore).unwrap_err();
    assert_eq!((mistyped.reason, mistyped.details.causes[0].field.as_str()), (Reason::Invalid, "patch"));
    let twice = Payload::Json(r#"{"data":{"k":"1","k":"2"}}"#.into());
    let schemas = Schemas::builtin();
    let patched = schemas
        .patch("io.k8s.api.core.v1.ConfigMap", PatchType::Merge, current(), &twice, FieldValidation::Warn)
        .unwrap();
    assert_eq!(patched.warnings, ["duplicate field \"data.k\""]);
    let apply = request(PatchType::Apply { force: false }, current(), json!({}), FieldValidation::Warn).unwrap_err();
    assert_eq!(apply.reason, Reason::UnsupportedMediaType);
}

proptest::proptest! {
    #[test]
    fn applying_twice_changes_nothing_more(names in proptest::collection::vec("[a-d]", 0..4), add in "[a-f]", order in proptest::collection::vec("[a-f]", 0..4)) {
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        let list: Vec<Value> = unique.iter().map(|n| json!({"name": n, "image": "1"})).collect();
        let order: Vec<Value> = order.iter().map(|n| json!({"name": n})).collect();
        let patch = json!({"spec": {"$setElementOrder/containers": order, "containers": [{"name": add, "image": "2"}]}});
        let once = smp(POD, pod(Value::Array(list.clone())), patch.clone());
        let twice = smp(POD, once.clone(), patch);
        proptest::prop_assert_eq!(&once, &twice);
        let count = once["spec"]["containers"].as_array().unwrap().len();
        proptest::prop_assert_eq!(count, list.len() + usize::from(!unique.contains(&add)));
    }
}

#[test]
fn a_refused_patch_shows_no_values() {
    let patch = json!({"data": {"password": "hunter2"}, "spek": {}});
    let error = request(
        PatchType::Merge,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}),
        patch,
        FieldValidation::Strict,
    )
    .unwrap_err();
    let causes: Vec<_> = error.details.causes.iter().map(|c| c.message.as_str()).collect();
    assert!(error.message.contains("spek"), "{error}");
    assert!(!error.message.contains("hunter2") && !causes.concat().contains("hunter2"), "{error} {causes:?}");
}
