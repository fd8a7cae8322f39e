//! What this proxy has seen of each endpoint, and which of them it leaves out for a while.
//!
//! Invariants: counts are per proxy, not per core; an ejection never exceeds the policy's share of the endpoints and never
//! takes the last one (PAINS P16). An endpoint that cannot be connected to is avoided for a moment whatever the policy says,
//! as long as there is another: that is not an ejection, only good sense.
//! Must not know: routes, requests, how an endpoint is chosen.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use leno_model::{OutlierDetection, ServiceId};
use parking_lot::Mutex;

/// First pause after a failed connection; doubled up to [`LONGEST_AVOIDANCE_MS`].
const AVOIDANCE_MS: u64 = 250;
const LONGEST_AVOIDANCE_MS: u64 = 8_000;

/// How long others wait for what becomes of the first attempt at an endpoint that could not be reached before.
const PROBE_MS: u64 = 2_000;

/// An endpoint whose proxy says that it is leaving is asked again after this: it may have come back. Idle connections to it
/// are closed by it in half of this (`ServerSettings::linger`), and a request must not cross that.
const LEAVING_MS: u64 = 2_000;

/// Longest time out, whatever the number of ejections (Envoy `max_ejection_time`).
const LONGEST_EJECTION_MS: u64 = 300_000;

/// What is known of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct PeerHealth {
    /// Requests or connections in flight.
    pub(crate) active: AtomicU32,
    ejected_until: AtomicU64,
    avoided_until: AtomicU64,
    probed_until: AtomicU64,
    connect_failures: AtomicU32,
    server_errors: AtomicU32,
    gateway_errors: AtomicU32,
    local_failures: AtomicU32,
    ejections: AtomicU32,
}

/// What is known of one endpoint at one moment.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct PeerSnapshot {
    active: u32,
    ejected_for_ms: u64,
    avoided_for_ms: u64,
    ejections: u32,
}

/// What is known of one service, from this proxy's point of view.
#[derive(Debug, Default)]
pub(crate) struct ServiceHealth {
    peers: Mutex<HashMap<Arc<str>, Arc<PeerHealth>>>,
    /// Requests in flight.
    pub(crate) requests: AtomicU32,
    /// Requests that wait for a connection.
    pub(crate) pending: AtomicU32,
    /// Open connections.
    pub(crate) connections: AtomicU32,
    /// Retries in flight.
    pub(crate) retries: AtomicU32,
}

/// How an attempt ended, as far as the endpoint's health is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answered, with this status.
    Status(u16),
    /// It could not be connected to.
    ConnectFailed,
    /// The connection broke.
    Broken,
    /// It said that its application never saw the request: it is leaving, or its application is not there.
    NotDelivered,
}

impl PeerHealth {
    /// Whether it may be chosen at `now` (milliseconds of the proxy's clock).
    pub(crate) fn is_usable(&self, now: u64) -> bool {
        let untils = [&self.ejected_until, &self.avoided_until, &self.probed_until];
        untils.into_iter().all(|until| until.load(Relaxed) <= now)
    }

    /// It gets an attempt. If it could not be reached before, that is the only one until its end is known.
    pub(crate) fn chosen(&self, now: u64) {
        if self.connect_failures.load(Relaxed) != 0 && self.probed_until.load(Relaxed) <= now {
            self.probed_until.store(now + PROBE_MS, Relaxed);
        }
    }

    /// It cannot be reached. What was under way to it at once says so once.
    fn avoid(&self, now: u64) {
        if self.avoided_until.load(Relaxed) > now {
            return;
        }
        let times = self.connect_failures.fetch_add(1, Relaxed).min(8);
        self.avoided_until.store(now + (AVOIDANCE_MS << times).min(LONGEST_AVOIDANCE_MS), Relaxed);
    }

    /// Its proxy drains: others are asked as long as there are any, whether the control plane has told so or not.
    pub(crate) fn leaves(&self, now: u64) {
        self.avoided_until.fetch_max(now + LEAVING_MS, Relaxed);
    }

    fn snapshot(&self, now: u64) -> PeerSnapshot {
        PeerSnapshot {
            active: self.active.load(Relaxed),
            ejected_for_ms: self.ejected_until.load(Relaxed).saturating_sub(now),
            avoided_for_ms: self.avoided_until.load(Relaxed).saturating_sub(now),
            ejections: self.ejections.load(Relaxed),
        }
    }

    /// Whether outlier detection has it out at `now`.
    pub(crate) fn is_ejected(&self, now: u64) -> bool {
        self.ejected_until.load(Relaxed) > now
    }
}

