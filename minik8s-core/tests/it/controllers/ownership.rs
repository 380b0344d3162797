//! Garbage collection.

use super::*;
use k8s_openapi::api::core::v1::ConfigMap;
use minik8s_core::client::{DeleteOptions, Propagation};

fn map(name: &str, owners: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "ownerReferences": owners}})
}

fn reference(owner: &ConfigMap, blocks: bool) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner.metadata.name, "uid": owner.metadata.uid,
        "blockOwnerDeletion": blocks})
}

async fn delete(world: &World, name: &str, propagation: Propagation) {
    let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
    world.client.api::<ConfigMap>("default").delete(name, &options).await.unwrap();
}

impl World {
    async fn family(&self) -> (ConfigMap, ConfigMap) {
        let parent: ConfigMap = self.create(map("parent", json!(null))).await;
        let child: ConfigMap = self.create(map("child", json!([reference(&parent, true)]))).await;
        self.create::<ConfigMap>(map("grandchild", json!([reference(&child, true)]))).await;
        (parent, child)
    }

    async fn map(&self, name: &str) -> Option<ConfigMap> {
        self.client.api::<ConfigMap>("default").get_opt(name).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_owned_goes_after_its_owner() {
    let world = World::new().await;
    world.family().await;
    world.create::<ConfigMap>(map("bystander", json!(null))).await;
    delete(&world, "parent", Propagation::Background).await;
    for name in ["parent", "child", "grandchild"] {
        world.gone::<ConfigMap>("default", name).await;
    }
    assert!(world.map("bystander").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn in_the_foreground_it_goes_before_its_owner() {
    let world = World::new().await;
    let (_, child) = world.family().await;
    let held = json!({"metadata": {"finalizers": ["test/hold"]}});
    world.patch::<ConfigMap>("default", "grandchild", held).await;
    delete(&world, "parent", Propagation::Foreground).await;
    wait::until("the grandchild is on its way", BOUND, || async {
        world.map("grandchild").await.unwrap().metadata.deletion_timestamp
    })
    .await;
    assert!(world.map("parent").await.is_some() && world.map("child").await.is_some(), "both wait");
    assert_eq!(world.map("child").await.unwrap().metadata.uid, child.metadata.uid);
    world.patch::<ConfigMap>("default", "grandchild", json!({"metadata": {"finalizers": null}})).await;
    for name in ["grandchild", "child", "parent"] {
        world.gone::<ConfigMap>("default", name).await;
    }
}

#[tokio::test(start_paused = true)]
async fn orphans_live_on_without_their_owner() {
    let world = World::new().await;
    world.family().await;
    delete(&world, "parent", Propagation::Orphan).await;
    world.gone::<ConfigMap>("default", "parent").await;
    let child = world.map("child").await.unwrap();
    assert!(child.metadata.owner_references.is_none() && child.metadata.deletion_timestamp.is_none());
    assert!(world.map("grandchild").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn owners_are_known_by_uid_and_may_never_have_been() {
    let world = World::new().await;
    let (parent, _) = world.family().await;
    let never = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "parent", "uid": "not-this-one"}]);
    world.create::<ConfigMap>(map("impostor", never)).await;
    world.gone::<ConfigMap>("default", "impostor").await;
    let nobody = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "u"}]);
    world.create::<ConfigMap>(map("orphan", nobody)).await;
    world.gone::<ConfigMap>("default", "orphan").await;
    let unknown = json!([{"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": "u"}]);
    world.create::<ConfigMap>(map("widgets", unknown)).await;
    let two = json!([reference(&parent, false),
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "u"}]);
    world.create::<ConfigMap>(map("shared", two)).await;
    wait::until("the dead owner is struck out", BOUND, || async {
        let owners = world.map("shared").await.unwrap().metadata.owner_references.unwrap_or_default();
        (owners.len() == 1 && Some(&owners[0].uid) == parent.metadata.uid.as_ref()).then_some(())
    })
    .await;
    assert!(world.map("widgets").await.is_some(), "nothing is known of its owner");
    assert!(world.map("child").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_owner_made_again_is_another_one() {
    let world = World::new().await;
    world.family().await;
    delete(&world, "parent", Propagation::Background).await;
    world.create::<ConfigMap>(map("parent", json!(null))).await;
    world.gone::<ConfigMap>("default", "child").await;
    assert!(world.map("parent").await.is_some());
}
