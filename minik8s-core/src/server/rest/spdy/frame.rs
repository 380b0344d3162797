//! Frames: eight bytes that say what follows, and what follows.

use super::SpdyError;
use super::headers::{Deflater, Headers, Inflater};

/// Bytes in front of every frame.
pub(super) const HEAD: usize = 8;
/// Largest control frame that is taken.
pub(super) const LARGEST_CONTROL: usize = 64 << 10;

const VERSION: u16 = 3;
const FIN: u8 = 1;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const HEADERS: u16 = 8;
/// The bits of an id; the first one of its word is reserved, or the mark of control frames.
const ID: u32 = 0x7fff_ffff;

/// Why a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// It breaks the protocol.
    ProtocolError = 1,
    /// There are too many.
    RefusedStream = 3,
    /// Something went wrong beyond.
    InternalError = 6,
}

/// The beginning of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// So many bytes of a stream follow, perhaps its last ones.
    Data { id: u32, fin: bool, length: usize },
    /// A control frame of so many bytes follows.
    Control { kind: u16, flags: u8, length: usize },
}

/// Reads the beginning of a frame.
pub(super) fn head(bytes: [u8; HEAD]) -> Result<Head, SpdyError> {
    let [a, b, c, d, flags, x, y, z] = bytes;
    let length = u32::from_be_bytes([0, x, y, z]) as usize;
    let word = u32::from_be_bytes([a, b, c, d]);
    if a & 0x80 == 0 {
        return Ok(Head::Data { id: word, fin: flags & FIN != 0, length });
    }
    if u16::from_be_bytes([a & 0x7f, b]) != VERSION {
        return Err(SpdyError::Malformed("another version of the protocol"));
    }
    if length > LARGEST_CONTROL {
        return Err(SpdyError::TooLarge { what: "control frame", limit: LARGEST_CONTROL });
    }
    Ok(Head::Control { kind: u16::from_be_bytes([c, d]), flags, length })
}

/// What a control frame says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// A stream is opened; with `fin`, nothing will come on it.
    Open { id: u32, fin: bool, headers: Headers },
    /// A stream is given up.
    Reset { id: u32 },
    /// To be sent back.
    Ping { id: u32 },
    /// Nothing more will come on a stream.
    End { id: u32 },
    /// Nothing that matters here: settings, windows, farewells.
    Other,
}

/// Reads the body of a control frame. Every header block has to pass through, whoever needs it: they are one stream.
pub(super) fn control(kind: u16, flags: u8, body: &[u8], inflater: &mut Inflater) -> Result<Control, SpdyError> {
    let fin = flags & FIN != 0;
    let id = || word(body).map(|word| word & ID);
    match kind {
        SYN_STREAM => {
            let block = body.get(10..).ok_or(SpdyError::Malformed("a stream's beginning is too short"))?;
            Ok(Control::Open { id: id()?, fin, headers: inflater.block(block)? })
        }
        SYN_REPLY => Err(SpdyError::Malformed("a reply to a stream that was never opened")),
        HEADERS => {
            let id = id()?;
            inflater.block(body.get(4..).unwrap_or_default())?;
            Ok(if fin { Control::End { id } } else { Control::Other })
        }
        RST_STREAM => Ok(Control::Reset { id: id()? }),
        PING => Ok(Control::Ping { id: word(body)? }),
        _ => Ok(Control::Other),
    }
}

fn word(body: &[u8]) -> Result<u32, SpdyError> {
    let word = body.first_chunk::<4>().ok_or(SpdyError::Malformed("a control frame is too short"))?;
    Ok(u32::from_be_bytes(*word))
}

/// Appends the agreement to a stream, without headers.
pub(super) fn put_reply(id: u32, deflater: &mut Deflater, to: &mut Vec<u8>) -> Result<(), SpdyError> {
    let start = to.len();
    put_control(SYN_REPLY, &id.to_be_bytes(), to);
    deflater.block(&[], to)?;
    let length = u32::try_from(to.len() - start - HEAD).unwrap_or(u32::MAX).to_be_bytes();
    to[start + 5..start + 8].copy_from_slice(&length[1..]);
    Ok(())
}

/// Appends the end of a stream in both directions.
pub(super) fn put_reset(id: u32, why: Reset, to: &mut Vec<u8>) {
    let mut body = id.to_be_bytes().to_vec();
    body.extend((why as u32).to_be_bytes());
    put_control(RST_STREAM, &body, to);
}

