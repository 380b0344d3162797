//! Several machines as one cluster, on real containers and a real network between them.

use super::fleet::{Fleet, Part, web};
use super::harness::{until, until_or};
use minik8s_core::testkit::hosts::Hosts;
use std::collections::BTreeSet;
use std::time::Instant;

fn reach_each_other(fleet: &Fleet) {
    fleet.web_on_each();
    let service = fleet.cluster_ip("web");
    let everyone: BTreeSet<String> = fleet.hosts.iter().map(|host| host.name()).collect();
    for from in fleet.hosts.iter() {
        for to in fleet.hosts.iter() {
            let address = fleet.get(&["pod", &to.name()], "{.status.podIP}").parse().unwrap();
            let told = fleet.fetch_from_pod(&from.name(), address, 8080);
            assert_eq!(told, to.name(), "from the pod on {}", from.name());
        }
    }
    for host in 0..fleet.hosts.len() {
        // From the machine itself and from its pod, each endpoint sooner or later.
        let heard = |calls: usize, ask: &dyn Fn() -> String| (0..calls).map(|_| ask()).collect::<BTreeSet<_>>();
        let here = &|| fleet.fetch(host, service, 80).unwrap();
        until("all answer the machine", 60, || heard(20, here) == everyone);
        let name = fleet.hosts[host].name();
        until("all answer the pod", 60, || heard(9, &|| fleet.fetch_from_pod(&name, service, 80)) == everyone);
        // At the node's own address, from elsewhere.
        let (other, port) = ((host + 1) % fleet.hosts.len(), 30080);
        assert!(everyone.contains(&fleet.fetch(other, fleet.hosts[host].address(), port).unwrap()));
    }
}

#[test]
fn machines_of_one_subnet_are_one_cluster() {
    let Some(fleet) = Fleet::start(|| Hosts::shared(3), &[], &[]) else { return };
    reach_each_other(&fleet);
    assert!(fleet.minik8s(&["logs", &fleet.hosts[2].name()]).is_empty(), "a log from another machine");
    let told = fleet.minik8s(&["exec", &fleet.hosts[2].name(), "--", "hostname"]);
    assert_eq!(told.trim(), fleet.hosts[2].name());
    assert_eq!(fleet.minik8s(&["get", "nodes"]).matches(" Ready ").count(), 3);
}

#[test]
fn machines_of_different_subnets_are_one_cluster() {
    let Some(fleet) = Fleet::start(|| Hosts::subnets(&[1, 1]), &[], &[]) else { return };
    reach_each_other(&fleet);
    gateways_of_all(&fleet);
}

/// Each machine's gateway leads to pods of all machines, and tells what it counts.
fn gateways_of_all(fleet: &Fleet) {
    let dns = "apiVersion: minik8s.io/v1alpha1\nkind: Dns\nmetadata: {name: web}\nspec: {host: web.example, paths: \
               [{path: /, serviceName: web, servicePort: 80}]}\n";
    fleet.apply("dns.yaml", dns);
    let everyone: BTreeSet<String> = fleet.hosts.iter().map(|host| host.name()).collect();
    for host in fleet.hosts.iter() {
        let script = format!(
            // Who closes its side is taken to have left.
            "(printf 'GET / HTTP/1.0\\r\\nHost: web.example\\r\\n\\r\\n'; sleep 1) | nc -w 3 {} 80 | tail -n 1",
            host.address()
        );
        let ask = || fleet.try_minik8s(&["exec", &host.name(), "--", "sh", "-c", &script]).unwrap_or_default();
        until("pods of all machines answer", 60, || {
            (0..5).map(|_| ask().trim().to_owned()).collect::<BTreeSet<_>>() == everyone
        });
        let page = fleet.minik8s(&["get", "--raw", &format!("/minik8s/prometheus/nodes/{}", host.name())]);
        let counted = "gateway_requests_total{kind=\"Dns\",namespace=\"default\",name=\"web\",code=\"2xx\"}";
        assert!(page.contains(counted), "of {}: {page}", host.name());
    }
}

