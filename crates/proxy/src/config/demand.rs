//! Scopes that requests ask for: subscribed to on first use, held for with a deadline, dropped when unused.
//!
//! Invariant: however many requests wait for one scope, it is asked for once; nobody waits longer than [`HOLD`].

use std::{collections::HashMap, sync::Arc, time::Duration};

use leno_model::{
    Namespace, ServiceId,
    resource::{parse_scope, scope_name},
};
use leno_xds::{client::ScopeAnswer, transport::client::Subscriber};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long the first request to a service is held.
pub(crate) const HOLD: Duration = Duration::from_secs(5);

/// A scope that nobody used for this long is dropped.
const UNUSED: Duration = Duration::from_secs(30 * 60);

/// Asks for scopes on behalf of requests.
pub(crate) struct Demand {
    subscriber: Subscriber,
    namespace: Namespace,
    used: Mutex<HashMap<Arc<str>, Instant>>,
}

/// What became of a request for a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demanded {
    /// It is in the tables, or will be with the next snapshot.
    Loaded,
    /// The control plane says that it does not exist (for this workload).
    NotFound,
    /// The control plane did not say in time.
    Unanswered,
}

impl Demand {
    /// For a workload of `namespace`.
    pub(crate) fn new(subscriber: Subscriber, namespace: Namespace) -> Self {
        Self { subscriber, namespace, used: Mutex::default() }
    }

    /// Has a scope loaded and waits for it.
    pub(crate) async fn load(&self, service: &ServiceId) -> Demanded {
        let scope: Arc<str> = scope_name(&self.namespace, service).into();
        self.used.lock().insert(scope.clone(), Instant::now());
        match self.subscriber.subscribe(scope, Instant::now() + HOLD).await {
            Ok(ScopeAnswer::Loaded) => Demanded::Loaded,
            Ok(ScopeAnswer::NotFound) => Demanded::NotFound,
            Err(_) => Demanded::Unanswered,
        }
    }

    /// Notes that services are called. Those that were never asked for stay unknown here.
    pub(crate) fn touch<'s>(&self, services: impl Iterator<Item = &'s ServiceId>) {
        let now = Instant::now();
        let mut scopes = self.used.lock();
        for service in services {
            if let Some(used) = scopes.get_mut(&*scope_name(&self.namespace, service)) {
                *used = now;
            }
        }
    }

    /// Scopes in use, to be prefetched after a restart.
    pub(crate) fn scopes(&self) -> Vec<String> {
        let mut scopes: Vec<String> = self.used.lock().keys().map(ToString::to_string).collect();
        scopes.sort();
        scopes
    }

    /// Prefetches scopes without waiting for them.
    pub(crate) fn prefetch(self: &Arc<Self>, scopes: Vec<String>) {
        for scope in scopes {
            let scope: Arc<str> = scope.into();
            self.used.lock().insert(scope.clone(), Instant::now());
            let demand = self.clone();
            tokio::spawn(async move {
                let deadline = Instant::now() + Duration::from_secs(3600);
                let _ = demand.subscriber.subscribe(scope, deadline).await;
            });
        }
    }

    /// Drops scopes that nobody uses, and tells which services they were for.
    pub(crate) fn sweep(&self) -> Vec<ServiceId> {
        let now = Instant::now();
        let mut dropped = Vec::new();
        self.used.lock().retain(|scope, used| {
            let keep = now.duration_since(*used) < UNUSED;
            if !keep {
                dropped.push(scope.clone());
            }
            keep
        });
        for scope in dropped.iter().cloned() {
            let subscriber = self.subscriber.clone();
            tokio::spawn(async move { subscriber.unsubscribe(scope).await });
        }
        dropped.iter().filter_map(|scope| parse_scope(scope)).map(|(_, service)| service).collect()
    }
}

#[cfg(test)]
mod tests {
    use leno_xds::{
        Limits, NodeInfo,
        client::ClientState,
        transport::client::{ClientConfig, subscriber},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_scope_is_dropped_when_nobody_used_it_and_not_when_it_was_first_used() {
        let node = NodeInfo {
            id: "a".into(),
            workload: "default/a".into(),
            cluster: "west".into(),
            version: "0".into(),
            features: Vec::new(),
        };
        let state = ClientState::new(Limits::default(), node, Vec::new());
        let (_runner, ends) = subscriber(state, ClientConfig::default());
        let demand = Demand::new(ends.subscriber, "default".into());
        let (busy, quiet) =
            (ServiceId::kubernetes("default", "busy"), ServiceId::kubernetes("default", "quiet"));
        for service in [&busy, &quiet] {
            assert_eq!(demand.load(service).await, Demanded::Unanswered);
        }
        tokio::time::advance(UNUSED / 2).await;
        demand.touch([&busy].into_iter());
        tokio::time::advance(UNUSED / 2 + HOLD).await;
        assert_eq!(demand.sweep(), [quiet]);
        assert_eq!(demand.scopes().len(), 1);
        tokio::time::advance(UNUSED).await;
        assert_eq!(demand.sweep(), [busy]);
    }
}
