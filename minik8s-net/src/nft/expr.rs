//! The expressions of a rule, as the kernel names and numbers them (`linux/netfilter/nf_tables.h`).

use super::wire::Messages;

/// A register of the rule machine. Two banks of four words; a key or a value of several words fills a bank in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reg(u32);

impl Reg {
    /// The verdict: what a lookup in a verdict map writes to.
    pub(crate) const VERDICT: Reg = Reg(0);
    pub(crate) const A: [Reg; 3] = [Reg(1), Reg(9), Reg(10)];
    /// The first words, in a row.
    pub(crate) const ROW: [Reg; 4] = [Reg(1), Reg(9), Reg(10), Reg(11)];
}

/// What a packet's fate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    Jump(String),
    Goto(String),
}

impl Verdict {
    fn code(&self) -> i32 {
        match self {
            Verdict::Accept => 1,
            Verdict::Drop => 0,
            Verdict::Jump(_) => -3,
            Verdict::Goto(_) => -4,
        }
    }

    /// As the value of an element or of an immediate.
    pub(crate) fn encode(&self, out: &mut Messages) {
        let nest = out.open(2);
        out.u32(1, self.code().cast_unsigned());
        if let Verdict::Jump(chain) | Verdict::Goto(chain) = self {
            out.text(2, chain);
        }
        out.close(nest);
    }
}

/// What values a set has: none make it a set, any a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    None,
    Verdict,
    /// Type and length.
    Value(u32, u32),
}

/// An element's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    None,
    Verdict(Verdict),
    Bytes(Vec<u8>),
}

/// One expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expr {
    /// Bytes of the network header.
    Network {
        offset: u32,
        len: u32,
        to: Reg,
    },
    /// Bytes of the transport header.
    Transport {
        offset: u32,
        len: u32,
        to: Reg,
    },
    /// Transport protocol.
    L4Proto(Reg),
    /// Groups of links.
    InputGroup(Reg),
    OutputGroup(Reg),
    /// What the packet is to its connection, as a bit.
    CtState(Reg),
    /// Bits of the connection's status.
    CtStatus(Reg),
    /// Kind of the destination address: local, broadcast, ….
    DestinationType(Reg),
    /// Kind of the source address.
    SourceType(Reg),
    /// The link by which the packet came, where its source is reached by that one; 0 where it is not.
    WayBack(Reg),
    And {
        reg: Reg,
        mask: Vec<u8>,
    },
    Equal(Reg, Vec<u8>),
    NotEqual(Reg, Vec<u8>),
    Lookup {
        set: String,
        key: Reg,
        to: Option<Reg>,
    },
    /// The key is not in the set.
    Missing {
        set: String,
        key: Reg,
    },
    Set {
        reg: Reg,
        data: Vec<u8>,
    },
    Verdict(Verdict),
    Random {
        modulus: u32,
        to: Reg,
    },
    /// Puts a key into a set for so many seconds, or makes it young again. Where the set is full, the rule ends.
    Remember {
        set: String,
        key: Reg,
        seconds: u32,
    },
    Dnat {
        address: Reg,
        port: Reg,
    },
    Snat {
        address: Reg,
    },
    Masquerade,
    /// The packet passes by connection tracking.
    NoTrack,
    RejectTcp,
    RejectPort,
}

impl Expr {
    /// Encodes the expression.
    pub(crate) fn encode(&self, out: &mut Messages) {
        let element = out.open(1);
        out.text(1, self.name());
        let data = out.open(2);
        self.encode_data(out);
        out.close(data);
        out.close(element);
    }

