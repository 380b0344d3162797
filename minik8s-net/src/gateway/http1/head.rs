//! Heads of messages: pure functions from bytes to what they say, and how the body behind them is framed.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, request, response};
use httparse::{Header, Status};
use std::mem::MaybeUninit;

/// Most headers of a head, whatever a configuration says.
const MOST: usize = 256;

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    Empty,
    /// That many bytes.
    Length(u64),
    /// Chunks that tell their length.
    Chunked,
    /// Up to the end of the connection.
    Close,
}

/// Why a head is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(super) struct Bad {
    /// What its sender is told.
    pub(super) status: StatusCode,
    pub(super) why: &'static str,
}

const fn bad(why: &'static str) -> Bad {
    Bad { status: StatusCode::BAD_REQUEST, why }
}

const TOO_LARGE: Bad = Bad { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why: "the head is too large" };
const TOO_MANY: Bad = Bad { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why: "too many headers" };

/// Limits of a head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) bytes: usize,
    pub(super) headers: usize,
}

/// A head that is complete is cut off the buffer. `seen` remembers what was looked at already.
pub(super) fn cut(buffer: &mut BytesMut, seen: &mut usize, limit: usize) -> Result<Option<Bytes>, Bad> {
    if *seen == 0 {
        // Empty lines before a head do no harm (RFC 9112, section 2.2).
        let empty = buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        buffer.advance(empty);
    }
    let from = seen.saturating_sub(3);
    if let Some(end) = end(&buffer[from..]) {
        *seen = 0;
        let length = from + end;
        return if length > limit { Err(TOO_LARGE) } else { Ok(Some(buffer.split_to(length).freeze())) };
    }
    *seen = buffer.len();
    if buffer.len() >= limit { Err(TOO_LARGE) } else { Ok(None) }
}

/// Where the first empty line ends.
fn end(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = memchr::memchr(b'\n', &bytes[from..]) {
        let behind = from + at + 1;
        match bytes[behind..] {
            [b'\n', ..] => return Some(behind + 1),
            [b'\r', b'\n', ..] => return Some(behind + 2),
            _ => from = behind,
        }
    }
    None
}

/// What a request's head says.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) parts: request::Parts,
    pub(super) framing: Framing,
    /// The client would ask more on this connection.
    pub(super) keep: bool,
    /// It waits for leave to send its body.
    pub(super) expects: bool,
}

/// Reads a request's head.
pub(super) fn request(head: &Bytes, limits: Limits) -> Result<Asked, Bad> {
    let mut room = [const { MaybeUninit::<Header<'_>>::uninit() }; MOST];
    let mut parsed = httparse::Request::new(&mut []);
    let room = &mut room[..limits.headers.min(MOST)];
    let whole = parsed.parse_with_uninit_headers(head, room).map_err(failure)?;
    if whole != Status::Complete(head.len()) {
        return Err(bad("the head does not end where its empty line is"));
    }
    let (Some(method), Some(path), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(bad("a request line is missing"));
    };
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| bad("the method is none"))?;
    let uri = Uri::from_maybe_shared(head.slice_ref(path.as_bytes()));
    parts.uri = uri.map_err(|_| bad("the target of the request is none"))?;
    parts.version = version_of(version);
    if !is_target(&parts.method, &parts.uri) {
        return Err(bad("the target of the request is neither a path nor whole"));
    }
    let said;
    (parts.headers, said) = headers(head, parsed.headers, TO_ENDPOINTS)?;
    let framing = request_framing(parts.version, &parts.headers, said)?;
    let keep = keeps(parts.version, &parts.headers, said);
    let expects = said.expects
        && parts.version == Version::HTTP_11
        && parts.headers.get(header::EXPECT).is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    Ok(Asked { parts, framing, keep, expects })
}

/// RFC 9112, section 3.2. The name of a user in a target would be taken for a host by somebody.
fn is_target(method: &Method, uri: &Uri) -> bool {
    let whole = uri.scheme().is_some() && uri.authority().is_some_and(|a| !a.as_str().contains('@'));
    *method == Method::CONNECT
        || whole
        || uri.authority().is_none() && (uri.path() != "*" || *method == Method::OPTIONS)
}

/// What an answer's head says.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) parts: response::Parts,
    pub(super) framing: Framing,
    /// The endpoint would take another request on this connection.
    pub(super) keep: bool,
}

