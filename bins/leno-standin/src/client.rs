//! The stand-in as a client: one request, or a load, from within a pod whose image has no shell and no curl.
//!
//! Invariant: everything is bounded; a load says its numbers since the start once a second, so that who reads two lines knows
//! what happened in between.
//! Must not know: meshes.

use std::{
    io::Write as _,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::Args;
use http::{HeaderName, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use leno_lab::{
    load::{Label, Load, LoadProtocol, MakeRequest, Plan, Target},
    standin::{
        Dialer,
        client::{Client, Endpoint},
    },
};
use tokio::{
    signal::unix::Signal,
    time::{MissedTickBehavior, interval, timeout},
};
use tonic::body::Body;

const LONGEST_ANSWER: usize = 16 << 20;
/// Failures that a load tells one by one; each of its lines has all of them, and container runtimes cut lines at 16 KiB.
const MOST_FAILURES: usize = 60;

/// Send one request over HTTP/1.1 and print status and body; the exit code is 1 when there is no answer
#[derive(Args)]
pub(crate) struct Get {
    url: Uri,
    /// Longest wait
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
}

/// Send requests at a fixed rate, whatever the answers do, and print the numbers since the start each second, as JSON
#[derive(Args)]
pub(crate) struct Requests {
    url: Uri,
    /// Requests a second
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    #[arg(long, default_value = "GET")]
    method: Method,
    /// Count the answers that contain this text among their first 16 KiB, as `by_label`
    #[arg(long, value_name = "TEXT")]
    count: Option<String>,
}

/// Send one request after another over HTTP/1.1, and print a line whenever status, header or reachability change: the moment
/// (milliseconds since 1970), the status (0 without an answer), and the header's value
#[derive(Args)]
pub(crate) struct Watch {
    url: Uri,
    /// The header to watch
    #[arg(long, value_name = "NAME", default_value = "x-route")]
    header: HeaderName,
    /// Pause between two requests
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 2)]
    pause: u64,
}

/// Host, port and path of an `http` URL.
struct At {
    host: String,
    port: u16,
    path: String,
}

impl At {
    fn of(url: &Uri) -> anyhow::Result<Self> {
        ensure!(url.scheme_str() == Some("http"), "{url} is no http URL");
        let host = url.host().with_context(|| format!("{url} has no host"))?.to_owned();
        let path = url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { host, port: url.port_u16().unwrap_or(80), path })
    }

    fn request(&self, method: Method, body: &'static str) -> anyhow::Result<Request<Body>> {
        let request = Request::builder().method(method).uri(&self.path);
        let request = request.header(header::HOST, format!("{}:{}", self.host, self.port));
        Ok(request.body(Body::new(Full::new(Bytes::from_static(body.as_bytes()))))?)
    }
}

/// One request.
pub(crate) async fn get(arguments: Get) -> anyhow::Result<()> {
    let at = At::of(&arguments.url)?;
    let request = at.request(Method::GET, "")?;
    let client = Client::new(Dialer::by_system(), 0);
    let endpoint = Endpoint { host: at.host, port: at.port, http2: false };
    let exchange = async {
        let response = client.send(&endpoint, request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        Ok::<_, anyhow::Error>((status, body.map_err(|error| anyhow::anyhow!(error))?.to_bytes()))
    };
    let (status, body) =
        timeout(Duration::from_secs(arguments.timeout), exchange).await.context("no answer in time")??;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", status.as_u16())?;
    out.write_all(&body)?;
    Ok(())
}

/// A load, until the signal.
pub(crate) async fn load(arguments: Requests, mut terminate: Signal) -> anyhow::Result<()> {
    let Requests { url, rate, method, count } = arguments;
    let at = At::of(&url)?;
    let body = if method == Method::POST { "a body of a few bytes" } else { "" };
    at.request(method.clone(), body)?;
    let (host, port, name) = (at.host.clone(), at.port, method.to_string());
    let request: MakeRequest = Arc::new(move |number| {
        let mut request = at.request(method.clone(), body).unwrap_or_else(|_| Request::new(Body::empty()));
        request.headers_mut().insert("request-number", number.into());
        request
    });
    let mut target = Target::new(&host, port, LoadProtocol::Http1, &name, request);
    target.label = count.map(|text| -> Label {
        Arc::new(move |_, body| memchr::memmem::find(body, text.as_bytes()).map(|_| text.clone()))
    });
    let plan = Plan { keep_failures: MOST_FAILURES, ..Plan::new(rate, vec![target], Dialer::by_system()) };
    let running = Load::start(plan)?;
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = second.tick() => writeln!(std::io::stdout(), "{}", serde_json::to_string(&running.snapshot())?)?,
        }
    }
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&running.stop().await)?)?;
    Ok(())
}

/// Watches, until the signal.
pub(crate) async fn watch(arguments: Watch, mut terminate: Signal) -> anyhow::Result<()> {
    let Watch { url, header, pause } = arguments;
    let at = At::of(&url)?;
    at.request(Method::GET, "")?;
    let client = Client::new(Dialer::by_system(), 1);
    let mut last = None;
    loop {
        let seen = tokio::select! {
            _ = terminate.recv() => return Ok(()),
            seen = look(&client, &at, &header) => seen,
        };
        if last.as_ref() != Some(&seen) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            let (status, value) = &seen;
            writeln!(std::io::stdout(), "{:.3} {status} {value}", now.as_secs_f64() * 1e3)?;
            last = Some(seen);
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// One answer's status and header; 0 when there is none, and within a second at the latest.
async fn look(client: &Client, at: &At, header: &HeaderName) -> (u16, String) {
    let exchange = async {
        let endpoint = Endpoint { host: at.host.clone(), port: at.port, http2: false };
        let response = client.send(&endpoint, at.request(Method::GET, "")?).await?;
        let (head, body) = response.into_parts();
        Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|error| anyhow::anyhow!(error))?;
        let value = head.headers.get(header).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok::<_, anyhow::Error>((head.status.as_u16(), value.to_owned()))
    };
    let answered = timeout(Duration::from_secs(1), exchange).await;
    answered.ok().and_then(Result::ok).unwrap_or_default()
}
