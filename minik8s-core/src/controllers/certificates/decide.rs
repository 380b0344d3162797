//! What becomes of a request for a certificate: pure.

use crate::server::auth::{BOOTSTRAPPERS, NODES, User};
use crate::server::tls::CertificateRequest;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;

/// Signs certificates by which nodes ask the API; approved here where the rules are kept.
pub const NODE_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signs certificates by which anyone asks the API; approved by people.
pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// On a Node: the digest of the key that its agent identifies itself with.
pub const AGENT_KEY: &str = "minik8s.io/agent-key";

/// A request that was answered is kept this long, and one that nobody answers that long.
const ANSWERED: SignedDuration = SignedDuration::from_hours(1);
const UNANSWERED: SignedDuration = SignedDuration::from_hours(24);
/// What a node's certificate may be for.
const USAGES: [&str; 3] = ["digital signature", "key encipherment", "client auth"];

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this time.
    Wait(Timestamp),
    /// It is good, and this is why.
    Approve(String),
    /// It is not: a reason in one word, and the way out.
    Deny(&'static str, String),
    /// The certificate is due.
    Sign,
    /// It is over and done.
    Remove,
}

/// What a decision looks at.
pub struct Facts<'a> {
    /// What is asked for.
    pub request: &'a CertificateRequest,
    /// The node of that name, where there is one.
    pub node: Option<&'a Node>,
    /// True where a machine with another key was admitted under that name a moment ago.
    pub rival: bool,
    /// The present time.
    pub now: Timestamp,
}

/// The next step for a request.
pub fn next(csr: &CertificateSigningRequest, facts: &Facts<'_>) -> Step {
    let made = csr.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |t| t.0);
    let until = |life: SignedDuration| {
        let end = made.saturating_add(life).unwrap_or(Timestamp::MAX);
        if end <= facts.now { Step::Remove } else { Step::Wait(end) }
    };
    let signs = matches!(&*csr.spec.signer_name, NODE_SIGNER | CLIENT_SIGNER);
    if has_certificate(csr) || has(csr, "Denied") || has(csr, "Failed") {
        return until(ANSWERED);
    }
    match (has(csr, "Approved"), &*csr.spec.signer_name) {
        (true, _) if signs => Step::Sign,
        (false, NODE_SIGNER) => judge(csr, facts),
        _ => until(UNANSWERED),
    }
}

fn has_certificate(csr: &CertificateSigningRequest) -> bool {
    csr.status.as_ref().and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty())
}

/// True where a request has a condition of this type.
pub fn has(csr: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = csr.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == kind)
}

/// The user who made the request.
fn maker(csr: &CertificateSigningRequest) -> User {
    User { name: csr.spec.username.clone().unwrap_or_default(), groups: csr.spec.groups.clone().unwrap_or_default() }
}

