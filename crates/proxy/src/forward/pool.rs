//! Connections that are kept for reuse, by endpoint.
//!
//! Invariant: the key holds the peer's address *and* its instance and the handshake's name, so that a connection to a pod
//! is never used for another pod that was given the same address (PAINS P2).
//! One pool per core; nothing here is shared between threads.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::stream::Stream;
use crate::{
    balance::health::ServiceHealth,
    http::{H1Client, H2Client},
};

/// How a peer is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Version {
    /// HTTP/1.1
    H1,
    /// HTTP/2
    H2,
}

/// What makes two connections interchangeable.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct PoolKey {
    /// What is dialled.
    pub(crate) address: SocketAddr,
    /// The instance behind the address.
    pub(crate) uid: Arc<str>,
    /// The name on the handshake; empty for plaintext.
    pub(crate) name: Arc<str>,
    /// What is spoken.
    pub(crate) version: Version,
}

/// Most idle HTTP/1.1 connections that are kept for one key.
const MAX_IDLE: usize = 256;

/// Idle connections of one core.
pub(crate) struct Pool {
    me: Weak<Pool>,
    hosts: RefCell<HashMap<PoolKey, Rc<Host>>>,
}

/// The connections of one key.
pub(crate) struct Host {
    idle: RefCell<Vec<Idle>>,
    multiplexed: RefCell<Vec<(H2Client, Rc<Life>)>>,
    /// Held while an HTTP/2 connection is made, so that a burst makes one and not hundreds; when that failed last.
    pub(crate) connecting: tokio::sync::Mutex<Option<Instant>>,
    last_used: Cell<Instant>,
}

struct Idle {
    client: H1Client<Stream>,
    life: Rc<Life>,
    since: Instant,
}

/// What a connection has behind it, and what it counts against; dropped when the connection is.
pub(crate) struct Life {
    /// When it was made.
    pub(crate) born: Instant,
    /// Our end of it.
    pub(crate) local: Option<SocketAddr>,
    /// Requests so far.
    pub(crate) requests: Cell<u32>,
    /// After this long idle it is closed.
    pub(crate) idle_timeout: Duration,
    /// Older than this it is not used again.
    pub(crate) max_age: Option<Duration>,
    /// More requests than this it does not get.
    pub(crate) max_requests: Option<u32>,
    /// The destination that it counts against.
    pub(crate) of: Arc<ServiceHealth>,
    /// The slot it takes among its destination's connections.
    pub(crate) _slot: Slot,
}

/// Gives a place among a limited number back when dropped.
pub(crate) struct Slot(Option<Box<dyn FnOnce()>>);

impl Slot {
    /// Calls `release` when dropped.
    pub(crate) fn new(release: impl FnOnce() + 'static) -> Self {
        Self(Some(Box::new(release)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            release();
        }
    }
}

impl Life {
    fn may_go_on(&self, now: Instant) -> bool {
        self.max_age.is_none_or(|age| now.duration_since(self.born) < age)
            && self.max_requests.is_none_or(|most| self.requests.get() < most)
    }
}

impl Pool {
    /// An empty pool.
    pub(crate) fn new() -> Rc<Self> {
        Rc::new_cyclic(|me| Self { me: me.clone(), hosts: RefCell::default() })
    }

    /// The connections of a key.
    pub(crate) fn host(&self, key: &PoolKey) -> Rc<Host> {
        if let Some(host) = self.hosts.borrow().get(key) {
            return host.clone();
        }
        let host = Rc::new(Host {
            idle: RefCell::default(),
            multiplexed: RefCell::default(),
            connecting: tokio::sync::Mutex::default(),
            last_used: Cell::new(Instant::now()),
        });
        self.hosts.borrow_mut().insert(key.clone(), host.clone());
        host
    }

