//! `CertificateSigningRequest`: someone asks for a certificate; someone else approves, and the signer signs.

use super::cells::{AGE, NAME, NONE, column};
use super::util::{items, names, number, set, text};
use crate::api::{ApiError, ApiResult, Gvr, Reason, human};
use crate::clock::rfc3339;
use crate::server::auth::User;
use crate::server::tls::CertificateRequest;
use crate::server::{ActionNames, Column, Effect, FieldErrors, Kind, KindNames, SelectableField, WriteContext};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

/// What `approval` may say; the rest of the status is the signer's.
const VERDICTS: [&str; 2] = ["Approved", "Denied"];
/// No certificate is asked for shorter than this.
const SHORTEST: i64 = 600;

pub(crate) struct CertificateSigningRequestKind(KindNames);

impl CertificateSigningRequestKind {
    pub(crate) fn new() -> Self {
        let gvr = Gvr::new("certificates.k8s.io", "v1", "certificatesigningrequests");
        Self(names(gvr, "CertificateSigningRequest", &["csr"], false, false))
    }
}

static COLUMNS: [Column; 6] = [
    NAME,
    AGE,
    column("SignerName", |o, _| text(o, "/spec/signerName").into()),
    column("Requestor", |o, _| text(o, "/spec/username").into()),
    column("RequestedDuration", |o, _| duration(o).into()),
    column("Condition", |o, _| condition(o).into()),
];

static FIELDS: [SelectableField; 1] =
    [SelectableField { path: "spec.signerName", value: |o| text(o, "/spec/signerName").to_owned() }];

static ACTIONS: [ActionNames; 1] = [ActionNames {
    name: "approval",
    group: "certificates.k8s.io",
    version: "v1",
    kind: "CertificateSigningRequest",
    verbs: &["update"],
}];

#[async_trait]
impl Kind for CertificateSigningRequestKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.certificates.v1.CertificateSigningRequest"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn desired<'a>(&self, _: &'a Value) -> Option<&'a Value> {
        None
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn fields(&self) -> &'static [SelectableField] {
        &FIELDS
    }

    fn actions(&self) -> &'static [ActionNames] {
        &ACTIONS
    }

    async fn admit(&self, new: &mut Value, old: Option<&Value>, ctx: &dyn WriteContext) -> ApiResult<()> {
        if let (None, Some(spec)) = (old, new.get_mut("spec")) {
            // Who asks is what the approval rests on: it is never taken from the request.
            let system = User::system();
            let user = ctx.user().unwrap_or(&system);
            set(spec, "username", user.name.clone().into());
            set(spec, "groups", json!(user.groups));
            for foreign in ["uid", "extra"] {
                super::util::unset(spec, foreign);
            }
        }
        Ok(())
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        if let Some(old) = old {
            errors.immutable("spec", &new["spec"], &old["spec"]);
            return;
        }
        let signer = text(new, "/spec/signerName");
        match signer.split_once('/') {
            Some((domain, path)) if domain.contains('.') && !path.is_empty() => {}
            _ => {
                errors.invalid("spec.signerName", &signer.into(), "must be a domain and a name, as in example.com/name")
            }
        }
        if items(new, "/spec/usages").next().is_none() {
            errors.required("spec.usages", "usages is required");
        }
        if let Some(seconds) = number(new, "/spec/expirationSeconds").filter(|s| *s < SHORTEST) {
            errors.invalid(
                "spec.expirationSeconds",
                &seconds.into(),
                "may not specify a duration less than 600 seconds (10 minutes)",
            );
        }
        if let Err(error) = parse(new) {
            errors.invalid("spec.request", &text(new, "/spec/request").into(), &error);
        }
    }

    fn act(&self, action: &str, body: &Value, object: &Value, now: Timestamp) -> ApiResult<Effect> {
        match action {
            "approval" => approve(body, object, now).map(Effect::Replace),
            other => Err(ApiError::bad_request(format!("no action {other} on certificate signing requests"))),
        }
    }
}

