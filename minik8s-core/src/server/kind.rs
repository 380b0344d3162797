//! What makes a kind: everything the generic server must know about one, in one place. A kind is one file that
//! implements [`Kind`] and one line in the registry's table; nothing else in the server names it.

use super::ApiServer;
use super::auth::User;
use crate::api::{ApiError, ApiResult, Gvr, Reason, Target};
pub use crate::api::{FieldErrors, NameRule};
use crate::client::{DeleteOptions, ListOptions};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
use serde_json::Value;
use std::borrow::Cow;
use std::time::Duration;

/// How a kind is called.
#[derive(Clone, Debug)]
pub struct KindNames {
    /// Group, version and plural.
    pub gvr: Gvr,
    /// `Pod`.
    pub kind: Cow<'static, str>,
    /// `pod`.
    pub singular: Cow<'static, str>,
    /// `po`.
    pub short_names: Vec<Cow<'static, str>>,
    /// `all`.
    pub categories: Vec<Cow<'static, str>>,
    /// Objects live in namespaces.
    pub namespaced: bool,
}

/// Where the `scale` sub-resource finds its numbers, as JSON pointers.
#[derive(Clone, Copy, Debug)]
pub struct ScalePaths {
    /// `/spec/replicas`
    pub spec_replicas: &'static str,
    /// `/status/replicas`
    pub status_replicas: &'static str,
    /// `/spec/selector`: a label selector object, or a plain map.
    pub selector: &'static str,
}

/// A sub-resource that is an action of its own (`binding`, `eviction`, `log`): how discovery shows it.
#[derive(Clone, Copy, Debug)]
pub struct ActionNames {
    /// `eviction`
    pub name: &'static str,
    /// Group of the kind it takes.
    pub group: &'static str,
    /// Version of the kind it takes.
    pub version: &'static str,
    /// The kind it takes.
    pub kind: &'static str,
    /// Verbs it answers.
    pub verbs: &'static [&'static str],
}

/// A column of a table.
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// `string`, `integer`, `date`.
    pub kind: &'static str,
    /// `name` for the first column, else empty.
    pub format: &'static str,
    /// 0 always shown, 1 only with `-o wide`.
    pub priority: i32,
    /// The cell. `Timestamp` is the present time, for ages.
    pub cell: fn(&Value, Timestamp) -> Value,
}

/// A field that field selectors may ask for.
pub struct SelectableField {
    /// Path, such as `spec.nodeName`.
    pub path: &'static str,
    /// Its value as text, empty where it is absent.
    pub value: fn(&Value) -> String,
}

/// How deletion works for a kind.
#[derive(Clone, Copy, Debug)]
pub struct DeletionRule {
    /// A successful deletion answers the object instead of a `Status`.
    pub answers_object: bool,
    /// Seconds of grace an object gets when the request says nothing; 0 deletes at once.
    pub grace: fn(&Value) -> i64,
}

/// A place that only one object in the cluster may hold, such as a cluster IP: `("clusterip", "10.96.0.7")`. The commit
/// that writes the object takes new claims and frees dropped ones, atomically.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    /// What kind of place.
    pub space: &'static str,
    /// Which one.
    pub value: String,
    /// The field to blame when it is taken.
    pub field: String,
}

/// What an action does to the object it is asked of.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The object becomes this, and the answer is a `Status`.
    Update(Value),
    /// The object becomes this, and the answer is the object.
    Replace(Value),
    /// The object becomes this and is deleted, and the answer is a `Status`.
    Delete(DeleteOptions, Value),
}

/// Another object that changes in the same commit, such as the budget that pays for an eviction.
#[derive(Clone, Debug, PartialEq)]
pub struct Beside {
    /// Its resource.
    pub gvr: Gvr,
    /// What it becomes; `metadata.resourceVersion` is the version it was read at, which must still be the present one.
    pub object: Value,
}

