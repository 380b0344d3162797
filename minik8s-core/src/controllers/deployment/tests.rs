//! Tables of the decisions, and whole rollouts played through with an ideal cluster.

use super::conditions::News;
use super::plan::{Plan, plan};
use super::template::{DESIRED, HISTORY, MAX, REVISION, hash};
use super::*;
use jiff::Timestamp;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn deployment(replicas: i32, image: &str, extra: Value) -> Deployment {
    let mut value = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "ns", "uid": "d1", "generation": 1},
        "spec": {"replicas": replicas, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}});
    json_patch::merge(&mut value, &extra);
    serde_json::from_value(value).unwrap()
}

/// A cluster where every pod is ready at once, or none of an image is.
struct World {
    deployment: Deployment,
    sets: Vec<Arc<ReplicaSet>>,
    broken: &'static str,
    now: i64,
}

impl World {
    fn new(deployment: Deployment) -> Self {
        Self { deployment, sets: Vec::new(), broken: "broken", now: 1000 }
    }

    /// One decision, carried out.
    fn step(&mut self) -> Plan {
        self.now += 1;
        let plan = plan(&self.deployment, &self.sets, false, at(self.now));
        if let Some(set) = &plan.create {
            let mut set = (**set).clone();
            set.metadata.uid = Some(format!("s{}", self.now));
            let created = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(self.now));
            set.metadata.creation_timestamp = Some(created);
            self.sets.push(Arc::new(set));
        }
        for change in &plan.changes {
            let set = Arc::make_mut(&mut self.sets[change.set]);
            set.metadata.annotations = Some(change.annotations.clone());
            set.spec.as_mut().unwrap().replicas = Some(change.size);
        }
        let mut index = 0;
        self.sets.retain(|_| {
            index += 1;
            !plan.delete.contains(&(index - 1))
        });
        if let Some(revision) = &plan.revision {
            let annotations = self.deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(REVISION.into(), revision.clone());
        }
        self.deployment.status = Some(plan.status.clone());
        self.run_pods();
        plan
    }

    fn run_pods(&mut self) {
        for set in &mut self.sets {
            let size = numbers::size(set);
            let spec = set.spec.as_ref().unwrap().template.as_ref().unwrap().spec.as_ref().unwrap();
            let up = if spec.containers[0].image.as_deref() == Some(self.broken) { 0 } else { size };
            let status = json!({"replicas": size, "readyReplicas": up, "availableReplicas": up});
            Arc::make_mut(set).status = Some(serde_json::from_value(status).unwrap());
        }
    }

    /// Steps until nothing changes; checks at each that no more and no fewer than allowed are there.
    fn settle(&mut self, least_up: i32, most: i32) -> usize {
        for steps in 0..50 {
            let before = (self.sets.clone(), self.deployment.status.clone());
            self.step();
            let total: i32 = self.sets.iter().map(|s| numbers::size(s)).sum();
            let up: i32 = self.sets.iter().map(|s| numbers::available(s)).sum();
            assert!(total <= most, "{total} are more than {most}");
            assert!(up >= least_up, "{up} are fewer than {least_up}");
            let sizes = |sets: &[Arc<ReplicaSet>]| sets.iter().map(|s| numbers::size(s)).collect::<Vec<_>>();
            if sizes(&before.0) == sizes(&self.sets) && before.1 == self.deployment.status {
                return steps;
            }
        }
        panic!("does not settle: {:?}", self.deployment.status);
    }

    fn image(&mut self, image: &str) {
        let spec = self.deployment.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        spec.containers[0].image = Some(image.into());
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn scale(&mut self, replicas: i32) {
        self.deployment.spec.as_mut().unwrap().replicas = Some(replicas);
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(|s| numbers::size(s)).collect()
    }

    fn revisions(&self) -> Vec<i64> {
        self.sets.iter().map(|s| template::revision(s)).collect()
    }

    fn reason(&self, kind: &str) -> String {
        let conditions = self.deployment.status.as_ref().unwrap().conditions.clone().unwrap_or_default();
        let found = conditions.into_iter().find(|c| c.type_ == kind);
        found.map(|c| format!("{} {}", c.status, c.reason.unwrap_or_default())).unwrap_or_default()
    }
}

