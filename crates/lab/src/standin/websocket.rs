//! A WebSocket that echoes messages.
//!
//! Invariant: messages are bounded; a stop closes the socket.
//! Must not know: paths.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tonic::body::Body;

use super::graph::App;
use super::respond::text;

const MAX_MESSAGE: usize = 4 << 20;

/// Whether a request asks for a WebSocket (HTTP/1.1).
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Switches protocols and echoes on a task of its own.
pub(super) fn accept(app: &Arc<App>, mut request: Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        return text(StatusCode::BAD_REQUEST, "no sec-websocket-key\n");
    };
    let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) else {
        return text(StatusCode::BAD_REQUEST, "bad sec-websocket-key\n");
    };
    let (upgrade, stopping) = (hyper::upgrade::on(&mut request), Arc::clone(app));
    app.tasks.spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            Box::pin(echo(upgraded, &stopping)).await;
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

async fn echo(upgraded: hyper::upgrade::Upgraded, app: &App) {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MAX_MESSAGE);
    config.max_frame_size = Some(MAX_MESSAGE);
    config.max_write_buffer_size = 2 * MAX_MESSAGE;
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            () = app.draining.cancelled() => break,
        };
        match message {
            Some(Ok(message)) if message.is_text() || message.is_binary() => {
                let sent = tokio::select! {
                    sent = socket.send(message) => sent.is_ok(),
                    () = app.killed.cancelled() => false,
                };
                if !sent {
                    return;
                }
            }
            // Pings and closes are answered by the protocol itself.
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
    }
    tokio::select! {
        // The peer may be gone already.
        _closed = socket.close(None) => {}
        () = app.killed.cancelled() => {}
    }
}
