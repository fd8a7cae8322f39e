//! One request over one connection to one endpoint: a pooled one, or a new one.
//!
//! Invariant: an error says whether the request can have reached the application; a request that certainly did not comes
//! back with the error when it can be sent again.

use std::{cell::Cell, net::SocketAddr, rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};

use http::{Request, Response, uri::Scheme};
use tokio::time::Instant;

use super::{
    connect::{ConnectError, Security, Within, connect},
    guarded::holding,
    pool::{Life, PoolKey, Slot, Version},
};
use crate::{
    balance::health::ServiceHealth,
    core::Core,
    http::{Body, Delivery, H1Client, H2Client, SendError},
    turn::{self, Meter},
};

/// A pooled connection may prove dead as it is used; so often another one is tried before a fresh one.
const STALE_TRIES: usize = 2;

/// One endpoint, and how to get there.
pub(crate) struct Hop {
    /// What makes connections to it interchangeable.
    pub(crate) key: PoolKey,
    /// How to secure a new one.
    pub(crate) security: Security,
    /// Time to connect.
    pub(crate) within: Within,
    /// How long a connection may be idle.
    pub(crate) idle: Duration,
    /// How old it may become.
    pub(crate) max_age: Option<Duration>,
    /// How many requests it may carry.
    pub(crate) max_requests: Option<u32>,
    /// Most connections to the service.
    pub(crate) max_connections: u32,
    /// Most requests that wait for one.
    pub(crate) max_pending: u32,
    /// The service's counters.
    pub(crate) health: std::sync::Arc<ServiceHealth>,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum HopError {
    /// No connection could be made; the request never left.
    Connect(ConnectError),
    /// The destination's limit of connections or waiting requests is reached; the request never left.
    Overflow,
    /// The request was sent, or began to be.
    Send(Delivery, SendError),
}

/// A response's head, and our end of the connection that it came on.
pub(crate) type Answer = (Response<Body>, Option<SocketAddr>);

/// Sends a request and waits for the response's head. What this costs us, connecting apart, goes to the meter.
pub(crate) async fn exchange(
    core: &Rc<Core>,
    hop: &Hop,
    mut request: Request<Body>,
    meter: &Meter,
) -> Result<Answer, HopError> {
    match hop.key.version {
        Version::H1 => {
            for _ in 0..STALE_TRIES {
                let Some((client, life)) = core.pool.take(&hop.key) else { break };
                life.requests.set(life.requests.get() + 1);
                match meter.of(client.send(request)).await {
                    Ok(response) => return Ok(in_its_place(response, life)),
                    Err(SendError { delivery: Delivery::NotSent, request: Some(back), .. }) => {
                        request = *back
                    }
                    Err(error) => return Err(HopError::Send(error.delivery, error)),
                }
            }
            let (client, life) = fresh_h1(core, hop).await?;
            life.requests.set(life.requests.get() + 1);
            let sent = meter.of(client.send(request)).await;
            sent.map(|response| in_its_place(response, life))
                .map_err(|error| HopError::Send(error.delivery, error))
        }
        Version::H2 => {
            for _ in 0..STALE_TRIES {
                let (client, local) = multiplexed(core, hop).await?;
                match meter.of(client.send(request)).await {
                    Ok(response) => return Ok((response, local)),
                    Err(SendError { delivery: Delivery::NotSent, request: Some(back), .. }) => {
                        request = *back
                    }
                    Err(error) => return Err(HopError::Send(error.delivery, error)),
                }
            }
            let (client, local) = multiplexed(core, hop).await?;
            let sent = meter.of(client.send(request)).await;
            sent.map(|response| (response, local)).map_err(|error| HopError::Send(error.delivery, error))
        }
    }
}

/// A connection that becomes a tunnel leaves its pool, and keeps its place among the destination's connections.
fn in_its_place(response: Response<Body>, life: Rc<Life>) -> Answer {
    let local = life.local;
    let upgraded = response.body().is_upgraded();
    (if upgraded { response.map(|body| holding(body, life)) } else { response }, local)
}

async fn fresh_h1(
    core: &Rc<Core>,
    hop: &Hop,
) -> Result<(H1Client<super::stream::Stream>, Rc<Life>), HopError> {
    let slot = slot(core, hop).await?;
    let slot = match slot {
        Place::New(slot) => slot,
        Place::Reused(client, life) => return Ok((client, life)),
    };
    let stream = connect(hop.key.address, &hop.security, hop.within).await.map_err(HopError::Connect)?;
    let life = life(hop, slot, stream.local());
    let client = H1Client::new(stream, core.client.clone());
    core.pool.keep(hop.key.clone(), &client, life.clone());
    Ok((client, life))
}

async fn multiplexed(core: &Rc<Core>, hop: &Hop) -> Result<(H2Client, Option<SocketAddr>), HopError> {
    if let Some(found) = core.pool.multiplexed(&hop.key) {
        return Ok(found);
    }
    let host = core.pool.host(&hop.key);
    let asked = Instant::now();
    let mut failed_at = host.connecting.lock().await;
    if let Some(found) = core.pool.multiplexed(&hop.key) {
        return Ok(found);
    }
    if failed_at.is_some_and(|failed| failed >= asked) {
        // What was waited for has failed; those who wait do not try one after another.
        return Err(HopError::Connect(ConnectError::Timeout(hop.key.address)));
    }
    let slot = take_slot(hop).ok_or(HopError::Overflow)?;
    let connected = connect(hop.key.address, &hop.security, hop.within).await;
    *failed_at = connected.is_err().then(Instant::now);
    let stream = connected.map_err(HopError::Connect)?;
    let scheme = if matches!(hop.security, Security::Plain) { Scheme::HTTP } else { Scheme::HTTPS };
    let address = hop.key.address;
    let failed = |error: h2::Error| {
        let source = error.into_io().unwrap_or_else(|| std::io::Error::other("the HTTP/2 handshake failed"));
        HopError::Connect(ConnectError::Tcp { address, source })
    };
    let settings = match &hop.security {
        Security::Mesh { .. } => &core.mesh_client,
        Security::Plain | Security::Outside { .. } => &core.client,
    };
    let life = life(hop, slot, stream.local());
    let (client, driver) = H2Client::handshake(stream, scheme, settings).await.map_err(failed)?;
    let local = life.local;
    life.requests.set(1);
    core.pool.add_multiplexed(&hop.key, client.clone(), life.clone());
    tokio::task::spawn_local(turn::in_turns(None, async move {
        if let Err(error) = driver.await {
            tracing::debug!(%address, %error, "a connection ended");
        }
        drop(life);
    }));
    Ok((client, local))
}

fn life(hop: &Hop, slot: Slot, local: Option<SocketAddr>) -> Rc<Life> {
    Rc::new(Life {
        born: Instant::now(),
        local,
        requests: Cell::new(0),
        idle_timeout: hop.idle,
        max_age: hop.max_age,
        max_requests: hop.max_requests,
        of: hop.health.clone(),
        _slot: slot,
    })
}

enum Place {
    New(Slot),
    Reused(H1Client<super::stream::Stream>, Rc<Life>),
}

/// A place among the destination's connections; when all are taken, waits for one that becomes idle.
async fn slot(core: &Rc<Core>, hop: &Hop) -> Result<Place, HopError> {
    if let Some(slot) = take_slot(hop) {
        return Ok(Place::New(slot));
    }
    if hop.health.pending.fetch_add(1, Relaxed) >= hop.max_pending {
        hop.health.pending.fetch_sub(1, Relaxed);
        return Err(HopError::Overflow);
    }
    let health = hop.health.clone();
    let _waiting = Slot::new(move || _ = health.pending.fetch_sub(1, Relaxed));
    let deadline = Instant::now() + hop.within.all;
    // Idle ones to other endpoints of the destination must not keep this one from having any.
    core.pool.close_idle(&hop.health);
    while Instant::now() < deadline {
        if let Some((client, life)) = core.pool.take(&hop.key) {
            return Ok(Place::Reused(client, life));
        }
        if let Some(slot) = take_slot(hop) {
            return Ok(Place::New(slot));
        }
        // Only a destination whose connection limit is reached comes here.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Err(HopError::Overflow)
}

/// A place among the destination's connections, if there is one.
pub(crate) fn take_slot(hop: &Hop) -> Option<Slot> {
    let before = hop.health.connections.fetch_add(1, Relaxed);
    let health = hop.health.clone();
    let slot = Slot::new(move || _ = health.connections.fetch_sub(1, Relaxed));
    (before < hop.max_connections).then_some(slot)
}
