//! Making and changing things.

use super::{DEPLOYMENT, start};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn generators_send_protobuf() {
    let Some((_served, kubectl)) = start().await else { return };
    let commands: [(&[&str], &str); 9] = [
        (&["create", "namespace", "team"], "namespace/team created\n"),
        (&["create", "configmap", "c", "--from-literal=a=1"], "configmap/c created\n"),
        (&["create", "secret", "generic", "s", "--from-literal=p=x"], "secret/s created\n"),
        (&["create", "serviceaccount", "sa"], "serviceaccount/sa created\n"),
        (&["create", "deployment", "d", "--image=nginx", "--replicas=2"], "deployment.apps/d created\n"),
        (&["create", "service", "clusterip", "ci", "--tcp=80:8080"], "service/ci created\n"),
        (&["create", "service", "nodeport", "np", "--tcp=80"], "service/np created\n"),
        (&["create", "service", "clusterip", "headless", "--clusterip=None"], "service/headless created\n"),
        (&["expose", "deployment", "d", "--port=80"], "service/d exposed\n"),
    ];
    for (command, said) in commands {
        assert_eq!(kubectl.ok(command).await, said);
    }
    assert_eq!(kubectl.ok(&["get", "secret", "s", "-o", "jsonpath={.data.p}"]).await, "eA==");
    assert_eq!(kubectl.ok(&["get", "deploy", "d", "-o", "jsonpath={.spec.replicas}"]).await, "2");
    let port = kubectl.ok(&["get", "svc", "ci", "-o", "jsonpath={.spec.ports[0].targetPort}"]).await;
    assert_eq!(port, "8080");
    let twice = kubectl.run(&["create", "configmap", "c"]).await;
    assert_eq!(twice.stderr, "error: failed to create configmap: configmaps \"c\" already exists\n");
    let dry = kubectl.ok(&["create", "configmap", "dry", "--dry-run=server"]).await;
    assert_eq!(dry, "configmap/dry created (server dry run)\n");
    assert_eq!(kubectl.run(&["get", "cm", "dry"]).await.code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn applying_twice() {
    let Some((_served, kubectl)) = start().await else { return };
    let apply = async |text: &str| kubectl.ok_with_input(&["apply", "-f", "-"], text).await;
    assert_eq!(apply(DEPLOYMENT).await, "deployment.apps/web created\n");
    assert_eq!(apply(DEPLOYMENT).await, "deployment.apps/web unchanged\n");
    assert_eq!(apply(&DEPLOYMENT.replace("1.25", "1.26")).await, "deployment.apps/web configured\n");
    let image = ["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[*].image}"];
    assert_eq!(kubectl.ok(&image).await, "nginx:1.26");
    let diff = kubectl.run_with_input(&["diff", "-f", "-"], DEPLOYMENT).await;
    assert!(diff.code == 1 && diff.stdout.contains("nginx:1.25"), "{diff:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changing_in_every_way() {
    let Some((_served, kubectl)) = start().await else { return };
    kubectl.ok_with_input(&["create", "-f", "-"], DEPLOYMENT).await;
    let said = async |args: &[&str]| kubectl.ok(args).await;
    assert_eq!(said(&["label", "deploy", "web", "tier=front"]).await, "deployment.apps/web labeled\n");
    assert_eq!(said(&["label", "deploy", "web", "tier-"]).await, "deployment.apps/web unlabeled\n");
    assert_eq!(said(&["annotate", "deploy", "web", "note=x"]).await, "deployment.apps/web annotated\n");
    assert_eq!(said(&["scale", "deploy", "web", "--replicas=3"]).await, "deployment.apps/web scaled\n");
    let conditional = ["scale", "deploy", "web", "--current-replicas=3", "--replicas=4"];
    assert_eq!(said(&conditional).await, "deployment.apps/web scaled\n");
    assert_eq!(said(&["set", "image", "deploy/web", "main=nginx:2"]).await, "deployment.apps/web image updated\n");
    assert_eq!(said(&["set", "env", "deploy/web", "A=b"]).await, "deployment.apps/web env updated\n");
    assert_eq!(said(&["rollout", "restart", "deploy/web"]).await, "deployment.apps/web restarted\n");
    assert_eq!(said(&["rollout", "pause", "deploy/web"]).await, "deployment.apps/web paused\n");
    for (kind, patch) in [
        ("strategic", r#"{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"busybox"}]}}}}"#),
        ("merge", r#"{"metadata":{"labels":{"m":"1"}}}"#),
        ("json", r#"[{"op":"add","path":"/metadata/labels/j","value":"1"}]"#),
    ] {
        assert_eq!(
            said(&["patch", "deploy", "web", "--type", kind, "-p", patch]).await,
            "deployment.apps/web patched\n"
        );
    }
    let now: Value = serde_json::from_str(&said(&["get", "deploy", "web", "-o", "json"]).await).unwrap();
    assert_eq!((&now["spec"]["replicas"], &now["spec"]["paused"]), (&4.into(), &true.into()));
    assert_eq!(now["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 2);
    assert_eq!((&now["metadata"]["labels"]["m"], &now["metadata"]["labels"]["j"]), (&"1".into(), &"1".into()));
    assert!(now["metadata"]["generation"].as_i64().unwrap() > 4, "{now}");
}

#[tokio::test(flavor = "multi_thread")]
async fn editing_and_replacing() {
    let Some((_served, kubectl)) = start().await else { return };
    kubectl.ok(&["create", "configmap", "c", "--from-literal=a=old"]).await;
    let output = kubectl.command(&["edit", "cm", "c"]).env("KUBE_EDITOR", "sed -i s/old/new/").output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "configmap/c edited\n");
    assert_eq!(kubectl.ok(&["get", "cm", "c", "-o", "jsonpath={.data.a}"]).await, "new");
    let text = kubectl.ok(&["get", "cm", "c", "-o", "yaml"]).await.replace("new", "newer");
    assert_eq!(kubectl.ok_with_input(&["replace", "-f", "-"], &text).await, "configmap/c replaced\n");
    let stale = kubectl.run_with_input(&["replace", "-f", "-"], &text).await;
    assert!(stale.stderr.contains("the object has been modified"), "{}", stale.stderr);
}
