//! One core's part of a proxy's metrics.
//!
//! Invariant: a shard belongs to one thread (it is not `Sync`), so its cells have one writer; the lock of the
//! directory is taken only when a label set is new to this shard or was idle.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use super::{
    directory::{Cells, HttpCells, OverheadCells, TcpCells},
    labels::{Subject, Traffic},
};
use crate::{
    flags::ResponseFlags,
    record::{
        ConnectionRecord, ConnectionSecurity, PeerMeta, Reporter, RequestProtocol, RequestRecord, ServiceMeta,
    },
    telemetry::Telemetry,
};

/// Most peers a shard remembers; beyond, it forgets all.
const MOST_PEERS: usize = 4_096;

/// One core's recorder of requests and connections. Made by [`Telemetry::shard`].
pub struct Shard {
    telemetry: Arc<Telemetry>,
    number: u64,
    overhead: Arc<OverheadCells>,
    known: RefCell<Known>,
    peers: RefCell<HashSet<Arc<PeerMeta>>>,
}

/// Label sets this shard met, by what they were made of.
#[derive(Default)]
struct Known {
    epoch: u64,
    http: Memo<HttpCells>,
    tcp: Memo<TcpCells>,
}

type Memo<C> = HashMap<Key, Held<C>, BuildHasherDefault<PointerHasher>>;

/// A subject by the addresses of its parts; [`Held`] keeps them alive, so an address means one thing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    source: usize,
    destination: usize,
    service: usize,
    reporter: Reporter,
    flags: ResponseFlags,
    security: ConnectionSecurity,
    traffic: Traffic,
}

struct Held<C> {
    cells: Arc<C>,
    _keeps: (Arc<PeerMeta>, Arc<PeerMeta>, Arc<ServiceMeta>),
}

impl Shard {
    pub(crate) fn new(telemetry: Arc<Telemetry>) -> Self {
        let (number, overhead) = telemetry.directory().join();
        Self { telemetry, number, overhead, known: RefCell::default(), peers: RefCell::default() }
    }

    /// The telemetry this is a shard of.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// The shared form of a peer. Records of one peer should share it, for label sets are remembered by its address.
    pub fn intern(&self, peer: PeerMeta) -> Arc<PeerMeta> {
        let mut peers = self.peers.borrow_mut();
        if let Some(known) = peers.get(&peer) {
            return Arc::clone(known);
        }
        if peers.len() >= MOST_PEERS {
            peers.clear();
        }
        let peer = Arc::new(peer);
        peers.insert(Arc::clone(&peer));
        peer
    }

    /// Records a finished request: metrics now, log line and span (if wanted) elsewhere.
    pub fn request(&self, record: RequestRecord) {
        self.count_request(&record);
        self.count_overhead(&record);
        self.telemetry.pass_on_request(record);
    }

    /// Records that a connection was opened.
    pub fn connection_opened(&self, record: &ConnectionRecord) {
        self.count_connection(record, |cells| cells.opened.add(1));
    }

    /// Records bytes of a connection that goes on. What is reported here is left out of the record of its end.
    pub fn connection_progress(&self, record: &ConnectionRecord, received: u64, sent: u64) {
        self.count_connection(record, |cells| {
            cells.received.add(received);
            cells.sent.add(sent);
        });
    }

    /// Records the end of a connection. `reported` are the bytes received and sent that
    /// [`Shard::connection_progress`] was told of.
    pub fn connection_closed(&self, record: ConnectionRecord, reported: (u64, u64)) {
        self.count_connection(&record, |cells| {
            cells.closed.add(1);
            cells.received.add(record.bytes_received.saturating_sub(reported.0));
            cells.sent.add(record.bytes_sent.saturating_sub(reported.1));
        });
        self.telemetry.pass_on_connection(record);
    }

