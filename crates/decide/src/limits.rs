//! The limits in force towards a destination: what the user wrote, and bounded defaults for the rest.
//!
//! Envoy's default is "no limit"; ours is a number that a healthy service does not reach and that keeps one that hangs from
//! taking the caller's memory with it. `explain` prints these effective numbers (PAINS P15: they are per client proxy).

use leno_model::{ConnectionLimits, Millis};
use serde::Serialize;

/// Effective limits, per proxy and destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Limits {
    /// Open connections; default 1,024.
    pub max_connections: u32,
    /// Time to connect; default 10 s (Istio's).
    pub connect_timeout: Millis,
    /// A TCP connection without bytes for this long is closed; default 1 h (Istio's).
    pub tcp_idle_timeout: Millis,
    /// A connection older than this is closed; default: never.
    pub max_connection_duration: Option<Millis>,
    /// Requests that wait for a connection; default 1,024.
    pub max_pending_requests: u32,
    /// Requests at once; default 8,192.
    pub max_requests: u32,
    /// Requests on one connection; default (and a written 0): no limit.
    pub max_requests_per_connection: Option<u32>,
    /// Retries at once; default: as many as requests. The budget also holds.
    pub max_retries: u32,
    /// An HTTP connection without requests for this long is closed; default 1 h (Istio's).
    pub http_idle_timeout: Millis,
}

/// Of the requests in flight, this share may be retries.
pub const RETRY_BUDGET_PERCENT: u32 = 20;

/// This many retries are always within the budget.
pub const RETRY_BUDGET_MINIMUM: u32 = 3;

const HOUR: Millis = Millis(3_600_000);

impl Limits {
    /// The limits in force.
    pub fn of(limits: &ConnectionLimits) -> Self {
        let ConnectionLimits {
            max_connections,
            connect_timeout,
            tcp_idle_timeout,
            max_connection_duration,
            max_pending_requests,
            max_requests,
            max_requests_per_connection,
            max_retries,
            http_idle_timeout,
        } = limits;
        let max_requests = max_requests.unwrap_or(8192);
        Self {
            max_connections: max_connections.unwrap_or(1024),
            connect_timeout: connect_timeout.unwrap_or(Millis(10_000)),
            tcp_idle_timeout: tcp_idle_timeout.unwrap_or(HOUR),
            max_connection_duration: max_connection_duration.filter(|duration| duration.0 > 0),
            max_pending_requests: max_pending_requests.unwrap_or(1024),
            max_requests,
            max_requests_per_connection: max_requests_per_connection.filter(|requests| *requests > 0),
            max_retries: max_retries.unwrap_or(max_requests),
            http_idle_timeout: http_idle_timeout.unwrap_or(HOUR),
        }
    }
}

/// What may be sent once more, given how much is being repeated already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// Anything.
    Enough,
    /// The budget is used up: only what certainly never reached the application, which has had no work of it.
    OnlyUndelivered,
    /// Nothing: `maxRetries` is reached.
    None,
}

/// The room for one more retry, given the requests and retries in flight.
pub fn room(limits: &Limits, requests: u32, retries: u32) -> Room {
    let share = u64::from(requests) * u64::from(RETRY_BUDGET_PERCENT) / 100;
    if retries >= limits.max_retries {
        Room::None
    } else if u64::from(retries) >= share.max(u64::from(RETRY_BUDGET_MINIMUM)) {
        Room::OnlyUndelivered
    } else {
        Room::Enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_wrote_replaces_the_default() {
        let written = ConnectionLimits { max_connections: Some(1), ..ConnectionLimits::default() };
        let limits = Limits::of(&written);
        assert_eq!(limits.max_connections, 1);
        assert_eq!(limits.connect_timeout, Millis(10_000));
    }

    #[test]
    fn the_budget_is_a_share_of_the_requests_but_never_below_its_minimum() {
        let limits = Limits::of(&ConnectionLimits::default());
        assert_eq!(room(&limits, 1, 2), Room::Enough);
        assert_eq!(room(&limits, 1, 3), Room::OnlyUndelivered);
        assert_eq!(room(&limits, 100, 19), Room::Enough);
        assert_eq!(room(&limits, 100, 20), Room::OnlyUndelivered);
    }

    #[test]
    fn what_the_user_wrote_bounds_every_retry() {
        let written = ConnectionLimits { max_retries: Some(2), ..ConnectionLimits::default() };
        assert_eq!(room(&Limits::of(&written), 100, 1), Room::Enough);
        assert_eq!(room(&Limits::of(&written), 100, 2), Room::None);
    }
}
