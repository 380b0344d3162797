use super::*;
use serde_json::json;

const POD: Expect<'_> = Expect { type_name: "io.k8s.api.core.v1.Pod", kind: "Pod", api_version: "v1" };
const CONFIG: Expect<'_> = Expect { type_name: "io.k8s.api.core.v1.ConfigMap", kind: "ConfigMap", api_version: "v1" };
const DEPLOYMENT: Expect<'_> =
    Expect { type_name: "io.k8s.api.apps.v1.Deployment", kind: "Deployment", api_version: "apps/v1" };

fn decode(expect: &Expect<'_>, text: &str, validation: FieldValidation) -> ApiResult<Decoded> {
    Schemas::builtin().decode(expect, &Payload::Json(text.to_owned().into()), validation)
}

fn strict(expect: &Expect<'_>, body: Value) -> Result<Value, String> {
    decode(expect, &body.to_string(), FieldValidation::Strict).map(|d| d.value).map_err(|e| e.message)
}

#[test]
fn unknown_fields_are_dropped_and_told() {
    let text = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","foo":1},"bogus":1,"data":{"a":"b"}}"#;
    let decoded = decode(&CONFIG, text, FieldValidation::Warn).unwrap();
    assert_eq!(decoded.warnings, ["unknown field \"metadata.foo\"", "unknown field \"bogus\""]);
    let expected = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "b"}});
    assert_eq!(decoded.value, expected);
    assert!(decode(&CONFIG, text, FieldValidation::Ignore).unwrap().warnings.is_empty());
    assert_eq!(
        decode(&CONFIG, text, FieldValidation::Strict).unwrap_err().message,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: \
         unknown field \"metadata.foo\", unknown field \"bogus\""
    );
    let nested = json!({"spec": {"containers": [{"name": "c"}, {"name": "d", "imagee": "x"}]}});
    assert_eq!(
        strict(&POD, nested).unwrap_err(),
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.containers[1].imagee\""
    );
}

#[test]
fn duplicate_fields_are_told_and_the_last_counts() {
    let text = r#"{"metadata":{"name":"gen3"},"data":{"a":"1","a":"2"},"immutable":true,"immutable":false}"#;
    let decoded = decode(&CONFIG, text, FieldValidation::Warn).unwrap();
    assert_eq!(decoded.warnings, ["duplicate field \"immutable\"", "duplicate field \"data.a\""]);
    assert_eq!(decoded.value["data"], json!({"a": "2"}));
    assert_eq!(decoded.value["immutable"], json!(false));
}

#[test]
fn wrong_types_name_the_field() {
    let cases = [
        (
            &CONFIG,
            json!({"data": {"a": 1}}),
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            &DEPLOYMENT,
            json!({"spec": {"replicas": "3"}}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            &DEPLOYMENT,
            json!({"spec": {"replicas": 3_000_000_000u64}}),
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (&POD, json!({"spec": []}), "json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec"),
        (
            &POD,
            json!({"spec": {"containers": {}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            &POD,
            json!({"spec": {"containers": [{"ports": [{"containerPort": "http"}]}]}}),
            "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            &POD,
            json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "1x"}}}]}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            &POD,
            json!({"metadata": {"creationTimestamp": "now"}}),
            "parsing time \"now\" as \"2006-01-02T15:04:05Z07:00\": cannot parse it",
        ),
    ];
    for (expect, body, why) in cases {
        let error = strict(expect, body).unwrap_err();
        assert_eq!(error, format!("{0} in version \"v1\" cannot be handled as a {0}: {why}", expect.kind));
    }
    assert!(strict(&CONFIG, json!({"binaryData": {"a": "***"}})).unwrap_err().contains("illegal base64 data"));
}

#[test]
fn nulls_and_empty_plain_values_vanish_but_pointers_stay() {
    let body = json!({"metadata": {"name": "p", "labels": {}, "creationTimestamp": null}, "spec": {
        "hostNetwork": false, "automountServiceAccountToken": false, "nodeName": "", "securityContext": {},
        "terminationGracePeriodSeconds": 0, "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "c", "image": "", "command": [], "resources": {}, "env": [{"name": "A", "value": ""}]}]},
        "status": {}});
    let expected = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "automountServiceAccountToken": false, "securityContext": {}, "terminationGracePeriodSeconds": 0,
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "c", "resources": {}, "env": [{"name": "A"}]}]}, "status": {}});
    assert_eq!(strict(&POD, body).unwrap(), expected);
}

