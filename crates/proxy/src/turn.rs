//! When the traffic thread learned of an event, and when it began to act on it: a *turn* is one poll of a connection's task.
//!
//! A request's clock starts with the turn that read it, before its head was read, and what the event waited for that turn
//! is the proxy's time too: a proxy that starts its clock late reports flattering numbers (PAINS F1).
//! What one task wakes another for (HTTP/2: the connection's for a stream's) began with the first one's event.
//! Invariant: what is kept by thread is of the turn under way, so many proxies can share a thread.
//! Must not know: requests, records.

use std::{
    cell::{Cell, RefCell},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use tokio::time::Instant;

thread_local! {
    static CURRENT: Cell<Option<Turn>> = const { Cell::new(None) };
    static TLS: Cell<u64> = const { Cell::new(0) };
    static TURNS: Cell<u64> = const { Cell::new(0) };
    static WAKER: RefCell<Option<Arc<Stamp>>> = const { RefCell::new(None) };
}

/// One poll of a connection's task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    number: u64,
    /// When the runtime learned of what it is for.
    pub(crate) woken: Instant,
    /// When it began, or when what came before in it was accounted for.
    pub(crate) began: Instant,
}

/// The turn under way; outside of any, one that begins now.
pub(crate) fn current() -> Turn {
    CURRENT.get().unwrap_or_else(|| {
        let now = Instant::now();
        Turn { number: 0, woken: now, began: now }
    })
}

/// What came before in this turn is nobody's request: setting up a connection.
pub(crate) fn restart() {
    take();
    take_tls();
}

/// The turn under way, from where nothing of it is accounted for yet: what follows in it begins now.
pub(crate) fn take() -> Turn {
    let turn = current();
    let now = Instant::now();
    if let Some(of) = CURRENT.get() {
        CURRENT.set(Some(Turn { woken: now, began: now, ..of }));
    }
    turn
}

impl Turn {
    /// What the event waited for the turn, in nanoseconds.
    pub(crate) fn queued(&self) -> u64 {
        nanos(self.woken, self.began)
    }

    /// Whether both are the same poll.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

/// Nanoseconds from one moment to a later one.
pub(crate) fn nanos(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
}

/// Does what encrypts, decrypts, and reads or writes the result; its time is [`take_tls`]'s.
pub(crate) fn in_tls<T>(work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    TLS.set(TLS.get().saturating_add(nanos(began, Instant::now())));
    done
}

/// What [`in_tls`] took on this thread since this was last asked, or since the turn began.
pub(crate) fn take_tls() -> u64 {
    TLS.replace(0)
}

/// Runs a connection's or a stream's task in turns. `first` is the turn that the task comes from, where there is one.
pub(crate) async fn in_turns<F: Future>(first: Option<Turn>, task: F) -> F::Output {
    let mut task = pin!(task);
    let mut first = first;
    let mut stamp: Option<Arc<Stamp>> = None;
    std::future::poll_fn(move |cx| {
        let own = stamp.take().filter(|stamp| stamp.inner.will_wake(cx.waker()));
        let own = own.unwrap_or_else(|| Stamp::new(cx.waker().clone()));
        let polled = poll(&own, first.take(), task.as_mut());
        stamp = Some(own);
        polled
    })
    .await
}

fn poll<F: Future>(stamp: &Arc<Stamp>, first: Option<Turn>, task: Pin<&mut F>) -> Poll<F::Output> {
    let now = Instant::now();
    let (woken, began) = match first {
        Some(turn) => (turn.woken, turn.began),
        None => (stamp.woken().unwrap_or(now).min(now), now),
    };
    let number = TURNS.get() + 1;
    TURNS.set(number);
    let before = CURRENT.replace(Some(Turn { number, woken, began }));
    let waker_before = WAKER.replace(Some(Arc::clone(stamp)));
    TLS.set(0);
    let polled = task.poll(&mut Context::from_waker(&Waker::from(Arc::clone(stamp))));
    CURRENT.set(before);
    WAKER.replace(waker_before);
    polled
}

/// A waker that notes when its task was first woken.
struct Stamp {
    inner: Waker,
    base: Instant,
    /// Nanoseconds from the base, and 1; 0 is not woken.
    at: AtomicU64,
}

impl Stamp {
    fn new(inner: Waker) -> Arc<Self> {
        Arc::new(Self { inner, base: Instant::now(), at: AtomicU64::new(0) })
    }