#[test]
fn surge_rounds_up_and_unavailability_down() {
    let table = [
        (json!("25%"), json!("25%"), 10, (3, 2)),
        (json!("25%"), json!("25%"), 3, (1, 0)),
        (json!("25%"), json!("25%"), 1, (1, 0)),
        (json!(0), json!("25%"), 3, (0, 1)),
        (json!(0), json!(0), 5, (0, 1)),
        (json!(2), json!(9), 5, (2, 5)),
        (json!("100%"), json!("0%"), 4, (4, 0)),
        (json!(1), json!(0), 0, (1, 0)),
    ];
    for (surge, missing, replicas, want) in table {
        let rolling = json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": missing}}}});
        let d = deployment(replicas, "a", rolling);
        assert_eq!(numbers::surge_and_unavailable(&d), want, "{surge} {missing} of {replicas}");
    }
}

#[test]
fn the_first_set_is_made_and_the_rollout_completes() {
    let mut world = World::new(deployment(3, "a", json!({})));
    let plan = world.step();
    let set = plan.create.unwrap();
    let hash = hash(&world.deployment.spec.as_ref().unwrap().template, 0);
    assert_eq!(set.metadata.name.as_deref(), Some(format!("web-{hash}").as_str()));
    assert_eq!(set.metadata.labels.as_ref().unwrap()["pod-template-hash"], hash);
    assert_eq!(set.spec.as_ref().unwrap().selector.match_labels.as_ref().unwrap()["pod-template-hash"], hash);
    let annotations = set.metadata.annotations.as_ref().unwrap();
    assert_eq!(
        (annotations[DESIRED].as_str(), annotations[MAX].as_str(), annotations[REVISION].as_str()),
        ("3", "4", "1")
    );
    assert_eq!(world.reason("Progressing"), "True NewReplicaSetCreated");
    assert_eq!(world.reason("Available"), "False MinimumReplicasUnavailable");
    world.settle(3, 3);
    assert_eq!(world.reason("Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(world.reason("Available"), "True MinimumReplicasAvailable");
    assert_eq!(world.deployment.metadata.annotations.as_ref().unwrap()[REVISION], "1");
}

#[test]
fn a_rolling_update_never_leaves_its_bounds() {
    for (replicas, least, most) in [(1, 1, 2), (3, 3, 4), (10, 8, 13), (37, 28, 47)] {
        let mut world = World::new(deployment(replicas, "a", json!({})));
        world.step();
        world.settle(0, most);
        world.image("b");
        world.settle(least, most);
        assert_eq!(world.sizes(), [0, replicas], "of {replicas}");
        assert_eq!(world.revisions(), [1, 2]);
        assert_eq!(world.reason("Progressing"), "True NewReplicaSetAvailable");
    }
}

#[test]
fn a_template_that_does_not_work_keeps_the_old_pods_and_misses_the_deadline() {
    let mut world = World::new(deployment(4, "a", json!({})));
    world.step();
    world.settle(0, 5);
    world.image("broken");
    world.settle(3, 5);
    assert_eq!(world.sizes(), [3, 2], "one may be missing and one too many");
    assert_eq!(world.reason("Progressing"), "True ReplicaSetUpdated");
    assert!(world.step().again.is_some_and(|d| d.as_secs() > 500), "it must look again at the deadline");
    world.now += 700;
    world.step();
    assert_eq!(world.reason("Progressing"), "False ProgressDeadlineExceeded");
    assert_eq!(world.step().again, None);
    world.image("c");
    world.settle(3, 5);
    assert_eq!(world.sizes(), [0, 0, 4]);
    assert_eq!(world.reason("Progressing"), "True NewReplicaSetAvailable");
}

#[test]
fn going_back_to_an_old_template_takes_its_set_and_gives_it_a_new_number() {
    let mut world = World::new(deployment(2, "a", json!({})));
    world.step();
    world.settle(0, 3);
    world.image("b");
    world.settle(2, 3);
    world.image("a");
    world.settle(2, 3);
    assert_eq!((world.sizes(), world.revisions()), (vec![2, 0], vec![3, 2]));
    assert_eq!(world.sets[0].metadata.annotations.as_ref().unwrap()[HISTORY], "1");
    assert_eq!(world.deployment.metadata.annotations.as_ref().unwrap()[REVISION], "3");
    world.image("b");
    world.settle(2, 3);
    world.image("a");
    world.settle(2, 3);
    assert_eq!(world.sets[0].metadata.annotations.as_ref().unwrap()[HISTORY], "1,3");
}

#[test]
fn history_beyond_its_limit_is_removed_oldest_first() {
    let mut world = World::new(deployment(1, "i0", json!({"spec": {"revisionHistoryLimit": 2}})));
    world.step();
    world.settle(0, 2);
    for i in 1..6 {
        world.image(&format!("i{i}"));
        world.settle(1, 2);
    }
    assert_eq!(world.revisions(), [4, 5, 6]);
}

#[test]
fn a_scale_in_the_middle_of_a_rollout_is_shared_in_proportion() {
    let mut world = World::new(deployment(
        10,
        "a",
        json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}}}),
    ));
    world.step();
    world.settle(0, 13);
    world.image("broken");
    world.settle(8, 13);
    assert_eq!(world.sizes(), [8, 5]);
    world.scale(15);
    let plan = world.step();
    assert!(plan.create.is_none());
    assert_eq!(world.sizes(), [11, 7], "as in the documentation of Kubernetes");
    assert_eq!(world.sets[0].metadata.annotations.as_ref().unwrap()[DESIRED], "15");
}

