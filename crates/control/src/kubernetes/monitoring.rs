//! What kubelet and Prometheus ask for: readiness, metrics and version. The rest of the API stays on the loopback interface.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api, Audience};

/// Serves until `stop`.
pub(crate) async fn serve(api: Arc<Api>, listener: TcpListener, stop: CancellationToken) {
    api::serve_to(Audience::Everybody, api, listener, stop).await;
}
