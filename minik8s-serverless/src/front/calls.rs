//! Calls that nobody waits for: `POST /function/NAMESPACE/NAME` with `Prefer: respond-async` is answered with 202 once the
//! call is an object, and `GET` of the place it names tells what came of it.

use super::Place;
use super::coming::{Coming, Taking};
use super::listen::{Answer, Asked, Refused, say, whole};
use crate::functions::api::{Function, Invocation, InvocationSpec};
use crate::functions::{LARGEST_BODY, LONGEST_KEY, belongs_to, function_of, is_over};
use crate::workflow::KEY_HEADER;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use minik8s_core::client::{Client, Informer, object_key};
use minik8s_core::clock::SharedClock;
use minik8s_core::controllers::ControllerContext;
use minik8s_core::random;
use serde_json::{Value, json};

/// Where functions are called.
pub(super) const FUNCTIONS: &str = "/function";
/// Where results are.
pub(super) const RESULTS: &str = "/invocation";
/// Invocations that are not over, by function.
const OPEN: &str = "open-by-function";
/// How long results are kept, in seconds.
const TTL: i64 = 3600;
/// Letters that make an id one that nobody can guess: whoever knows it may read the result.
const SECRET: usize = 20;
/// How far clocks of servers may be from each other: an id may have been given by any of them.
const SKEW: SignedDuration = SignedDuration::from_mins(10);
/// Says that the wish not to wait was heard.
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Takes calls, and tells of them.
pub(super) struct Calls {
    client: Client,
    clock: SharedClock,
    functions: Informer<Function>,
    invocations: Informer<Invocation>,
    coming: Coming,
}

impl Calls {
    pub(super) fn new(ctx: &ControllerContext) -> Self {
        let (functions, invocations) = (ctx.informers.of::<Function>(), ctx.informers.of::<Invocation>());
        let open = |invocation: &Invocation| !invocation.status.as_ref().is_some_and(is_over);
        invocations.add_index(OPEN, move |i| if open(i) { vec![function_of(i)] } else { Vec::new() });
        Self { client: ctx.client.clone(), clock: ctx.clock.clone(), functions, invocations, coming: Coming::default() }
    }

    /// A place for a call more of that id, where fewer than `most` wait or come.
    fn room<'a>(&'a self, key: &'a str, id: &'a str, most: usize) -> Result<Taking<'a>, Refused> {
        // Those that were waiting stand twice in between, never not at all.
        let shown = |id: &str| {
            let namespace = key.split('/').next().unwrap_or_default();
            self.invocations.get(&object_key(namespace, id)).is_some()
        };
        let taking = self.coming.begin(key, id, shown, |here| {
            let open = self.invocations.list_by(OPEN, key).len() + here;
            if open < most { Ok(()) } else { Err(open) }
        });
        taking.map_err(|open| {
            let full = Refused::new(StatusCode::TOO_MANY_REQUESTS, format!("{open} calls wait for {key} already"));
            full.with(header::RETRY_AFTER, "1")
        })
    }

    /// True once what there is is known.
    pub(super) async fn synced(&self) -> bool {
        self.functions.synced().await && self.invocations.synced().await
    }

    /// Takes a call.
    pub(super) async fn take(&self, (namespace, name): Place, request: Asked) -> Result<Answer, Refused> {
        let key = object_key(&namespace, &name);
        let none = || Refused::new(StatusCode::NOT_FOUND, format!("there is no function {key}"));
        let function = self.functions.get(&key).ok_or_else(none)?;
        if *request.method() != Method::POST {
            let why = "a call that nobody waits for is a POST";
            return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, why).with(header::ALLOW, "POST"));
        }
        if request.uri().query().is_some() {
            let why = "a call that nobody waits for has a body and no query";
            return Err(Refused::new(StatusCode::BAD_REQUEST, why));
        }
        let idempotency_key = key_of_caller(request.headers())?;
        let id = format!("{name}-{}-{}", base36(self.clock.now().as_millisecond()), random::word(SECRET));
        let taking = self.room(&key, &id, usize::try_from(function.spec.queue).unwrap_or(0))?;
        let body = json_of(&whole(request.into_body(), most(function.spec.max_body_bytes)).await?)?;
        let spec = InvocationSpec { function: name, body, idempotency_key, ttl_seconds: TTL };
        let mut invocation = Invocation { spec, ..Invocation::default() };
        invocation.metadata.name = Some(id.clone());
        // What came of a call goes with its function.
        invocation.metadata.owner_references = Some(vec![belongs_to(&function)]);
        self.client.api::<Invocation>(&namespace).create(&invocation).await?;
        taking.taken();
        let place = format!("{RESULTS}/{namespace}/{id}");
        let answer = say(StatusCode::ACCEPTED, &json!({"id": id, "location": place}));
        Ok(with(with(answer, header::LOCATION, &place), APPLIED, "respond-async"))
    }

    /// Tells what came of a call.
    pub(super) async fn tell(&self, (namespace, id): Place, method: &Method) -> Result<Answer, Refused> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let why = "what came of a call is read with GET";
            return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, why).with(header::ALLOW, "GET, HEAD"));
        }
        let is_name = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        // Names that others chose could be guessed: what came of those is read through the API.
        if !is_name(&namespace) || !is_name(&id) || !was_given(&id, self.clock.now()) {
            return Err(Refused::new(StatusCode::NOT_FOUND, format!("there is no call {namespace}/{id}")));
        }
        // Not from what is remembered here: it may be younger than that.
        let found = self.client.api::<Invocation>(&namespace).get_opt(&id).await?;
        let gone = || Refused::new(StatusCode::GONE, "what came of this call is not kept, or there was none");
        found.map(|invocation| told(&id, &invocation)).ok_or_else(gone)
    }
}

