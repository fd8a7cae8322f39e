//! The signal that connections should finish what they do and end.
//!
//! One thread, one [`DrainTrigger`], many [`Drain`] handles; a connection registers one waker, once. The signal only asks:
//! how long the asking is patient, and what happens then, is the business of whoever owns the connections.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Default)]
struct Shared {
    started: Cell<bool>,
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

/// Starts the drain. Dropping it does not.
#[derive(Default)]
pub struct DrainTrigger(Rc<Shared>);

impl DrainTrigger {
    /// A drain that has not started.
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle for a connection.
    pub fn handle(&self) -> Drain {
        Drain { shared: Rc::clone(&self.0), slot: None }
    }

    /// Whether it has started.
    pub fn is_started(&self) -> bool {
        self.0.started.get()
    }

    /// Asks every connection to end, those to come included.
    pub fn start(&self) {
        self.0.started.set(true);
        let wakers: Vec<Waker> = self.0.wakers.borrow_mut().iter_mut().filter_map(Option::take).collect();
        for waker in wakers {
            waker.wake();
        }
    }
}

/// A connection's view of the drain. Each clone may wait on its own.
pub struct Drain {
    shared: Rc<Shared>,
    slot: Option<usize>,
}

impl Drain {
    /// A drain that never starts.
    pub fn never() -> Self {
        DrainTrigger::new().handle()
    }

    /// Whether it has started.
    pub fn is_started(&self) -> bool {
        self.shared.started.get()
    }

    /// Ready once it has started.
    pub fn poll_started(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_started() {
            return Poll::Ready(());
        }
        let mut wakers = self.shared.wakers.borrow_mut();
        let slot = *self.slot.get_or_insert_with(|| {
            self.shared.free.borrow_mut().pop().unwrap_or_else(|| {
                wakers.push(None);
                wakers.len() - 1
            })
        });
        match &mut wakers[slot] {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            other => *other = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits until it has started.
    pub async fn started(&mut self) {
        std::future::poll_fn(|cx| self.poll_started(cx)).await;
    }
}

impl Clone for Drain {
    fn clone(&self) -> Self {
        Drain { shared: Rc::clone(&self.shared), slot: None }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.shared.wakers.borrow_mut()[slot] = None;
            self.shared.free.borrow_mut().push(slot);
        }
    }
}
