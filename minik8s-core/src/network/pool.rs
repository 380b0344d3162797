//! Which addresses of a range are free: plain data, no I/O. Networks keep their own record of who has what.

use super::{NetworkError, NetworkResult};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The addresses of one range, handed out in a ring so that a freed address rests as long as possible.
#[derive(Clone, Debug)]
pub struct AddressPool {
    range: Ipv4Net,
    taken: BTreeMap<u32, String>,
    last: u32,
}

impl AddressPool {
    /// A pool of the hosts of `range`; the first of them belongs to the gateway and is never handed out.
    pub fn new(range: Ipv4Net) -> Self {
        let range = range.trunc();
        Self { range, taken: BTreeMap::new(), last: u32::from(range.network()).saturating_add(1) }
    }

    /// The address that is the node's own end of the range.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.range.network()).saturating_add(1))
    }

    /// The range.
    pub fn range(&self) -> Ipv4Net {
        self.range
    }

    /// Goes on behind `address`: what was handed out last, by a predecessor.
    pub fn resume_after(&mut self, address: Ipv4Addr) {
        if self.range.contains(&address) {
            self.last = u32::from(address);
        }
    }

    /// Notes that `owner` has `address` already. False where it is not of this range, or another has it.
    pub fn claim(&mut self, address: Ipv4Addr, owner: &str) -> bool {
        let key = u32::from(address);
        if !self.usable().contains(&key) {
            return false;
        }
        self.taken.entry(key).or_insert_with(|| owner.to_owned()) == owner
    }

    /// A free address for `owner`, the longest unused first.
    ///
    /// # Errors
    /// `Exhausted`.
    pub fn allocate(&mut self, owner: &str) -> NetworkResult<Ipv4Addr> {
        let usable = self.usable();
        let start = self.last.saturating_add(1);
        let free = (start..usable.end)
            .chain(usable.start..start.min(usable.end))
            .find(|key| usable.contains(key) && !self.taken.contains_key(key));
        let Some(key) = free else {
            return Err(NetworkError::Exhausted { range: self.range.to_string(), used: self.taken.len() });
        };
        self.taken.insert(key, owner.to_owned());
        self.last = key;
        Ok(Ipv4Addr::from(key))
    }

    /// Takes an address back.
    pub fn release(&mut self, address: Ipv4Addr) {
        self.taken.remove(&u32::from(address));
    }

    /// Everything but the network's own address, the gateway and the broadcast address.
    fn usable(&self) -> std::ops::Range<u32> {
        u32::from(self.range.network()).saturating_add(2)..u32::from(self.range.broadcast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(range: &str) -> AddressPool {
        AddressPool::new(range.parse().unwrap())
    }

    #[test]
    fn gateway_network_and_broadcast_are_never_handed_out() {
        let mut pool = pool("10.9.0.0/29");
        let got: Vec<String> = (0..5).map(|i| pool.allocate(&i.to_string()).unwrap().to_string()).collect();
        assert_eq!(got, ["10.9.0.2", "10.9.0.3", "10.9.0.4", "10.9.0.5", "10.9.0.6"]);
        assert_eq!(pool.allocate("x").unwrap_err().to_string(), "no free address in 10.9.0.0/29, 5 in use");
    }

    #[test]
    fn freed_addresses_come_back_last() {
        let mut pool = pool("10.9.0.0/29");
        let first = pool.allocate("a").unwrap();
        pool.release(first);
        let next: Vec<_> = (0..5).map(|_| pool.allocate("b").unwrap()).collect();
        assert!(!next[..4].contains(&first));
        assert_eq!(next[4], first);
    }

    #[test]
    fn claims_are_exclusive_and_within_the_range() {
        let mut pool = pool("10.9.0.0/29");
        assert!(pool.claim(Ipv4Addr::new(10, 9, 0, 3), "a"));
        assert!(pool.claim(Ipv4Addr::new(10, 9, 0, 3), "a"));
        assert!(!pool.claim(Ipv4Addr::new(10, 9, 0, 3), "b"));
        assert!(!pool.claim(Ipv4Addr::new(10, 9, 0, 1), "a"));
        assert!(!pool.claim(Ipv4Addr::new(10, 9, 1, 3), "a"));
    }

    #[test]
    fn a_successor_goes_on_where_the_predecessor_stopped() {
        let mut pool = pool("10.9.0.0/24");
        pool.resume_after(Ipv4Addr::new(10, 9, 0, 200));
        assert_eq!(pool.allocate("a").unwrap(), Ipv4Addr::new(10, 9, 0, 201));
    }

    #[test]
    fn ranges_too_small_for_anyone_are_exhausted_at_once() {
        assert!(pool("10.9.0.0/31").allocate("a").is_err());
        assert!(pool("10.9.0.0/32").allocate("a").is_err());
    }
}
