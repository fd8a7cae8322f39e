//! All traffic series of one proxy: which label sets exist, within a budget, until they are idle (PAINS P21).
//!
//! A series here is one label set: it shows as one line in each counter family and one histogram in each histogram
//! family. Beyond the budget, records go to the `overflow` series of their reporter and protocol.
//! Invariant: what a shard counted is rendered; a series is removed only after two sweeps without a change, the first
//! of which tells shards to resolve it again, so no count is lost between them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;

use super::{
    buckets::{Buckets, HistogramTotal, LocalHistogram},
    cell::Cell,
    labels::{LabelSet, Subject},
    names,
    registry::Counter,
    text,
};
use crate::overhead::Step;

/// The cells of one HTTP label set in one shard.
#[derive(Debug)]
pub(crate) struct HttpCells {
    pub(crate) requests: Cell,
    pub(crate) duration: LocalHistogram,
    pub(crate) request_bytes: LocalHistogram,
    pub(crate) response_bytes: LocalHistogram,
    pub(crate) request_messages: Cell,
    pub(crate) response_messages: Cell,
    idle: AtomicBool,
}

/// The cells of one TCP label set in one shard.
#[derive(Debug, Default)]
pub(crate) struct TcpCells {
    pub(crate) opened: Cell,
    pub(crate) closed: Cell,
    pub(crate) sent: Cell,
    pub(crate) received: Cell,
    idle: AtomicBool,
}

/// The overhead histograms of one shard: by side, each step and then their total; and both hops together.
#[derive(Debug)]
pub(crate) struct OverheadCells {
    pub(crate) client: Vec<LocalHistogram>,
    pub(crate) server: Vec<LocalHistogram>,
    pub(crate) both: LocalHistogram,
}

/// What the directory must know about the cells of a series.
pub(crate) trait Cells {
    fn new(directory: &Directory) -> Self;
    /// A number that changes whenever something is recorded.
    fn activity(&self) -> u64;
    /// Set when the series may be removed: its shards must resolve it again.
    fn idle(&self) -> &AtomicBool;
    fn is_idle(&self) -> bool {
        self.idle().load(Relaxed)
    }
    fn family(state: &mut State) -> &mut Family<Self>
    where
        Self: Sized;
}

impl Cells for HttpCells {
    fn new(directory: &Directory) -> Self {
        Self {
            requests: Cell::default(),
            duration: LocalHistogram::new(&directory.millis),
            request_bytes: LocalHistogram::new(&directory.bytes),
            response_bytes: LocalHistogram::new(&directory.bytes),
            request_messages: Cell::default(),
            response_messages: Cell::default(),
            idle: AtomicBool::new(false),
        }
    }

    fn activity(&self) -> u64 {
        self.requests.value()
    }

    fn idle(&self) -> &AtomicBool {
        &self.idle
    }

    fn family(state: &mut State) -> &mut Family<Self> {
        &mut state.http
    }
}

impl Cells for TcpCells {
    fn new(_: &Directory) -> Self {
        Self::default()
    }

    fn activity(&self) -> u64 {
        let sums = [&self.opened, &self.closed, &self.sent, &self.received];
        sums.iter().fold(0, |sum, cell| sum.wrapping_add(cell.value()))
    }

    fn idle(&self) -> &AtomicBool {
        &self.idle
    }

    fn family(state: &mut State) -> &mut Family<Self> {
        &mut state.tcp
    }
}

/// Series of one kind, ordered by their labels.
pub(crate) type Family<C> = BTreeMap<LabelSet, Entry<C>>;

/// One series: its cells in each shard that met it.
#[derive(Debug)]
pub(crate) struct Entry<C> {
    cells: Vec<(u64, Arc<C>)>,
    is_overflow: bool,
    activity: u64,
    changed_at: Option<SystemTime>,
}

#[derive(Default, Debug)]
pub(crate) struct State {
    http: Family<HttpCells>,
    tcp: Family<TcpCells>,
    overflow_entries: usize,
    overhead: Vec<Arc<OverheadCells>>,
    next_shard: u64,
}