/// What a kind may ask of the server while a write is prepared.
#[async_trait]
pub trait WriteContext: Send + Sync {
    /// The present time.
    fn now(&self) -> Timestamp;
    /// Who asks for the write; `None` is the cluster itself.
    fn user(&self) -> Option<&User>;
    /// True where the claim is held by nobody, as far as is known now.
    async fn is_free(&self, claim: &Claim) -> ApiResult<bool>;
    /// Every object of a kind that has few, such as classes; `fresh` ones include every write that was acknowledged
    /// before, at the price of waiting for it.
    async fn all(&self, gvr: &Gvr, fresh: bool) -> ApiResult<Vec<Value>>;
    /// Every object of a kind in one namespace, every write included that was acknowledged before.
    async fn all_in(&self, gvr: &Gvr, namespace: &str) -> ApiResult<Vec<Value>>;
    /// A number below `end`, from the server's one source of randomness; 0 where `end` is 0.
    fn random(&self, end: u64) -> u64;
    /// Cluster-wide settings that kinds default from.
    fn settings(&self) -> &Settings;
}

/// Cluster-wide settings that kinds default from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Range of virtual addresses of services.
    pub service_cidr: ipnet::IpNet,
    /// Range of the addresses of all pods, where nodes are given theirs out of one.
    pub pod_cidr: Option<ipnet::IpNet>,
    /// Range of node ports, both ends included.
    pub node_ports: (u16, u16),
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// How long, in seconds, pods that do not say so themselves stay on a node that is not ready.
    pub not_ready_seconds: i64,
    /// The same for a node that is not heard of any more.
    pub unreachable_seconds: i64,
}

impl Settings {
    /// The virtual address of the API: the first of the range of services.
    pub fn api_address(&self) -> std::net::IpAddr {
        self.service_cidr.hosts().next().unwrap_or_else(|| self.service_cidr.addr())
    }
}

impl Default for Settings {
    fn default() -> Self {
        let service_cidr = ipnet::IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 96, 0, 0), 16));
        Self {
            service_cidr,
            pod_cidr: None,
            node_ports: (30000, 32767),
            cluster_domain: "cluster.local".into(),
            not_ready_seconds: 300,
            unreachable_seconds: 300,
        }
    }
}

/// Objects that are stored nowhere, but worked out whenever somebody asks for them. They can be read, not written.
#[async_trait]
pub trait Computed: Send + Sync {
    /// The objects of a collection, or the one a target names; in order. A target with a sub-resource is a collection.
    ///
    /// # Errors
    /// `NotFound` for one that is not there; whatever keeps them from being worked out.
    async fn objects(&self, server: &ApiServer, target: &Target, options: &ListOptions) -> ApiResult<Vec<Value>>;
}

/// What is read of an object's sub-resource.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The object, as it is now.
    pub object: Value,
    /// The sub-resource, with whatever follows it in the path: `log`, `results/a/b`.
    pub subresource: String,
    /// The parameters of the request.
    pub query: Vec<(String, String)>,
}

impl Reading {
    /// The first value of a parameter; empty values count as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// A flag: present means true, unless it says `false` or `0`.
    pub fn flag(&self, name: &str) -> bool {
        self.query.iter().find(|(k, _)| k == name).is_some_and(|(_, v)| v != "0" && !v.eq_ignore_ascii_case("false"))
    }
}

/// Sub-resources that are read as bytes, such as a log that goes on growing. Each is one of its kind's
/// [`actions`](Kind::actions), with the verb `get`.
#[async_trait]
pub trait Readable: Send + Sync {
    /// The bytes, in pieces, as they come.
    ///
    /// # Errors
    /// `NotFound` where there is no such thing; `BadRequest` for parameters that cannot be.
    async fn read(&self, reading: Reading) -> ApiResult<BoxStream<'static, ApiResult<Bytes>>>;
}