/// Reads an answer's head. `to_head`: the request was one for the head alone.
pub(super) fn response(head: &Bytes, limits: Limits, to_head: bool) -> Result<Answered, Bad> {
    let mut room = [const { MaybeUninit::<Header<'_>>::uninit() }; MOST];
    let mut parsed = httparse::Response::new(&mut []);
    let room = &mut room[..limits.headers.min(MOST)];
    let config = httparse::ParserConfig::default();
    let whole = config.parse_response_with_uninit_headers(&mut parsed, head, room).map_err(failure)?;
    let (Status::Complete(_), Some(code), Some(version)) = (whole, parsed.code, parsed.version) else {
        return Err(bad("the answer has no head"));
    };
    let mut parts = http::Response::new(()).into_parts().0;
    parts.status = StatusCode::from_u16(code).map_err(|_| bad("the answer's status is none"))?;
    parts.version = version_of(version);
    let said;
    (parts.headers, said) = headers(head, parsed.headers, TO_CLIENTS)?;
    // Who says two things of a body's length, or speaks of chunks in 1.0, may mean something else by what comes next.
    let doubtful = said.encoding && (parts.version == Version::HTTP_10 || said.length);
    let framing = response_framing(parts.status, &mut parts.headers, said, to_head)?;
    let keep = keeps(parts.version, &parts.headers, said) && framing != Framing::Close && !doubtful;
    Ok(Answered { parts, framing, keep })
}

/// Headers behind a body, up to the empty line.
pub(super) fn trailers(block: &Bytes, limits: Limits) -> Result<HeaderMap, Bad> {
    let mut room = vec![httparse::EMPTY_HEADER; limits.headers.min(MOST)];
    match httparse::parse_headers(block, &mut room).map_err(failure)? {
        Status::Complete((_, found)) => headers(block, found, 0).map(|(headers, _)| headers),
        Status::Partial => Err(bad("trailers that do not end")),
    }
}

fn failure(error: httparse::Error) -> Bad {
    match error {
        httparse::Error::TooManyHeaders => TOO_MANY,
        httparse::Error::HeaderName => bad("the name of a header is none"),
        httparse::Error::HeaderValue => bad("the value of a header has bytes that none may have"),
        httparse::Error::Version => bad("the version is none of HTTP/1"),
        _ => bad("the head is no head of HTTP/1.1"),
    }
}

fn version_of(minor: u8) -> Version {
    if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 }
}

/// Which headers there are of those that say how to read on: noted where they are read, so that nobody looks for what
/// most messages lack.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    connection: bool,
    encoding: bool,
    length: bool,
    expects: bool,
}

impl Said {
    fn note(&mut self, name: &HeaderName) {
        self.connection |= *name == header::CONNECTION;
        self.encoding |= *name == header::TRANSFER_ENCODING;
        self.length |= *name == header::CONTENT_LENGTH;
        self.expects |= *name == header::EXPECT;
    }
}

/// Headers that a gateway adds on the way.
const TO_ENDPOINTS: usize = 5;
const TO_CLIENTS: usize = 1;

