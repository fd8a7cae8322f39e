//! Answers over gRPC: health, echo, reflection; any other service is UNIMPLEMENTED.
//!
//! Invariant: streams are bounded in length and in what waits in them.
//! Must not know: connections.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower_service::Service as _;

use super::graph::App;
use super::proto::echo_server::{Echo, EchoServer};
use super::proto::{DESCRIPTORS, EchoRequest, EchoResponse};

/// Most answers of a server stream.
const MAX_REPEAT: u32 = 10_000;
/// Longest delay that a request may ask for.
const MAX_DELAY: Duration = Duration::from_secs(60);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone)]
struct Stand(Arc<App>);

/// Answers a request whose content type is gRPC's.
pub(super) async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Response<Body> {
    let request = request.map(Body::new);
    let service = request.uri().path().split('/').nth(1).unwrap_or_default();
    let name = |name| service == name;
    let answered = if name(EchoServer::<Stand>::NAME) {
        EchoServer::new(Stand(Arc::clone(app))).call(request).await
    } else if name(HealthServer::<Stand>::NAME) {
        HealthServer::new(Stand(Arc::clone(app))).call(request).await
    } else if service.starts_with("grpc.reflection.") {
        match reflection() {
            Some(mut routes) => routes.call(request).await.map(|response| response.map(Body::new)),
            None => Ok(unimplemented(service)),
        }
    } else {
        Ok(unimplemented(service))
    };
    answered.unwrap_or_else(|never| match never {})
}

/// A gRPC answer that is a status alone.
fn unimplemented(service: &str) -> Response<Body> {
    Status::unimplemented(format!("a stand-in does not implement {service}")).into_http()
}

/// The same for every stand-in, so it is built once.
fn reflection() -> Option<Routes> {
    static ROUTES: OnceLock<Option<Routes>> = OnceLock::new();
    let build = || {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let routes = Routes::new(builder().build_v1().ok()?);
        Some(routes.add_service(builder().build_v1alpha().ok()?).prepare())
    };
    ROUTES.get_or_init(build).clone()
}

impl Stand {
    fn response(&self, request: &EchoRequest, headers: &HeaderMap, count: u64) -> EchoResponse {
        let spec = &self.0.spec;
        EchoResponse {
            message: request.message.clone(),
            count,
            server: spec.name.clone(),
            app: spec.app.clone(),
            version: spec.version.clone(),
            namespace: spec.namespace.clone(),
            metadata: seen(headers),
            calls: Vec::new(),
        }
    }
}

/// Text headers; several values of a name are joined.
fn seen(headers: &HeaderMap) -> HashMap<String, String> {
    let mut seen: HashMap<String, String> = HashMap::new();
    for (name, value) in headers {
        let Ok(value) = value.to_str() else { continue };
        let joined = seen.entry(name.as_str().to_owned()).or_default();
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(value);
    }
    seen
}

/// Waits and fails as the request says.
async fn steer(request: &EchoRequest) -> Result<(), Status> {
    if request.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(request.delay_ms.into()).min(MAX_DELAY)).await;
    }
    match i32::try_from(request.status_code) {
        Ok(0) => Ok(()),
        Ok(code) => Err(Status::new(Code::from(code), "as asked")),
        Err(_) => Err(Status::invalid_argument("no such status code")),
    }
}

#[tonic::async_trait]
impl Echo for Stand {
    type ServerStreamStream = Answers<EchoResponse>;
    type BidiStream = Answers<EchoResponse>;

    async fn unary(
        &self,
        request: tonic::Request<EchoRequest>,
    ) -> Result<tonic::Response<EchoResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let headers = metadata.into_headers();
        steer(&request).await?;
        let plan = self.0.plan("/leno.standin.v1.Echo/Unary");
        let (latency, error) = plan.roll();
        tokio::time::sleep(latency).await;
        if let Some(status) = error {
            return Err(Status::unavailable(format!("the behaviour says {status}")));
        }
        let mut response = self.response(&request, &headers, 1);
        if !request.no_calls {
            let calls = Box::pin(self.0.make_calls(&plan, &headers)).await;
            if plan.fails_with(&calls) {
                return Err(Status::unavailable("a call failed"));
            }
            response.calls = calls.into_iter().map(Into::into).collect();
        }
        Ok(tonic::Response::new(response))
    }

    async fn server_stream(
        &self,
        request: tonic::Request<EchoRequest>,
    ) -> Result<tonic::Response<Self::ServerStreamStream>, Status> {
        let (metadata, _, request) = request.into_parts();
        let first = self.response(&request, &metadata.into_headers(), 0);
        let repeat = u64::from(request.repeat.clamp(1, MAX_REPEAT));
        let answers = futures_util::stream::iter(1..=repeat).then(move |count| {
            // The delay is between answers; a status ends the stream after the last.
            let (answer, pace) = (EchoResponse { count, ..first.clone() }, request.clone());
            async move {
                let end = if count == repeat { pace.status_code } else { 0 };
                steer(&EchoRequest { status_code: end, ..pace }).await.map(|()| answer)
            }
        });
        Ok(tonic::Response::new(Box::pin(answers)))
    }

    async fn client_stream(
        &self,
        request: tonic::Request<Streaming<EchoRequest>>,
    ) -> Result<tonic::Response<EchoResponse>, Status> {
        let (metadata, _, mut messages) = request.into_parts();
        let (mut last, mut count) = (EchoRequest::default(), 0);
        while let Some(message) = messages.message().await? {
            (last, count) = (message, count + 1);
        }
        steer(&last).await?;
        Ok(tonic::Response::new(self.response(&last, &metadata.into_headers(), count)))
    }

    async fn bidi(
        &self,
        request: tonic::Request<Streaming<EchoRequest>>,
    ) -> Result<tonic::Response<Self::BidiStream>, Status> {
        let (metadata, _, messages) = request.into_parts();
        let (this, headers) = (self.clone(), Arc::new(metadata.into_headers()));
        let answers = messages.enumerate().then(move |(index, message)| {
            let (this, headers) = (this.clone(), Arc::clone(&headers));
            async move {
                let message = message?;
                steer(&message).await?;
                Ok(this.response(&message, &headers, index as u64 + 1))
            }
        });
        Ok(tonic::Response::new(Box::pin(answers)))
    }
}

#[tonic::async_trait]
impl Health for Stand {
    type WatchStream = Answers<HealthCheckResponse>;

    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !service.is_empty() && service != EchoServer::<Self>::NAME {
            return Err(Status::not_found(format!("no such service: {service}")));
        }
        Ok(tonic::Response::new(self.health()))
    }

    async fn watch(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let this = self.clone();
        let now = futures_util::stream::iter([Ok(self.health())]);
        let after = futures_util::stream::once(async move {
            this.0.draining.cancelled().await;
            Ok(this.health())
        });
        Ok(tonic::Response::new(Box::pin(now.chain(after))))
    }
}

impl Stand {
    fn health(&self) -> HealthCheckResponse {
        let draining = self.0.draining.is_cancelled();
        let status = if draining { ServingStatus::NotServing } else { ServingStatus::Serving };
        HealthCheckResponse { status: status.into() }
    }
}

/// Whether a request is gRPC's.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let named = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    headers.get(header::CONTENT_TYPE).is_some_and(named)
}

/// One message in its frame: not compressed, and its length before it.
#[must_use]
pub(crate) fn frame(message: &impl prost::Message) -> Bytes {
    let encoded = message.encode_to_vec();
    let length = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), &encoded].concat().into()
}