    fn count_request(&self, record: &RequestRecord) {
        let is_grpc = record.protocol == RequestProtocol::Grpc;
        let traffic = Traffic::Http {
            protocol: record.protocol,
            code: record.response_code,
            grpc_status: if is_grpc { record.grpc_status } else { None },
        };
        let subject = Parts {
            source: &record.source,
            destination: &record.destination,
            service: &record.service,
            reporter: record.reporter,
            flags: record.flags,
            security: record.security,
            traffic,
        };
        let micros = u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX);
        let directory = self.telemetry.directory();
        self.with(
            &subject,
            |known| &mut known.http,
            |cells| {
                cells.requests.add(1);
                cells.duration.record(&directory.millis, micros);
                cells.request_bytes.record(&directory.bytes, record.bytes_received);
                cells.response_bytes.record(&directory.bytes, record.bytes_sent);
                if is_grpc {
                    cells.request_messages.add(record.request_messages);
                    cells.response_messages.add(record.response_messages);
                }
            },
        );
    }

    fn count_overhead(&self, record: &RequestRecord) {
        let total = record.overhead.total();
        if total == 0 {
            return;
        }
        let buckets = &self.telemetry.directory().overhead;
        let cells = match record.reporter {
            Reporter::Source => &self.overhead.client,
            Reporter::Destination => &self.overhead.server,
        };
        let steps = record.overhead.steps().map(|(_, nanos)| nanos).chain([total]);
        for (histogram, nanos) in cells.iter().zip(steps).filter(|(_, nanos)| *nanos > 0) {
            histogram.record(buckets, nanos);
        }
        if let Some(micros) = record.peer_overhead {
            self.overhead.both.record(buckets, total.saturating_add(micros.saturating_mul(1_000)));
        }
    }

    fn count_connection(&self, record: &ConnectionRecord, count: impl FnOnce(&TcpCells)) {
        let subject = Parts {
            source: &record.source,
            destination: &record.destination,
            service: &record.service,
            reporter: record.reporter,
            flags: record.flags,
            security: record.security,
            traffic: Traffic::Tcp,
        };
        self.with(&subject, |known| &mut known.tcp, count);
    }

    fn with<C: Cells>(
        &self,
        parts: &Parts<'_>,
        memo: impl Fn(&mut Known) -> &mut Memo<C>,
        count: impl FnOnce(&C),
    ) {
        let directory = self.telemetry.directory();
        let mut known = self.known.borrow_mut();
        let epoch = directory.epoch();
        if known.epoch != epoch {
            *known = Known { epoch, ..Known::default() };
        }
        let memo = memo(&mut known);
        let key = parts.key();
        if let Some(held) = memo.get(&key).filter(|held| !held.cells.is_idle()) {
            return count(&held.cells);
        }
        if memo.len() >= directory.budget().max(1) {
            memo.clear();
        }
        let cells = directory.resolve::<C>(self.number, &parts.subject());
        count(&cells);
        let keeps = (Arc::clone(parts.source), Arc::clone(parts.destination), Arc::clone(parts.service));
        memo.insert(key, Held { cells, _keeps: keeps });
    }
}

/// What a record says about its series.
struct Parts<'a> {
    source: &'a Arc<PeerMeta>,
    destination: &'a Arc<PeerMeta>,
    service: &'a Arc<ServiceMeta>,
    reporter: Reporter,
    flags: ResponseFlags,
    security: ConnectionSecurity,
    traffic: Traffic,
}

impl Parts<'_> {
    fn key(&self) -> Key {
        Key {
            source: Arc::as_ptr(self.source).addr(),
            destination: Arc::as_ptr(self.destination).addr(),
            service: Arc::as_ptr(self.service).addr(),
            reporter: self.reporter,
            flags: self.flags,
            security: self.security,
            traffic: self.traffic,
        }
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            reporter: self.reporter,
            source: self.source,
            destination: self.destination,
            service: self.service,
            flags: self.flags,
            security: self.security,
            traffic: self.traffic,
        }
    }
}

/// A quick hash of addresses and small numbers. No peer chooses them, and the map is bounded.
#[derive(Default)]
struct PointerHasher(u64);

impl Hasher for PointerHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        // The high bits are the well mixed ones; the map uses both ends.
        self.0 ^ (self.0 >> 32)
    }
}
