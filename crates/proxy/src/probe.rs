//! Samples what the kernel and the network of this machine cost, which no clock within the proxy sees (PAINS F1).
//!
//! A round trip over loopback between two threads of this proxy, less the calls that write and read it (a proxy's own work has those),
//! is what one hop adds beside that work: two messages on their way, and two sleepers woken. A request through two proxies makes
//! two more of them than one without.
//! Invariant: one small exchange at a time, seconds apart; it carries nothing and is never on a request's path.
//! Must not know: requests, peers.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use leno_telemetry::metrics::names;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::core::Core;

/// Between two samples, on average.
const EVERY: Duration = Duration::from_secs(5);
/// Round trips of a sample; the first, which warms the connection up, is not counted.
const ROUND_TRIPS: usize = 5;
/// Between two round trips: threads go to sleep, as they do between requests.
const PAUSE: Duration = Duration::from_millis(5);
/// A message; as large as a small request.
const MESSAGE: usize = 512;
/// An exchange that takes longer says nothing.
const LIMIT: Duration = Duration::from_secs(2);

/// Opens the far end, which answers on the runtime beside the traffic.
pub(crate) async fn listen(tasks: &TaskTracker, stop: &CancellationToken) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let stop = stop.clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    sleep(PAUSE).await;
                    continue;
                };
                // One sample at a time and core; a stranger's connection ends at the limit.
                tokio::spawn(timeout(LIMIT, echo(stream)));
            }
        })
        .await;
    });
    Ok(address)
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut message = [0; MESSAGE];
    loop {
        stream.read_exact(&mut message).await?;
        stream.write_all(&message).await?;
    }
}

/// Samples from a traffic thread until it is dropped.
pub(crate) async fn run(core: Rc<Core>, far: SocketAddr) {
    let histogram = core.shared.telemetry.registry().histogram(&names::NETWORK_PROBE, ["loopback"]);
    loop {
        // Proxies that share a thread take turns.
        let jitter = 0.5 + f64::from(core.roll()) / f64::from(u32::MAX);
        sleep(EVERY.mul_f64(jitter)).await;
        match timeout(LIMIT, sample(far)).await {
            Ok(Ok(trips)) => trips.into_iter().for_each(|trip| histogram.observe_duration(trip)),
            Ok(Err(error)) => tracing::debug!(%error, "no loopback probe"),
            Err(_) => tracing::debug!("a loopback probe took too long"),
        }
    }
}

async fn sample(far: SocketAddr) -> io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(far).await?;
    stream.set_nodelay(true)?;
    let mut trips = Vec::with_capacity(ROUND_TRIPS);
    for number in 0..ROUND_TRIPS {
        sleep(PAUSE).await;
        let began = Instant::now();
        stream.write_all(&[0; MESSAGE]).await?;
        let writing = began.elapsed();
        let reading = read_one(&stream).await?;
        if number > 0 {
            // The far end has made the same calls.
            trips.push(began.elapsed().saturating_sub(2 * (writing + reading)));
        }
    }
    Ok(trips)
}

/// Reads a message, and says how long the calls took that did.
async fn read_one(stream: &TcpStream) -> io::Result<Duration> {
    let (mut message, mut have, mut reading) = ([0; MESSAGE], 0, Duration::ZERO);
    while have < MESSAGE {
        stream.readable().await?;
        let began = Instant::now();
        match stream.try_read(&mut message[have..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => have += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        reading += began.elapsed();
    }
    Ok(reading)
}
