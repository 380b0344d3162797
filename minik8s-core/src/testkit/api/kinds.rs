//! What the built-in kinds fill in and refuse, as seen on a real server.

use super::World;
use super::world::body;
use crate::api::Reason;
use crate::client::{FieldValidation, PatchType, WriteOptions};
use futures::future::join_all;
use serde_json::{Value, json};

pub(super) async fn pods_get_the_defaults_of_the_real_server(w: &World) {
    let pod = w.pod("p").await;
    let tolerations: Vec<Value> = ["not-ready", "unreachable"]
        .iter()
        .map(|t| {
            json!({"key": format!("node.kubernetes.io/{t}"), "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": 300})
        })
        .collect();
    let want = json!({
        "containers": [{"name": "c", "image": "i", "resources": {}, "imagePullPolicy": "Always",
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
        "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
        "securityContext": {}, "schedulerName": "default-scheduler", "tolerations": tolerations, "priority": 0,
        "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
        "serviceAccountName": "default", "serviceAccount": "default",
    });
    assert_eq!(pod["spec"], want);
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
}

pub(super) async fn bad_pods_name_every_field(w: &World) {
    let spec = json!({"containers": [{"name": "c"}], "restartPolicy": "Foo"});
    let error = w.create("pods", &json!({"metadata": {"name": "bad"}, "spec": spec})).await.unwrap_err();
    let text = "Pod \"bad\" is invalid: [spec.containers[0].image: Required value, spec.restartPolicy: Unsupported value: \
                \"Foo\": supported values: \"Always\", \"OnFailure\", \"Never\"]";
    assert_eq!((error.reason, error.message.as_str()), (Reason::Invalid, text));
    let none = json!({"metadata": {"name": "bad"}, "spec": {"containers": []}});
    let error = w.create("pods", &none).await.unwrap_err();
    assert_eq!(error.message, "Pod \"bad\" is invalid: spec.containers: Required value");
}

pub(super) async fn pods_change_their_image_and_little_else(w: &World) {
    w.pod("p").await;
    let target = w.one("pods", "p");
    let image = json!({"spec": {"containers": [{"name": "c", "image": "i2"}]}});
    let patched = w.patch(&target, PatchType::StrategicMerge, &image).await.unwrap();
    assert_eq!(patched["spec"]["containers"][0]["image"], "i2");
    let error = w.merge("pods", "p", &json!({"spec": {"nodeName": "n2"}})).await.unwrap_err();
    let start = "Pod \"p\" is invalid: spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`";
    assert!(error.reason == Reason::Invalid && error.message.starts_with(start), "{error}");
}

pub(super) async fn services_get_addresses_and_ports_of_their_own(w: &World) {
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80}]}});
    let made = w.create("services", &service("sv")).await.unwrap();
    let (address, port) = (made["spec"]["clusterIP"].clone(), made["spec"]["ports"][0]["nodePort"].clone());
    let want = json!({
        "ports": [{"protocol": "TCP", "port": 80, "targetPort": 80, "nodePort": port}], "selector": {"a": "b"},
        "clusterIP": address, "clusterIPs": [address], "type": "NodePort", "sessionAffinity": "None",
        "externalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster",
    });
    assert_eq!((&made["spec"], &made["status"]), (&want, &json!({"loadBalancer": {}})));
    assert!(address.is_string() && port.as_i64().is_some_and(|p| (30000..=32767).contains(&p)), "{made}");
    let other = w.create("services", &service("sv2")).await.unwrap();
    assert_ne!((&other["spec"]["clusterIP"], &other["spec"]["ports"][0]["nodePort"]), (&address, &port));
    let plain = json!({"metadata": {"name": "sv"}, "spec": {"type": "ClusterIP", "ports": [{"port": 81}]}});
    let changed = w.update("services", "sv", &plain).await.unwrap();
    assert_eq!(changed["spec"]["clusterIP"], address, "the address stays");
    assert!(changed["spec"]["ports"][0].get("nodePort").is_none(), "the node port is given back");
    let moved = json!({"spec": {"clusterIP": other["spec"]["clusterIP"], "clusterIPs": null}});
    assert_eq!(w.merge("services", "sv", &moved).await.unwrap_err().reason, Reason::Invalid);
    w.delete("services", "sv").await.unwrap();
    let again = json!({"metadata": {"name": "again"}, "spec": {"clusterIP": address, "ports": [{"port": 80}]}});
    assert_eq!(w.create("services", &again).await.unwrap()["spec"]["clusterIP"], address, "freed by deletion");
}

pub(super) async fn one_of_many_gets_the_cluster_ip(w: &World) {
    let first = json!({"metadata": {"name": "first"}, "spec": {"ports": [{"port": 80}]}});
    let address = w.create("services", &first).await.unwrap()["spec"]["clusterIP"].clone();
    w.delete("services", "first").await.unwrap();
    let creates = (0..16).map(|n| {
        let name = format!("s{n}");
        let service = json!({"metadata": {"name": name}, "spec": {"clusterIP": address, "ports": [{"port": 80}]}});
        async move { w.create("services", &service).await }
    });
    let results = join_all(creates).await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.reason, Reason::Invalid, "{error}");
        assert!(error.message.contains("already allocated"), "{error}");
    }
    assert_eq!(w.picked("services", "", "").await.unwrap().len(), 1);
}

