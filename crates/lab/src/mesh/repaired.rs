//! Says that manifests are in order again, and from which generation on: the last word about them is not their mistake.
//!
//! Invariant: it is said when the control plane has published them, not when they were saved.
//! Must not know: files.

use std::{net::SocketAddr, time::Duration};

use leno_apis::{Severity, codes};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::api;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// How long a control plane may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until it is so and says it. A control plane that is away says so itself when it is back.
pub(super) async fn tell(cluster: String, api: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let Ok(published) = api::get_json(api, "/v1/diagnostics").await else { return };
        let Ok(status) = api::get_json(api, "/v1/status").await else { return };
        if status["source_error"].is_null() && is_in_order(&published) {
            let generation = &published["generation"];
            tracing::info!(cluster, "the manifests are in order again: generation {generation} is in force");
            return;
        }
        sleep(LOOK).await;
    }
}

/// Whether all manifests could be read that are in force. What they mean is another matter.
fn is_in_order(published: &Value) -> bool {
    let error = json!(Severity::Error);
    let of_reading = |found: &&Value| found["code"].as_str().and_then(codes::meaning).is_some();
    let found = published["diagnostics"].as_array().into_iter().flatten();
    !found.filter(of_reading).any(|found| found["severity"] == error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_that_were_read_are_in_order_whatever_they_mean() {
        let of = |code: &str, severity: Severity| {
            is_in_order(&json!({"generation": 3, "diagnostics": [{"code": code, "severity": severity}]}))
        };
        assert!(!of(codes::WRONG_TYPE, Severity::Error));
        assert!(of(codes::WRONG_TYPE, Severity::Warning));
        assert!(of("LN1009", Severity::Error), "read, and refers to nothing");
        assert!(is_in_order(&json!({"generation": 1, "diagnostics": []})));
    }
}
