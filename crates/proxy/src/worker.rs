//! Threads for traffic: each has one single-threaded runtime, and what runs on it never leaves it.
//!
//! A proxy process owns its workers; in the lab hundreds of proxies share a few.

use std::{io, pin::Pin, sync::Arc, thread};

use tokio::{runtime, sync::mpsc, task::LocalSet};
use tokio_util::sync::CancellationToken;

type Job = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Tasks that may wait to be started on one worker.
const QUEUE: usize = 4096;

/// A set of threads for traffic.
pub struct Workers {
    queues: Vec<mpsc::Sender<Job>>,
    threads: Vec<thread::JoinHandle<()>>,
    stop: CancellationToken,
}

/// Starts tasks on one worker.
#[derive(Clone)]
pub struct Worker(mpsc::Sender<Job>);

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub fn start(count: usize, name: &str) -> io::Result<Arc<Self>> {
        let stop = CancellationToken::new();
        let (mut queues, mut threads) = (Vec::new(), Vec::new());
        for index in 0..count.max(1) {
            let (queue, jobs) = mpsc::channel(QUEUE);
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let stop = stop.clone();
            threads.push(
                thread::Builder::new()
                    .name(format!("{name}-{index}"))
                    .spawn(move || LocalSet::new().block_on(&runtime, work(jobs, stop)))?,
            );
            queues.push(queue);
        }
        Ok(Arc::new(Self { queues, threads, stop }))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.queues.len()
    }

    /// Whether there are none, which never is.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// One of them; numbers wrap.
    pub fn get(&self, index: usize) -> Worker {
        Worker(self.queues[index % self.queues.len()].clone())
    }

    /// Ends the threads; what runs on them is dropped.
    pub fn stop(mut self) {
        self.stop.cancel();
        self.queues.clear();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a traffic thread had panicked");
            }
        }
    }
}

impl Worker {
    /// Starts a task there. False: the worker is gone or overloaded.
    pub fn spawn<F: Future<Output = ()> + 'static>(&self, task: impl FnOnce() -> F + Send + 'static) -> bool {
        self.0.try_send(Box::new(move || Box::pin(task()))).is_ok()
    }
}

async fn work(mut jobs: mpsc::Receiver<Job>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            job = jobs.recv() => match job {
                Some(job) => drop(tokio::task::spawn_local(job())),
                None => return,
            },
        }
    }
}