pub(super) async fn headless_and_external_services_get_no_address(w: &World) {
    let headless = json!({"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "selector": {"a": "b"}}});
    let made = w.create("services", &headless).await.unwrap();
    assert_eq!((made["spec"]["clusterIP"].as_str(), &made["spec"]["clusterIPs"]), (Some("None"), &json!(["None"])));
    let external = json!({"metadata": {"name": "e"}, "spec": {"type": "ExternalName", "externalName": "example.com"}});
    let made = w.create("services", &external).await.unwrap();
    assert!(made["spec"].get("clusterIP").is_none(), "{made}");
    let outside = json!({"metadata": {"name": "o"}, "spec": {"clusterIP": "192.0.2.1", "ports": [{"port": 80}]}});
    let error = w.create("services", &outside).await.unwrap_err();
    assert!(error.message.contains("the provided IP is not in the valid range"), "{error}");
    let low = json!({"metadata": {"name": "l"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}});
    let error = w.create("services", &low).await.unwrap_err();
    assert!(error.message.contains("provided port is not in the valid range"), "{error}");
}

pub(super) async fn secrets_keep_plain_text_as_data(w: &World) {
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}});
    let made = w.create("secrets", &secret).await.unwrap();
    assert_eq!((&made["data"], made["type"].as_str()), (&json!({"a": "Yg=="}), Some("Opaque")));
    assert!(made.get("stringData").is_none());
    assert_eq!(w.picked("secrets", "", "type=Opaque").await.unwrap(), ["s"]);
}

pub(super) async fn events_of_both_groups_are_one_store(w: &World) {
    let event = json!({"metadata": {"name": "e"}, "reason": "Started", "message": "m", "type": "Normal",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": w.namespace, "uid": "u"}});
    w.create("events", &event).await.unwrap();
    let shown = w.get("events.events.k8s.io", "e").await.unwrap();
    assert_eq!((shown["apiVersion"].as_str(), shown["note"].as_str()), (Some("events.k8s.io/v1"), Some("m")));
    assert_eq!(shown["regarding"]["name"], "p");
    assert_eq!(w.picked("events", "", "involvedObject.name=p,involvedObject.uid=u").await.unwrap(), ["e"]);
    assert_eq!(w.picked("events.events.k8s.io", "", "regarding.name=p").await.unwrap(), ["e"]);
    let noted = w.merge("events.events.k8s.io", "e", &json!({"note": "n"})).await.unwrap();
    assert_eq!(noted["note"], "n");
    assert_eq!(w.get("events", "e").await.unwrap()["message"], "n");
    let mut watch = w.watch("events.events.k8s.io", Default::default()).await;
    let (_, object) = watch.object().await;
    assert_eq!(object.value().unwrap()["regarding"]["kind"], "Pod");
    w.delete("events.events.k8s.io", "e").await.unwrap();
    assert_eq!(watch.next().await, "DELETED e");
    assert_eq!(w.get("events", "e").await.unwrap_err().reason, Reason::NotFound);
}

pub(super) async fn a_selector_must_pick_its_template(w: &World) {
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"app": "zz"}},
        "template": {"metadata": {"labels": {"app": "g"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let error = w.create("deployments", &deployment).await.unwrap_err();
    let text = "Deployment.apps \"d\" is invalid: spec.template.metadata.labels: Invalid value: \
                map[string]string{\"app\":\"g\"}: `selector` does not match template `labels`";
    assert_eq!((error.reason, error.message.as_str()), (Reason::Invalid, text));
}

pub(super) async fn unknown_fields_warn_or_refuse(w: &World) {
    let object = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "bogus": 1});
    let with = |field_validation| WriteOptions { field_validation, ..WriteOptions::default() };
    let create = async |name: &str, validation| {
        w.transport.create(&w.all("configmaps"), body(&object(name)), &with(validation)).await
    };
    assert_eq!(create("warn", FieldValidation::Warn).await.unwrap().warnings, ["unknown field \"bogus\""]);
    assert!(create("ignore", FieldValidation::Ignore).await.unwrap().warnings.is_empty());
    let error = create("strict", FieldValidation::Strict).await.unwrap_err();
    let text =
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"bogus\"";
    assert_eq!((error.reason, error.message.as_str()), (Reason::BadRequest, text));
    assert!(w.get("configmaps", "warn").await.unwrap().get("bogus").is_none(), "unknown fields are dropped");
    let wrong = json!({"metadata": {"name": "x"}, "data": {"a": 1}});
    assert_eq!(w.create("configmaps", &wrong).await.unwrap_err().reason, Reason::BadRequest);
}
