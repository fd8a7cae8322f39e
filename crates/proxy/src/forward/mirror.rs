//! Copies of a request whose answers are thrown away.
//!
//! Invariant: a mirror never delays or fails the request it copies; so many run at once and no more.

use std::{cell::Cell, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use http::Request;
use leno_decide::{BackendState, Tables};
use leno_model::BackendTarget;

use super::{attempts::hop_to, exchange::exchange, pool::Version};
use crate::{
    balance::cluster::Choice,
    core::Core,
    http::{Body, hop},
    preface,
    turn::Meter,
};

/// Mirrored requests in flight on one core; more are not sent.
const MOST: u32 = 128;

/// How long a mirrored request may take, answer included.
const LIMIT: Duration = Duration::from_secs(15);

thread_local! {
    static IN_FLIGHT: Cell<u32> = const { Cell::new(0) };
}

/// Sends a copy without waiting for it.
pub(crate) fn send(
    core: &Rc<Core>,
    tables: &Arc<Tables>,
    target: &BackendTarget,
    request: Request<Body>,
    version: Version,
    source: IpAddr,
) {
    if IN_FLIGHT.get() >= MOST {
        tracing::debug!("too many mirrored requests; one is not sent");
        return;
    }
    IN_FLIGHT.set(IN_FLIGHT.get() + 1);
    let (core, tables, target) = (core.clone(), tables.clone(), target.clone());
    tokio::task::spawn_local(async move {
        let done = tokio::time::timeout(LIMIT, copy(&core, &tables, &target, request, version)).await;
        IN_FLIGHT.set(IN_FLIGHT.get() - 1);
        if done.is_err() {
            tracing::debug!(%source, "a mirrored request took too long");
        }
    });
}

async fn copy(
    core: &Rc<Core>,
    tables: &Arc<Tables>,
    target: &BackendTarget,
    mut request: Request<Body>,
    version: Version,
) {
    let BackendState::Ready(ready) = tables.backend(target) else { return };
    let target = core.targets.get(core, tables, &ready);
    let rolls = (core.roll(), core.roll());
    let choice = Choice { key: None, rolls, now: core.shared.clock(), tried: &[], dialled: None };
    let Some(position) = target.cluster.choose(choice) else { return };
    let Ok(hop) = hop_to(core, &target, position, version).await else { return };
    hop::for_version(request.headers_mut(), false);
    preface::strip(request.headers_mut());
    if let Ok((response, _)) = exchange(core, &hop, request, &Meter::default()).await {
        let mut body = response.into_body();
        while let Some(Ok(_)) = body.frame().await {}
    }
}
