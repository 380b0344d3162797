//! Two control planes on one etcd, each a process of its own.

use super::harness::{Kind, Up, have_kubectl, minik8s, until};
use minik8s_core::testkit::etcd::Etcd;
use minik8s_core::testkit::need::{Need, met};

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: 'example.org/x:1'}]}
";

#[test]
fn two_control_planes_share_an_etcd_and_either_may_die() {
    if !met(&[Need::Etcd]) || !have_kubectl() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let etcd = runtime.block_on(Etcd::start(1));
    let endpoint = &etcd.endpoints()[0];
    let start = |node: &str, pods: &str| {
        let etcd = ["--store", "etcd", "--etcd-endpoints", endpoint, "--etcd-prefix", "/two"];
        Up::start_with(Kind::Fake, &[&["--node-name", node, "--pod-cidr", pods][..], &etcd].concat())
    };
    let Some(mut first) = start("node-1", "10.244.1.0/24") else { return };
    let Some(mut second) = start("node-2", "10.244.2.0/24") else { return };
    first.apply("web.yaml", DEPLOYMENT);
    let running = |up: &Up| up.minik8s(&["get", "pods"]).out.matches("Running").count();
    until("the other one shows its pods running", 60, || running(&second) == 2);
    until("both nodes are ready", 60, || first.kubectl(&["get", "nodes"]).ok().matches(" Ready ").count() == 2);

    // Nothing is lost with either, and what is left goes on working.
    first.kill();
    second.kubectl(&["scale", "deployment", "web", "--replicas=3"]).ok();
    until("the one that is left makes a third", 60, || {
        second.kubectl(&["get", "pods", "-o", "name"]).ok().lines().count() == 3
    });
    first.run();
    assert_eq!(first.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"]).ok(), "3");
    assert!(second.stop());
}

#[test]
fn an_etcd_that_does_not_answer_is_told() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().display().to_string();
    let fakes = ["up", "--data-dir", &data, "--listen", "127.0.0.1:0", "--runtime", "fake", "--network", "noop"];
    let etcd = ["--store", "etcd", "--etcd-endpoints", "http://127.0.0.1:1,http://127.0.0.1:2"];
    let told = minik8s(&[&fakes[..], &etcd].concat()).refused();
    assert!(told.contains("no answer from etcd at http://127.0.0.1:1, http://127.0.0.1:2"), "{told}");
    let told = minik8s(&[&fakes[..], &etcd, &["--etcd-ca", "/no/such.pem"]].concat()).refused();
    assert!(told.contains("/no/such.pem"), "{told}");
}
