//! Requests for certificates: those of nodes are approved where the rules allow it, approved ones are signed, old ones
//! removed.

mod decide;

pub use decide::{AGENT_KEY, CLIENT_SIGNER, Facts, NODE_SIGNER, Step, has, next};

use super::{Controller, ControllerContext, Outcome, Reconciler, pump, run_workers};
use crate::api::{ApiError, ApiResult, Target};
use crate::client::{ApiResource, Change, DeleteOptions, Informer, Payload, WriteOptions};
use crate::server::auth::MASTERS;
use crate::server::tls::{Authority, CertificateRequest, TlsError};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use k8s_openapi::api::core::v1::Node;
use std::sync::Arc;
use std::time::Duration;

/// How long a machine that was admitted may take to register its Node.
const REGISTERS: SignedDuration = SignedDuration::from_secs(60);

/// What the signer signs with. `Debug` of the authority hides the key.
#[derive(Clone, Debug)]
pub struct Signer {
    /// The cluster's CA.
    pub authority: Authority,
    /// How long certificates last at most.
    pub life: SignedDuration,
}

impl Signer {
    /// A signer of certificates that last a year.
    pub fn new(authority: Authority) -> Self {
        Self { authority, life: SignedDuration::from_hours(365 * 24) }
    }
}

/// Approves, signs and removes requests for certificates.
pub struct CertificateController {
    /// The signer; without one, nothing is signed.
    pub signer: Option<Signer>,
}

#[async_trait]
impl Controller for CertificateController {
    fn name(&self) -> &str {
        "certificate-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let requests = ctx.informers.of::<CertificateSigningRequest>();
        let nodes = ctx.informers.of::<Node>();
        let (_, _) = tokio::join!(requests.synced(), nodes.synced());
        let queue = ctx.queue();
        let changed = queue.clone();
        pump(&ctx, &requests, move |change| {
            if let Change::Applied { new, .. } = change {
                changed.add(new.metadata.name.clone().unwrap_or_default());
            }
        });
        let signer = self.signer.clone();
        let work = Arc::new(Requests { ctx: ctx.clone(), requests, nodes, signer });
        // One worker: of two machines that ask for one name at once, the second must see the first.
        run_workers(&ctx, &queue, 1, work).await;
    }
}

struct Requests {
    ctx: ControllerContext,
    requests: Informer<CertificateSigningRequest>,
    nodes: Informer<Node>,
    signer: Option<Signer>,
}

#[async_trait]
impl Reconciler for Requests {
    type Key = String;

    async fn reconcile(&self, name: &String) -> ApiResult<Outcome> {
        let Some(csr) = self.requests.get(name) else { return Ok(Outcome::Done) };
        let now = self.ctx.clock.now();
        let step = match parse(&csr) {
            Err(_) if has(&csr, "Failed") => return Ok(Outcome::Done),
            // The API takes none that cannot be read.
            Err(error) => return self.fail(&csr, &error).await,
            Ok(request) => {
                let node = request.user().node().and_then(|name| self.nodes.get(name));
                let rival = self.rival(&csr, &request);
                next(&csr, &Facts { request: &request, node: node.as_deref(), rival, now })
            }
        };
        tracing::debug!(csr = name, ?step, "a request for a certificate");
        match step {
            Step::Wait(until) => {
                let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                Ok(Outcome::After(left + Duration::from_secs(1)))
            }
            Step::Approve(why) => self.give(&csr, "Approved", "AutoApproved", why).await,
            Step::Deny(reason, why) => self.give(&csr, "Denied", reason, why).await,
            Step::Sign => self.sign(&csr).await,
            Step::Remove => {
                let target = target(name);
                let gone = self.ctx.client.transport().delete(&target, &DeleteOptions::default()).await;
                gone.map(drop).or_else(|e| if e.is_not_found() { Ok(()) } else { Err(e) })?;
                Ok(Outcome::Done)
            }
        }
    }
}

fn target(name: &str) -> Target {
    Target::object(CertificateSigningRequest::gvr(), "", name)
}

