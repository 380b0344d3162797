//! Bodies as they come in: from bytes to frames, whatever pieces they arrive in.

use super::head::{self, Framing, Limits};
use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Frame, SizeHint};

/// Longest line that tells a chunk's length, with what else stands there.
const LINE: usize = 1024;
/// Limits of what comes behind the last chunk.
const TRAILERS: Limits = Limits { bytes: 16 * 1024, headers: 64 };

/// What is left of a body.
#[derive(Debug)]
pub(super) enum Decoder {
    /// Nothing.
    End,
    /// That many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
    /// What comes up to the end of the connection.
    Close,
}

/// Where in the chunks the next byte belongs.
#[derive(Debug)]
pub(super) enum Chunk {
    Size,
    Data(u64),
    /// The end of the line behind a chunk.
    Behind,
    /// Behind the last chunk; so many bytes were looked at.
    Trailers(usize),
}

/// What the bytes that are there give.
#[derive(Debug)]
pub(super) enum Step {
    Frame(Frame<Bytes>),
    /// More bytes are wanted.
    More,
    End,
}

/// The bytes are no body.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the chunks of the body are none")]
pub(in crate::gateway) struct BadChunk;

impl Decoder {
    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Empty => Decoder::End,
            Framing::Length(length) => Decoder::Length(length),
            Framing::Chunked => Decoder::Chunked(Chunk::Size),
            Framing::Close => Decoder::Close,
        }
    }

    pub(super) fn is_end(&self) -> bool {
        matches!(self, Decoder::End)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Decoder::End => SizeHint::with_exact(0),
            Decoder::Length(length) => SizeHint::with_exact(*length),
            Decoder::Chunked(_) | Decoder::Close => SizeHint::new(),
        }
    }

    /// Takes what it can from the input.
    pub(super) fn step(&mut self, input: &mut BytesMut) -> Result<Step, BadChunk> {
        match self {
            Decoder::End => Ok(Step::End),
            Decoder::Length(left) => {
                let Some(data) = take(input, left) else { return Ok(Step::More) };
                if *left == 0 {
                    *self = Decoder::End;
                }
                Ok(Step::Frame(Frame::data(data)))
            }
            Decoder::Close if input.is_empty() => Ok(Step::More),
            Decoder::Close => Ok(Step::Frame(Frame::data(input.split().freeze()))),
            Decoder::Chunked(chunk) => {
                let step = chunk.step(input)?;
                if let Step::End = step {
                    *self = Decoder::End;
                }
                if let Step::Frame(frame) = &step
                    && frame.is_trailers()
                {
                    *self = Decoder::End;
                }
                Ok(step)
            }
        }
    }
}

/// As much of what is left as is there.
fn take(input: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= length as u64;
    (length > 0).then(|| input.split_to(length).freeze())
}

impl Chunk {
    fn step(&mut self, input: &mut BytesMut) -> Result<Step, BadChunk> {
        loop {
            match self {
                Chunk::Size => match size(input)? {
                    None => return Ok(Step::More),
                    Some(0) => *self = Chunk::Trailers(0),
                    Some(length) => *self = Chunk::Data(length),
                },
                Chunk::Data(left) => {
                    let Some(data) = take(input, left) else { return Ok(Step::More) };
                    if *left == 0 {
                        *self = Chunk::Behind;
                    }
                    return Ok(Step::Frame(Frame::data(data)));
                }
                Chunk::Behind => match input[..] {
                    [b'\r', b'\n', ..] => {
                        input.advance(2);
                        *self = Chunk::Size;
                    }
                    [] | [b'\r'] => return Ok(Step::More),
                    _ => return Err(BadChunk),
                },
                Chunk::Trailers(seen) => return trailers(input, seen),
            }
        }
    }
}

