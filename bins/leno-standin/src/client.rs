//! The stand-in as a client: one request, or a load, from within a pod whose image has no shell and no curl.
//!
//! Invariant: everything is bounded; a load says its numbers since the start once a second, so that who reads two lines knows
//! what happened in between.
//! Must not know: meshes.

use std::{io::Write as _, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use leno_lab::{
    load::{Load, LoadProtocol, MakeRequest, Plan, Target},
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
    let Requests { url, rate, method } = arguments;
    let at = At::of(&url)?;
    let body = if method == Method::POST { "a body of a few bytes" } else { "" };
    at.request(method.clone(), body)?;
    let (host, port, name) = (at.host.clone(), at.port, method.to_string());
    let request: MakeRequest =
        Arc::new(move |_| at.request(method.clone(), body).unwrap_or_else(|_| Request::new(Body::empty())));
    let target = Target::new(&host, port, LoadProtocol::Http1, &name, request);
    let running = Load::start(Plan::new(rate, vec![target], Dialer::by_system()))?;
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