    /// The kernel's name for it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Expr::Network { .. } | Expr::Transport { .. } => "payload",
            Expr::L4Proto(_) | Expr::InputGroup(_) | Expr::OutputGroup(_) => "meta",
            Expr::CtState(_) | Expr::CtStatus(_) => "ct",
            Expr::DestinationType(_) | Expr::SourceType(_) | Expr::WayBack(_) => "fib",
            Expr::And { .. } => "bitwise",
            Expr::Equal(..) | Expr::NotEqual(..) => "cmp",
            Expr::Lookup { .. } | Expr::Missing { .. } => "lookup",
            Expr::Set { .. } | Expr::Verdict(_) => "immediate",
            Expr::Random { .. } => "numgen",
            Expr::Remember { .. } => "dynset",
            Expr::Dnat { .. } | Expr::Snat { .. } => "nat",
            Expr::NoTrack => "notrack",
            Expr::Masquerade => "masq",
            Expr::RejectTcp | Expr::RejectPort => "reject",
        }
    }

    fn encode_data(&self, out: &mut Messages) {
        match self {
            Expr::Network { offset, len, to } => numbers(out, &[(1, to.0), (2, 1), (3, *offset), (4, *len)]),
            Expr::Transport { offset, len, to } => numbers(out, &[(1, to.0), (2, 2), (3, *offset), (4, *len)]),
            Expr::L4Proto(to) => numbers(out, &[(1, to.0), (2, 16)]),
            Expr::InputGroup(to) => numbers(out, &[(1, to.0), (2, 21)]),
            Expr::OutputGroup(to) => numbers(out, &[(1, to.0), (2, 22)]),
            Expr::CtState(to) => numbers(out, &[(1, to.0), (2, 0)]),
            Expr::CtStatus(to) => numbers(out, &[(1, to.0), (2, 2)]),
            Expr::DestinationType(to) => numbers(out, &[(1, to.0), (2, 3), (3, 2)]),
            Expr::SourceType(to) => numbers(out, &[(1, to.0), (2, 3), (3, 1)]),
            Expr::WayBack(to) => numbers(out, &[(1, to.0), (2, 1), (3, 1 | 8)]),
            Expr::And { reg, mask } => {
                numbers(out, &[(1, reg.0), (2, reg.0), (3, mask.len() as u32)]);
                value(out, 4, mask);
                value(out, 5, &vec![0; mask.len()]);
            }
            Expr::Equal(reg, data) => compare(out, *reg, 0, data),
            Expr::NotEqual(reg, data) => compare(out, *reg, 1, data),
            Expr::Lookup { set, key, to } => {
                out.text(1, set);
                out.u32(2, key.0);
                if let Some(to) = to {
                    out.u32(3, to.0);
                }
            }
            Expr::Missing { set, key } => {
                out.text(1, set);
                numbers(out, &[(2, key.0), (5, 1)]);
            }
            Expr::Set { reg, data } => {
                out.u32(1, reg.0);
                value(out, 2, data);
            }
            Expr::Verdict(verdict) => {
                out.u32(1, 0);
                let nest = out.open(2);
                verdict.encode(out);
                out.close(nest);
            }
            Expr::Random { modulus, to } => numbers(out, &[(1, to.0), (2, *modulus), (3, 1), (4, 0)]),
            Expr::Remember { set, key, seconds } => {
                out.text(1, set);
                numbers(out, &[(3, 1), (4, key.0)]);
                out.u64(6, u64::from(*seconds) * 1000);
            }
            Expr::Dnat { address, port } => numbers(out, &[(1, 1), (2, 2), (3, address.0), (5, port.0)]),
            Expr::Snat { address } => numbers(out, &[(1, 0), (2, 2), (3, address.0)]),
            Expr::Masquerade | Expr::NoTrack => {}
            Expr::RejectTcp => numbers(out, &[(1, 1)]),
            Expr::RejectPort => {
                out.u32(1, 0);
                out.raw(2, &[3]);
            }
        }
    }
}

fn numbers(out: &mut Messages, pairs: &[(u16, u32)]) {
    for (attribute, number) in pairs {
        out.u32(*attribute, *number);
    }
}

fn compare(out: &mut Messages, reg: Reg, operation: u32, data: &[u8]) {
    numbers(out, &[(1, reg.0), (2, operation)]);
    value(out, 3, data);
}

/// A plain value within an attribute.
pub(crate) fn value(out: &mut Messages, attribute: u16, data: &[u8]) {
    let nest = out.open(attribute);
    out.raw(1, data);
    out.close(nest);
}
