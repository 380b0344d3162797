//! `Function` and `FunctionRevision`, typed.

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, ObjectMeta};
use minik8s_core::resource;
use serde::{Deserialize, Serialize};

/// Code that is run when somebody calls it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Function {
    /// Names and the rest.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: FunctionSpec,
    /// What is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<FunctionStatus>,
}

resource!(Function, "minik8s.io", "v1alpha1", "Function", "functions", k8s_openapi::NamespaceResourceScope);

/// What a [`Function`] wants. All but `scale`, `queue`, `maxBodyBytes` and `canaryPercent` makes a revision: where it
/// changes, a new one is made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionSpec {
    /// `python`, `node`, or `image` for any HTTP server in an image.
    pub runtime: String,
    /// What is called: `file.function`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub handler: String,
    /// The image; for runtimes with a source, the base on which it is laid.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// The user's files, which have been uploaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<FunctionSource>,
    /// Instead of the image's entry point.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Instead of the image's arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Where the server listens.
    pub port: i32,
    /// Environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Of one instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Calls that one instance gets at once; 0 for any number.
    pub concurrency: i32,
    /// How long a call may take, waiting included.
    pub timeout_seconds: i32,
    /// How many instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<FunctionScale>,
    /// Calls that may wait for an instance at one gateway.
    pub queue: i32,
    /// Largest body of a call.
    pub max_body_bytes: i64,
    /// Share of calls that the newest revision gets while this is set; the one before it gets the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_percent: Option<i32>,
}

/// An archive of the user's files, as the cluster's registry has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionSource {
    /// `sha256:…` of the archive.
    pub digest: String,
    /// Its bytes.
    pub size: i64,
}

/// How many instances.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionScale {
    /// At least; 0 where nothing runs while nobody calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<i32>,
    /// At most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<i32>,
    /// How long nobody has called before there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<i32>,
    /// How long the last instance is then kept paused, with its memory, before it goes too; 0 where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_seconds: Option<i32>,
    /// Calls at once that an instance should have; 70 of 100 of `concurrency` where it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<f64>,
    /// Calls per second that an instance should have, where that counts as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
}

/// What became of a [`Function`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionStatus {
    /// The generation this is about.
    pub observed_generation: i64,
    /// `Ready`: calls reach the newest revision, and no other any more but as a canary asks for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The newest revision.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// Who gets calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<FunctionTraffic>,
    /// Instances of all revisions.
    pub instances: i32,
    /// Those that take calls.
    pub ready: i32,
    /// Path at every gateway.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// What the newest revision said when it could not be built or started.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log: String,
}

/// A revision and its share of the calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionTraffic {
    /// The revision.
    pub revision: String,
    /// Of a hundred.
    pub percent: i32,
}

/// One version of a function. Its spec never changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionRevision {
    /// Names and the rest.
    pub metadata: ObjectMeta,
    /// What it is.
    pub spec: FunctionRevisionSpec,
    /// What became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<FunctionRevisionStatus>,
}

resource!(
    FunctionRevision,
    "minik8s.io",
    "v1alpha1",
    "FunctionRevision",
    "functionrevisions",
    k8s_openapi::NamespaceResourceScope
);

/// What a [`FunctionRevision`] is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionRevisionSpec {
    /// Whose it is.
    pub function: String,
    /// Which one of those; a rollback takes the number with it.
    pub number: i64,
    /// What of the function makes a revision.
    pub template: FunctionSpec,
}

/// What became of a [`FunctionRevision`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionRevisionStatus {
    /// `Built`, and `Ready`: an instance of it has been ready once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The image that instances run.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// What kept it from being built or started.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log: String,
    /// Instances.
    pub instances: i32,
    /// Those that take calls.
    pub ready: i32,
}

/// A call of a function that nobody waits for, and its result. It reaches the function at least once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Invocation {
    /// Names and the rest. The name is the call's `X-Request-Id`.
    pub metadata: ObjectMeta,
    /// What is called.
    pub spec: InvocationSpec,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<InvocationStatus>,
}

resource!(Invocation, "minik8s.io", "v1alpha1", "Invocation", "invocations", k8s_openapi::NamespaceResourceScope);

/// What an [`Invocation`] calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InvocationSpec {
    /// The function, of the same namespace.
    pub function: String,
    /// What it is called with: JSON, no more than 256 KiB.
    pub body: String,
    /// The `Idempotency-Key` of all attempts; the object's uid where it is empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub idempotency_key: String,
    /// How long the result is kept.
    pub ttl_seconds: i64,
}

/// What came of an [`Invocation`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InvocationStatus {
    /// Empty, `Running`, `Waiting` for another attempt, `Succeeded` or `Failed`.
    pub phase: String,
    /// How often it was called.
    pub attempts: i32,
    /// When it was called first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<MicroTime>,
    /// When the last attempt ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<MicroTime>,
    /// The answer, JSON.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Why there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}
