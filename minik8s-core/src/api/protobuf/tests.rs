use super::*;
use prost::Message;
use serde_json::json;

// Messages as another encoder would write them: derived by hand from the upstream field numbers.
#[derive(Clone, PartialEq, Message)]
struct Envelope3 {
    #[prost(message, optional, tag = "1")]
    type_meta: Option<TypeMeta>,
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
    #[prost(string, optional, tag = "3")]
    content_encoding: Option<String>,
    #[prost(string, optional, tag = "4")]
    content_type: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeMeta {
    #[prost(string, tag = "1")]
    api_version: String,
    #[prost(string, tag = "2")]
    kind: String,
}

#[derive(Clone, PartialEq, Message)]
struct ObjectMeta {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "3")]
    namespace: Option<String>,
    #[prost(int64, optional, tag = "7")]
    generation: Option<i64>,
    #[prost(message, optional, tag = "8")]
    creation: Option<Time>,
    #[prost(map = "string, string", tag = "11")]
    labels: std::collections::HashMap<String, String>,
    #[prost(string, repeated, tag = "14")]
    finalizers: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Time {
    #[prost(int64, optional, tag = "1")]
    seconds: Option<i64>,
    #[prost(int32, optional, tag = "2")]
    nanos: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Deployment {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
    #[prost(message, optional, tag = "2")]
    spec: Option<DeploymentSpec>,
    #[prost(message, optional, tag = "3")]
    status: Option<Empty>,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct DeploymentSpec {
    #[prost(int32, optional, tag = "1")]
    replicas: Option<i32>,
    #[prost(message, optional, tag = "3")]
    template: Option<PodTemplate>,
    #[prost(message, optional, tag = "4")]
    strategy: Option<Strategy>,
    #[prost(int32, optional, tag = "5")]
    min_ready_seconds: Option<i32>,
    #[prost(bool, optional, tag = "7")]
    paused: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct Strategy {
    #[prost(string, optional, tag = "1")]
    kind: Option<String>,
    #[prost(message, optional, tag = "2")]
    rolling: Option<Rolling>,
}

#[derive(Clone, PartialEq, Message)]
struct Rolling {
    #[prost(message, optional, tag = "1")]
    max_unavailable: Option<IntOrString>,
    #[prost(message, optional, tag = "2")]
    max_surge: Option<IntOrString>,
}

#[derive(Clone, PartialEq, Message)]
struct IntOrString {
    #[prost(int64, optional, tag = "1")]
    kind: Option<i64>,
    #[prost(int32, optional, tag = "2")]
    int: Option<i32>,
    #[prost(string, optional, tag = "3")]
    text: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct PodTemplate {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
    #[prost(message, optional, tag = "2")]
    spec: Option<PodSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSpec {
    #[prost(message, repeated, tag = "1")]
    volumes: Vec<Volume>,
    #[prost(message, repeated, tag = "2")]
    containers: Vec<Container>,
    #[prost(bool, optional, tag = "11")]
    host_network: Option<bool>,
    #[prost(bool, optional, tag = "21")]
    automount: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct Volume {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(message, optional, tag = "2")]
    source: Option<VolumeSource>,
}

#[derive(Clone, PartialEq, Message)]
struct VolumeSource {
    #[prost(message, optional, tag = "2")]
    empty_dir: Option<Empty>,
}

#[derive(Clone, PartialEq, Message)]
struct Container {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    image: Option<String>,
    #[prost(message, optional, tag = "8")]
    resources: Option<Resources>,
    #[prost(string, optional, tag = "999")]
    unknown: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Resources {
    #[prost(map = "string, message", tag = "1")]
    limits: std::collections::HashMap<String, Quantity>,
}

#[derive(Clone, PartialEq, Message)]
struct Quantity {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn sealed(api_version: &str, kind: &str, raw: Vec<u8>) -> Vec<u8> {
    let type_meta = Some(TypeMeta { api_version: api_version.into(), kind: kind.into() });
    let inner = Envelope3 { type_meta, raw, content_encoding: some(""), content_type: some("") };
    [MAGIC, &inner.encode_to_vec()].concat()
}

/// What `kubectl create deployment` sends, with the empty values Go always writes.
fn deployment() -> Deployment {
    let meta = |name: &str| ObjectMeta {
        name: some(name),
        namespace: some(""),
        generation: Some(0),
        creation: Some(Time { seconds: None, nanos: None }),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        finalizers: Vec::new(),
    };
    let container = Container {
        name: some("nginx"),
        image: some("nginx:1"),
        resources: Some(Resources { limits: [("cpu".into(), Quantity { text: some("500m") })].into() }),
        unknown: some("newer than this server"),
    };
    let volume = Volume { name: some("v"), source: Some(VolumeSource { empty_dir: Some(Empty {}) }) };
    let pod = PodSpec {
        volumes: vec![volume],
        containers: vec![container],
        host_network: Some(false),
        automount: Some(false),
    };
    let rolling = Rolling {
        max_unavailable: Some(IntOrString { kind: Some(1), int: Some(0), text: some("25%") }),
        max_surge: Some(IntOrString { kind: Some(0), int: Some(1), text: some("") }),
    };
    let spec = DeploymentSpec {
        replicas: Some(0),
        template: Some(PodTemplate { metadata: Some(meta("")), spec: Some(pod) }),
        strategy: Some(Strategy { kind: some(""), rolling: Some(rolling) }),
        min_ready_seconds: Some(0),
        paused: Some(false),
    };
    Deployment { metadata: Some(meta("web")), spec: Some(spec), status: Some(Empty {}) }
}

#[test]
fn a_deployment_reads_as_its_json() {
    let sealed = sealed("apps/v1", "Deployment", deployment().encode_to_vec());
    let envelope = envelope(&sealed).unwrap();
    assert_eq!((envelope.api_version.as_str(), envelope.kind.as_str()), ("apps/v1", "Deployment"));
    let value = decode(&Schemas::builtin(), "io.k8s.api.apps.v1.Deployment", &envelope.raw).unwrap();
    assert_eq!(
        value,
        json!({
            "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {
                "replicas": 0,
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                    "automountServiceAccountToken": false,
                    "volumes": [{"name": "v", "emptyDir": {}}],
                    "containers": [{"name": "nginx", "image": "nginx:1", "resources": {"limits": {"cpu": "500m"}}}],
                }},
                "strategy": {"rollingUpdate": {"maxUnavailable": "25%", "maxSurge": 1}},
            },
        })
    );
}

#[test]
fn special_forms() {
    #[derive(Clone, PartialEq, Message)]
    struct Secret {
        #[prost(message, optional, tag = "1")]
        metadata: Option<ObjectMeta>,
        #[prost(map = "string, bytes", tag = "2")]
        data: std::collections::HashMap<String, Vec<u8>>,
    }
    let metadata =
        ObjectMeta { creation: Some(Time { seconds: Some(1_700_000_000), nanos: Some(5) }), ..Default::default() };
    let secret =
        Secret { metadata: Some(metadata), data: [("k".into(), b"hello".to_vec()), ("e".into(), vec![])].into() };
    let value = decode(&Schemas::builtin(), "io.k8s.api.core.v1.Secret", &secret.encode_to_vec()).unwrap();
    let expected =
        json!({"metadata": {"creationTimestamp": "2023-11-14T22:13:20Z"}, "data": {"k": "aGVsbG8=", "e": ""}});
    assert_eq!(value, expected);
    assert_eq!(go_duration(5_000_000_000), "5s");
    assert_eq!(go_duration(3_723_500_000_000), "1h2m3.5s");
    assert_eq!(go_duration(0), "0s");
}

#[test]
fn wrapped_lists_of_text() {
    // UserInfo.extra: map<string, ExtraValue{items}>
    #[derive(Clone, PartialEq, Message)]
    struct Extra {
        #[prost(string, repeated, tag = "1")]
        items: Vec<String>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct User {
        #[prost(string, optional, tag = "1")]
        username: Option<String>,
        #[prost(map = "string, message", tag = "4")]
        extra: std::collections::HashMap<String, Extra>,
    }
    let user =
        User { username: some("u"), extra: [("k".into(), Extra { items: vec!["a".into(), "b".into()] })].into() };
    let value = decode(&Schemas::builtin(), "io.k8s.api.authentication.v1.UserInfo", &user.encode_to_vec()).unwrap();
    assert_eq!(value, json!({"username": "u", "extra": {"k": ["a", "b"]}}));
}

#[test]
fn bodies_decode_through_the_common_door() {
    use crate::api::Expect;
    use crate::client::{FieldValidation, Payload};
    let expect = Expect { type_name: "io.k8s.api.apps.v1.Deployment", kind: "Deployment", api_version: "apps/v1" };
    let body = Payload::Protobuf(sealed("apps/v1", "Deployment", deployment().encode_to_vec()).into());
    let decoded = Schemas::builtin().decode(&expect, &body, FieldValidation::Strict).unwrap();
    assert_eq!(decoded.value["kind"], "Deployment");
    assert_eq!(Schemas::builtin().parse(&body).unwrap()["kind"], "Deployment");
    let other = Payload::Protobuf(sealed("v1", "Pod", Vec::new()).into());
    assert!(Schemas::builtin().decode(&expect, &other, FieldValidation::Strict).is_err());
    let json = Payload::Protobuf("{}".into());
    let error = Schemas::builtin().decode(&expect, &json, FieldValidation::Strict).unwrap_err();
    assert!(error.message.contains("expected prefix [107 56 115 0]"), "{}", error.message);
}

proptest::proptest! {
    #[test]
    fn damaged_bodies_are_refused_or_read_without_panic(cut in 0usize..400, flip in 0usize..400, to: u8) {
        let mut raw = deployment().encode_to_vec();
        let length = raw.len();
        raw[flip % length] = to;
        raw.truncate(cut);
        let _ = decode(&Schemas::builtin(), "io.k8s.api.apps.v1.Deployment", &raw);
    }
}
