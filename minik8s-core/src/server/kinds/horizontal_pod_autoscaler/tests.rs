use super::*;

fn full() -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h", "namespace": "default"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 2, "maxReplicas": 5,
            "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 35}}},
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "8Mi"}}},
                {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
                    "target": {"type": "Utilization", "averageUtilization": 50}}},
                {"type": "Pods", "pods": {"metric": {"name": "rps", "selector": {"matchLabels": {"a": "b"}}},
                    "target": {"type": "AverageValue", "averageValue": "1k"}}},
                {"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": {"kind": "Service", "name": "s"},
                    "target": {"type": "Value", "value": "10"}}},
                {"type": "External", "external": {"metric": {"name": "queue"},
                    "target": {"type": "AverageValue", "averageValue": "30"}}},
            ],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 10, "selectPolicy": "Max", "tolerance": "50m",
                "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]}},
        },
        "status": {
            "currentReplicas": 2, "desiredReplicas": 3,
            "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12, "averageValue": "12m"}}},
                {"type": "External", "external": {"metric": {"name": "queue"}, "current": {"averageValue": "3"}}},
            ],
            "conditions": [{"type": "AbleToScale", "status": "True", "reason": "r", "message": "m"}],
        },
    })
}

#[test]
fn nothing_is_lost_between_the_versions() {
    let mut object = full();
    convert::to_v1(&mut object);
    let spec = &object["spec"];
    assert_eq!(
        (&spec["targetCPUUtilizationPercentage"], &spec["metrics"], &spec["behavior"]),
        (&json!(35), &json!(null), &json!(null))
    );
    assert_eq!(object["status"]["currentCPUUtilizationPercentage"], 12);
    let notes = &object["metadata"]["annotations"];
    let behavior = notes["autoscaling.alpha.kubernetes.io/behavior"].as_str().unwrap();
    assert!(behavior.contains("\"ScaleDown\"") && behavior.contains("\"PeriodSeconds\":60"), "{behavior}");
    let metrics: Value =
        serde_json::from_str(notes["autoscaling.alpha.kubernetes.io/metrics"].as_str().unwrap()).unwrap();
    assert_eq!(metrics[0], json!({"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "8Mi"}}));
    convert::to_v2(&mut object);
    assert_eq!(object, full());
}

#[test]
fn what_is_not_said_is_filled_in() {
    let mut object = json!({"apiVersion": "autoscaling/v1", "metadata": {"name": "h"}, "spec": {"maxReplicas": 3}});
    AutoscalerV1Kind::new().default(&mut object);
    let want = json!({"maxReplicas": 3, "minReplicas": 1, "targetCPUUtilizationPercentage": 80});
    assert_eq!((&object["spec"], &object["metadata"]), (&want, &json!({"name": "h"})));
    let mut object = full();
    AutoscalerKind::new().default(&mut object);
    let up = &object["spec"]["behavior"]["scaleUp"];
    assert_eq!((&up["stabilizationWindowSeconds"], up["policies"].as_array().unwrap().len()), (&json!(0), 2));
    assert_eq!(object["spec"]["behavior"]["scaleDown"], full()["spec"]["behavior"]["scaleDown"]);
    let once = object.clone();
    AutoscalerKind::new().default(&mut object);
    assert_eq!(object, once);
}

#[test]
fn what_makes_no_sense_is_refused_by_field() {
    let fields = |pointer: &str, value: Value| {
        let mut object = full();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[field] = value;
        let mut errors = FieldErrors::default();
        AutoscalerKind::new().validate(&object, None, &mut errors);
        errors.0.into_iter().map(|c| c.field).collect::<Vec<_>>().join(" ")
    };
    let cases = [
        ("/spec/maxReplicas", json!(5), ""),
        ("/spec/maxReplicas", json!(1), "spec.maxReplicas"),
        ("/spec/maxReplicas", json!(0), "spec.maxReplicas"),
        ("/spec/minReplicas", json!(0), "spec.minReplicas"),
        ("/spec/scaleTargetRef/name", json!(""), "spec.scaleTargetRef.name"),
        ("/spec/metrics", json!([{"type": "Magic"}]), "spec.metrics[0].type"),
        ("/spec/metrics", json!([{"type": "Pods"}]), "spec.metrics[0].pods"),
        (
            "/spec/metrics",
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}]),
            "spec.metrics[0].resource.target.averageUtilization",
        ),
        (
            "/spec/metrics",
            json!([{"type": "Pods", "pods": {"metric": {"name": "a/b"}, "target": {"type": "AverageValue", "averageValue": "0"}}}]),
            "spec.metrics[0].pods.metric.name spec.metrics[0].pods.target.averageValue",
        ),
        ("/spec/behavior/scaleDown/policies", json!([]), "spec.behavior.scaleDown.policies"),
        (
            "/spec/behavior/scaleDown/stabilizationWindowSeconds",
            json!(3601),
            "spec.behavior.scaleDown.stabilizationWindowSeconds",
        ),
        ("/spec/behavior/scaleDown/selectPolicy", json!("Most"), "spec.behavior.scaleDown.selectPolicy"),
        (
            "/spec/behavior/scaleDown/policies",
            json!([{"type": "Pods", "value": 0, "periodSeconds": 1801}]),
            "spec.behavior.scaleDown.policies[0].value spec.behavior.scaleDown.policies[0].periodSeconds",
        ),
    ];
    for (pointer, value, want) in cases {
        assert_eq!(fields(pointer, value.clone()), want, "{pointer} = {value}");
    }
}

