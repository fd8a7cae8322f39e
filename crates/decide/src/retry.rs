//! Whether another attempt is worth it, and when.
//!
//! The `safe` profile (PAINS P7): what certainly never reached the application may always be repeated. What may have reached
//! it is repeated only when the rule lists the condition and either the request is idempotent or the user wrote the
//! conditions; and then a request that is not idempotent is repeated once at most.
//! The budget keeps a service that fails from being asked more and more. It counts nothing against what never reached it, of
//! which hundreds may come at once when one of its endpoints ends.
//! Invariant: no answer is "yes" beyond the policy's attempts or without room. Must not know: bodies, connections, time.

use leno_model::{Millis, RetryCondition, RetryPolicy};

use crate::{limits::Room, route::scale};

/// How an attempt ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttemptOutcome {
    /// No byte of the request was sent: no endpoint, no connection free, a broken pooled connection.
    NotSent,
    /// The connection could not be made.
    ConnectFailure,
    /// The peer refused the stream unprocessed (HTTP/2 REFUSED_STREAM, or above the last stream of a GOAWAY).
    Refused,
    /// A verified mesh peer says that the application never saw the request.
    NotDelivered,
    /// The connection or stream broke before a response.
    Reset {
        /// Whether any byte of the request had been sent.
        may_be_delivered: bool,
    },
    /// A response.
    Status {
        /// HTTP status.
        code: u16,
        /// gRPC status, when the response has one in its head (trailers-only).
        grpc: Option<u8>,
    },
    /// The limit of one attempt passed.
    PerTryTimeout,
}

/// The decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// No; the outcome is the answer.
    No(NoRetry),
    /// Yes, after a pause of at most this ([`pause`]).
    Yes {
        /// Upper bound of the pause.
        backoff: Millis,
    },
    /// Not now, for many wait: to be asked again after a pause of at most this, a bounded number of times.
    Later {
        /// Upper bound of the pause.
        backoff: Millis,
    },
}

/// Why there is no other attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoRetry {
    /// The outcome is not a failure that the policy names.
    NotRetriable,
    /// All attempts are used, or the policy has none.
    AttemptsUsed,
    /// The retry budget or `maxRetries` is used up.
    OverBudget,
    /// It may have reached the application, and may not be done twice.
    NotIdempotent,
}