/// All traffic series of one proxy.
#[derive(Debug)]
pub(crate) struct Directory {
    /// For durations: recorded in microseconds, shown in milliseconds.
    pub(crate) millis: Buckets,
    /// For sizes.
    pub(crate) bytes: Buckets,
    /// For our own overhead: recorded in nanoseconds, shown in seconds.
    pub(crate) overhead: Buckets,
    budget: usize,
    idle_after: Duration,
    /// Changes when series were removed, so that shards forget what they sent to `overflow`.
    epoch: AtomicU64,
    overflowed: Counter,
    state: Mutex<State>,
}

impl Directory {
    pub(crate) fn new(budget: usize, idle_after: Duration, bounds: &[f64], overflowed: Counter) -> Self {
        Self {
            millis: Buckets::new(bounds, 1_000),
            bytes: Buckets::new(bounds, 1),
            overhead: Buckets::new(&names::OVERHEAD_BUCKETS, 1_000_000_000),
            budget,
            idle_after,
            epoch: AtomicU64::new(0),
            overflowed,
            state: Mutex::default(),
        }
    }

    /// Most series there may be, `overflow` left aside.
    pub(crate) fn budget(&self) -> usize {
        self.budget
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Relaxed)
    }

    /// A new shard's number and its overhead histograms.
    pub(crate) fn join(&self) -> (u64, Arc<OverheadCells>) {
        let histograms =
            |count: usize| (0..count).map(|_| LocalHistogram::new(&self.overhead)).collect::<Vec<_>>();
        let cells = Arc::new(OverheadCells {
            client: histograms(Step::ALL.len() + 1),
            server: histograms(Step::ALL.len() + 1),
            both: LocalHistogram::new(&self.overhead),
        });
        let mut state = self.state.lock();
        let shard = state.next_shard;
        state.next_shard += 1;
        state.overhead.push(Arc::clone(&cells));
        (shard, cells)
    }

    /// The cells that `shard` must count `subject` in.
    pub(crate) fn resolve<C: Cells>(&self, shard: u64, subject: &Subject<'_>) -> Arc<C> {
        let mut labels = subject.labels();
        let mut state = self.state.lock();
        let in_budget = state.http.len() + state.tcp.len() - state.overflow_entries < self.budget;
        let is_overflow = !in_budget && !C::family(&mut state).contains_key(&labels);
        if is_overflow {
            self.overflowed.add(1);
            labels = subject.overflow_labels();
            state.overflow_entries += usize::from(!C::family(&mut state).contains_key(&labels));
        }
        let entry = C::family(&mut state).entry(labels).or_insert_with(|| Entry {
            cells: Vec::new(),
            is_overflow,
            activity: 0,
            changed_at: None,
        });
        for (_, cells) in &entry.cells {
            cells.idle().store(false, Relaxed);
        }
        entry.changed_at = None;
        if let Some((_, cells)) = entry.cells.iter().find(|(owner, _)| *owner == shard) {
            return Arc::clone(cells);
        }
        let cells = Arc::new(C::new(self));
        entry.cells.push((shard, Arc::clone(&cells)));
        cells
    }

    /// Marks series that did not change for the idle time, and removes those that were marked before and still did
    /// not. To be called every minute or so.
    pub(crate) fn sweep(&self, now: SystemTime) {
        let mut state = self.state.lock();
        let removed =
            sweep(&mut state.http, now, self.idle_after) + sweep(&mut state.tcp, now, self.idle_after);
        if removed > 0 {
            self.epoch.fetch_add(1, Relaxed);
        }
    }

    /// The number of series, `overflow` included.
    pub(crate) fn series(&self) -> usize {
        let state = self.state.lock();
        state.http.len() + state.tcp.len()
    }

    /// Writes all families.
    pub(crate) fn render(&self, out: &mut String) {
        let state = self.state.lock();
        self.render_http(&state.http, out);
        render_tcp(&state.tcp, out);
        self.render_overhead(&state.overhead, out);
    }

    fn render_http(&self, family: &Family<HttpCells>, out: &mut String) {
        if family.is_empty() {
            return;
        }
        counters(family, names::REQUESTS, |cells| &cells.requests, |labels| &labels.all, out);
        histograms(family, names::REQUEST_DURATION, &self.millis, |cells| &cells.duration, out);
        histograms(family, names::REQUEST_BYTES, &self.bytes, |cells| &cells.request_bytes, out);
        histograms(family, names::RESPONSE_BYTES, &self.bytes, |cells| &cells.response_bytes, out);
        for (name, cell) in [
            (names::REQUEST_MESSAGES, (|cells| &cells.request_messages) as fn(&HttpCells) -> &Cell),
            (names::RESPONSE_MESSAGES, |cells| &cells.response_messages),
        ] {
            messages(family, name, cell, out);
        }
    }

    fn render_overhead(&self, shards: &[Arc<OverheadCells>], out: &mut String) {
        if shards.is_empty() {
            return;
        }
        let name = names::OVERHEAD;
        text::head(out, name.name, "histogram", name.help);
        let mut write = |step: &str, hop: &str, of: &dyn Fn(&OverheadCells) -> Option<&LocalHistogram>| {
            let mut total = HistogramTotal::default();
            shards.iter().filter_map(|cells| of(cells)).for_each(|cells| cells.add_to(&mut total));
            if total.cells.iter().any(|count| *count > 0) {
                let labels = format!("step=\"{step}\",hop=\"{hop}\"");
                text::histogram(out, name.name, &labels, &self.overhead, &total);
            }
        };
        for (index, step) in Step::ALL.iter().map(|step| step.name()).chain(["total"]).enumerate() {
            write(step, "client", &|cells| cells.client.get(index));
            write(step, "server", &|cells| cells.server.get(index));
        }
        write("total", "both", &|cells| Some(&cells.both));
    }
}