fn with(mut answer: Answer, name: HeaderName, value: &str) -> Answer {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
    answer
}

/// The key by which a caller's calls are one.
fn key_of_caller(headers: &HeaderMap) -> Result<String, Refused> {
    let Some(key) = headers.get(KEY_HEADER) else { return Ok(String::new()) };
    let text = key.to_str().ok().filter(|key| key.len() <= LONGEST_KEY);
    let why = || format!("an Idempotency-Key has at most {LONGEST_KEY} plain letters");
    text.map(str::to_owned).ok_or_else(|| Refused::new(StatusCode::BAD_REQUEST, why()))
}

/// A body that functions can be called with.
fn json_of(body: &[u8]) -> Result<String, Refused> {
    if body.trim_ascii().is_empty() {
        return Ok("{}".to_owned());
    }
    let checked = serde_json::from_slice::<serde::de::IgnoredAny>(body).map_err(|error| error.to_string());
    let text = checked.and_then(|_| std::str::from_utf8(body).map_err(|error| error.to_string()));
    text.map(str::to_owned).map_err(|e| Refused::new(StatusCode::BAD_REQUEST, format!("the body is no JSON: {e}")))
}

/// What is said of a call.
fn told(id: &str, invocation: &Invocation) -> Answer {
    let status = invocation.status.clone().unwrap_or_default();
    let phase = if status.phase.is_empty() { "Pending" } else { &status.phase };
    let mut body = json!({"id": id, "function": invocation.spec.function, "phase": phase, "attempts": status.attempts});
    if !status.body.is_empty() {
        body["result"] = serde_json::from_str(&status.body).unwrap_or_else(|_| Value::from(status.body.clone()));
    }
    if !status.message.is_empty() {
        body["message"] = status.message.clone().into();
    }
    let answer = say(StatusCode::OK, &body);
    if is_over(&status) { answer } else { with(answer, header::RETRY_AFTER, "1") }
}

/// The largest body that is kept, or the function's own limit where that is less; 0 is none.
fn most(of_function: i64) -> usize {
    usize::try_from(of_function).ok().filter(|most| *most > 0).map_or(LARGEST_BODY, |most| most.min(LARGEST_BODY))
}

fn base36(number: i64) -> String {
    let (mut rest, mut digits) = (number.unsigned_abs(), Vec::new());
    loop {
        digits.push(char::from_digit((rest % 36) as u32, 36).unwrap_or('0'));
        rest /= 36;
        if rest == 0 {
            return digits.iter().rev().collect();
        }
    }
}

/// True for an id as they are given, and not one that can only be given later.
fn was_given(id: &str, now: Timestamp) -> bool {
    let latest = now.saturating_add(SKEW).unwrap_or(now);
    let mut words = id.rsplitn(3, '-');
    let (secret, made, function) = (words.next(), words.next(), words.next());
    let made = made.and_then(|made| i64::from_str_radix(made, 36).ok());
    secret.is_some_and(|secret| secret.len() == SECRET)
        && made.is_some_and(|made| (1..=latest.as_millisecond()).contains(&made))
        && function.is_some_and(|function| !function.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_when_it_was_given() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let id = |millis: i64| format!("my-function-{}-{}", base36(millis), "a".repeat(SECRET));
        let latest = (now + SKEW).as_millisecond();
        assert!(was_given(&id(latest), now) && was_given(&id(36), now));
        for other in [&id(latest + 1), "f", "f-x", "f-abc-short", "", &format!("-1-{}", "a".repeat(SECRET))] {
            assert!(!was_given(other, now), "{other}");
        }
        for number in [0, 35, 36, 1_700_000_000_000] {
            assert_eq!(i64::from_str_radix(&base36(number), 36), Ok(number));
        }
    }

    #[test]
    fn a_body_keeps_to_the_function_and_to_what_is_kept() {
        let (huge, negative) = (i64::MAX, -1);
        for (says, want) in
            [(0, LARGEST_BODY), (10, 10), (10 << 20, LARGEST_BODY), (huge, LARGEST_BODY), (negative, LARGEST_BODY)]
        {
            assert_eq!(most(says), want, "{says}");
        }
    }

    #[test]
    fn bodies_are_json_and_keys_are_short() {
        for (body, want) in [("", Some("{}")), (" \n", Some("{}")), ("[1]", Some("[1]")), ("{", None), ("x", None)] {
            assert_eq!(json_of(body.as_bytes()).ok().as_deref(), want, "{body}");
        }
        assert!(json_of(b"\"\xff\"").is_err());
        let key = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(KEY_HEADER, HeaderValue::from_bytes(value).unwrap());
            key_of_caller(&headers).ok()
        };
        assert_eq!(key(b"k 1"), Some("k 1".to_owned()));
        assert_eq!((key(&[b'x'; LONGEST_KEY + 1]), key(b"\xff")), (None, None));
        assert_eq!(key_of_caller(&HeaderMap::new()).ok(), Some(String::new()));
    }
}