impl ServiceHealth {
    /// What is known of an endpoint, by its uid.
    pub(crate) fn peer(&self, uid: &Arc<str>) -> Arc<PeerHealth> {
        self.peers.lock().entry(uid.clone()).or_default().clone()
    }

    /// Forgets endpoints that are gone.
    pub(crate) fn retain(&self, known: impl Fn(&str) -> bool) {
        self.peers.lock().retain(|uid, health| known(uid) || health.active.load(Relaxed) > 0);
    }

    /// Takes note of how an attempt ended. Returns the length of the ejection, in milliseconds, if this was the last straw.
    pub(crate) fn report(
        &self,
        peer: &PeerHealth,
        outcome: Outcome,
        policy: Option<&OutlierDetection>,
        now: u64,
    ) -> Option<u64> {
        if matches!(outcome, Outcome::ConnectFailed | Outcome::NotDelivered) {
            peer.avoid(now);
        } else if peer.connect_failures.load(Relaxed) != 0 {
            peer.connect_failures.store(0, Relaxed);
            peer.probed_until.store(0, Relaxed);
        }
        let policy = policy?;
        if !count(peer, outcome, policy) || peer.is_ejected(now) {
            return None;
        }
        self.eject(peer, policy, now)
    }

    fn eject(&self, peer: &PeerHealth, policy: &OutlierDetection, now: u64) -> Option<u64> {
        let peers = self.peers.lock();
        let total = peers.len() as u64;
        let ejected = peers.values().filter(|peer| peer.is_ejected(now)).count() as u64;
        // Rounded up, so that a small service's share is not nothing; the last one always stays.
        let allowed = (total * u64::from(policy.max_ejected.parts_per_million()))
            .div_ceil(1_000_000)
            .min(total.saturating_sub(1));
        if ejected >= allowed {
            return None;
        }
        let times = u64::from(peer.ejections.fetch_add(1, Relaxed)) + 1;
        let length =
            policy.base_ejection.0.saturating_mul(times).min(LONGEST_EJECTION_MS.max(policy.base_ejection.0));
        peer.ejected_until.store(now + length, Relaxed);
        Some(length)
    }

    /// Whether so few endpoints are healthy that ejections are ignored.
    pub(crate) fn panics(&self, policy: Option<&OutlierDetection>, now: u64) -> bool {
        let Some(policy) = policy.filter(|policy| policy.min_health.parts_per_million() > 0) else {
            return false;
        };
        let peers = self.peers.lock();
        let healthy = peers.values().filter(|peer| !peer.is_ejected(now)).count() as u64;
        healthy * 1_000_000 < u64::from(policy.min_health.parts_per_million()) * peers.len() as u64
    }
}

/// Counts an outcome; true when a limit is reached, which starts the count again.
fn count(peer: &PeerHealth, outcome: Outcome, policy: &OutlierDetection) -> bool {
    let local = !matches!(outcome, Outcome::Status(_));
    let split = policy.consecutive_local_failures;
    let counts_as_answer = !local || split.is_none();
    let server_error = counts_as_answer && (local || matches!(outcome, Outcome::Status(500..=599)));
    let gateway_error = counts_as_answer && (local || matches!(outcome, Outcome::Status(502..=504)));
    let mut reached = false;
    for (counter, failed, limit) in [
        (&peer.server_errors, server_error, policy.consecutive_5xx),
        (&peer.gateway_errors, gateway_error, policy.consecutive_gateway_errors),
        (&peer.local_failures, local, split.unwrap_or(0)),
    ] {
        if !failed {
            counter.store(0, Relaxed);
        } else if counter.fetch_add(1, Relaxed) + 1 >= limit && limit > 0 {
            counter.store(0, Relaxed);
            reached = true;
        }
    }
    reached
}

/// What is known of every service that this proxy calls.
#[derive(Debug, Default)]
pub(crate) struct HealthBook(Mutex<HashMap<ServiceId, Arc<ServiceHealth>>>);

impl HealthBook {
    /// What is known of a service.
    pub(crate) fn service(&self, id: &ServiceId) -> Arc<ServiceHealth> {
        self.0.lock().entry(id.clone()).or_default().clone()
    }

    /// What is known, for the admin page: by service, then by endpoint.
    pub(crate) fn snapshot(&self, now: u64) -> BTreeMap<String, BTreeMap<String, PeerSnapshot>> {
        let services = self.0.lock();
        let of = |service: &ServiceHealth| {
            let peers = service.peers.lock();
            peers.iter().map(|(uid, peer)| (uid.to_string(), peer.snapshot(now))).collect()
        };
        services.iter().map(|(id, service)| (id.to_string(), of(service))).collect()
    }

