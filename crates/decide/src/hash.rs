//! Consistent hashing: the same key finds the same endpoint for as long as it is there.
//!
//! The ring is Envoy's: every endpoint stands on it at xxHash64 of `ADDRESS_N`, as often as its weight says. So a mesh that
//! moves from Envoy keeps its affinity. Invariant: an endpoint of weight 0 is never picked; the ring is bounded.

use xxhash_rust::xxh64::xxh64;

/// Most points on a ring, whatever the weights ask for.
pub const MAXIMUM_RING_SIZE: u64 = 65_536;

/// Points on a ring, each of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// (hash, endpoint), ordered.
    points: Vec<(u64, u32)>,
}

/// The hash of a key.
pub fn hash_key(key: &[u8]) -> u64 {
    xxh64(key, 0)
}

impl Ring {
    /// A ring of endpoints: (index, `ip:port`, weight).
    pub fn build(endpoints: &[(u32, String, u32)], minimum_size: u32) -> Self {
        let total: u64 = endpoints.iter().map(|(_, _, weight)| u64::from(*weight)).sum();
        let weights = endpoints.iter().map(|(_, _, weight)| u64::from(*weight)).filter(|weight| *weight > 0);
        let Some(least) = weights.min() else { return Self { points: Vec::new() } };
        // envoy: every endpoint has a whole number of points if the least weighted has; then the ring is scaled to its bounds.
        let least = least as f64 / total as f64;
        let wanted = (least * f64::from(minimum_size)).ceil() / least;
        let scale = wanted.min(MAXIMUM_RING_SIZE as f64);
        let mut points = Vec::with_capacity(scale.ceil() as usize);
        let (mut current, mut target) = (0.0_f64, 0.0_f64);
        let mut name = String::new();
        for (index, address, weight) in endpoints {
            target += scale * f64::from(*weight) / total as f64;
            let mut nth = 0_u32;
            while current < target {
                name.clear();
                name.push_str(address);
                name.push('_');
                name.push_str(&nth.to_string());
                points.push((xxh64(name.as_bytes(), 0), *index));
                nth += 1;
                current += 1.0;
            }
        }
        points.sort_unstable();
        Self { points }
    }

    /// The endpoint of a hashed key: the first at or after it on the ring that is usable.
    pub fn pick(&self, hash: u64, is_usable: impl Fn(u32) -> bool) -> Option<u32> {
        let start = self.points.partition_point(|(point, _)| *point < hash);
        let (before, after) = self.points.split_at(start);
        after.iter().chain(before).map(|(_, endpoint)| *endpoint).find(|endpoint| is_usable(*endpoint))
    }

    /// How many points it has.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Vec<(u32, String, u32)> {
        (0..3).map(|n| (n, format!("10.0.0.{n}:80"), 1)).collect()
    }

    #[test]
    fn the_ring_has_at_least_its_minimum_size_and_equal_parts() {
        let ring = Ring::build(&three(), 1024);
        assert_eq!(ring.len(), 1026);
        for endpoint in 0..3 {
            assert_eq!(ring.points.iter().filter(|(_, at)| *at == endpoint).count(), 342);
        }
    }

    #[test]
    fn keys_of_the_endpoints_that_stay_do_not_move() {
        let all = Ring::build(&three(), 1024);
        let two: Vec<_> = three().into_iter().filter(|(index, _, _)| *index != 1).collect();
        let without = Ring::build(&two, 684);
        for key in 0..1000_u32 {
            let hash = hash_key(&key.to_be_bytes());
            let before = all.pick(hash, |_| true).unwrap();
            if before != 1 {
                assert_eq!(without.pick(hash, |_| true), Some(before));
            }
            assert_eq!(all.pick(hash, |endpoint| endpoint != 1), without.pick(hash, |_| true));
        }
    }

    #[test]
    fn weight_zero_and_unusable_endpoints_get_nothing() {
        let mut endpoints = three();
        endpoints[0].2 = 0;
        let ring = Ring::build(&endpoints, 64);
        assert_eq!(ring.pick(5, |endpoint| endpoint == 0), None);
        assert!(Ring::build(&[], 64).is_empty());
    }
}
