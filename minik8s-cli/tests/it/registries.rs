//! The registries of two control planes are one: on machines of which one loses its power.

use super::fleet::{Fleet, Part};
use super::harness::until_or;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

const PATIENCE: [&str; 4] = ["--node-monitor-grace-period", "5", "--default-unreachable-toleration-seconds", "2"];

/// What lies in the registry of a host's control plane.
fn blobs(fleet: &Fleet, host: usize) -> BTreeSet<String> {
    let place = fleet.hosts[host].data().join("server/registry/blobs/sha256");
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// An image of the registry of a host's control plane, with all that it leads to.
fn all_of(fleet: &Fleet, host: usize, image: &str) -> Vec<String> {
    let (_, hex) = image.rsplit_once("sha256:").unwrap();
    let path = fleet.hosts[host].data().join("server/registry/blobs/sha256").join(hex);
    let manifest: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let parts = manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]);
    let digests = parts.map(|part| part["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned());
    digests.chain([hex.to_owned()]).collect()
}

fn write(code: &Path, says: &str) -> String {
    std::fs::write(code.join("index.html"), format!("{says}\n")).unwrap();
    code.display().to_string()
}

fn says(fleet: &Fleet, host: usize, text: &str) {
    let ask = || fleet.fetch_path(host, fleet.hosts[host].address(), 80, "/function/default/pages/");
    let more = || format!("{:?} {}", ask(), fleet.minik8s(&["get", "functionrevisions,pods", "-o", "yaml"]));
    until_or(180, || ask().as_deref() == Ok(text), || format!("the gateway of host {host} says {text:?}: {}", more()));
}

#[test]
fn an_image_outlives_the_machine_that_it_was_made_on() {
    let Some(mut fleet) = Fleet::start_with_two_control_planes(&PATIENCE, &["--lease-period", "1"]) else { return };
    let files = tempfile::tempdir().unwrap();
    let base = minik8s_runtime::testing::busybox_image(files.path()).unwrap().display().to_string();
    let code = files.path().join("code");
    std::fs::create_dir(&code).unwrap();
    std::fs::write(code.join("main.py"), "").unwrap();
    let first = write(&code, "the first");
    // The base comes to one control plane and the files to the other; whoever leads builds.
    fleet.desk = Part::Second;
    fleet.minik8s(&["function", "base", "python", "-f", &base]);
    fleet.desk = Part::Server;
    // Instances run on the machine that joined, and nowhere else.
    for host in [0, 1] {
        fleet.minik8s(&["cordon", &fleet.hosts[host].name()]);
    }
    fleet.minik8s(&["function", "create", "pages", "-f", &first, "--no-wait"]);
    let of = |fleet: &Fleet, path: &str| fleet.get(&["function", "pages"], path);
    let (digest, size) = (of(&fleet, "{.spec.source.digest}"), of(&fleet, "{.spec.source.size}"));
    // There is no Python in this base: its web server shows the files of the layer.
    fleet.apply(
        "pages.yaml",
        &format!(
            "apiVersion: minik8s.io/v1alpha1\nkind: Function\nmetadata: {{name: pages}}\nspec:\n  runtime: python\n  source: \
             {{digest: '{digest}', size: {size}}}\n  command: [sh, -c, 'trap exit TERM; httpd -f -p $PORT -h /function & \
             wait']\n  scale: {{min: 1}}\n"
        ),
    );
    says(&fleet, 2, "the first");
    let images = |fleet: &Fleet| -> BTreeSet<String> {
        let found = fleet.get(&["functionrevisions"], "{.items[*].status.image}");
        found.split_whitespace().map(str::to_owned).collect()
    };
    let made = images(&fleet);
    assert!(!made.is_empty());
    // No node asks for the files that it was made of: the second control plane has them because they are needed.
    let lacks = |host: usize| -> Vec<String> {
        let source = digest.trim_start_matches("sha256:").to_owned();
        let needed = made.iter().flat_map(|image| all_of(&fleet, 0, image)).chain([source]);
        needed.filter(|hex| !blobs(&fleet, host).contains(hex)).collect()
    };
    for host in [0, 1] {
        until_or(
            120,
            || lacks(host).is_empty(),
            || format!("the control plane of host {host} lacks {:?}", lacks(host)),
        );
    }

    fleet.crash(0);
    fleet.desk = Part::Second;
    // The machine that joined the dead one finds the other; so does a new revision its base.
    let second = write(&code, "the second");
    until_or(
        120,
        || fleet.try_minik8s(&["function", "update", "pages", "-f", &second, "--no-wait"]).is_ok(),
        || "the function is updated".to_owned(),
    );
    says(&fleet, 2, "the second");
    let source = of(&fleet, "{.spec.source.digest}").trim_start_matches("sha256:").to_owned();
    assert_ne!(source, digest.trim_start_matches("sha256:"));
    // What was made on the dead machine is given to a node that has not got it.
    fleet.minik8s(&["cordon", &fleet.hosts[2].name()]);
    fleet.minik8s(&["uncordon", &fleet.hosts[1].name()]);
    let has = |image: &str| fleet.images(Part::Second).contains(image);
    for image in made.iter().filter(|image| has(image)) {
        fleet.try_minik8s_on(Part::Second, &["image", "rm", image]).unwrap();
    }
    assert!(!made.iter().any(|image| has(image)));
    fleet.minik8s(&["function", "rollback", "pages"]);
    fleet.minik8s(&["delete", "pods", "--all", "--no-wait"]);
    // An instance that ends elsewhere may still answer: the next one runs here.
    let again = || made.iter().any(|image| has(image));
    until_or(120, again, || format!("{made:?} is here again: {}", fleet.images(Part::Second)));
    let running = || {
        let path = "{range .items[?(@.status.phase=='Running')]}{.spec.nodeName} {end}";
        fleet.get(&["pods"], path).trim() == fleet.hosts[1].name()
    };
    until_or(120, running, || format!("only the second machine runs it: {}", fleet.minik8s(&["get", "pods"])));
    says(&fleet, 1, "the first");

    // A machine that comes back gets what it missed.
    let late: Vec<String> = images(&fleet).difference(&made).cloned().collect();
    assert!(!late.is_empty());
    fleet.boot(0);
    let lacks = || -> Vec<String> {
        let needed = late.iter().flat_map(|image| all_of(&fleet, 1, image)).chain([source.clone()]);
        needed.filter(|hex| !blobs(&fleet, 0).contains(hex)).collect()
    };
    until_or(120, || lacks().is_empty(), || format!("the first control plane lacks {:?}", lacks()));
}
