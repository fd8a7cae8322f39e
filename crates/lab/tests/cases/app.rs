//! Applications that record: each answers with what reached it, whatever it speaks, and notes it in a ledger.
//!
//! Invariant: an answer says only what came over its own socket.
//! Must not know: proxies, cases (a case is a number that its requests carry).

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, Version, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Header with the number of the case that a request is for.
pub(crate) const CASE: &str = "x-lab-case";
/// Header that tells the application what to do: `hang`, `status N`, `grpc N`.
pub(crate) const DO: &str = "x-lab-do";
/// Header of an answer: what reached the application, as JSON.
pub(crate) const SEEN: &str = "x-lab-seen";
/// What a TCP client sends first; the number of its case follows.
pub(crate) const GREETING: &str = "lab-case ";

/// No client keeps an application waiting longer.
const LIMIT: Duration = Duration::from_secs(30);

/// What reached an application.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// The workload that owns it.
    pub(crate) owner: String,
    /// Its port.
    pub(crate) port: u16,
    pub(crate) case: u64,
    /// `http1`, `http2`, `tcp` or `tls`.
    pub(crate) spoken: String,
    pub(crate) path: String,
    pub(crate) host: String,
    /// Repeated ones joined with `,`.
    pub(crate) headers: BTreeMap<String, String>,
    /// The name in a TLS handshake.
    pub(crate) sni: Option<String>,
}

/// Everything that reached any application.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Vec<Seen>>>);

impl Ledger {
    fn note(&self, seen: &Seen) {
        self.0.lock().push(seen.clone());
    }

    /// What reached applications for a case.
    pub(crate) fn of_case(&self, case: u64) -> Vec<Seen> {
        self.0.lock().iter().filter(|seen| seen.case == case).cloned().collect()
    }
}

/// The applications of one workload: one socket a port.
pub(crate) struct App {
    owner: String,
    address: IpAddr,
    ledger: Ledger,
    ports: BTreeMap<u16, JoinHandle<()>>,
}

impl App {
    pub(crate) fn new(owner: &str, address: IpAddr, ledger: &Ledger) -> Self {
        Self { owner: owner.to_owned(), address, ledger: ledger.clone(), ports: BTreeMap::new() }
    }

    /// Answers on a port too.
    pub(crate) async fn serve(&mut self, port: u16) -> io::Result<()> {
        if self.ports.contains_key(&port) {
            return Ok(());
        }
        let listener = TcpListener::bind(SocketAddr::new(self.address, port)).await?;
        let (owner, ledger) = (self.owner.clone(), self.ledger.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let blank = Seen { owner: owner.clone(), port, ..Seen::default() };
                tokio::spawn(converse(stream, blank, ledger.clone()));
            }
        });
        self.ports.insert(port, task);
        Ok(())
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.ports.values().for_each(JoinHandle::abort);
    }
}

/// Finds out what a client speaks by its first byte, and answers in kind.
async fn converse(stream: TcpStream, blank: Seen, ledger: Ledger) {
    let mut first = [0];
    let peeked = tokio::time::timeout(LIMIT, stream.peek(&mut first)).await;
    if !matches!(peeked, Ok(Ok(1))) {
        return;
    }
    let answered = async {
        match first[0] {
            0x16 => tls(stream, blank, &ledger).await,
            byte if byte == GREETING.as_bytes()[0] => tcp(stream, blank, &ledger).await,
            _ => {
                http(stream, blank, ledger).await;
                Ok(())
            }
        }
    };
    // A client that goes away is no matter of the application's.
    let _ = answered.await;
}

async fn http(stream: TcpStream, blank: Seen, ledger: Ledger) {
    let service = service_fn(move |request: Request<Incoming>| {
        let seen = seen_of(&blank, &request);
        ledger.note(&seen);
        let (told, grpc) =
            (header(&request, DO), header(&request, "content-type").starts_with("application/grpc"));
        async move {
            if told == "hang" {
                tokio::time::sleep(LIMIT).await;
            }
            Ok::<_, Infallible>(answer(&seen, &told, grpc))
        }
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

fn header(request: &Request<Incoming>, name: &str) -> String {
    let value =
        request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    value.unwrap_or_default()
}

fn seen_of(blank: &Seen, request: &Request<Incoming>) -> Seen {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.to_string())
            .and_modify(|known| *known = format!("{known},{value}"))
            .or_insert_with(|| value.into_owned());
    }
    let host = request.uri().authority().map(ToString::to_string);
    let spoken = if request.version() == Version::HTTP_2 { "http2" } else { "http1" };
    Seen {
        case: header(request, CASE).parse().unwrap_or(0),
        spoken: spoken.to_owned(),
        path: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
        host: host.or_else(|| headers.get("host").cloned()).unwrap_or_default(),
        headers,
        ..blank.clone()
    }
}

fn answer(seen: &Seen, told: &str, grpc: bool) -> Response<Full<Bytes>> {
    let mut response = Response::builder().header(SEEN, serde_json::to_string(seen).unwrap());
    let number = told.split_once(' ').map(|(_, number)| number.to_owned());
    if grpc {
        response = response.header("content-type", "application/grpc");
    }
    match (told.split(' ').next(), number) {
        (Some("status"), Some(status)) => response = response.status(status.parse::<u16>().unwrap()),
        (Some("grpc"), Some(status)) => response = response.header("grpc-status", status),
        _ if grpc => response = response.header("grpc-status", "0"),
        _ => {}
    }
    response.body(Full::new(Bytes::new())).unwrap()
}

async fn tcp(stream: TcpStream, blank: Seen, ledger: &Ledger) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(1024).read_line(&mut line).await?;
    let case = line.trim().strip_prefix(GREETING).and_then(|number| number.parse().ok()).unwrap_or(0);
    let seen = Seen { case, spoken: "tcp".to_owned(), ..blank };
    reply(stream.into_inner(), &seen, ledger).await
}

/// Only the client's first words are read: the answer in plain text shows that bytes went through as they were.
async fn tls(mut stream: TcpStream, blank: Seen, ledger: &Ledger) -> io::Result<()> {
    let mut acceptor = rustls::server::Acceptor::default();
    let sni = loop {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await?;
        acceptor.read_tls(&mut &bytes[..count])?;
        match acceptor.accept() {
            Ok(Some(accepted)) => break accepted.client_hello().server_name().map(str::to_owned),
            Ok(None) if count > 0 => {}
            _ => return Ok(()),
        }
    };
    let seen = Seen { spoken: "tls".to_owned(), sni, ..blank };
    reply(stream, &seen, ledger).await
}

async fn reply(mut stream: TcpStream, seen: &Seen, ledger: &Ledger) -> io::Result<()> {
    ledger.note(seen);
    let mut line = serde_json::to_string(seen)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).await?;
    stream.shutdown().await
}