#[test]
fn scalars_take_their_canonical_form() {
    let body = json!({"metadata": {"creationTimestamp": "2026-01-02T04:04:05.7+01:00"}, "spec": {"containers": [
        {"name": "c", "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi", "x": 2}}, "livenessProbe":
            {"httpGet": {"port": "http"}}}]}});
    let value = strict(&POD, body).unwrap();
    assert_eq!(value["metadata"]["creationTimestamp"], "2026-01-02T03:04:05Z");
    let limits = &value["spec"]["containers"][0]["resources"]["limits"];
    assert_eq!(*limits, json!({"cpu": "500m", "memory": "1Gi", "x": "2"}));
    let lease =
        Expect { type_name: "io.k8s.api.coordination.v1.Lease", kind: "Lease", api_version: "coordination.k8s.io/v1" };
    let value = strict(&lease, json!({"spec": {"renewTime": "2026-01-02T03:04:05Z"}})).unwrap();
    assert_eq!(value["spec"]["renewTime"], "2026-01-02T03:04:05.000000Z");
}

#[test]
fn yaml_is_read_with_the_rules_of_kubernetes() {
    let text = "kind: ConfigMap\nmetadata: {name: yml}\ndata:\n  a: 'yes'\n  a: two\nimmutable: yes\n";
    let decoded = Schemas::builtin().decode(&CONFIG, &Payload::Yaml(text.into()), FieldValidation::Warn).unwrap();
    assert_eq!(decoded.warnings, ["duplicate field \"data.a\""]);
    assert_eq!(decoded.value["data"]["a"], "two");
    assert_eq!(decoded.value["immutable"], true);
    let mode = "spec:\n  volumes:\n  - name: v\n    secret: {defaultMode: 0644}\n";
    let decoded = Schemas::builtin().decode(&POD, &Payload::Yaml(mode.into()), FieldValidation::Strict).unwrap();
    assert_eq!(decoded.value["spec"]["volumes"][0]["secret"]["defaultMode"], 420);
    let broken = Schemas::builtin().decode(&POD, &Payload::Yaml("a: [\n".into()), FieldValidation::Warn);
    assert!(broken.unwrap_err().message.starts_with("the object provided is unrecognized (must be of type Pod)"));
}

#[test]
fn other_kinds_versions_and_shapes_are_refused() {
    let other = strict(&CONFIG, json!({"apiVersion": "v1", "kind": "Secret"})).unwrap_err();
    assert!(other.starts_with("Secret in version \"v1\" cannot be handled as a ConfigMap"), "{other}");
    assert_eq!(
        strict(&CONFIG, json!({"apiVersion": "apps/v1", "kind": "ConfigMap"})).unwrap_err(),
        "the API version in the data (apps/v1) does not match the expected API version (v1)"
    );
    let broken = decode(&CONFIG, "{bad json", FieldValidation::Warn).unwrap_err();
    assert_eq!(broken.reason, Reason::BadRequest);
    let head = "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: ";
    assert!(broken.message.starts_with(head) && broken.message.ends_with("({bad json)"), "{}", broken.message);
    assert!(decode(&CONFIG, "[]", FieldValidation::Warn).is_err());
    assert!(decode(&CONFIG, "", FieldValidation::Warn).is_err());
}

#[test]
fn delete_options_come_under_any_version() {
    let expect = Expect {
        type_name: "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
        kind: "DeleteOptions",
        api_version: "",
    };
    let body = json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    assert_eq!(strict(&expect, body.clone()).unwrap(), body);
}

#[test]
fn bombs_are_refused() {
    let deep = format!("{{\"metadata\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(decode(&POD, &deep, FieldValidation::Warn).is_err());
    let large = Payload::Json(vec![b' '; MAX_BODY + 1].into());
    let error = Schemas::builtin().decode(&POD, &large, FieldValidation::Warn).unwrap_err();
    assert_eq!(error.reason, Reason::RequestEntityTooLarge);
    let billion = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
        d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n\
        g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: &h [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
    assert!(Schemas::builtin().parse(&Payload::Yaml(billion.into())).is_err());
    let many: String = (0..500).map(|i| format!("\"x{i}\":1,")).collect();
    let decoded = decode(&POD, &format!("{{{many}\"kind\":\"Pod\"}}"), FieldValidation::Warn).unwrap();
    assert_eq!(decoded.warnings.len(), 100);
}

proptest::proptest! {
    #[test]
    fn what_was_checked_passes_again_unchanged(replicas in proptest::option::of(0i32..9), name in "[a-z]{0,3}", paused: bool) {
        let body = json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "paused": paused,
            "selector": {"matchLabels": {"a": name}}, "template": {"spec": {"containers": [{"name": name}]}}}});
        let schemas = Schemas::builtin();
        let once = schemas.check(DEPLOYMENT.type_name, body).unwrap();
        let twice = schemas.check(DEPLOYMENT.type_name, once.value.clone()).unwrap();
        proptest::prop_assert_eq!(once, twice);
    }
}