/// The request in an object.
fn parse(object: &Value) -> Result<CertificateRequest, String> {
    let bytes = STANDARD.decode(text(object, "/spec/request")).map_err(|e| e.to_string())?;
    let pem = String::from_utf8(bytes).map_err(|e| e.to_string())?;
    CertificateRequest::parse(&pem).map_err(|e| e.to_string())
}

fn kind_of(condition: &Value) -> &str {
    text(condition, "/type")
}

fn is_verdict(condition: &Value) -> bool {
    VERDICTS.contains(&kind_of(condition))
}

/// The object with the verdict of another; nothing else of that counts.
fn approve(body: &Value, object: &Value, now: Timestamp) -> ApiResult<Value> {
    let given: Vec<&Value> = items(body, "/status/conditions").filter(|c| is_verdict(c)).collect();
    let held: Vec<&Value> = items(object, "/status/conditions").filter(|c| is_verdict(c)).collect();
    let has = |all: &[&Value], kind: &str| all.iter().any(|c| kind_of(c) == kind);
    let refuse = |why: &str| Err(ApiError::new(Reason::Invalid, format!("status.conditions: {why}")));
    if VERDICTS.iter().all(|kind| has(&given, kind)) {
        return refuse("Approved and Denied conditions are mutually exclusive");
    }
    if held.iter().any(|c| !has(&given, kind_of(c))) {
        return refuse("a verdict may not be taken back");
    }
    let mut conditions: Vec<Value> = items(object, "/status/conditions").filter(|c| !is_verdict(c)).cloned().collect();
    for condition in given {
        let mut condition = condition.clone();
        for time in ["lastUpdateTime", "lastTransitionTime"] {
            super::util::set_default(&mut condition, time, rfc3339(now));
        }
        super::util::default_text(&mut condition, "status", "True");
        conditions.push(condition);
    }
    let mut new = object.clone();
    if let Some(status) = super::util::child(&mut new, "status") {
        set(status, "conditions", conditions.into());
    }
    Ok(new)
}

fn duration(object: &Value) -> String {
    let seconds = number(object, "/spec/expirationSeconds");
    seconds.map_or_else(|| NONE.to_owned(), |s| human::age(jiff::SignedDuration::from_secs(s)))
}

fn condition(object: &Value) -> String {
    let mut words: Vec<&str> = ["Approved", "Denied", "Failed"].into_iter().filter(|kind| has(object, kind)).collect();
    if words.is_empty() {
        words.push("Pending");
    }
    if !text(object, "/status/certificate").is_empty() {
        words.push("Issued");
    }
    words.join(",")
}

fn has(object: &Value, kind: &str) -> bool {
    items(object, "/status/conditions").any(|c| kind_of(c) == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(kinds: &[&str]) -> Value {
        let all: Vec<Value> = kinds.iter().map(|k| json!({"type": k, "status": "True"})).collect();
        json!({"status": {"conditions": all}})
    }

    #[test]
    fn a_verdict_is_given_once_and_touches_nothing_else() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let open = json!({"spec": {"signerName": "a.b/c"}, "status": {"conditions": [{"type": "Failed"}]}});
        let mut body = verdicts(&["Approved", "Failed"]);
        body["spec"] = json!({"signerName": "evil/x"});
        let approved = approve(&body, &open, now).unwrap();
        assert_eq!(approved["spec"], open["spec"]);
        assert_eq!(condition(&approved), "Approved,Failed");
        assert_eq!(approved["status"]["conditions"][1]["lastUpdateTime"], "2026-01-01T00:00:00Z");
        assert!(approve(&verdicts(&["Approved", "Denied"]), &open, now).is_err());
        assert!(approve(&verdicts(&[]), &approved, now).is_err());
        assert!(approve(&verdicts(&["Denied"]), &approved, now).is_err());
    }
}
