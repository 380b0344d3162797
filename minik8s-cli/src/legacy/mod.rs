//! Manifests of the first minik8s, and others that mean the right thing in the wrong words: kinds under `apiVersion: v1`
//! that live elsewhere, CPU in nano-cores, durations such as `15s` where seconds are counted, numbers where texts are
//! meant, keys and words in the wrong case, names that no object may have. Pure: a manifest in, today's form out, and a
//! sentence for everything that was changed. A manifest that is right already comes out as it is.

mod heads;
mod jobs;
mod names;
mod retype;
mod shapes;
mod words;
mod workflows;

pub(crate) use jobs::refusal;

use minik8s_core::api::schema::Schemas;
use serde_json::Value;

/// What was changed, each with the path of its field.
#[derive(Debug, Default)]
pub(crate) struct Notes(Vec<String>);

impl Notes {
    fn add(&mut self, note: impl Into<String>) {
        self.0.push(note.into());
    }
}

/// Turns a manifest into today's form, and says what was changed.
pub(crate) fn translate(object: &mut Value) -> Vec<String> {
    let mut notes = Notes::default();
    heads::respell(object, &mut notes);
    heads::rename(object, &mut notes);
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    shapes::straighten(&version, &kind, object, &mut notes);
    let schemas = Schemas::builtin();
    if let Some(schema) = schemas.by_kind(&version, &kind) {
        retype::object(&schemas, &schema, object, &mut Vec::new(), &mut notes);
    }
    names::mend(&version, &kind, object, &mut notes);
    notes.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn becomes(old: Value, new: Value, notes: &[&str]) {
        let mut object = old;
        let told = translate(&mut object);
        assert_eq!(object, new);
        for note in notes {
            assert!(told.iter().any(|told| told.contains(note)), "{note:?} is not told: {told:#?}");
        }
        assert!(translate(&mut object).is_empty(), "what is today's form stays as it is");
    }

    #[test]
    fn what_is_right_already_stays_as_it_is() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"App_Name": "X_1"}},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": 2, "memory": 134_217_728}}}]}});
        becomes(pod.clone(), pod, &[]);
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [
            {"name": "prometheus-metrics", "port": 1}, {"name": "8080", "port": 2, "targetPort": "http"}],
            "selector": {"matchLabels": "odd", "matchExpressions": "odd"}}});
        becomes(service.clone(), service, &[]);
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"p": "0400", "q": 1.10}});
        becomes(secret.clone(), secret, &[]);
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "a"}, "spec": {"hard": {"cpu": "1000000"}}});
        becomes(quota.clone(), quota, &[]);
        let own =
            json!({"apiVersion": "example.com/v1", "kind": "Replicaset", "metadata": {"name": "A"}, "spec": {"X": 1}});
        assert!(translate(&mut own.clone()).is_empty(), "what is somebody else's is left alone");
    }

    #[test]
    fn a_pod_with_nano_cores_and_numbers_and_odd_keys() {
        let old = json!({"apiVersion": "v1", "kind": "pod", "metadata": {"Name": "My_Pod", "labels": {"app": 7}},
            "spec": {"restartPolicy": "always", "nodeselector": {"disk": 1}, "volumes": [{"name": "V_1", "emptyDir": {}}],
            "containers": [{"name": "Web_1", "Image": "nginx", "command": ["sleep", 10],
                "env": [{"name": "N", "value": 15}], "volumemounts": [{"name": "V_1", "mountPath": "/v"}],
                "ports": [{"containerport": "80", "protocol": "tcp"}],
                "livenessProbe": {"periodSeconds": "15s", "tcpSocket": {"port": "80"}},
                "resources": {"requests": {"cpu": 500_000_000_u64, "memory": 134_217_728},
                    "limits": {"cpu": "1500000000"}}}]}});
        let new = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "my-pod", "labels": {"app": "7"}},
            "spec": {"restartPolicy": "Always", "nodeSelector": {"disk": "1"}, "volumes": [{"name": "v-1", "emptyDir": {}}],
            "containers": [{"name": "web-1", "image": "nginx", "command": ["sleep", "10"],
                "env": [{"name": "N", "value": "15"}], "volumeMounts": [{"name": "v-1", "mountPath": "/v"}],
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "livenessProbe": {"periodSeconds": 15, "tcpSocket": {"port": 80}},
                "resources": {"requests": {"cpu": "500m", "memory": 134_217_728}, "limits": {"cpu": "1500m"}}}]}});
        becomes(
            old,
            new,
            &[
                "kind pod is Pod",
                "metadata.Name is spelled name",
                "spec.containers[0].resources.requests.cpu: 500000000 nano-cores are 500m",
                "spec.containers[0].livenessProbe.periodSeconds: 15s are 15 seconds",
                "metadata.name: My_Pod is my-pod",
                "spec.containers[0].command[1]: a number is read as text",
                "spec.restartPolicy: always is Always",
            ],
        );
    }

    #[test]
    fn what_may_be_secret_is_not_told() {
        let mut secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"p": 12345}});
        assert_eq!(translate(&mut secret), ["stringData.p: a number is read as text"]);
        assert_eq!(secret["stringData"]["p"], "12345");
    }

    #[test]
    fn a_replicaset_of_v1_gets_its_group_and_its_selector() {
        let template =
            json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let old = json!({"apiVersion": "v1", "kind": "Replicaset", "metadata": {"name": "web"},
            "spec": {"replicas": "3", "selector": {"app": "web"}, "template": template}});
        let new = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template}});
        becomes(old, new.clone(), &["Replicaset of v1 is ReplicaSet of apps/v1", "spec.selector", "spec.replicas"]);
        let mut none = new.clone();
        none["spec"].as_object_mut().unwrap().remove("selector");
        becomes(none, new, &["spec.selector is missing"]);
    }

    #[test]
    fn an_hpa_of_v1_in_either_shape() {
        let old = json!({"apiVersion": "v1", "kind": "Hpa", "metadata": {"name": "web"}, "spec": {
            "scaleTargetRef": {"kind": "Replicaset", "metadata": {"name": "Web_1"}}, "interval": "15s",
            "minReplicas": 2, "maxReplicas": 5, "metrics": {"cpuPercent": 35, "memPercent": 50},
            "behavior": {"scaleDown": {"type": "percent", "value": 10, "periodSeconds": "60s"}}}});
        let resource = |name: &str, percent: i64| json!({"type": "Resource", "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": percent}}});
        let new = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1"},
            "minReplicas": 2, "maxReplicas": 5, "metrics": [resource("cpu", 35), resource("memory", 50)],
            "behavior": {"scaleDown": {"policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]}}}});
        becomes(old, new.clone(), &["Hpa of v1", "spec.interval", "--horizontal-pod-autoscaler-sync-period"]);
        let mut listed = new.clone();
        listed["apiVersion"] = "v1".into();
        listed["kind"] = "HPA".into();
        listed["spec"]["metrics"] = json!([
            {"resource": {"name": "cpu", "target": {"averageUtilization": 35}}},
            {"name": "memory", "target": {"type": "Utilization", "averageUtilization": "50"}}]);
        becomes(listed, new.clone(), &["spec.metrics[1]"]);
        let mut value = new.clone();
        value["apiVersion"] = "v1".into();
        value["spec"]["metrics"] =
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"averageValue": 200_000_000}}}]);
        let mut milli = new;
        milli["spec"]["metrics"] = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "200m"}}}]);
        becomes(value, milli, &["200000000 nano-cores are 200m"]);
    }

    #[test]
    fn a_dns_of_v1_and_a_service_with_odd_words() {
        let old = json!({"apiVersion": "v1", "kind": "Dns", "metadata": {"name": "D"}, "spec": {"host": "example.com",
            "paths": [{"subPath": "/a", "service": "Web_1", "port": 80}, {"path": "b", "serviceName": "b", "servicePort": 81}]}});
        let new = json!({"apiVersion": "minik8s.io/v1alpha1", "kind": "Dns", "metadata": {"name": "d"}, "spec": {"host": "example.com",
            "paths": [{"path": "/a", "serviceName": "web-1", "servicePort": 80}, {"path": "/b", "serviceName": "b", "servicePort": 81}]}});
        becomes(old, new, &["Dns of v1", "spec.paths[0].subPath", "spec.paths[0].serviceName: Web_1 is web-1"]);
        let old = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "1_web"}, "spec": {"type": "nodeport",
            "selector": {"matchLabels": {"app": "web"}}, "ports": [{"name": "HTTP_1", "port": "80", "targetPort": 8080, "nodePort": 30080}]}});
        let new = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x1-web"}, "spec": {"type": "NodePort",
            "selector": {"app": "web"}, "ports": [{"name": "http-1", "port": 80, "targetPort": 8080, "nodePort": 30080}]}});
        becomes(old, new, &["metadata.name: 1_web is x1-web", "spec.type: nodeport is NodePort", "spec.selector"]);
    }
}
