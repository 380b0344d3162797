//! How traffic of services finds its backend.
//!
//! What services there are stands in elements of maps; rules only know how many backends take turns. A change of a service
//! is therefore a change of elements, which costs the same however many services there are: of rules, the kernel checks
//! all that a table has at every change. Services whose clients come to the same backend again have chains of their own,
//! for whom they remember.
//!
//! A packet goes by the rules that there were when it came, but looks at maps as they are: whatever changes between two
//! looks, it must find a backend or nothing.

use super::plan::{Backend, Front, MOST, Pool, Sticky, Ways};
use super::rules::{
    ADDRESS, ADDRESS_PORT, ADDRESS_PROTOCOL_PORT, FRONT_MARK, MARK, REFUSE, address_port, destination,
    destination_port, front_key, source,
};
use crate::nft::expr::Verdict;
use crate::nft::{Data, Expr, Reg, Rule, SetSpec, Value};
use std::collections::BTreeMap;

/// How traffic comes to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Door {
    /// From clients that are neither pods nor the node itself, to fronts that treat those in another way.
    pub(super) outside: bool,
    /// At a port of any address of the node.
    pub(super) port: bool,
}

/// What a chain does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chain {
    /// Goes on to the chain for as many backends as the front has.
    Count(Door, Vec<u32>),
    /// One of so many backends of the front.
    Pick(Door, u32),
    /// One of these by the chains that lead there, the same one again while a client is remembered.
    Sticky(Vec<String>),
    /// This one, which the client is remembered to have for so many seconds.
    Remember { backend: Backend, seconds: u32 },
}

/// Elements by map and key.
pub(super) type Elements = BTreeMap<(&'static str, Vec<u8>), Value>;

/// No front has so many backends.
const NEVER: u32 = u32::MAX;

impl Door {
    pub(super) const ALL: [Door; 4] = [
        Door { outside: false, port: false },
        Door { outside: false, port: true },
        Door { outside: true, port: false },
        Door { outside: true, port: true },
    ];

    /// Fronts, and how many backends each has.
    fn services(self) -> &'static str {
        if self.outside { "outside-services" } else { "services" }
    }

    /// Fronts with a number, and their backend of that number.
    fn endpoints(self) -> &'static str {
        if self.outside { "outside-endpoints" } else { "endpoints" }
    }

    /// Fronts that have chains of their own.
    fn sticky(self) -> &'static str {
        if self.outside { "outside-sticky" } else { "sticky" }
    }

    /// The chain that goes by the number of backends.
    pub(super) fn counts(self) -> &'static str {
        match (self.outside, self.port) {
            (false, false) => "count",
            (false, true) => "count-port",
            (true, false) => "count-outside",
            (true, true) => "count-outside-port",
        }
    }

    /// The chain for a number of backends.
    pub(super) fn pick(self, count: u32) -> String {
        format!("{}-{count}", self.counts().replacen("count", "pick", 1))
    }

    /// Puts what the packet is addressed to into registers.
    fn key(self) -> [Expr; 3] {
        let [a, b, c, _] = Reg::ROW;
        let address = if self.port { Expr::Set { reg: a, data: vec![0; 4] } } else { destination(a) };
        [address, Expr::L4Proto(b), destination_port(c)]
    }

    /// Looks for what the packet is addressed to.
    fn find(self, map: &str, to: Reg) -> Vec<Expr> {
        let [key, ..] = Reg::ROW;
        let lookup = Expr::Lookup { set: map.to_owned(), key, to: Some(to) };
        self.key().into_iter().chain([lookup]).collect()
    }

    /// Leads packets for services to their chains.
    pub(super) fn enter(self) -> [Vec<Expr>; 2] {
        let [a, ..] = Reg::ROW;
        let mut any = self.find(self.services(), a);
        any.extend([
            Expr::NotEqual(a, NEVER.to_be_bytes().to_vec()),
            Expr::Verdict(Verdict::Goto(self.counts().to_owned())),
        ]);
        [self.find(self.sticky(), Reg::VERDICT), any]
    }

    fn count(self, count: u32, to: String) -> Vec<Expr> {
        let [a, ..] = Reg::ROW;
        let mut exprs = self.find(self.services(), a);
        exprs.extend([Expr::Equal(a, count.to_be_bytes().to_vec()), Expr::Verdict(Verdict::Goto(to))]);
        exprs
    }

    /// Translates to a backend: any of so many.
    fn any(self, count: u32) -> Vec<Expr> {
        let [key, address, .., number] = Reg::ROW;
        let chance = match count {
            1 => Expr::Set { reg: number, data: vec![0; 4] },
            modulus => Expr::Random { modulus, to: number },
        };
        let lookup = Expr::Lookup { set: self.endpoints().to_owned(), key, to: Some(key) };
        let dnat = Expr::Dnat { address: key, port: address };
        self.key().into_iter().chain([chance, lookup, dnat]).collect()
    }

    /// For a packet whose front is changed between two looks at maps, each of which tells what is then: a backend that
    /// is there before and after most changes; else nothing, so that the client asks again. To go on untranslated would
    /// fix the connection to an address that nobody has.
    fn changed(self) -> [Vec<Expr>; 2] {
        [self.any(1), vec![Expr::Verdict(Verdict::Drop)]]
    }
}