/// The values share the bytes they came in. There is room for some more.
fn headers(head: &Bytes, found: &[Header<'_>], more: usize) -> Result<(HeaderMap, Said), Bad> {
    let mut headers = HeaderMap::with_capacity(found.len() + more);
    let mut said = Said::default();
    for one in found {
        let name = HeaderName::from_bytes(one.name.as_bytes()).map_err(|_| failure(httparse::Error::HeaderName))?;
        said.note(&name);
        let value = HeaderValue::from_maybe_shared(head.slice_ref(one.value));
        headers.append(name, value.map_err(|_| failure(httparse::Error::HeaderValue))?);
    }
    Ok((headers, said))
}

/// Whoever sends what could be read in two ways is up to something, or broken.
fn request_framing(version: Version, headers: &HeaderMap, said: Said) -> Result<Framing, Bad> {
    if !said.encoding && !said.length {
        return Ok(Framing::Empty);
    }
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next() {
        if headers.contains_key(header::CONTENT_LENGTH) {
            return Err(bad("both Transfer-Encoding and Content-Length"));
        }
        if version == Version::HTTP_10 {
            return Err(bad("Transfer-Encoding in HTTP/1.0"));
        }
        if encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(bad("a Transfer-Encoding other than chunked"));
        }
        return Ok(Framing::Chunked);
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(Framing::Empty) };
    if lengths.next().is_some() {
        return Err(bad("more than one Content-Length"));
    }
    match number(length).ok_or(bad("a Content-Length that is no number"))? {
        0 => Ok(Framing::Empty),
        length => Ok(Framing::Length(length)),
    }
}

/// RFC 9112, section 6.3. A length that does not count is taken out.
fn response_framing(status: StatusCode, headers: &mut HeaderMap, said: Said, to_head: bool) -> Result<Framing, Bad> {
    if to_head || status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Framing::Empty);
    }
    let mut encodings = said.encoding.then(|| headers.get_all(header::TRANSFER_ENCODING).iter()).into_iter().flatten();
    if let Some(encoding) = encodings.next() {
        if encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(bad("a Transfer-Encoding other than chunked"));
        }
        headers.remove(header::CONTENT_LENGTH);
        return Ok(Framing::Chunked);
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(Framing::Close) };
    let length = number(first).filter(|_| lengths.all(|other| other == first));
    match length.ok_or(bad("a Content-Length that is no number"))? {
        0 => Ok(Framing::Empty),
        length => Ok(Framing::Length(length)),
    }
}

