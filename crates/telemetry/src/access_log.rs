//! Access logs: one line for each request or connection, in Istio's default text or JSON form.
//!
//! Invariant: the data path only puts a pointer into a bounded queue; a full queue loses the line and counts it. Lines
//! are formatted and written by [`AccessLogWriter::run`], which the caller spawns.

mod facts;
mod text;

use std::{
    fs::{File, OpenOptions},
    future::Future,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use self::facts::Facts;
use crate::{
    metrics::Counter,
    record::{ConnectionRecord, RequestRecord},
};

/// Most lines formatted and written at once.
const MOST_LINES_AT_ONCE: usize = 256;

/// How and where lines are written.
#[derive(Clone, Debug)]
pub struct AccessLogConfig {
    /// The form of a line.
    pub format: AccessLogFormat,
    /// Where lines go.
    pub sink: AccessLogSink,
    /// Most records waiting to be written.
    pub queue: usize,
}

/// The form of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessLogFormat {
    /// Istio's default text (CONTRACTS section 9).
    Text,
    /// Istio's 24 fields and ours.
    Json,
}

/// Where lines go.
#[derive(Clone, Debug)]
pub enum AccessLogSink {
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
    /// Memory, for tests and the laptop's summary.
    Buffer(AccessLogBuffer),
}

/// Lines in memory.
#[derive(Clone, Debug, Default)]
pub struct AccessLogBuffer(Arc<Mutex<Vec<u8>>>);

impl AccessLogBuffer {
    /// Takes out what was written so far.
    pub fn take(&self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut *self.0.lock())).into_owned()
    }
}

/// Why an access log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the access log {path}")]
pub struct AccessLogError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// The data path's end of an access log.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: mpsc::Sender<Entry>,
    dropped: Counter,
}

/// The other end: formats and writes.
#[derive(Debug)]
pub struct AccessLogWriter {
    queue: mpsc::Receiver<Entry>,
    format: AccessLogFormat,
    output: Output,
    dropped: Counter,
}

#[derive(Debug)]
enum Entry {
    Request(Arc<RequestRecord>),
    Connection(Box<ConnectionRecord>),
}

#[derive(Debug)]
enum Output {
    Stdout,
    File(File),
    Buffer(AccessLogBuffer),
}

impl AccessLog {
    /// Opens an access log.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(config: AccessLogConfig) -> Result<(Self, AccessLogWriter), AccessLogError> {
        let AccessLogConfig { format, sink, queue } = config;
        let output = match sink {
            AccessLogSink::Stdout => Output::Stdout,
            AccessLogSink::Buffer(buffer) => Output::Buffer(buffer),
            AccessLogSink::File(path) => match OpenOptions::new().create(true).append(true).open(&path) {
                Ok(file) => Output::File(file),
                Err(source) => return Err(AccessLogError { path, source }),
            },
        };
        let (sender, receiver) = mpsc::channel(queue.max(1));
        let dropped = Counter::default();
        let writer = AccessLogWriter { queue: receiver, format, output, dropped: dropped.clone() };
        Ok((Self { queue: sender, dropped }, writer))
    }

    /// Lines lost so far.
    pub(crate) fn dropped(&self) -> &Counter {
        &self.dropped
    }

    pub(crate) fn request(&self, record: Arc<RequestRecord>) {
        self.offer(Entry::Request(record));
    }

    pub(crate) fn connection(&self, record: ConnectionRecord) {
        self.offer(Entry::Connection(Box::new(record)));
    }

    fn offer(&self, entry: Entry) {
        if self.queue.try_send(entry).is_err() {
            self.dropped.add(1);
        }
    }
}

impl AccessLogWriter {
    /// Writes lines until `shutdown` resolves or nobody can send any more, and then what is left in the queue.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let Self { mut queue, format, mut output, dropped } = self;
        let mut shutdown = std::pin::pin!(shutdown);
        let mut is_closing = false;
        let mut entries = Vec::new();
        loop {
            entries.clear();
            let received = tokio::select! {
                biased;
                () = &mut shutdown, if !is_closing => {
                    is_closing = true;
                    queue.close();
                    continue;
                }
                received = queue.recv_many(&mut entries, MOST_LINES_AT_ONCE) => received,
            };
            if received == 0 {
                return;
            }
            let lines: String = entries.iter().map(|entry| entry.line(format)).collect();
            // Writing may block (a pipe nobody reads), so it may not happen on the runtime's thread.
            let written = tokio::task::spawn_blocking(move || {
                let result = output.write(lines.as_bytes());
                (output, result)
            });
            match written.await {
                Ok((back, result)) => {
                    output = back;
                    if let Err(error) = result {
                        dropped.add(received as u64);
                        tracing::debug!(%error, lines = received, "cannot write the access log");
                    }
                }
                // The blocking task only ends early when the runtime shuts down.
                Err(_) => return,
            }
        }
    }
}

impl Entry {
    fn line(&self, format: AccessLogFormat) -> String {
        let facts = match self {
            Self::Request(record) => Facts::of_request(record),
            Self::Connection(record) => Facts::of_connection(record),
        };
        match format {
            AccessLogFormat::Text => text::line(&facts),
            AccessLogFormat::Json => facts.json_line(),
        }
    }
}

impl Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Self::File(file) => file.write_all(bytes),
            Self::Buffer(buffer) => {
                buffer.0.lock().extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