/// How long it takes is printed, not asserted.
#[test]
fn a_machine_that_joins_late_has_every_service_and_every_way() {
    let Some(mut fleet) = Fleet::start_but_one(|| Hosts::subnets(&[2, 1])) else { return };
    let pods: String = fleet.hosts.iter().take(2).map(|host| web(&host.name(), &host.name())).collect();
    let service = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}\n---\n"
        )
    };
    let names: Vec<String> = (0..100).map(|number| format!("web-{number}")).collect();
    fleet.apply("many.yaml", &(pods + &names.iter().map(|name| service(name)).collect::<String>()));
    let near: Vec<String> = fleet.hosts.iter().take(2).map(|host| host.name()).collect();
    near.iter().for_each(|pod| fleet.until_ready(pod));
    let addresses: Vec<_> = [&names[0], &names[99]].map(|name| fleet.cluster_ip(name)).into();

    fleet.run(Part::Agent(2));
    fleet.until_node(2, "Ready");
    let ready = Instant::now();
    for address in &addresses {
        until("the service answers", 60, || fleet.fetch(2, *address, 80).is_ok());
    }
    for pod in &near {
        let address = fleet.get(&["pod", pod], "{.status.podIP}").parse().unwrap();
        until("the pod answers", 60, || fleet.fetch(2, address, 8080).is_ok_and(|name| name == *pod));
    }
    eprintln!("services and pods answered a late machine {:?} after it was seen to be ready", ready.elapsed());
}

/// Images of functions are the control plane's to give: to the machine that runs an instance, and ahead to the one that
/// may run the next.
#[test]
fn machines_that_joined_run_functions_from_the_registry_of_the_control_plane() {
    let Some(fleet) = Fleet::start(|| Hosts::shared(2), &[], &[]) else { return };
    let files = tempfile::tempdir().unwrap();
    let base = minik8s_runtime::testing::busybox_image(files.path()).unwrap();
    fleet.minik8s(&["function", "base", "python", "-f", &base.display().to_string()]);
    let code = files.path().join("code");
    std::fs::create_dir(&code).unwrap();
    std::fs::write(code.join("main.py"), "").unwrap();
    std::fs::write(code.join("index.html"), "of a layer\n").unwrap();
    fleet.minik8s(&["cordon", &fleet.hosts[0].name()]);
    fleet.minik8s(&["function", "create", "pages", "-f", &code.display().to_string(), "--no-wait"]);
    // There is no Python in this base: its web server shows the files of the layer.
    let of = |path: &str| fleet.get(&["function", "pages"], path);
    let (digest, size) = (of("{.spec.source.digest}"), of("{.spec.source.size}"));
    let function = format!(
        "apiVersion: minik8s.io/v1alpha1\nkind: Function\nmetadata: {{name: pages}}\nspec:\n  runtime: python\n  source: \
         {{digest: '{digest}', size: {size}}}\n  command: [sh, -c, 'trap exit TERM; httpd -f -p $PORT -h /function & \
         wait']\n  scale: {{min: 1}}\n"
    );
    fleet.apply("pages.yaml", &function);
    let ready = || {
        let told = of("{.status.conditions[0].status} {.status.observedGeneration} {.metadata.generation}");
        let words: Vec<&str> = told.split(' ').collect();
        matches!(words[..], ["True", seen, now] if seen == now)
    };
    until_or(180, ready, || format!("the function is ready: {} {}", of("{.status}"), fleet.minik8s(&["get", "pods"])));
    let nodes = fleet.get(&["pods"], "{.items[*].spec.nodeName}");
    assert!(nodes.split(' ').all(|node| node == fleet.hosts[1].name()), "only one machine takes instances: {nodes}");
    for host in 0..2 {
        let ask = || fleet.fetch_path(host, fleet.hosts[host].address(), 80, "/function/default/pages/");
        until_or(90, || ask().as_deref() == Ok("of a layer"), || format!("the gateway of host {host}: {:?}", ask()));
    }
    let here = || fleet.images(Part::Server);
    until_or(90, || here().contains("functions/default/pages"), || format!("the other machine has: {}", here()));
}