fn parse(csr: &CertificateSigningRequest) -> Result<CertificateRequest, TlsError> {
    let unreadable = |cause: String| TlsError::Unreadable { what: "certificate request", cause };
    let text = std::str::from_utf8(&csr.spec.request.0).map_err(|e| unreadable(e.to_string()))?;
    CertificateRequest::parse(text)
}

impl Requests {
    /// True where another key was approved for the same node, and its Node may not be there yet.
    fn rival(&self, csr: &CertificateSigningRequest, request: &CertificateRequest) -> bool {
        let Some(node) = request.user().node() else { return false };
        let recent = self.ctx.clock.now().saturating_add(-REGISTERS).unwrap_or(Timestamp::MIN);
        self.requests
            .list()
            .iter()
            .filter(|other| other.metadata.name != csr.metadata.name && other.spec.signer_name == NODE_SIGNER)
            // Later the Node knows better: it is there, or the name was freed since.
            .filter(|other| other.metadata.creation_timestamp.as_ref().is_some_and(|made| made.0 > recent))
            .filter(|other| has(other, "Approved"))
            .filter_map(|other| parse(other).ok())
            .any(|other| other.user().node() == Some(node) && other.key_digest() != request.key_digest())
    }

    async fn give(&self, csr: &CertificateSigningRequest, kind: &str, reason: &str, why: String) -> ApiResult<Outcome> {
        let name = csr.metadata.name.as_deref().unwrap_or_default();
        tracing::info!(csr = name, verdict = kind, reason, why, "a request for a certificate was judged");
        let mut judged = csr.clone();
        let conditions = &mut judged.status.get_or_insert_default().conditions;
        conditions.get_or_insert_default().push(condition(kind, reason, why));
        let body = serde_json::to_vec(&judged).map_err(|e| ApiError::internal(e.to_string()))?;
        let options = WriteOptions { field_manager: self.ctx.name.to_string(), ..WriteOptions::default() };
        let target = target(name).sub("approval");
        self.ctx.client.transport().update(&target, Payload::Json(body.into()), &options).await?;
        Ok(Outcome::Done)
    }

    async fn sign(&self, csr: &CertificateSigningRequest) -> ApiResult<Outcome> {
        let Some(signer) = &self.signer else { return Ok(Outcome::Done) };
        let request = match parse(csr) {
            Ok(request) => request,
            Err(error) => return self.fail(csr, &error).await,
        };
        let masters = request.user().groups.iter().any(|g| g == MASTERS);
        if masters || !request.is_plain() {
            let why = "no certificate is signed for system:masters, or with names and addresses in it";
            return self.failed(csr, "SignerValidationFailure", why.to_owned()).await;
        }
        let asked = csr.spec.expiration_seconds.map(|s| SignedDuration::from_secs(s.into()));
        let life = asked.map_or(signer.life, |asked| asked.min(signer.life));
        match signer.authority.sign(&request, life, self.ctx.clock.now()) {
            Ok(certificate) => {
                let mut status = csr.status.clone().unwrap_or_default();
                status.certificate = Some(ByteString(certificate.into_bytes()));
                self.report(csr, status).await
            }
            Err(error) => self.fail(csr, &error).await,
        }
    }

    async fn fail(&self, csr: &CertificateSigningRequest, error: &TlsError) -> ApiResult<Outcome> {
        self.failed(csr, "SignerValidationFailure", error.to_string()).await
    }

    async fn failed(&self, csr: &CertificateSigningRequest, reason: &str, why: String) -> ApiResult<Outcome> {
        let mut status = csr.status.clone().unwrap_or_default();
        status.conditions.get_or_insert_default().push(condition("Failed", reason, why));
        self.report(csr, status).await
    }

    async fn report(
        &self,
        csr: &CertificateSigningRequest,
        status: CertificateSigningRequestStatus,
    ) -> ApiResult<Outcome> {
        let new = CertificateSigningRequest { status: Some(status), ..csr.clone() };
        self.ctx.client.all::<CertificateSigningRequest>().update_status(&new).await?;
        Ok(Outcome::Done)
    }
}

fn condition(kind: &str, reason: &str, message: String) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        ..CertificateSigningRequestCondition::default()
    }
}
