//! What is done with requests, as plain data.

use std::time::Duration;

/// What is done with requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Changes of the request's headers.
    pub request_headers: HeaderEdits,
    /// Changes of the response's.
    pub response_headers: HeaderEdits,
    /// The answer, where it does not come from a backend.
    pub redirect: Option<Redirect>,
    /// What backends see instead of the host and path.
    pub rewrite: Rewrite,
    /// Where copies go.
    pub mirrors: Vec<Mirror>,
    /// Where requests go, by weight.
    pub backends: Vec<Weighted>,
    /// All tries together.
    pub timeout: Option<Duration>,
    /// One try; zero for as long as it takes, `None` for what gateways have patience for.
    pub try_timeout: Option<Duration>,
    /// What is tried again, beside what never reached a backend.
    pub retry: Retry,
    /// Who stays with one endpoint.
    pub sticky: Option<Sticky>,
    /// Largest body of requests; `None` for any.
    pub max_body: Option<u64>,
    /// Requests wait where no endpoint of their backend can take them.
    pub hold: Option<Hold>,
}

/// Changes of headers, in this order: set, add, remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Replaced.
    pub set: Vec<(String, String)>,
    /// Added.
    pub add: Vec<(String, String)>,
    /// Taken away.
    pub remove: Vec<String>,
}

/// Another path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewPath {
    /// Instead of the whole.
    Full(String),
    /// Instead of the prefix that matched.
    Prefix(String),
}

/// An answer that sends clients elsewhere; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host.
    pub host: Option<String>,
    /// Path.
    pub path: Option<NewPath>,
    /// Port.
    pub port: Option<u16>,
    /// Status of the answer.
    pub status: u16,
}

/// What backends see instead; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Host.
    pub host: Option<String>,
    /// Path.
    pub path: Option<NewPath>,
}

/// Where copies go.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// The backend.
    pub backend: Backend,
    /// How many of how many.
    pub share: (u32, u32),
}

/// A backend and its share.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    /// The backend.
    pub backend: Backend,
    /// Its share; 0 gets nothing.
    pub weight: u32,
    /// Changes of headers of its requests only.
    pub request_headers: HeaderEdits,
    /// Changes of headers of its responses only.
    pub response_headers: HeaderEdits,
}

/// How requests wait for an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// How many may wait for the backend.
    pub queue: usize,
    /// How long one may.
    pub patience: Duration,
    /// Requests that one endpoint gets at once; `None` for any number.
    pub concurrency: Option<usize>,
}

/// What backends speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Speaks {
    /// HTTP/1.1; gRPC is passed on as HTTP/2 all the same.
    #[default]
    Http,
    /// HTTP/2 without TLS (`kubernetes.io/h2c`).
    H2c,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Backend {
    /// A port of a Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The port's number.
        port: u16,
        /// What it speaks.
        speaks: Speaks,
    },
    /// Nowhere: the reference is no good. The sentence says why, for the answer (500, or 503 for what may come yet).
    Broken {
        /// Status of the answer.
        status: u16,
        /// Why.
        why: String,
    },
}

/// What is tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// Answers that are as good as none.
    pub codes: Vec<u16>,
    /// How many more tries.
    pub attempts: u32,
    /// Wait between tries.
    pub backoff: Duration,
}

/// Who stays with one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// Who carries this cookie, which answers set.
    Cookie {
        /// Its name.
        name: String,
        /// How long it is kept; `None` as long as the browser runs.
        seconds: Option<u64>,
        /// What no client knows, and every gateway does: its values say nothing about endpoints without it.
        key: String,
    },
    /// Whose header has the same value.
    Header {
        /// Its name, in lower case.
        name: String,
    },
}