fn sweep<C: Cells>(family: &mut Family<C>, now: SystemTime, idle_after: Duration) -> usize {
    let before = family.len();
    family.retain(|_, entry| {
        let activity = entry.cells.iter().fold(0_u64, |sum, (_, cells)| sum.wrapping_add(cells.activity()));
        let since = match entry.changed_at {
            Some(since) if activity == entry.activity => since,
            _ => {
                entry.activity = activity;
                *entry.changed_at.insert(now)
            }
        };
        let is_idle = !entry.is_overflow && now.duration_since(since).is_ok_and(|idle| idle >= idle_after);
        let was_marked = entry.cells.iter().all(|(_, cells)| cells.idle().swap(is_idle, Relaxed));
        !(is_idle && was_marked)
    });
    before - family.len()
}

fn counters<C>(
    family: &Family<C>,
    name: names::Name,
    cell: impl Fn(&C) -> &Cell,
    labels: impl Fn(&LabelSet) -> &str,
    out: &mut String,
) {
    text::head(out, name.name, "counter", name.help);
    for (set, entry) in family {
        text::sample(out, name.name, labels(set), sum(entry, &cell));
    }
}

/// gRPC messages carry no `connection_security_policy`, so label sets that differ only there are added up.
fn messages(family: &Family<HttpCells>, name: names::Name, cell: fn(&HttpCells) -> &Cell, out: &mut String) {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (set, entry) in family.iter().filter(|(set, _)| set.all.contains(",request_protocol=\"grpc\"")) {
        *sums.entry(&set.all[..set.without_security]).or_default() += sum(entry, cell);
    }
    if !sums.is_empty() {
        text::head(out, name.name, "counter", name.help);
        sums.iter().for_each(|(labels, value)| text::sample(out, name.name, labels, value));
    }
}

fn histograms(
    family: &Family<HttpCells>,
    name: names::Name,
    buckets: &Buckets,
    histogram: impl Fn(&HttpCells) -> &LocalHistogram,
    out: &mut String,
) {
    text::head(out, name.name, "histogram", name.help);
    for (set, entry) in family {
        let mut total = HistogramTotal::default();
        entry.cells.iter().for_each(|(_, cells)| histogram(cells).add_to(&mut total));
        text::histogram(out, name.name, &set.all, buckets, &total);
    }
}

fn render_tcp(family: &Family<TcpCells>, out: &mut String) {
    if family.is_empty() {
        return;
    }
    counters(family, names::TCP_SENT, |cells| &cells.sent, |labels| &labels.all, out);
    counters(family, names::TCP_RECEIVED, |cells| &cells.received, |labels| &labels.all, out);
    counters(family, names::TCP_OPENED, |cells| &cells.opened, |labels| &labels.all, out);
    counters(family, names::TCP_CLOSED, |cells| &cells.closed, |labels| &labels.all, out);
}

fn sum<C>(entry: &Entry<C>, cell: impl Fn(&C) -> &Cell) -> u64 {
    entry.cells.iter().fold(0, |sum, (_, cells)| sum.wrapping_add(cell(cells).value()))
}