    /// Forgets services that are not loaded any more.
    pub(crate) fn retain(&self, known: impl Fn(&ServiceId) -> bool) {
        self.0.lock().retain(|id, service| known(id) || Arc::strong_count(service) > 1);
    }
}

#[cfg(test)]
mod tests {
    use leno_model::{Millis, Percent};

    use super::*;

    fn policy(max_ejected: f64) -> OutlierDetection {
        OutlierDetection {
            consecutive_5xx: 3,
            consecutive_gateway_errors: 0,
            consecutive_local_failures: None,
            interval: Millis(10_000),
            base_ejection: Millis(30_000),
            max_ejected: Percent::from_percent(max_ejected),
            min_health: Percent::NONE,
        }
    }

    fn service(peers: usize) -> (ServiceHealth, Vec<Arc<PeerHealth>>) {
        let service = ServiceHealth::default();
        let peers = (0..peers).map(|index| service.peer(&format!("pod-{index}").into())).collect();
        (service, peers)
    }

    fn fail(service: &ServiceHealth, peer: &PeerHealth, policy: &OutlierDetection, now: u64) -> Option<u64> {
        (0..3).find_map(|_| service.report(peer, Outcome::Status(500), Some(policy), now))
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_starts_the_count_again() {
        let (service, peers) = service(4);
        let policy = policy(50.0);
        for _ in 0..2 {
            assert_eq!(service.report(&peers[0], Outcome::Status(500), Some(&policy), 0), None);
        }
        service.report(&peers[0], Outcome::Status(200), Some(&policy), 0);
        assert_eq!(fail(&service, &peers[0], &policy, 0), Some(30_000));
        assert!(!peers[0].is_usable(29_999));
        assert!(peers[0].is_usable(30_000), "an ejected endpoint returns after the base time");
        assert_eq!(
            fail(&service, &peers[0], &policy, 40_000),
            Some(60_000),
            "the second time is twice as long"
        );
    }

    #[test]
    fn the_share_is_a_hard_bound_and_the_last_endpoint_is_never_ejected() {
        let (service, peers) = service(4);
        let half = policy(50.0);
        let ejected = peers.iter().filter(|peer| fail(&service, peer, &half, 0).is_some()).count();
        assert_eq!(ejected, 2);
        let (service, peers) = self::service(2);
        let all = policy(100.0);
        let ejected = peers.iter().filter(|peer| fail(&service, peer, &all, 0).is_some()).count();
        assert_eq!(ejected, 1);
        let (service, peers) = self::service(1);
        assert_eq!(fail(&service, &peers[0], &all, 0), None);
    }

    #[test]
    fn an_endpoint_that_cannot_be_reached_is_avoided_for_longer_each_time() {
        let (service, peers) = service(2);
        service.report(&peers[0], Outcome::ConnectFailed, None, 1000);
        assert!(!peers[0].is_usable(1249));
        assert!(peers[0].is_usable(1250));
        service.report(&peers[0], Outcome::ConnectFailed, None, 2000);
        assert!(!peers[0].is_usable(2499));
        service.report(&peers[0], Outcome::Status(200), None, 3000);
        service.report(&peers[0], Outcome::ConnectFailed, None, 4000);
        assert!(peers[0].is_usable(4250));
    }

    #[test]
    fn an_endpoint_that_could_not_be_reached_is_tried_by_one_attempt_first() {
        let (service, peers) = service(2);
        peers[0].chosen(1000);
        assert!(peers[0].is_usable(1000), "nothing speaks against it");
        service.report(&peers[0], Outcome::ConnectFailed, None, 1000);
        peers[0].chosen(1250);
        assert!(!peers[0].is_usable(1250));
        assert!(peers[0].is_usable(1250 + PROBE_MS), "what became of it is not waited for without end");
        service.report(&peers[0], Outcome::Status(200), None, 1300);
        peers[0].chosen(1300);
        assert!(peers[0].is_usable(1300));
    }

    #[test]
    fn attempts_that_fail_together_are_one_failure() {
        let (service, peers) = service(2);
        for _ in 0..20 {
            service.report(&peers[0], Outcome::ConnectFailed, None, 1000);
        }
        assert!(peers[0].is_usable(1250), "a busy client does not avoid it for longer than a quiet one");
    }

    #[test]
    fn local_failures_count_apart_when_they_are_told_apart() {
        let (service, peers) = service(4);
        let policy = OutlierDetection { consecutive_local_failures: Some(2), ..policy(50.0) };
        assert_eq!(service.report(&peers[0], Outcome::Broken, Some(&policy), 0), None);
        assert_eq!(service.report(&peers[0], Outcome::Broken, Some(&policy), 0), Some(30_000));
    }
}