/// Digits and nothing else.
fn number(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn keeps(version: Version, headers: &HeaderMap, said: Said) -> bool {
    if !said.connection {
        return version != Version::HTTP_10;
    }
    let said = |word: &str| {
        let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(word))
    };
    if version == Version::HTTP_10 { said("keep-alive") } else { !said("close") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 1000, headers: 8 };

    fn asked(lines: &str) -> Result<Asked, Bad> {
        request(&Bytes::from(lines.replace('|', "\r\n") + "\r\n\r\n"), LIMITS)
    }

    #[test]
    fn a_head_is_cut_off_once_it_is_whole() {
        let text = b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        let (mut buffer, mut seen) = (BytesMut::new(), 0);
        let mut cuts = Vec::new();
        for byte in text {
            buffer.extend_from_slice(&[*byte]);
            cuts.extend(cut(&mut buffer, &mut seen, 100).unwrap());
        }
        assert_eq!(cuts, [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..]]);
        assert_eq!(&buffer[..], b"rest");
        let mut long = BytesMut::from(&b"GET / HTTP/1.1\r\nHost: a\r\n"[..]);
        assert_eq!(cut(&mut long, &mut 0, 20), Err(TOO_LARGE));
        let mut bare = BytesMut::from(&b"GET / HTTP/1.1\nHost: a\n\nx"[..]);
        assert_eq!(cut(&mut bare, &mut 0, 100).unwrap().unwrap().len(), 24);
    }

    #[test]
    fn requests_say_how_their_body_is_framed() {
        let framing = |lines: &str| asked(lines).map(|a| a.framing).map_err(|bad| bad.why);
        assert_eq!(framing("GET / HTTP/1.1|Host: a"), Ok(Framing::Empty));
        assert_eq!(framing("POST / HTTP/1.1|Content-Length: 5"), Ok(Framing::Length(5)));
        assert_eq!(framing("POST / HTTP/1.1|Content-Length: 0"), Ok(Framing::Empty));
        assert_eq!(framing("POST / HTTP/1.1|Transfer-Encoding: Chunked"), Ok(Framing::Chunked));
        for lines in [
            "POST / HTTP/1.1|Content-Length: 5|Content-Length: 5",
            "POST / HTTP/1.1|Content-Length: 5, 5",
            "POST / HTTP/1.1|Content-Length: -5",
            "POST / HTTP/1.1|Content-Length: +5",
            "POST / HTTP/1.1|Content-Length:",
            "POST / HTTP/1.1|Content-Length: 99999999999999999999",
            "POST / HTTP/1.1|Content-Length: 5|Transfer-Encoding: chunked",
            "POST / HTTP/1.1|Transfer-Encoding: gzip, chunked",
            "POST / HTTP/1.1|Transfer-Encoding: chunked|Transfer-Encoding: chunked",
            "POST / HTTP/1.1|Transfer-Encoding: xchunked",
            "POST / HTTP/1.0|Transfer-Encoding: chunked",
            "POST / HTTP/1.1|Transfer-Encoding : chunked",
            "POST / HTTP/1.1|X: a|\tb",
            "GET other.example HTTP/1.1|Host: good.example",
            "GET http://x@good.example/ HTTP/1.1|Host: good.example",
            "GET * HTTP/1.1|Host: good.example",
            "POST / HTTP/2.0|X: a",
            "POST /\u{1} HTTP/1.1|X: a",
        ] {
            assert!(framing(lines).is_err(), "{lines}");
        }
    }

    #[test]
    fn requests_say_whether_more_will_come() {
        let keep = |lines: &str| asked(lines).unwrap().keep;
        assert!(keep("GET / HTTP/1.1") && keep("GET / HTTP/1.1|Connection: x"));
        assert!(!keep("GET / HTTP/1.1|Connection: x, Close") && !keep("GET / HTTP/1.0"));
        assert!(keep("GET / HTTP/1.0|Connection: Keep-Alive"));
        assert!(asked("PUT / HTTP/1.1|Content-Length: 1|Expect: 100-Continue").unwrap().expects);
        assert_eq!(asked(&format!("GET / HTTP/1.1{}", "|A: b".repeat(9))).unwrap_err(), TOO_MANY);
    }

    #[test]
    fn answers_say_how_their_body_is_framed() {
        let framing = |lines: &str, to_head: bool| {
            let head = Bytes::from(lines.replace('|', "\r\n") + "\r\n\r\n");
            response(&head, LIMITS, to_head).map(|a| (a.framing, a.keep)).map_err(|bad| bad.why)
        };
        for (lines, wanted) in [
            ("HTTP/1.1 200 OK|Content-Length: 5", (Framing::Length(5), true)),
            ("HTTP/1.1 200 OK|Content-Length: 5|Content-Length: 5", (Framing::Length(5), true)),
            ("HTTP/1.1 200 OK|Content-Length: 0|Connection: close", (Framing::Empty, false)),
            ("HTTP/1.1 200 OK", (Framing::Close, false)),
            ("HTTP/1.0 200 OK|Content-Length: 5", (Framing::Length(5), false)),
            ("HTTP/1.1 200 OK|Transfer-Encoding: chunked", (Framing::Chunked, true)),
            ("HTTP/1.1 200 OK|Transfer-Encoding: chunked|Content-Length: 5", (Framing::Chunked, false)),
            ("HTTP/1.0 200 OK|Transfer-Encoding: chunked|Connection: keep-alive", (Framing::Chunked, false)),
            ("HTTP/1.1 204 No Content|Content-Length: 5", (Framing::Empty, true)),
            ("HTTP/1.1 304 Not Modified|Content-Length: 5", (Framing::Empty, true)),
            ("HTTP/1.1 100", (Framing::Empty, true)),
        ] {
            assert_eq!(framing(lines, false), Ok(wanted), "{lines}");
        }
        assert_eq!(framing("HTTP/1.1 200 OK|Content-Length: 5", true), Ok((Framing::Empty, true)));
        assert!(framing("HTTP/1.1 200 OK|Content-Length: 5|Content-Length: 6", false).is_err());
        assert!(framing("HTTP/1.1 200 OK|Transfer-Encoding: gzip, chunked", false).is_err());
        assert!(framing("nonsense", false).is_err());
    }
}
