//! The HTTP layer from outside: raw bytes over in-memory connections.

mod client;
mod downgrade;
mod flush;
mod h2;
mod server;
mod smuggling;
mod splits;

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::*;

/// Runs `test` where local tasks can be spawned.
async fn locally<F: Future>(test: F) -> F::Output {
    LocalSet::new().run_until(test).await
}

/// Starts a server on one end of a pipe that holds `size` bytes each way.
fn start<H>(
    size: usize,
    settings: ServerSettings,
    handler: H,
) -> (DuplexStream, JoinHandle<ConnEnd>, DrainTrigger)
where
    H: AsyncFn(Request<Body>) -> Response<Body> + 'static,
{
    let (client, server) = tokio::io::duplex(size);
    let trigger = DrainTrigger::new();
    let drain = trigger.handle();
    let task =
        spawn_local(async move { serve_auto(server, Rc::new(settings), Rc::new(handler), drain).await });
    (client, task, trigger)
}

/// Says what it received: method, target, host, length of the body.
async fn describe(request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let host = hop::authority(&parts.headers).unwrap_or("-").to_owned();
    match body.collect(1 << 20).await {
        Ok(body) => {
            Response::new(Body::full(format!("[{} {} {host} {}]", parts.method, parts.uri, body.len())))
        }
        Err(_) => status(StatusCode::BAD_REQUEST),
    }
}

async fn echo(request: Request<Body>) -> Response<Body> {
    Response::new(request.into_body())
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Everything the server says to `input`, until it closes; paused time ends what is idle.
async fn answer<H>(input: &[u8], settings: ServerSettings, handler: H) -> (String, ConnEnd)
where
    H: AsyncFn(Request<Body>) -> Response<Body> + 'static,
{
    let (mut client, task, _trigger) = start(1 << 20, settings, handler);
    client.write_all(input).await.unwrap();
    let mut output = Vec::new();
    client.read_to_end(&mut output).await.unwrap();
    (String::from_utf8_lossy(&output).into_owned(), task.await.unwrap())
}

/// The status codes of the responses in `output`.
fn statuses(output: &str) -> Vec<u16> {
    output.split("HTTP/1.1 ").skip(1).map(|rest| rest[..3].parse().unwrap()).collect()
}

/// Reads until `needle` has come; returns all that was read.
async fn read_until(io: &mut DuplexStream, needle: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(needle) {
        let mut buf = [0; 4096];
        let n = io.read(&mut buf).await.unwrap();
        assert!(n > 0, "closed after {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buf[..n]));
    }
    seen
}

/// A connection pair and a client on it.
fn client_on(size: usize) -> (H1Client<DuplexStream>, DuplexStream) {
    let (near, far) = tokio::io::duplex(size);
    (H1Client::new(near, Rc::new(ClientSettings::default())), far)
}

fn get(path: &str) -> Request<Body> {
    Request::builder().uri(path).header("host", "a.test").body(Body::empty()).unwrap()
}

fn post(path: &str, body: Body) -> Request<Body> {
    Request::builder().method("POST").uri(path).header("host", "a.test").body(body).unwrap()
}

/// A body made of the given frames, each after a turn of the scheduler, which records how many were pulled.
struct Frames {
    frames: std::collections::VecDeque<http_body::Frame<Bytes>>,
    pulled: Rc<RefCell<usize>>,
    yielded: bool,
}

impl Frames {
    fn new(frames: impl IntoIterator<Item = http_body::Frame<Bytes>>) -> (Frames, Rc<RefCell<usize>>) {
        let pulled = Rc::new(RefCell::new(0));
        let frames = frames.into_iter().collect();
        (Frames { frames, pulled: Rc::clone(&pulled), yielded: false }, pulled)
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        self.yielded = !self.yielded;
        if self.yielded {
            cx.waker().wake_by_ref();
            return std::task::Poll::Pending;
        }
        *self.pulled.borrow_mut() += 1;
        std::task::Poll::Ready(self.frames.pop_front().map(Ok))
    }
}

impl BodyStream for Frames {}
