//! Header blocks: lists of names and values, deflated as one stream per direction that starts from a dictionary both
//! ends know.

use super::SpdyError;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::sync::LazyLock;

/// Largest header block, inflated.
const LARGEST: usize = 64 << 10;
/// Most headers of a stream.
const MOST: u32 = 128;

/// Words of the dictionary of SPDY/3 (draft-mbelshe-httpbis-spdy-00, 2.6.10.1), each preceded by its length.
const WORDS: &str = "\
    options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|age|\
    allow|authorization|cache-control|connection|content-base|content-encoding|content-language|content-length|\
    content-location|content-md5|content-range|content-type|date|etag|expect|expires|from|host|if-match|\
    if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|location|max-forwards|pragma|\
    proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|transfer-encoding|upgrade|\
    user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|public|set-cookie|\
    keep-alive|origin";

/// The rest of it, without lengths.
const TAIL: &str = "\
    100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritat\
    ive Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found5\
    00 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct N\
    ov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,applic\
    ation/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf\
    -8charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = Vec::with_capacity(1423);
    for word in WORDS.split('|') {
        bytes.extend_from_slice(&u32::try_from(word.len()).unwrap_or_default().to_be_bytes());
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes.extend_from_slice(TAIL.as_bytes());
    bytes
});

/// Names (in lower case) and values.
pub(crate) type Headers = Vec<(String, String)>;

/// What one end writes.
pub(crate) struct Deflater(Compress);

impl Deflater {
    pub(crate) fn new() -> Result<Self, SpdyError> {
        let mut state = Compress::new(Compression::fast(), true);
        state.set_dictionary(&DICTIONARY).map_err(|e| SpdyError::Headers(e.to_string()))?;
        Ok(Self(state))
    }

    /// Appends a block.
    pub(crate) fn block(&mut self, headers: &[(String, String)], to: &mut Vec<u8>) -> Result<(), SpdyError> {
        let plain = encode(headers);
        let (start, mut sized) = (self.0.total_in(), plain.len());
        loop {
            to.reserve(sized + 64);
            let taken = usize::try_from(self.0.total_in() - start).unwrap_or(plain.len());
            let room = to.capacity() - to.len();
            let before = to.len();
            let rest = plain.get(taken..).unwrap_or_default();
            self.0.compress_vec(rest, to, FlushCompress::Sync).map_err(|e| SpdyError::Headers(e.to_string()))?;
            // With room to spare, nothing is left inside.
            if to.len() - before < room {
                return Ok(());
            }
            sized = sized.max(64);
        }
    }
}

/// What one end reads.
pub(crate) struct Inflater(Decompress);

impl Inflater {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The headers of a block.
    pub(crate) fn block(&mut self, deflated: &[u8]) -> Result<Headers, SpdyError> {
        let failed = |e: flate2::DecompressError| SpdyError::Headers(e.to_string());
        let (start, mut plain) = (self.0.total_in(), Vec::with_capacity(4 << 10));
        loop {
            let taken = usize::try_from(self.0.total_in() - start).unwrap_or(deflated.len());
            let rest = deflated.get(taken..).unwrap_or_default();
            let before = plain.len();
            match self.0.decompress_vec(rest, &mut plain, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(SpdyError::Headers("the stream of headers has ended".into())),
                Ok(_) if plain.len() == plain.capacity() => {
                    if plain.len() >= LARGEST {
                        return Err(SpdyError::TooLarge { what: "headers", limit: LARGEST });
                    }
                    plain.reserve(plain.capacity());
                }
                Ok(_) => {
                    let taken = usize::try_from(self.0.total_in() - start).unwrap_or(deflated.len());
                    if taken >= deflated.len() || plain.len() == before {
                        break;
                    }
                }
                Err(e) if e.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(failed)?;
                }
                Err(e) => return Err(failed(e)),
            }
        }
        decode(&plain)
    }
}

fn put_number(plain: &mut Vec<u8>, number: usize) {
    plain.extend(u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
}

fn encode(headers: &[(String, String)]) -> Vec<u8> {
    let mut plain = Vec::new();
    put_number(&mut plain, headers.len());
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        put_number(&mut plain, text.len());
        plain.extend_from_slice(text.as_bytes());
    }
    plain
}

fn short() -> SpdyError {
    SpdyError::Headers("they end early".into())
}

fn number(plain: &mut &[u8]) -> Result<u32, SpdyError> {
    let (head, rest) = plain.split_first_chunk::<4>().ok_or_else(short)?;
    *plain = rest;
    Ok(u32::from_be_bytes(*head))
}

fn text(plain: &mut &[u8]) -> Result<String, SpdyError> {
    let length = number(plain)? as usize;
    let (head, rest) = plain.split_at_checked(length).ok_or_else(short)?;
    *plain = rest;
    String::from_utf8(head.to_vec()).map_err(|e| SpdyError::Headers(e.to_string()))
}

fn decode(mut plain: &[u8]) -> Result<Headers, SpdyError> {
    let count = number(&mut plain)?;
    if count > MOST {
        return Err(SpdyError::TooLarge { what: "number of headers", limit: MOST as usize });
    }
    (0..count).map(|_| Ok((text(&mut plain)?.to_ascii_lowercase(), text(&mut plain)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_published_one() {
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in DICTIONARY.iter() {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((DICTIONARY.len(), b << 16 | a), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_follow_each_other_in_one_stream() {
        let (mut deflater, mut inflater) = (Deflater::new().unwrap(), Inflater::new());
        let long = "x".repeat(20_000);
        for text in ["", "8080", "data", &long, "data"] {
            let headers = vec![("port".to_owned(), text.to_owned()), ("streamtype".to_owned(), "data".to_owned())];
            let mut block = Vec::new();
            deflater.block(&headers, &mut block).unwrap();
            assert_eq!(inflater.block(&block).unwrap(), headers);
        }
        let mut block = Vec::new();
        deflater.block(&[], &mut block).unwrap();
        assert_eq!(inflater.block(&block).unwrap(), []);
    }

    #[test]
    fn a_bomb_is_refused() {
        let (mut deflater, mut block) = (Deflater::new().unwrap(), Vec::new());
        deflater.block(&[("a".to_owned(), "b".repeat(1 << 20))], &mut block).unwrap();
        assert!(block.len() < LARGEST / 4);
        assert!(matches!(Inflater::new().block(&block), Err(SpdyError::TooLarge { .. })));
    }
}