#[test]
fn the_table_shows_what_is_and_what_should_be() {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let row = |columns: &[Column], object: &Value| {
        columns[1..6].iter().map(|c| (c.cell)(object, now).as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let want = ["Deployment/web", "cpu: 12%/35%, memory: <unknown>/8Mi + 4 more...", "2", "5", "2"];
    assert_eq!(row(&columns::COLUMNS, &full()), want);
    let mut object = full();
    convert::to_v1(&mut object);
    assert_eq!(row(&columns::V1_COLUMNS, &object), want);
}

#[test]
fn annotations_of_a_real_cluster_are_understood_and_nonsense_is_refused() {
    let v1 = |notes: &[(&str, &str)]| {
        let mut object = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h", "namespace": "n"}, "spec": {"maxReplicas": 3,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
        for (name, text) in notes {
            object["metadata"]["annotations"][format!("autoscaling.alpha.kubernetes.io/{name}")] = (*text).into();
        }
        object
    };
    let told = |notes: &[(&str, &str)]| {
        let (kind, mut object, mut errors) = (AutoscalerV1Kind::new(), v1(notes), FieldErrors::default());
        kind.default(&mut object);
        kind.validate(&object, None, &mut errors);
        kind.to_storage(&mut object);
        (object, errors.0.iter().map(|c| format!("{c:?}")).collect::<Vec<_>>().join(" "))
    };
    let real = r#"[{"type":"Object","object":{"target":{"kind":"Service","name":"s"},"metricName":"hits","targetValue":"0",
        "averageValue":"5"}}]"#;
    let (object, errors) = told(&[("metrics", real)]);
    assert_eq!(errors, "");
    let target = &object["spec"]["metrics"][0]["object"]["target"];
    assert_eq!(*target, json!({"type": "AverageValue", "averageValue": "5"}));
    let cases = [
        ("metrics", "[{", "must be JSON"),
        ("metrics", "{}", "must be a list"),
        (
            "metrics",
            r#"[{"type":"Resource","resource":{"name":"memory","targetAverageUtilization":"x"}}]"#,
            "averageUtilization",
        ),
        ("behavior", r#"{"ScaleDown":{"Policies":7}}"#, "policies"),
        ("behavior", "[]", "behavior"),
    ];
    // One for cpu has become a field by then.
    let large = r#"[{"type":"Resource","resource":{"name":"cpu","targetAverageUtilization":99999999999}}]"#;
    assert!(told(&[("metrics", large)]).1.contains("averageUtilization"));
    for (name, text, want) in cases {
        let errors = told(&[(name, text)]).1;
        let field = format!("metadata.annotations[autoscaling.alpha.kubernetes.io/{name}]");
        assert!(errors.contains(&field) && errors.contains(want), "{text}: {errors}");
    }
}