    /// When it was woken since this was last asked.
    fn woken(&self) -> Option<Instant> {
        let at = self.at.swap(0, Relaxed).checked_sub(1)?;
        Some(self.base + std::time::Duration::from_nanos(at))
    }

    fn note(self: &Arc<Self>) {
        if self.at.load(Relaxed) != 0 {
            return;
        }
        // A task that wakes itself has its turn on its account already.
        let itself =
            WAKER.with_borrow(|waking| waking.as_ref().is_none_or(|waking| Arc::ptr_eq(waking, self)));
        let since = if itself { Instant::now() } else { current().woken };
        self.at.store(nanos(self.base, since).saturating_add(1), Relaxed);
    }
}

impl Wake for Stamp {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.note();
        self.inner.wake_by_ref();
    }
}

/// What an exchange with another server costs us: not the waiting, but each poll of it and what its event waited for.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Waiting for the thread, once the answer was there.
    pub(crate) queue: Cell<u64>,
    /// Until the request was written.
    pub(crate) write: Cell<u64>,
    /// Reading the answer's head.
    pub(crate) read: Cell<u64>,
    /// Of both, what TLS took.
    pub(crate) tls: Cell<u64>,
}

impl Meter {
    /// Measures an exchange on an established connection.
    pub(crate) async fn of<F: Future>(&self, exchange: F) -> F::Output {
        let mut exchange = pin!(exchange);
        let mut last: Option<Turn> = None;
        std::future::poll_fn(|cx| {
            let turn = current();
            let begins = last.is_some_and(|last| !last.is(&turn));
            let (step, began) = match last {
                None => (&self.write, Instant::now()),
                Some(_) if begins => (&self.read, turn.began),
                Some(_) => (&self.read, Instant::now()),
            };
            if begins {
                self.queue.set(self.queue.get().saturating_add(turn.queued()));
            }
            last = Some(turn);
            let polled = exchange.as_mut().poll(cx);
            let tls = take_tls();
            self.tls.set(self.tls.get().saturating_add(tls));
            step.set(step.get().saturating_add(nanos(began, Instant::now()).saturating_sub(tls)));
            polled
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::{rc::Rc, time::Duration};

    use tokio::{
        sync::Notify,
        task::{LocalSet, yield_now},
        time::{advance, sleep},
    };

    use super::*;

    const LATE: Duration = Duration::from_millis(3);

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_server_is_not_the_proxy_s_time() {
        let meter = Meter::default();
        in_turns(None, meter.of(sleep(Duration::from_secs(5)))).await;
        let all = [&meter.queue, &meter.write, &meter.read, &meter.tls];
        assert_eq!(all.map(Cell::get), [0; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_answer_waits_for_the_thread_is_the_proxy_s_time() {
        let local = LocalSet::new();
        let there = Rc::new(Notify::new());
        let answer = Rc::clone(&there);
        let waiting = local.spawn_local(async move {
            let meter = Meter::default();
            in_turns(None, meter.of(answer.notified())).await;
            meter.queue.get()
        });
        local.run_until(late(&there)).await;
        assert_eq!(local.run_until(waiting).await.unwrap(), nanos_of(LATE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_another_wakes_began_with_the_other_s_event() {
        let local = LocalSet::new();
        let (there, passed) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let (event, on) = (Rc::clone(&there), Rc::clone(&passed));
        local.spawn_local(in_turns(None, async move {
            event.notified().await;
            on.notify_one();
        }));
        let second = local.spawn_local(in_turns(None, async move {
            passed.notified().await;
            take().queued()
        }));
        local.run_until(late(&there)).await;
        assert_eq!(local.run_until(second).await.unwrap(), nanos_of(LATE));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_accounted_for_is_not_counted_again() {
        let second = in_turns(None, async {
            advance(LATE).await;
            take();
            take()
        });
        assert_eq!(second.await.queued(), 0);
    }

    /// Wakes who waits, and lets time pass before they run.
    async fn late(there: &Notify) {
        yield_now().await;
        there.notify_one();
        advance(LATE).await;
    }

    fn nanos_of(duration: Duration) -> u64 {
        u64::try_from(duration.as_nanos()).unwrap()
    }
}
