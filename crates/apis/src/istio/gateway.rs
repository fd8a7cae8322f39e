//! Istio's Gateway: where traffic comes in, by labels of the pods that serve it.
//!
//! Invariant: a server that asks for something we cannot do is refused alone; the others serve.

use std::collections::BTreeMap;

use crate::decode::{Cursor, Fields, boolean, choice, name, port, spanned, text};
use crate::diagnostic::{Refused, Rule, Source, Spanned};

/// A Gateway of Istio.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Labels of the pods that serve it.
    pub selector: BTreeMap<String, String>,
    /// Servers.
    pub servers: Vec<Rule<Server>>,
}

/// A server of a gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Where it starts.
    pub at: Source,
    /// Name.
    pub name: Option<String>,
    /// Port.
    pub port: ServerPort,
    /// Hosts, possibly with a namespace: `ns/host`.
    pub hosts: Vec<Spanned<String>>,
    /// TLS.
    pub tls: Option<Spanned<ServerTls>>,
}

/// The port of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPort {
    /// Number.
    pub number: Spanned<u16>,
    /// Name.
    pub name: String,
    /// Protocol.
    pub protocol: ServerProtocol,
}

/// The protocol of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of the API")]
pub enum ServerProtocol {
    Http,
    Https,
    Grpc,
    GrpcWeb,
    Http2,
    Mongo,
    Tcp,
    Tls,
}

/// TLS of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// Mode.
    pub mode: ServerTlsMode,
    /// Whether plain HTTP is answered with a redirect to HTTPS.
    pub https_redirect: bool,
    /// Secret with certificate and key.
    pub credential_name: Option<Spanned<String>>,
    /// Several secrets.
    pub credential_names: Vec<Spanned<String>>,
    /// Secret with the authorities of clients.
    pub ca_cert_credential_name: Option<Spanned<String>>,
    /// File of the certificate.
    pub server_certificate: Option<Spanned<String>>,
    /// Lowest version; absent is the default.
    pub min_version: Option<TlsVersion>,
}

/// Mode of a server's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of the API")]
pub enum ServerTlsMode {
    Passthrough,
    Simple,
    Mutual,
    AutoPassthrough,
    IstioMutual,
    OptionalMutual,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "names of the API")]
pub enum TlsVersion {
    V1_0,
    V1_1,
    V1_2,
    V1_3,
}

const PROTOCOLS: &[(&str, ServerProtocol)] = &[
    ("HTTP", ServerProtocol::Http),
    ("HTTPS", ServerProtocol::Https),
    ("GRPC", ServerProtocol::Grpc),
    ("GRPC-WEB", ServerProtocol::GrpcWeb),
    ("HTTP2", ServerProtocol::Http2),
    ("MONGO", ServerProtocol::Mongo),
    ("TCP", ServerProtocol::Tcp),
    ("TLS", ServerProtocol::Tls),
];
const MODES: &[(&str, ServerTlsMode)] = &[
    ("PASSTHROUGH", ServerTlsMode::Passthrough),
    ("SIMPLE", ServerTlsMode::Simple),
    ("MUTUAL", ServerTlsMode::Mutual),
    ("AUTO_PASSTHROUGH", ServerTlsMode::AutoPassthrough),
    ("ISTIO_MUTUAL", ServerTlsMode::IstioMutual),
    ("OPTIONAL_MUTUAL", ServerTlsMode::OptionalMutual),
];
const VERSIONS: &[(&str, Option<TlsVersion>)] = &[
    ("TLS_AUTO", None),
    ("TLSV1_0", Some(TlsVersion::V1_0)),
    ("TLSV1_1", Some(TlsVersion::V1_1)),
    ("TLSV1_2", Some(TlsVersion::V1_2)),
    ("TLSV1_3", Some(TlsVersion::V1_3)),
];

pub(crate) fn gateway(o: &mut Fields<'_>) -> Option<Gateway> {
    o.req("spec", |value| {
        value.object(|o| {
            Some(Gateway { selector: o.map("selector", text), servers: o.rules("servers", server) })
        })
    })
}

fn server(value: Cursor<'_>) -> Option<Server> {
    let at = value.source();
    value.object(|o| {
        o.unsupported(
            "bind",
            Refused::Rule,
            "servers on an address of their own are not supported by this release",
        );
        o.unsupported(
            "defaultEndpoint",
            Refused::Field,
            "not supported by this release: requests that no route matches are answered 404",
        );
        Some(Server {
            at,
            name: o.opt("name", text),
            hosts: o.list("hosts", spanned(name)),
            tls: o.opt("tls", spanned(server_tls)),
            port: o.req("port", server_port)?,
        })
    })
}

fn server_port(value: Cursor<'_>) -> Option<ServerPort> {
    value.object(|o| {
        o.unsupported("targetPort", Refused::Field, "deprecated, and Istio does not act on it either");
        Some(ServerPort {
            name: o.or("name", String::new(), text)?,
            number: o.req("number", spanned(port))?,
            protocol: o.req("protocol", protocol)?,
        })
    })
}

/// Istio does not mind the case of protocols.
fn protocol(value: Cursor<'_>) -> Option<ServerProtocol> {
    let upper = text(value.clone())?.to_ascii_uppercase();
    match PROTOCOLS.iter().find(|(word, _)| *word == upper) {
        Some((_, protocol)) => Some(*protocol),
        None => choice(PROTOCOLS)(value),
    }
}

fn server_tls(value: Cursor<'_>) -> Option<ServerTls> {
    value.object(|o| {
        let files = "keys and authorities of files are not supported by this release: use `credentialName`";
        o.unsupported("privateKey", Refused::Field, files);
        // Another set of clients would be let in: the server must not serve.
        o.unsupported("caCertificates", Refused::Rule, files);
        o.unsupported("subjectAltNames", Refused::Rule, "names of clients are not checked by this release");
        let own = "not supported by this release: TLS 1.2 and 1.3 with the proxy's own choice of suites";
        o.unsupported("cipherSuites", Refused::Field, own);
        o.unsupported_unless("maxProtocolVersion", "TLS_AUTO", Refused::Field, own);
        Some(ServerTls {
            // proto3: the absent mode is the first, PASSTHROUGH.
            mode: o.or("mode", ServerTlsMode::Passthrough, choice(MODES))?,
            https_redirect: o.or("httpsRedirect", false, boolean)?,
            credential_name: o.opt("credentialName", spanned(name)),
            credential_names: o.list("credentialNames", spanned(name)),
            ca_cert_credential_name: o.opt("caCertCredentialName", spanned(name)),
            server_certificate: o.opt("serverCertificate", spanned(name)),
            min_version: o.or("minProtocolVersion", None, choice(VERSIONS))?,
        })
    })
}