#[test]
fn scaling_without_a_rollout_changes_the_one_set() {
    let mut world = World::new(deployment(2, "a", json!({})));
    world.step();
    world.settle(0, 3);
    for replicas in [7, 0, 3] {
        world.scale(replicas);
        world.settle(0, 9);
        assert_eq!(world.sizes(), [replicas]);
        assert_eq!(world.revisions(), [1]);
    }
}

#[test]
fn recreate_waits_until_the_old_pods_are_gone() {
    let recreate = json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}});
    let mut world = World::new(deployment(3, "a", recreate));
    world.step();
    world.settle(0, 3);
    world.image("b");
    world.step();
    assert_eq!(world.sizes(), [0]);
    let waiting = plan(&world.deployment, &world.sets, true, at(world.now));
    assert!(waiting.create.is_none(), "old pods still run");
    world.settle(0, 3);
    assert_eq!(world.sizes(), [0, 3]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::new(deployment(2, "a", json!({})));
    world.step();
    world.settle(0, 3);
    world.deployment.spec.as_mut().unwrap().paused = Some(true);
    world.image("b");
    world.scale(4);
    world.settle(0, 5);
    assert_eq!(world.sizes(), [4]);
    assert_eq!(world.reason("Progressing"), "Unknown DeploymentPaused");
    world.deployment.spec.as_mut().unwrap().paused = None;
    world.settle(3, 5);
    assert_eq!(world.sizes(), [0, 4]);
    assert_eq!(world.reason("Progressing"), "True NewReplicaSetAvailable");
}

#[test]
fn a_deployment_that_goes_does_nothing_more() {
    let gone = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let plan = plan(&deployment(3, "a", gone), &[], false, at(0));
    assert!(plan.create.is_none() && plan.changes.is_empty());
}

#[test]
fn a_set_that_cannot_make_pods_is_the_deployments_failure() {
    let mut world = World::new(deployment(1, "a", json!({})));
    world.step();
    let failure = json!({"replicas": 0, "conditions": [
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]});
    Arc::make_mut(&mut world.sets[0]).status = Some(serde_json::from_value(failure).unwrap());
    let told = conditions::status(&world.deployment, Some(&world.sets[0]), &world.sets, &News::None, at(2000)).0;
    let failed = told.conditions.unwrap().into_iter().find(|c| c.type_ == "ReplicaFailure").unwrap();
    assert_eq!((failed.reason.as_deref(), failed.message.as_deref()), (Some("FailedCreate"), Some("quota")));
}

#[test]
fn hashes_tell_templates_apart_and_ignore_their_own_label() {
    let template = |image: &str| deployment(1, image, json!({})).spec.unwrap().template;
    let mut labelled = template("a");
    labelled.metadata.as_mut().unwrap().labels.as_mut().unwrap().insert("pod-template-hash".into(), "x".into());
    assert_eq!(hash(&template("a"), 0), hash(&labelled, 0));
    assert_ne!(hash(&template("a"), 0), hash(&template("b"), 0));
    assert_ne!(hash(&template("a"), 0), hash(&template("a"), 1));
}