    /// An idle HTTP/1.1 connection that can be used now; the one that was used last, so that others grow old and close.
    pub(crate) fn take(&self, key: &PoolKey) -> Option<(H1Client<Stream>, Rc<Life>)> {
        let hosts = self.hosts.borrow();
        let host = hosts.get(key)?;
        let now = Instant::now();
        host.last_used.set(now);
        let mut idle = host.idle.borrow_mut();
        while let Some(Idle { client, life, since }) = idle.pop() {
            if client.is_reusable() && life.may_go_on(now) && now.duration_since(since) < life.idle_timeout {
                return Some((client, life));
            }
        }
        None
    }

    /// Closes the connection of a destination that is idle longest, so that another endpoint of it can have its place.
    pub(crate) fn close_idle(&self, of: &Arc<ServiceHealth>) {
        let oldest_of = |host: &Rc<Host>| {
            let idle = host.idle.borrow();
            let own = idle.iter().enumerate().filter(|(_, idle)| Arc::ptr_eq(&idle.life.of, of));
            own.min_by_key(|(_, idle)| idle.since).map(|(at, idle)| (idle.since, at))
        };
        let hosts = self.hosts.borrow();
        let oldest = hosts.values().filter_map(|host| Some((oldest_of(host)?, host.clone())));
        let oldest = oldest.min_by_key(|((since, _), _)| *since);
        drop(hosts);
        if let Some(((_, at), host)) = oldest {
            let closed = host.idle.borrow_mut().remove(at);
            // Dropped here, because closing a connection may come back to the pool.
            drop(closed);
        }
    }

    /// Has a connection come back here whenever an exchange on it is over.
    pub(crate) fn keep(&self, key: PoolKey, client: &H1Client<Stream>, life: Rc<Life>) {
        let pool = self.me.clone();
        client.on_idle(move |client| {
            let Some(pool) = pool.upgrade() else { return };
            let now = Instant::now();
            if !life.may_go_on(now) {
                return;
            }
            let host = pool.host(&key);
            let mut idle = host.idle.borrow_mut();
            if idle.len() < MAX_IDLE {
                idle.push(Idle { client, life: life.clone(), since: now });
            }
        });
    }

    /// A multiplexed connection with room for another request, which is counted. One that has had its time or its requests is
    /// let go: it ends when what is on it has.
    pub(crate) fn multiplexed(&self, key: &PoolKey) -> Option<(H2Client, Option<SocketAddr>)> {
        let host = self.hosts.borrow().get(key)?.clone();
        let now = Instant::now();
        host.last_used.set(now);
        let mut clients = host.multiplexed.borrow_mut();
        clients.retain(|(client, life)| client.is_usable() && life.may_go_on(now));
        let (client, life) = clients.iter().find(|(client, _)| client.in_flight() < client.max_streams())?;
        life.requests.set(life.requests.get().saturating_add(1));
        Some((client.clone(), life.local))
    }

    /// Adds a multiplexed connection.
    pub(crate) fn add_multiplexed(&self, key: &PoolKey, client: H2Client, life: Rc<Life>) {
        self.host(key).multiplexed.borrow_mut().push((client, life));
    }

    /// Closes what has been idle for too long and forgets keys that nothing uses. Called every few seconds.
    pub(crate) fn sweep(&self, multiplexed_idle: Duration) {
        let now = Instant::now();
        let mut closed = Vec::new();
        self.hosts.borrow_mut().retain(|_, host| {
            let mut idle = host.idle.borrow_mut();
            let (keep, old): (Vec<_>, Vec<_>) = std::mem::take(&mut *idle).into_iter().partition(|entry| {
                now.duration_since(entry.since) < entry.life.idle_timeout && entry.client.is_reusable()
            });
            *idle = keep;
            closed.extend(old);
            let mut clients = host.multiplexed.borrow_mut();
            let unused = now.duration_since(host.last_used.get()) > multiplexed_idle;
            clients.retain(|(client, _)| client.is_usable() && !(unused && client.in_flight() == 0));
            !idle.is_empty() || !clients.is_empty() || !unused
        });
        // Dropped here, because closing a connection may come back to the pool.
        drop(closed);
    }
}