/// Everything the generic server must know about a kind. Objects are generic JSON here: typed structs would drop
/// fields they do not know. Every hook is pure but [`admit`](Kind::admit).
#[async_trait]
pub trait Kind: Send + Sync + 'static {
    /// How it is called.
    fn names(&self) -> &KindNames;

    /// Its type in the schema table, such as `io.k8s.api.core.v1.Pod`: the source of field validation, protobuf
    /// decoding, strategic merge and OpenAPI.
    fn schema(&self) -> &str;

    /// Which names objects may have.
    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }

    /// Has a `status` sub-resource: status is ignored on the main one, and everything else on that.
    fn has_status(&self) -> bool {
        false
    }

    /// Has a `scale` sub-resource.
    fn scale(&self) -> Option<ScalePaths> {
        None
    }

    /// Sub-resources that are actions.
    fn actions(&self) -> &'static [ActionNames] {
        &[]
    }

    /// The part of an object whose changes bump `generation`; `None` where the kind has no generation.
    fn desired<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        if self.has_status() { object.get("spec") } else { None }
    }

    /// Fills in what the user left out, on every write and on objects read from old data. Idempotent.
    fn default(&self, _object: &mut Value) {}

    /// True where a status that comes with a new object is kept; else it is dropped.
    fn keeps_status(&self) -> bool {
        false
    }

    /// Called on every write after defaulting: resets what clients may not set, allocates, looks things up.
    ///
    /// # Errors
    /// Whatever should refuse the write.
    async fn admit(&self, _new: &mut Value, _old: Option<&Value>, _ctx: &dyn WriteContext) -> ApiResult<()> {
        Ok(())
    }

    /// What is wrong with an object; `old` on updates, for immutable fields.
    fn validate(&self, _new: &Value, _old: Option<&Value>, _errors: &mut FieldErrors) {}

    /// The unique places it holds.
    fn claims(&self, _object: &Value) -> Vec<Claim> {
        Vec::new()
    }

    /// What field selectors may ask for, beyond name and namespace.
    fn fields(&self) -> &'static [SelectableField] {
        &[]
    }

    /// Those of [`fields`](Self::fields) that many ask for with one exact value, each for a few of many objects: found
    /// by an index, which costs every write a little.
    fn indexed_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// Columns of its table.
    fn columns(&self) -> &'static [Column];

    /// How deletion works.
    fn deletion(&self) -> DeletionRule {
        DeletionRule { answers_object: false, grace: |_| 0 }
    }

    /// Called when an object is first marked as being deleted, to show it in the object's own terms.
    fn mark_deleted(&self, _object: &mut Value) {}

    /// True while something of the kind's own, beyond finalizers and grace, keeps a deleted object from vanishing.
    fn holds_deletion(&self, _object: &Value) -> bool {
        false
    }

    /// What an action (see [`actions`](Kind::actions)) does to an object. Pure; the server carries it out.
    ///
    /// # Errors
    /// Whatever should refuse the action; `NotFound` for actions the generic server does not serve.
    fn act(&self, action: &str, _body: &Value, _object: &Value, _now: Timestamp) -> ApiResult<Effect> {
        let why = format!("the action {action} is not served on {}", self.names().gvr.qualified());
        Err(ApiError::new(Reason::MethodNotAllowed, why))
    }

    /// What an action changes beside the object; asked again where that has changed meanwhile.
    ///
    /// # Errors
    /// Whatever should refuse the action.
    async fn beside(&self, _action: &str, _object: &Value, _ctx: &dyn WriteContext) -> ApiResult<Option<Beside>> {
        Ok(None)
    }

    /// Lifetime after the last write (events).
    fn ttl(&self, _object: &Value) -> Option<Duration> {
        None
    }

    /// Set for a kind whose objects are not stored.
    fn computed(&self) -> Option<&dyn Computed> {
        None
    }

    /// Set for a kind with sub-resources that are read as bytes.
    fn readable(&self) -> Option<&dyn Readable> {
        None
    }

    /// Another resource under whose name the objects are stored (`events.k8s.io` events live with core ones); `None`
    /// for its own. [`to_storage`](Kind::to_storage) and [`from_storage`](Kind::from_storage) translate.
    fn stored_as(&self) -> Option<Gvr> {
        None
    }

    /// Translates an object of this kind into its stored form.
    fn to_storage(&self, _object: &mut Value) {}

    /// Translates a stored object into this kind's form.
    #[allow(clippy::wrong_self_convention, reason = "it is the kind that translates, not the object that is made")]
    fn from_storage(&self, _object: &mut Value) {}
}