/// Whether doing a request twice is doing it once (RFC 9110 9.2.2, or the client gave an `idempotency-key`).
pub fn is_idempotent(method: &str, has_idempotency_key: bool) -> bool {
    has_idempotency_key || matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// Decides about another attempt. `retries` is the number of retries so far.
pub fn retry(
    policy: &RetryPolicy,
    idempotent: bool,
    outcome: AttemptOutcome,
    retries: u8,
    room: Room,
) -> Retry {
    let undelivered = match outcome {
        AttemptOutcome::NotSent
        | AttemptOutcome::ConnectFailure
        | AttemptOutcome::Refused
        | AttemptOutcome::NotDelivered
        | AttemptOutcome::Reset { may_be_delivered: false } => true,
        AttemptOutcome::Reset { may_be_delivered: true }
        | AttemptOutcome::Status { .. }
        | AttemptOutcome::PerTryTimeout => false,
    };
    if !undelivered && !policy.on.iter().any(|condition| covers(*condition, outcome)) {
        return Retry::No(NoRetry::NotRetriable);
    }
    if retries >= policy.attempts {
        return Retry::No(NoRetry::AttemptsUsed);
    }
    if !undelivered && !idempotent && (!policy.explicit || retries > 0) {
        return Retry::No(NoRetry::NotIdempotent);
    }
    let backoff = bound(policy.backoff, retries);
    match room {
        Room::Enough => Retry::Yes { backoff },
        Room::OnlyUndelivered if undelivered => Retry::Yes { backoff },
        // Connections break together when a process ends; that says nothing of what is left of the service.
        Room::OnlyUndelivered if matches!(outcome, AttemptOutcome::Reset { .. }) => Retry::Later { backoff },
        Room::OnlyUndelivered | Room::None => Retry::No(NoRetry::OverBudget),
    }
}

/// envoy: the base doubled for each retry, at most ten times the base.
fn bound(base: Millis, retries: u8) -> Millis {
    let factor = 1_u64.checked_shl(u32::from(retries)).unwrap_or(u64::MAX).min(10);
    Millis(base.0.saturating_mul(factor))
}

/// The pause for a uniform roll: full jitter, anything from nothing to the bound.
pub fn pause(bound: Millis, roll: u64) -> Millis {
    Millis(scale(roll, bound.0.saturating_add(1)))
}

/// Whether a condition speaks of an outcome that may have been delivered.
fn covers(condition: RetryCondition, outcome: AttemptOutcome) -> bool {
    let (code, grpc) = match outcome {
        AttemptOutcome::Status { code, grpc } => (Some(code), grpc),
        // envoy: an attempt that timed out counts as a 504.
        AttemptOutcome::PerTryTimeout => (Some(504), None),
        AttemptOutcome::NotSent
        | AttemptOutcome::ConnectFailure
        | AttemptOutcome::Refused
        | AttemptOutcome::NotDelivered
        | AttemptOutcome::Reset { .. } => (None, None),
    };
    let is_reset = matches!(outcome, AttemptOutcome::Reset { .. });
    match condition {
        RetryCondition::ConnectFailure
        | RetryCondition::RefusedStream
        | RetryCondition::ResetBeforeRequest => false,
        RetryCondition::Reset => is_reset,
        RetryCondition::ServerError => is_reset || code.is_some_and(|code| (500..600).contains(&code)),
        RetryCondition::GatewayError => is_reset || matches!(code, Some(502..=504)),
        RetryCondition::Conflict => code == Some(409),
        RetryCondition::Status(wanted) => code == Some(wanted),
        RetryCondition::Cancelled => grpc == Some(1),
        RetryCondition::DeadlineExceeded => grpc == Some(4),
        RetryCondition::ResourceExhausted => grpc == Some(8),
        RetryCondition::Internal => grpc == Some(13),
        RetryCondition::Unavailable => grpc == Some(14),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAYBE: AttemptOutcome = AttemptOutcome::Reset { may_be_delivered: true };
    const STATUS_503: AttemptOutcome = AttemptOutcome::Status { code: 503, grpc: None };

    fn explicit() -> RetryPolicy {
        RetryPolicy { attempts: 3, explicit: true, ..RetryPolicy::safe() }
    }

    #[test]
    fn what_never_reached_the_application_is_repeated_whatever_the_method() {
        let none_listed = RetryPolicy { on: Vec::new(), ..RetryPolicy::safe() };
        for outcome in [
            AttemptOutcome::NotSent,
            AttemptOutcome::ConnectFailure,
            AttemptOutcome::Refused,
            AttemptOutcome::NotDelivered,
            AttemptOutcome::Reset { may_be_delivered: false },
        ] {
            assert_eq!(
                retry(&none_listed, false, outcome, 0, Room::Enough),
                Retry::Yes { backoff: Millis(25) }
            );
            assert_eq!(
                retry(&none_listed, false, outcome, 1, Room::Enough),
                Retry::Yes { backoff: Millis(50) }
            );
        }
    }

    #[test]
    fn the_safe_profile_never_repeats_a_post_that_may_have_been_delivered() {
        for outcome in [MAYBE, STATUS_503, AttemptOutcome::PerTryTimeout] {
            assert!(
                matches!(retry(&RetryPolicy::safe(), false, outcome, 0, Room::Enough), Retry::No(_)),
                "{outcome:?}"
            );
        }
        assert_eq!(
            retry(&RetryPolicy::safe(), false, STATUS_503, 0, Room::Enough),
            Retry::No(NoRetry::NotIdempotent)
        );
    }

    #[test]
    fn a_post_is_repeated_once_when_the_user_wrote_the_conditions() {
        assert!(matches!(retry(&explicit(), false, STATUS_503, 0, Room::Enough), Retry::Yes { .. }));
        assert_eq!(retry(&explicit(), false, STATUS_503, 1, Room::Enough), Retry::No(NoRetry::NotIdempotent));
        assert!(matches!(retry(&explicit(), true, STATUS_503, 2, Room::Enough), Retry::Yes { .. }));
    }

    #[test]
    fn retries_stop_at_the_attempts_and_the_budget() {
        assert_eq!(retry(&explicit(), true, MAYBE, 3, Room::Enough), Retry::No(NoRetry::AttemptsUsed));
        assert_eq!(retry(&explicit(), true, MAYBE, 0, Room::None), Retry::No(NoRetry::OverBudget));
        assert_eq!(
            retry(&RetryPolicy::never(), true, AttemptOutcome::NotSent, 0, Room::Enough),
            Retry::No(NoRetry::AttemptsUsed)
        );
    }

    #[test]
    fn the_budget_holds_for_what_may_have_been_delivered_only() {
        let full = Room::OnlyUndelivered;
        let safe = RetryPolicy::safe();
        for outcome in [AttemptOutcome::NotSent, AttemptOutcome::ConnectFailure, AttemptOutcome::NotDelivered]
        {
            assert!(matches!(retry(&safe, false, outcome, 0, full), Retry::Yes { .. }), "{outcome:?}");
            assert_eq!(retry(&safe, false, outcome, 2, full), Retry::No(NoRetry::AttemptsUsed));
            assert_eq!(retry(&safe, false, outcome, 0, Room::None), Retry::No(NoRetry::OverBudget));
        }
        assert_eq!(retry(&safe, true, STATUS_503, 0, full), Retry::No(NoRetry::OverBudget));
        assert_eq!(retry(&safe, true, MAYBE, 0, full), Retry::Later { backoff: Millis(25) });
        assert_eq!(retry(&safe, false, MAYBE, 0, full), Retry::No(NoRetry::NotIdempotent));
    }

    #[test]
    fn only_listed_outcomes_are_retried() {
        let ok = AttemptOutcome::Status { code: 200, grpc: None };
        let error = AttemptOutcome::Status { code: 500, grpc: None };
        let unavailable = AttemptOutcome::Status { code: 200, grpc: Some(14) };
        assert_eq!(retry(&RetryPolicy::safe(), true, ok, 0, Room::Enough), Retry::No(NoRetry::NotRetriable));
        assert_eq!(
            retry(&RetryPolicy::safe(), true, error, 0, Room::Enough),
            Retry::No(NoRetry::NotRetriable)
        );
        assert!(matches!(retry(&RetryPolicy::safe(), true, unavailable, 0, Room::Enough), Retry::Yes { .. }));
        let gateway = RetryPolicy { on: vec![RetryCondition::GatewayError], ..explicit() };
        assert!(matches!(
            retry(&gateway, true, AttemptOutcome::PerTryTimeout, 0, Room::Enough),
            Retry::Yes { .. }
        ));
    }

    #[test]
    fn the_pause_has_full_jitter_and_a_ceiling() {
        assert_eq!(bound(Millis(25), 9), Millis(250));
        assert_eq!(pause(Millis(250), u64::MAX), Millis(250));
        assert_eq!(pause(Millis(250), 0), Millis(0));
    }

    #[test]
    fn an_idempotency_key_makes_a_post_idempotent() {
        assert!(!is_idempotent("POST", false));
        assert!(is_idempotent("POST", true));
        assert!(is_idempotent("DELETE", false));
    }
}