fn judge(csr: &CertificateSigningRequest, facts: &Facts<'_>) -> Step {
    let Some(node) = facts.request.user().node() else {
        let asked = &facts.request.user().name;
        return Step::Deny(
            "NotANode",
            format!("a node is called system:node:NAME, of the group {NODES}, not {asked:?}"),
        );
    };
    let usages = csr.spec.usages.as_deref().unwrap_or_default();
    if !facts.request.is_plain()
        || !usages.iter().all(|u| USAGES.contains(&&**u))
        || !usages.iter().any(|u| u == USAGES[2])
    {
        let why = "a node's certificate is for client authentication alone, without names or addresses";
        return Step::Deny("WrongUsage", why.to_owned());
    }
    let maker = maker(csr);
    if maker.node() == Some(node) {
        return Step::Approve(format!("node {node} renews its certificate"));
    }
    if !maker.groups.iter().any(|g| g == BOOTSTRAPPERS) {
        return Step::Deny("NotAllowed", format!("{:?} may not ask for the certificate of node {node:?}", maker.name));
    }
    let same = |known: &Node| {
        let key = known.metadata.annotations.as_ref().and_then(|a| a.get(AGENT_KEY));
        key.is_some_and(|key| key == facts.request.key_digest())
    };
    if facts.rival || facts.node.is_some_and(|known| !same(known)) {
        return Step::Deny(
            "NameTaken",
            format!(
                "there is a node {node:?} already, and it is another machine (or lost its key): join under another name \
                 with --node-name, or, if that machine is gone for good, run `minik8s delete node {node}` and join again"
            ),
        );
    }
    Step::Approve(format!("{} joins as node {node}", maker.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tls::new_key;
    use serde_json::json;

    const NOW: &str = "2026-01-01T12:00:00Z";

    struct Case {
        csr: CertificateSigningRequest,
        request: CertificateRequest,
    }

    fn case(user: &User, maker: &str, group: &str) -> Case {
        let text = CertificateRequest::make(user, &new_key().unwrap()).unwrap();
        let csr = serde_json::from_value(json!({
            "metadata": {"name": "c", "creationTimestamp": NOW},
            "spec": {"request": "", "signerName": NODE_SIGNER, "username": maker, "groups": [group],
                "usages": ["client auth", "digital signature"]}}));
        Case { csr: csr.unwrap(), request: CertificateRequest::parse(&text).unwrap() }
    }

    fn joins() -> Case {
        case(&User::of_node("n1"), "system:bootstrap:abcdef", BOOTSTRAPPERS)
    }

    impl Case {
        fn step(&self, node: Option<&Node>, rival: bool) -> Step {
            self.at(NOW, node, rival)
        }

        fn at(&self, now: &str, node: Option<&Node>, rival: bool) -> Step {
            next(&self.csr, &Facts { request: &self.request, node, rival, now: now.parse().unwrap() })
        }

        fn with(mut self, kind: &str) -> Self {
            let status = json!({"conditions": [{"type": kind, "status": "True"}]});
            self.csr.status = serde_json::from_value(status).unwrap();
            self
        }
    }

    #[track_caller]
    fn denied(step: &Step, reason: &str) {
        assert!(matches!(step, Step::Deny(why, _) if *why == reason), "{step:?}");
    }

    #[test]
    fn machines_that_join_and_nodes_that_renew_are_approved() {
        assert!(matches!(joins().step(None, false), Step::Approve(_)));
        let renews = case(&User::of_node("n1"), "system:node:n1", NODES);
        assert!(matches!(renews.step(Some(&Node::default()), true), Step::Approve(_)));
    }

    #[test]
    fn a_name_belongs_to_the_key_that_took_it() {
        let case = joins();
        let with = |key: &str| -> Node {
            serde_json::from_value(json!({"metadata": {"name": "n1", "annotations": {AGENT_KEY: key}}})).unwrap()
        };
        denied(&case.step(Some(&Node::default()), false), "NameTaken");
        denied(&case.step(Some(&with("sha256:00")), false), "NameTaken");
        denied(&case.step(None, true), "NameTaken");
        let own = with(case.request.key_digest());
        assert!(matches!(case.step(Some(&own), false), Step::Approve(_)));
    }

    #[test]
    fn nobody_gets_what_is_not_a_nodes() {
        denied(&case(&User::new("admin", &["system:masters"]), "x", BOOTSTRAPPERS).step(None, false), "NotANode");
        denied(&case(&User::new("system:node:n1", &[]), "x", BOOTSTRAPPERS).step(None, false), "NotANode");
        denied(&case(&User::of_node("n1"), "system:node:n2", NODES).step(None, false), "NotAllowed");
        denied(&case(&User::of_node("n1"), "alice", "dev").step(None, false), "NotAllowed");
        let mut serving = joins();
        serving.csr.spec.usages = Some(vec!["client auth".into(), "server auth".into()]);
        denied(&serving.step(None, false), "WrongUsage");
    }

    #[test]
    fn requests_are_signed_once_approved_and_removed_when_old() {
        assert_eq!(joins().with("Approved").step(None, false), Step::Sign);
        let over = joins().with("Denied");
        assert_eq!(over.step(None, false), Step::Wait("2026-01-01T13:00:00Z".parse().unwrap()));
        assert_eq!(over.at("2026-01-01T13:00:00Z", None, false), Step::Remove);
        let mut foreign = joins();
        foreign.csr.spec.signer_name = "example.com/other".into();
        assert_eq!(foreign.step(None, false), Step::Wait("2026-01-02T12:00:00Z".parse().unwrap()));
        assert!(matches!(foreign.with("Approved").step(None, false), Step::Wait(_)));
        let mut people = joins();
        people.csr.spec.signer_name = CLIENT_SIGNER.into();
        assert!(matches!(people.step(None, false), Step::Wait(_)), "people approve these");
    }
}
