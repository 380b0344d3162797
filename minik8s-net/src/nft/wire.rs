//! Messages and attributes of nfnetlink: lengths, padding, nesting, byte order.
//!
//! Layouts are those of `linux/netlink.h` and `linux/netfilter/nfnetlink.h`: the header in the machine's byte order,
//! numbers within attributes of nftables and conntrack in network order.

/// Subsystem numbers of nfnetlink.
pub(crate) const CONNTRACK: u16 = 1;
pub(crate) const NFTABLES: u16 = 10;

pub(crate) const F_REQUEST: u16 = 0x1;
pub(crate) const F_ACK: u16 = 0x4;
pub(crate) const F_DUMP: u16 = 0x300;
pub(crate) const F_CREATE: u16 = 0x400;
pub(crate) const F_APPEND: u16 = 0x800;

/// The kernel's own message types.
pub(crate) const MSG_ERROR: u16 = 2;
pub(crate) const MSG_DONE: u16 = 3;

pub(crate) const FAMILY_IPV4: u8 = 2;

/// Length of a message's header and of nfnetlink's part behind it.
pub(crate) const HEADER: usize = 16;
pub(crate) const NFGEN: usize = 4;

const NESTED: u16 = 0x8000;

/// A growing row of messages.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    pub(crate) bytes: Vec<u8>,
    start: usize,
    sequence: u32,
}

/// An open nest, to be closed with [`Messages::close`].
#[must_use]
#[derive(Debug)]
pub(crate) struct Nest(usize);

impl Messages {
    /// Begins a message; [`Messages::end`] finishes it.
    pub(crate) fn begin(&mut self, kind: u16, flags: u16, family: u8, resource: u16) {
        self.start = self.bytes.len();
        self.sequence += 1;
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | F_REQUEST).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
    }

    pub(crate) fn end(&mut self) {
        let length = (self.bytes.len() - self.start) as u32;
        self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Asks for an answer to the message that was begun last.
    pub(crate) fn want_ack(&mut self) {
        let at = self.start + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | F_ACK;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
    }

    pub(crate) fn sequence(&self) -> u32 {
        self.sequence
    }

    pub(crate) fn raw(&mut self, attribute: u16, value: &[u8]) {
        self.bytes.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.bytes.extend(attribute.to_ne_bytes());
        self.bytes.extend(value);
        self.pad();
    }

    pub(crate) fn text(&mut self, attribute: u16, value: &str) {
        self.bytes.extend(((value.len() + 5) as u16).to_ne_bytes());
        self.bytes.extend(attribute.to_ne_bytes());
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    pub(crate) fn u32(&mut self, attribute: u16, value: u32) {
        self.raw(attribute, &value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, attribute: u16, value: u64) {
        self.raw(attribute, &value.to_be_bytes());
    }

    pub(crate) fn open(&mut self, attribute: u16) -> Nest {
        let at = self.bytes.len();
        self.bytes.extend(0u16.to_ne_bytes());
        self.bytes.extend((attribute | NESTED).to_ne_bytes());
        Nest(at)
    }

    pub(crate) fn close(&mut self, nest: Nest) {
        let length = (self.bytes.len() - nest.0) as u16;
        self.bytes[nest.0..nest.0 + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    pub(crate) flags: u16,
    /// Behind the header.
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Attributes behind nfnetlink's part.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        attributes(self.body.get(NFGEN..).unwrap_or_default())
    }
}

/// Splits what came in one read. Stops at what is malformed.
pub(crate) fn messages(bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = u32_at(rest, 0)? as usize;
        let body = rest.get(HEADER..length)?;
        let kind = u32_at(rest, 4)?.to_ne_bytes();
        let message = Message {
            kind: u16::from_ne_bytes([kind[0], kind[1]]),
            flags: u16::from_ne_bytes([kind[2], kind[3]]),
            sequence: u32_at(rest, 8)?,
            body,
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Splits attributes. Stops at what is malformed.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let head: [u8; 4] = rest.get(..4)?.try_into().ok()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of an attribute among others.
pub(crate) fn find(bytes: &[u8], attribute: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == attribute).map(|(_, value)| value)
}

/// A number of an attribute in network order.
pub(crate) fn be32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

/// Text of an attribute.
pub(crate) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// A number of a header.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut out = Messages::default();
        out.begin(0x0a03, F_CREATE, FAMILY_IPV4, 7);
        out.text(1, "table");
        let nest = out.open(4);
        out.u32(1, 3);
        out.raw(2, &[1, 2, 3]);
        out.close(nest);
        out.end();
        out.want_ack();
        assert_eq!(out.bytes.len() % 4, 0);
        let all: Vec<_> = messages(&out.bytes).collect();
        assert_eq!((all.len(), all[0].kind, all[0].sequence), (1, 0x0a03, 1));
        assert_eq!(all[0].flags, F_REQUEST | F_CREATE | F_ACK);
        let attributes: Vec<_> = all[0].attributes().collect();
        assert_eq!(text(attributes[0].1), "table");
        assert_eq!(be32(find(attributes[1].1, 1).unwrap()), Some(3));
        assert_eq!(find(attributes[1].1, 2).unwrap(), [1, 2, 3]);
    }

    proptest! {
        #[test]
        fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes) {
                prop_assert!(message.attributes().count() <= bytes.len());
            }
            prop_assert!(attributes(&bytes).count() <= bytes.len());
        }
    }
}
