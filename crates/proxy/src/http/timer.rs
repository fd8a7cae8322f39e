//! A timer that costs nothing to move later.
//!
//! Moving the deadline forward leaves the armed sleep where it is; when that fires early it is armed again for the rest. So
//! a busy connection touches the runtime's timer wheel about once per timeout, not once per request.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

#[derive(Default)]
pub(super) struct Timer {
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Fires `after` from now.
    pub(super) fn set(&mut self, after: Duration) {
        self.deadline = Some(Instant::now() + after);
    }

    pub(super) fn is_set(&self) -> bool {
        self.deadline.is_some()
    }

    pub(super) fn clear(&mut self) {
        self.deadline = None;
    }

    /// Ready when the deadline has passed; the timer is then clear.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            match sleep.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) if sleep.deadline() >= deadline => {
                    self.deadline = None;
                    self.sleep = None;
                    return Poll::Ready(());
                }
                Poll::Ready(()) => sleep.as_mut().reset(deadline),
            }
        }
    }
}

/// How slow a peer may be: in any `window`, `least` bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) window: Duration,
    pub(super) least: u64,
}

/// Measures one direction against a [`Pace`] while it waits for the peer.
#[derive(Default)]
pub(super) struct Patience {
    timer: Timer,
    moved: u64,
}

impl Patience {
    pub(super) fn moved(&mut self, n: usize) {
        self.moved += n as u64;
    }

    pub(super) fn rest(&mut self) {
        self.timer.clear();
        self.moved = 0;
    }

    /// Ready when the peer was too slow.
    pub(super) fn poll_exhausted(&mut self, cx: &mut Context<'_>, pace: Pace) -> Poll<()> {
        if !self.timer.is_set() {
            self.timer.set(pace.window);
        }
        while self.timer.poll(cx).is_ready() {
            if self.moved < pace.least {
                return Poll::Ready(());
            }
            self.moved = 0;
            self.timer.set(pace.window);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fired(timer: &mut Timer) {
        std::future::poll_fn(|cx| timer.poll(cx)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn moving_the_deadline_later_or_earlier_is_honoured() {
        let start = Instant::now();
        let mut timer = Timer::default();
        timer.set(Duration::from_secs(5));
        assert!(std::future::poll_fn(|cx| Poll::Ready(timer.poll(cx))).await.is_pending());
        timer.set(Duration::from_secs(9));
        fired(&mut timer).await;
        assert_eq!(start.elapsed().as_secs(), 9);
        timer.set(Duration::from_secs(30));
        assert!(std::future::poll_fn(|cx| Poll::Ready(timer.poll(cx))).await.is_pending());
        timer.set(Duration::from_secs(1));
        fired(&mut timer).await;
        assert_eq!(start.elapsed().as_secs(), 10);
        assert!(!timer.is_set());
    }
}
