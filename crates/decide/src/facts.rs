//! What is known of a connection and of a request when something is decided about it.
//!
//! Invariant: facts borrow what the proxy already has; making them allocates nothing.
//! Must not know: sockets, HTTP libraries.

use std::{borrow::Cow, net::IpAddr};

use leno_model::{Port, SpiffeId};

/// A request's headers.
pub trait Headers {
    /// The value of a header by its lower-case name, repeated ones joined with `,`; `None` when there is none.
    fn value(&self, name: &str) -> Option<Cow<'_, [u8]>>;
}

/// Pairs of lower-case name and value, for tests and `explain`.
impl Headers for Vec<(String, String)> {
    fn value(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut values = self.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_bytes());
        let first = values.next()?;
        match values.next() {
            None => Some(Cow::Borrowed(first)),
            Some(second) => {
                let all: Vec<&[u8]> = [first, second].into_iter().chain(values).collect();
                Some(Cow::Owned(all.join(&b',')))
            }
        }
    }
}

/// No headers at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn value(&self, _name: &str) -> Option<Cow<'_, [u8]>> {
        None
    }
}

/// A request's head.
#[derive(Clone, Copy)]
pub struct RequestFacts<'r> {
    /// The method, as sent.
    pub method: &'r str,
    /// The normalised path, without the query.
    pub path: &'r str,
    /// What stands after `?`, without it.
    pub query: Option<&'r str>,
    /// `http` or `https`.
    pub scheme: &'r str,
    /// `Host` or `:authority`, with its port when the request has one.
    pub authority: &'r str,
    /// The headers.
    pub headers: &'r dyn Headers,
    /// The original client's address when something between is trusted to say it; `None`: that of the connection.
    pub remote_ip: Option<IpAddr>,
}

impl RequestFacts<'_> {
    /// A header, or one of HTTP/2's pseudo-headers.
    pub(crate) fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let pseudo = match name {
            ":method" => self.method,
            ":authority" | "host" => self.authority,
            ":scheme" => self.scheme,
            ":path" => {
                return Some(match self.query {
                    None => Cow::Borrowed(self.path.as_bytes()),
                    Some(query) => Cow::Owned(format!("{}?{query}", self.path).into_bytes()),
                });
            }
            _ => return self.headers.value(name),
        };
        Some(Cow::Borrowed(pseudo.as_bytes()))
    }
}

/// A connection that a server (or gateway) accepted.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionFacts<'c> {
    /// The verified identity of a mesh peer.
    pub peer: Option<&'c SpiffeId>,
    /// The peer's address.
    pub source_ip: IpAddr,
    /// The original client's address (PROXY protocol at a trusted edge), else the same as `source_ip`.
    pub remote_ip: IpAddr,
    /// The address that was dialled.
    pub destination_ip: IpAddr,
    /// The workload's port.
    pub destination_port: Port,
    /// The name in the TLS handshake.
    pub sni: Option<&'c str>,
}

/// The host of an authority: without port, and without the dot that may end a full name.
pub fn host_of(authority: &str) -> &str {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(authority, |(address, _)| address),
        None => match authority.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => authority,
        },
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// The port of an authority, if it has one.
pub fn port_of(authority: &str) -> Option<Port> {
    let (before, port) = authority.rsplit_once(':')?;
    let is_port = !before.contains(':') || before.ends_with(']');
    is_port.then(|| port.parse().ok()).flatten()
}
