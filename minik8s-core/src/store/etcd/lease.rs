//! Lifetimes. etcd lets keys vanish with a lease, and counts its time in whole seconds. Keys of about the same lifetime
//! share a lease, because each costs etcd memory and a replicated write.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Keys that share one lease at most.
const SHARED_BY: u32 = 1000;

/// Leases that may take more keys, by lifetime.
#[derive(Default)]
pub(super) struct Leases {
    open: Mutex<HashMap<Duration, Lease>>,
}

struct Lease {
    id: i64,
    /// Until when a key put under it still lives for its whole lifetime.
    until: Instant,
    left: u32,
}

/// How much longer than asked a shared lease lives: a twentieth, a minute at most.
fn slack(lifetime: Duration) -> Duration {
    (lifetime / 20).min(Duration::from_secs(60))
}

/// What a lease for this lifetime is granted for, in seconds: never less than was asked.
pub(super) fn granted(lifetime: Duration) -> i64 {
    let whole = lifetime + slack(lifetime);
    let seconds = whole.as_secs() + u64::from(whole.subsec_nanos() > 0);
    i64::try_from(seconds.max(1)).unwrap_or(i64::MAX)
}

impl Leases {
    /// A lease that one more key may share.
    pub(super) fn take(&self, lifetime: Duration, now: Instant) -> Option<i64> {
        let mut open = self.open.lock();
        let lease = open.get_mut(&lifetime)?;
        if lease.left == 0 || now > lease.until {
            open.remove(&lifetime);
            return None;
        }
        lease.left -= 1;
        Some(lease.id)
    }

    /// Offers a lease that was granted at `since` to the keys that follow.
    pub(super) fn offer(&self, lifetime: Duration, id: i64, since: Instant) {
        let lease = Lease { id, until: since + slack(lifetime), left: SHARED_BY };
        self.open.lock().insert(lifetime, lease);
    }

    /// Forgets all: one of them turned out to be gone.
    pub(super) fn clear(&self) {
        self.open.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_never_shorter_than_the_lifetime() {
        let cases = [(100, 1), (1000, 2), (20_000, 21), (3_600_000, 3660)];
        for (millis, seconds) in cases {
            assert_eq!(granted(Duration::from_millis(millis)), seconds, "{millis} ms");
        }
    }

    #[test]
    fn a_lease_is_shared_while_every_key_gets_its_whole_lifetime() {
        let (leases, start, hour) = (Leases::default(), Instant::now(), Duration::from_secs(3600));
        assert_eq!(leases.take(hour, start), None);
        leases.offer(hour, 7, start);
        assert_eq!(leases.take(hour, start + Duration::from_secs(59)), Some(7));
        assert_eq!(leases.take(Duration::from_secs(60), start), None);
        assert_eq!(leases.take(hour, start + Duration::from_secs(61)), None);
        leases.offer(hour, 8, start);
        assert!((0..SHARED_BY).all(|_| leases.take(hour, start) == Some(8)));
        assert_eq!(leases.take(hour, start), None);
        leases.offer(hour, 9, start);
        leases.clear();
        assert_eq!(leases.take(hour, start), None);
    }
}
