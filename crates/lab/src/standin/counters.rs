//! What a stand-in has counted.
//!
//! Invariant: a request is counted when its head is answered; bodies and upgrades may still run.
//! Must not know: who reads the numbers.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::Serialize;

use super::calls::CallReport;

/// A copy of the numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// HTTP and gRPC requests answered, health checks apart.
    pub requests: u64,
    /// Of these, gRPC.
    pub grpc_requests: u64,
    /// Health checks answered, HTTP and gRPC.
    pub health_checks: u64,
    /// Answers by HTTP status.
    pub by_status: BTreeMap<u16, u64>,
    /// Connections accepted.
    pub connections: u64,
    /// Connections open.
    pub open_connections: u64,
    /// Calls made, by name.
    pub calls: BTreeMap<String, CallCounters>,
}

/// The calls of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallCounters {
    /// Calls that succeeded.
    pub succeeded: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Why the last failure failed.
    pub last_error: Option<String>,
}

#[derive(Default)]
pub(super) struct Counting(Mutex<Counters>);

impl Counting {
    pub(super) fn snapshot(&self) -> Counters {
        self.0.lock().clone()
    }

    pub(super) fn answered(&self, status: u16, grpc: bool, health: bool) {
        let mut counters = self.0.lock();
        if health {
            counters.health_checks += 1;
            return;
        }
        counters.requests += 1;
        counters.grpc_requests += u64::from(grpc);
        *counters.by_status.entry(status).or_default() += 1;
    }

    pub(super) fn opened(&self) {
        let mut counters = self.0.lock();
        counters.connections += 1;
        counters.open_connections += 1;
    }

    pub(super) fn closed(&self) {
        self.0.lock().open_connections -= 1;
    }

    pub(super) fn called(&self, report: &CallReport) {
        let mut counters = self.0.lock();
        let call = counters.calls.entry(report.name.clone()).or_default();
        match &report.error {
            None => call.succeeded += 1,
            Some(error) => {
                call.failed += 1;
                call.last_error = Some(error.clone());
            }
        }
    }
}
