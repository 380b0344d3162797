//! Heads and bodies as they go out. Framing is always said anew: what a message said of it came from another connection.

use super::head::Framing;
use http::{HeaderMap, Method, StatusCode, Uri, Version, header};
use hyper::body::SizeHint;
use std::cell::RefCell;
use std::io::Write;
use std::time::SystemTime;

/// How a body of this size is framed.
pub(super) fn framing(size: &SizeHint) -> Framing {
    match size.exact() {
        Some(0) => Framing::Empty,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

/// The head of a request to an endpoint. `upgrade` leaves in what asks for another protocol.
pub(super) fn request(
    out: &mut Vec<u8>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    framing: Framing,
    upgrade: bool,
) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    if !target.starts_with(['/', '*']) {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    fields(out, headers, |name| {
        *name != header::CONTENT_LENGTH
            && *name != header::TRANSFER_ENCODING
            && (upgrade || *name != header::CONNECTION)
    });
    match framing {
        // Methods that have a body as a rule say that they have none.
        Framing::Empty if matches!(*method, Method::POST | Method::PUT | Method::PATCH) => length(out, 0),
        other => framed(out, other),
    }
    out.extend_from_slice(b"\r\n");
}

/// What the client is told of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Goes on, which need not be said.
    Goes,
    /// Goes on, which clients of HTTP/1.0 want to hear.
    Stays,
    /// Ends with this answer.
    Ends,
    /// Speaks something else from now on: the headers say what.
    Turns,
}

/// The head of an answer to a client. `to_head`: the request was one for the head alone.
pub(super) fn response(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    framing: Framing,
    after: After,
    to_head: bool,
) {
    if status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        let _ = write!(out, "HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default());
    }
    // The length of what a request for the head alone would have got, and such, is the endpoint's to say.
    let told = to_head || status == StatusCode::NOT_MODIFIED;
    fields(out, headers, |name| {
        (told || *name != header::CONTENT_LENGTH)
            && *name != header::TRANSFER_ENCODING
            && (after == After::Turns || *name != header::CONNECTION)
    });
    let bodiless = told || status.is_informational() || status == StatusCode::NO_CONTENT;
    match framing {
        Framing::Empty if !bodiless => length(out, 0),
        other => framed(out, other),
    }
    if !headers.contains_key(header::DATE) && !status.is_informational() {
        date(out);
    }
    match after {
        After::Ends => out.extend_from_slice(b"connection: close\r\n"),
        After::Stays => out.extend_from_slice(b"connection: keep-alive\r\n"),
        After::Goes | After::Turns => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// What a chunk of that many bytes begins with.
pub(super) fn chunk(out: &mut Vec<u8>, bytes: usize) {
    let _ = write!(out, "{bytes:x}\r\n");
}

/// The end of chunks.
pub(super) fn last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        fields(out, trailers, |_| true);
    }
    out.extend_from_slice(b"\r\n");
}

/// HTTP/1.1 with chunks is more than clients of 1.0 understand.
pub(super) fn understood(framing: Framing, version: Version) -> Framing {
    if framing == Framing::Chunked && version == Version::HTTP_10 { Framing::Close } else { framing }
}

fn fields(out: &mut Vec<u8>, headers: &HeaderMap, wanted: impl Fn(&header::HeaderName) -> bool) {
    for (name, value) in headers {
        if wanted(name) {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn framed(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Length(bytes) => length(out, bytes),
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Empty | Framing::Close => {}
    }
}

fn length(out: &mut Vec<u8>, bytes: u64) {
    let _ = write!(out, "content-length: {bytes}\r\n");
}

/// The time, made into words once a second.
fn date(out: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = RefCell::default();
    }
    let now = SystemTime::now();
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    LAST.with_borrow_mut(|(of, text)| {
        if *of != seconds {
            *text = format!("date: {}\r\n", httpdate::fmt_http_date(now));
            *of = seconds;
        }
        out.extend_from_slice(text.as_bytes());
    });
}