/// Appends the echo of a ping.
pub(super) fn put_ping(id: u32, to: &mut Vec<u8>) {
    put_control(PING, &id.to_be_bytes(), to);
}

/// Appends bytes of a stream, fewer than 16 MiB.
pub(super) fn put_data(id: u32, data: &[u8], fin: bool, to: &mut Vec<u8>) {
    to.extend(id.to_be_bytes());
    to.push(u8::from(fin));
    to.extend(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes()[1..]);
    to.extend(data);
}

fn put_control(kind: u16, body: &[u8], to: &mut Vec<u8>) {
    to.extend((VERSION | 0x8000).to_be_bytes());
    to.extend(kind.to_be_bytes());
    to.push(0);
    to.extend(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes()[1..]);
    to.extend(body);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The beginning of a stream, as a client writes it.
    pub(in super::super) fn open(id: u32, headers: &[(&str, &str)], deflater: &mut Deflater) -> Vec<u8> {
        let headers: Headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let mut body = [id.to_be_bytes(), [0; 4]].concat();
        body.extend([0, 0]);
        deflater.block(&headers, &mut body).unwrap();
        let mut frame = Vec::new();
        put_control(SYN_STREAM, &body, &mut frame);
        frame
    }

    fn read(frame: &[u8], inflater: &mut Inflater) -> Result<Control, SpdyError> {
        let (start, body) = frame.split_first_chunk::<HEAD>().unwrap();
        match head(*start)? {
            Head::Control { kind, flags, length } => {
                assert_eq!(length, body.len());
                control(kind, flags, body, inflater)
            }
            Head::Data { .. } => panic!("no data was written"),
        }
    }

    #[test]
    fn frames_are_read_as_they_were_written() {
        let (mut deflater, mut inflater) = (Deflater::new().unwrap(), Inflater::new());
        for id in [1, 3] {
            let frame = open(id, &[("StreamType", "data"), ("port", "80")], &mut deflater);
            let headers = vec![("streamtype".into(), "data".into()), ("port".into(), "80".into())];
            assert_eq!(read(&frame, &mut inflater).unwrap(), Control::Open { id, fin: false, headers });
        }
        let mut frame = Vec::new();
        put_reset(7, Reset::ProtocolError, &mut frame);
        assert_eq!(frame, [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 1]);
        assert_eq!(read(&frame, &mut inflater).unwrap(), Control::Reset { id: 7 });
        frame.clear();
        put_ping(9, &mut frame);
        assert_eq!(read(&frame, &mut inflater).unwrap(), Control::Ping { id: 9 });
        frame.clear();
        put_data(5, b"abc", true, &mut frame);
        assert_eq!(frame, *b"\0\0\0\x05\x01\0\0\x03abc");
        frame.clear();
        put_reply(1, &mut Deflater::new().unwrap(), &mut frame).unwrap();
        assert!(matches!(read(&frame, &mut inflater), Err(SpdyError::Malformed(_))), "only servers reply");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let table: [(&[u8], &str); 4] = [
            (&[0x80, 2, 0, 1, 0, 0, 0, 0], "another version"),
            (&[0x80, 3, 0, 1, 0, 0, 0, 0], "too short"),
            (&[0x80, 3, 0, 6, 0, 0, 0, 3, 1, 2, 3], "too short"),
            (&[0x80, 3, 0, 1, 0, 0xff, 0, 0], "limit"),
        ];
        for (frame, why) in table {
            let error = read(frame, &mut Inflater::new()).unwrap_err().to_string();
            assert!(error.contains(why), "{frame:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_frame_makes_the_reader_panic(start: [u8; HEAD], kind in 0..12_u16, flags: u8, body: Vec<u8>) {
            let _ = head(start);
            let mut inflater = Inflater::new();
            let _ = control(kind, flags, &body, &mut inflater);
            let _ = control(kind, flags, &body, &mut inflater);
        }

        #[test]
        fn a_damaged_stream_is_an_error_or_other_headers(at in 0_usize..200, with: u8) {
            let mut deflater = Deflater::new().unwrap();
            let mut frame = open(1, &[("streamtype", "error"), ("requestid", "12")], &mut deflater);
            let index = HEAD + at % (frame.len() - HEAD);
            frame[index] = with;
            let _ = read(&frame, &mut Inflater::new());
        }
    }
}