impl Chain {
    /// The rules of a chain of that name.
    pub(super) fn rules(&self, name: &str) -> Vec<Rule> {
        let rules = match self {
            Chain::Count(door, counts) => {
                let none = door.count(0, REFUSE.to_owned());
                let known = counts.iter().map(|count| door.count(*count, door.pick(*count)));
                [none].into_iter().chain(known).chain(door.changed()).collect()
            }
            Chain::Pick(door, 1) => door.changed().into(),
            Chain::Pick(door, count) => [door.any(*count)].into_iter().chain(door.changed()).collect(),
            Chain::Sticky(chains) => sticky(chains),
            Chain::Remember { backend: (ip, port), seconds } => {
                let [a, b, ..] = Reg::ROW;
                let remember = Expr::Remember { set: name.to_owned(), key: a, seconds: *seconds };
                // Two rules: where there is no room to remember a client, it gets a backend all the same.
                let dnat = vec![
                    Expr::Set { reg: a, data: ip.octets().to_vec() },
                    Expr::Set { reg: b, data: port.to_be_bytes().to_vec() },
                    Expr::Dnat { address: a, port: b },
                ];
                vec![vec![source(a), remember], dnat]
            }
        };
        rules.into_iter().map(|exprs| Rule { exprs, comment: None }).collect()
    }

    /// The clients of a chain that remembers them, in a set named as the chain.
    pub(super) fn clients(&self, name: &str) -> Option<SetSpec> {
        let Chain::Remember { .. } = self else { return None };
        Some(SetSpec { name: name.to_owned(), key_type: ADDRESS, key_len: 4, data: Data::None, by_packets: true })
    }
}

/// A client that a backend remembers goes there again, everybody else anywhere.
fn sticky(chains: &[String]) -> Vec<Vec<Expr>> {
    let [key, ..] = Reg::ROW;
    let to = |name: &String| Expr::Verdict(Verdict::Goto(name.clone()));
    let known = |name: &String| vec![source(key), Expr::Lookup { set: name.clone(), key, to: None }, to(name)];
    // Each takes its share of what those before left.
    let any = |(left, name): (u32, &String)| match left {
        1 => vec![to(name)],
        left => vec![Expr::Random { modulus: left, to: key }, Expr::Equal(key, vec![0; 4]), to(name)],
    };
    let left = (1..=chains.len() as u32).rev();
    chains.iter().map(known).chain(left.zip(chains).map(any)).collect()
}

/// The maps.
pub(super) fn sets() -> Vec<SetSpec> {
    let set = SetSpec::new;
    let [inside, _, outside, _] = Door::ALL;
    let views = [inside, outside].into_iter().flat_map(|door| {
        [
            set(door.services(), ADDRESS_PROTOCOL_PORT, 12, Data::Value(MARK, 4)),
            set(door.endpoints(), FRONT_MARK, 16, Data::Value(ADDRESS_PORT, 8)),
            set(door.sticky(), ADDRESS_PROTOCOL_PORT, 12, Data::Verdict),
        ]
    });
    views.collect()
}

/// Everything that stands in maps about a front.
pub(super) fn elements(front: Front, ways: &Ways) -> Elements {
    let key = front_key(front);
    let port = matches!(front, Front::NodePort(..));
    let mut all = Elements::new();
    ways.pools().for_each(|(outside, pool)| pool_elements(&key, Door { outside, port }, pool, &mut all));
    all
}

fn pool_elements(key: &[u8], door: Door, pool: &Pool, all: &mut Elements) {
    if let Some(Sticky { name, .. }) = pool.sticky.as_ref().filter(|_| !pool.backends.is_empty()) {
        // Whom the chain does nothing for comes back, and goes on as if there were none.
        all.insert((door.sticky(), key.to_vec()), Value::Verdict(Verdict::Jump(name.clone())));
    }
    all.insert((door.services(), key.to_vec()), Value::Bytes(count(pool).to_be_bytes().to_vec()));
    for (number, backend) in (0u32..).zip(&pool.backends) {
        let at = [key, &number.to_ne_bytes()].concat();
        all.insert((door.endpoints(), at), Value::Bytes(address_port(*backend)));
    }
}

fn count(pool: &Pool) -> u32 {
    pool.backends.len().min(MOST) as u32
}

/// The chains that a front's traffic needs, by name.
pub(super) fn chains(front: Front, ways: &Ways) -> Vec<(String, Chain)> {
    let port = matches!(front, Front::NodePort(..));
    let mut all = Vec::new();
    for (outside, pool) in ways.pools().filter(|(_, pool)| !pool.backends.is_empty()) {
        let door = Door { outside, port };
        match &pool.sticky {
            None => all.push((door.pick(count(pool)), Chain::Pick(door, count(pool)))),
            Some(Sticky { name, seconds }) => {
                let one = |(ip, port): &Backend| format!("{name}/{ip}/{port}");
                all.push((name.clone(), Chain::Sticky(pool.backends.iter().map(one).collect())));
                let remember = |backend: &Backend| Chain::Remember { backend: *backend, seconds: *seconds };
                all.extend(pool.backends.iter().map(|backend| (one(backend), remember(backend))));
            }
        }
    }
    all
}
