//! A timer that wakes within some tens of microseconds, where the runtime's own rounds up to the next millisecond.
//!
//! Latencies run from the scheduled moment, so a generator that wakes late would report its own lateness.
//! Must not know: what is waited for.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

pub(super) struct Ticker(AsyncFd<OwnedFd>);

impl Ticker {
    pub(super) fn new() -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // The safe constructor is deprecated because its descriptor might be closed or replaced while registered;
        // an `OwnedFd` that only this type holds cannot be.
        #[expect(
            deprecated,
            reason = "the replacement is unsafe, and this descriptor keeps what it asks for"
        )]
        let registered = AsyncFd::new(timer)?;
        Ok(Self(registered))
    }

    /// Waits until a moment; returns at once when it is past.
    pub(super) async fn until(&self, moment: Instant) -> io::Result<()> {
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
            let it_value = Timespec { tv_sec: seconds, tv_nsec: left.subsec_nanos().into() };
            let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
            let setting = Itimerspec { it_interval, it_value };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &setting)?;
            let mut ready = self.0.readable().await?;
            let mut expirations = [0; 8];
            // Reading only clears it; an early or stale wake-up finds time left and waits again.
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?));
            if let Ok(Err(error)) = read {
                return Err(error);
            }
        }
    }
}
