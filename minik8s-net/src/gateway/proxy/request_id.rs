//! Ids of requests: each bears one to its endpoint, in its answer and in the access log, so that what several programs
//! tell of it can be put together.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};
use minik8s_core::random;
use std::cell::RefCell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The header.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ones are not passed on.
const LONGEST: usize = 128;
/// What ids of this process begin with: letters enough to tell it from all others.
const OWN: usize = 12;
/// Room that is got at once, for ids of many requests.
const ROOM: usize = 4096;

/// The id of a request: what its client calls it, where a log can show that; else one is made.
pub(super) fn give(headers: &mut HeaderMap) -> HeaderValue {
    let mut given = headers.get_all(&REQUEST_ID).iter();
    if let (Some(id), None) = (given.next(), given.next())
        && is_sane(id.as_bytes())
    {
        return id.clone();
    }
    let id = made();
    headers.insert(REQUEST_ID, id.clone());
    id
}

fn is_sane(id: &[u8]) -> bool {
    (1..=LONGEST).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// One that no other request has: a counter, which costs less than chance.
fn made() -> HeaderValue {
    static PROCESS: OnceLock<String> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static FREE: RefCell<BytesMut> = RefCell::default();
    }
    let process = PROCESS.get_or_init(|| random::word(OWN));
    let mut number = [0; 16];
    let digits = hexadecimal(NEXT.fetch_add(1, Ordering::Relaxed), &mut number);
    let length = OWN + 1 + digits.len();
    let id = FREE.with_borrow_mut(|free| {
        if free.capacity() < length {
            *free = BytesMut::with_capacity(ROOM);
        }
        for part in [process.as_bytes(), b"-", digits] {
            free.extend_from_slice(part);
        }
        free.split().freeze()
    });
    HeaderValue::from_maybe_shared(id).unwrap_or(HeaderValue::from_static("unknown"))
}

/// The digits of a number, which are written from the last on.
fn hexadecimal(number: u64, room: &mut [u8; 16]) -> &[u8] {
    let (mut rest, mut from) = (number, room.len());
    while from > 0 {
        from -= 1;
        room[from] = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    &room[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_everywhere() {
        for number in [0, 1, 15, 16, 0x1234_5678_9abc_def0, u64::MAX] {
            assert_eq!(hexadecimal(number, &mut [0; 16]), format!("{number:x}").as_bytes());
        }
    }

    #[test]
    fn the_clients_own_id_stays_where_a_log_can_show_it() {
        let long = "x".repeat(LONGEST + 1);
        let table: [(&[&[u8]], bool); 8] = [
            (&[b"4bf92f35-77b3"], true),
            (&[b"a/b:c#d@1"], true),
            (&[], false),
            (&[b""], false),
            (&[b"two words"], false),
            (&[b"caf\xc3\xa9"], false),
            (&[long.as_bytes()], false),
            (&[b"one", b"other"], false),
        ];
        let mut seen = std::collections::HashSet::new();
        for (given, stays) in table {
            let mut headers = HeaderMap::new();
            for value in given {
                headers.append(REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
            }
            let id = give(&mut headers);
            assert_eq!(headers.get_all(REQUEST_ID).iter().collect::<Vec<_>>(), [&id], "{given:?}");
            assert_eq!(given.first() == Some(&id.as_bytes()), stays, "{given:?} {id:?}");
            assert!(is_sane(id.as_bytes()) && seen.insert(id), "{given:?}");
        }
    }
}