/// The number a chunk begins with; its line ends with both bytes, and anything but digits stands behind a `;`.
fn size(input: &mut BytesMut) -> Result<Option<u64>, BadChunk> {
    let Some(end) = input.iter().take(LINE).position(|byte| *byte == b'\n') else {
        return if input.len() >= LINE { Err(BadChunk) } else { Ok(None) };
    };
    let line = input[..end].strip_suffix(b"\r").ok_or(BadChunk)?;
    let mut parts = line.splitn(2, |byte| *byte == b';');
    let digits = parts.next().unwrap_or_default();
    let spaces = digits.iter().rev().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let digits = &digits[..digits.len() - spaces];
    let extension = parts.next().unwrap_or_default();
    let fine = !digits.is_empty() && digits.len() <= 16 && digits.iter().all(u8::is_ascii_hexdigit);
    if !fine || extension.contains(&b'\r') {
        return Err(BadChunk);
    }
    let text = std::str::from_utf8(digits).map_err(|_| BadChunk)?;
    let size = u64::from_str_radix(text, 16).map_err(|_| BadChunk)?;
    input.advance(end + 1);
    Ok(Some(size))
}

/// Headers up to an empty line, which most often is all there is.
fn trailers(input: &mut BytesMut, seen: &mut usize) -> Result<Step, BadChunk> {
    match input[..] {
        [b'\r', b'\n', ..] => {
            input.advance(2);
            return Ok(Step::End);
        }
        [] | [b'\r'] => return Ok(Step::More),
        [b'\r' | b'\n', ..] => return Err(BadChunk),
        _ => {}
    }
    let Some(block) = head::cut(input, seen, TRAILERS.bytes).map_err(|_| BadChunk)? else { return Ok(Step::More) };
    let mut found = head::trailers(&block, TRAILERS).map_err(|_| BadChunk)?;
    without_framing(&mut found);
    Ok(Step::Frame(Frame::trailers(found)))
}

/// What must not come late (RFC 9110, section 6.5.1).
fn without_framing(trailers: &mut HeaderMap) {
    use http::header::{
        AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    };
    for name in
        [AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE]
    {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Whole = (Vec<u8>, Option<HeaderMap>);

    /// All of a body, of input that comes in pieces of such a size; `None` where it does not end.
    fn decode(framing: Framing, input: &[u8], piece: usize) -> Result<Option<Whole>, BadChunk> {
        let (mut decoder, mut buffer) = (Decoder::new(framing), BytesMut::new());
        let (mut all, mut trailers) = (Vec::new(), None);
        let mut pieces = input.chunks(piece);
        loop {
            match decoder.step(&mut buffer)? {
                Step::End => return Ok(Some((all, trailers))),
                Step::Frame(frame) => match frame.into_data() {
                    Ok(data) => all.extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
                Step::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return Ok(None),
                },
            }
        }
    }

    #[test]
    fn bodies_are_the_same_whatever_pieces_they_come_in() {
        let chunked = b"5\r\nhello\r\n1;x=\"y\"\r\n \r\n005\r\nworld\r\n0\r\nX-Sum: 7\r\nContent-Length: 3\r\n\r\n";
        for piece in 1..=chunked.len() {
            let (all, trailers) = decode(Framing::Chunked, chunked, piece).unwrap().unwrap();
            assert_eq!(all, b"hello world");
            let trailers = trailers.unwrap();
            assert_eq!((trailers["x-sum"].as_bytes(), trailers.len()), (&b"7"[..], 1));
            let (all, _) = decode(Framing::Length(4), b"abcdef", piece).unwrap().unwrap();
            assert_eq!(all, b"abcd");
        }
        assert_eq!(decode(Framing::Chunked, b"1\r\na\r\n", 3), Ok(None), "not at its end");
        assert_eq!(decode(Framing::Empty, b"", 1), Ok(Some((Vec::new(), None))));
    }

    #[test]
    fn chunks_that_could_be_read_in_two_ways_are_none() {
        for text in [
            "5\nhello\r\n0\r\n\r\n",
            "\r\nhello",
            "+5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "5 5\r\nhello\r\n0\r\n\r\n",
            "5\r\nhelloX\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\r\nhello\r\n0\r\n\r\n",
            "0\r\n\n\r\n",
            "5;a\rb\r\nhello\r\n0\r\n\r\n",
            "fffffffffffffffff\r\n",
            "0\r\nno header\r\n\r\n",
        ] {
            assert_eq!(decode(Framing::Chunked, text.as_bytes(), 100), Err(BadChunk), "{text:?}");
        }
        assert_eq!(decode(Framing::Chunked, "1;".repeat(LINE).as_bytes(), 100), Err(BadChunk));
    }
}
