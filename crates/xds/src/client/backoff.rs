//! How long to wait before the next connection: exponential, with full jitter, so that clients that lost the same
//! server do not come back together.
//!
//! Invariant: never more than the cap; a stream on which something was received starts it anew.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const CAP: Duration = Duration::from_secs(15);

/// How long to wait before the next connection.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait; `random` is uniform over u32.
    pub fn next_delay(&mut self, random: u32) -> Duration {
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(8)).min(CAP);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// The server works.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_fifteen_seconds_and_starts_anew_after_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..7).map(|_| backoff.next_delay(u32::MAX).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 15000, 15000]);
        assert_eq!(backoff.next_delay(0), Duration::ZERO);
        backoff.succeeded();
        assert_eq!(backoff.next_delay(u32::MAX).as_millis(), 500);
    }
}
