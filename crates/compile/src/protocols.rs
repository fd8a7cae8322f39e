//! Which protocol a port declares, by `appProtocol` and by the prefix of its name.
//!
//! Invariant: what is declared is believed; what is not is [`Protocol::Detect`], except the well-known ports of protocols
//! in which the server speaks first.

use leno_model::{Port, Protocol};

/// Ports that Istio takes for TCP when nothing is declared: SMTP, DNS, MySQL, MongoDB.
const SERVER_FIRST: [Port; 4] = [25, 53, 3306, 27017];

/// The protocol that a port declares.
pub(crate) fn declared(app_protocol: Option<&str>, port_name: &str, port: Port) -> Protocol {
    let text = app_protocol.unwrap_or(port_name).to_ascii_lowercase();
    let by_name = match text.as_str() {
        "kubernetes.io/h2c" => Some(Protocol::Http2),
        "kubernetes.io/ws" => Some(Protocol::Http1),
        "kubernetes.io/wss" => Some(Protocol::Tls),
        _ => by_prefix(&text),
    };
    by_name.unwrap_or(if SERVER_FIRST.contains(&port) { Protocol::Tcp } else { Protocol::Detect })
}

fn by_prefix(text: &str) -> Option<Protocol> {
    // Carried by HTTP/1.1 and HTTP/2 alike.
    if text.starts_with("grpc-web") {
        return Some(Protocol::Http1);
    }
    match text.split('-').next().unwrap_or(text) {
        "http" | "http_proxy" => Some(Protocol::Http1),
        "http2" => Some(Protocol::Http2),
        "grpc" => Some(Protocol::Grpc),
        "https" | "tls" => Some(Protocol::Tls),
        "tcp" | "mongo" | "mysql" | "redis" | "udp" => Some(Protocol::Tcp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_protocol_wins_over_the_name_and_undeclared_is_detected() {
        assert_eq!(declared(Some("grpc"), "http-web", 80), Protocol::Grpc);
        assert_eq!(declared(Some("kubernetes.io/h2c"), "", 80), Protocol::Http2);
        assert_eq!(declared(None, "http-web", 80), Protocol::Http1);
        assert_eq!(declared(None, "HTTP2", 80), Protocol::Http2);
        assert_eq!(declared(None, "web", 80), Protocol::Detect);
        assert_eq!(declared(None, "", 3306), Protocol::Tcp);
    }
}
