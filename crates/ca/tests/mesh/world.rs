//! A small mesh, TLS connections over memory, and the openssl command line.

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use leno_ca::{Authority, Intermediate, Root};
use leno_identity::{
    HandshakeFailure, IdentityStore, KeyPair, SpiffeId, Trust, TrustDomain, UnixTime, WorkloadCertificate,
    csr_for,
};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, pki_types::ServerName};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// One trust domain with one cluster.
pub(crate) struct Mesh {
    pub(crate) root: Root,
    pub(crate) authority: Authority,
}

impl Mesh {
    /// Its authorities are a day old, so that certificates can be issued in the past.
    pub(crate) fn new(domain: &str) -> Self {
        let root = Root::generate(&domain_of(domain), ago(24 * HOUR)).unwrap();
        let authority = cluster(&root, "west");
        Self { root, authority }
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::new([self.root.bundle().unwrap()])
    }

    pub(crate) fn id(&self, account: &str) -> SpiffeId {
        SpiffeId::workload(self.authority.domain(), "shop", account).unwrap()
    }

    pub(crate) fn store(&self, account: &str) -> Arc<IdentityStore> {
        IdentityStore::with_certificate(self.trust(), certificate(&self.authority, &self.id(account), now()))
    }
}

pub(crate) fn cluster(root: &Root, name: &str) -> Authority {
    Intermediate::issue_by(root, name, ago(24 * HOUR)).unwrap().into_authority(now()).unwrap()
}

pub(crate) fn certificate(authority: &Authority, id: &SpiffeId, issued: UnixTime) -> WorkloadCertificate {
    let key = KeyPair::generate().unwrap();
    let issued = authority.issue(&csr_for(&key).unwrap(), id, HOUR, issued).unwrap();
    WorkloadCertificate::new(issued.chain, key).unwrap()
}

pub(crate) fn domain_of(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

pub(crate) fn now() -> UnixTime {
    UnixTime::now()
}

pub(crate) fn ago(by: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now().as_secs()) - by)
}

pub(crate) fn ahead(by: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now().as_secs()) + by)
}

/// Both ends after a handshake, and what each made of it.
pub(crate) struct Outcome {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
    pub(crate) client_failure: Option<HandshakeFailure>,
    pub(crate) server_failure: Option<HandshakeFailure>,
}

impl Outcome {
    pub(crate) fn is_established(&self) -> bool {
        self.client_failure.is_none()
            && self.server_failure.is_none()
            && !self.client.is_handshaking()
            && !self.server.is_handshaking()
    }

    pub(crate) fn assert_established(&self) {
        assert!(self.is_established(), "{:?} / {:?}", self.client_failure, self.server_failure);
    }
}

/// Carries bytes both ways until nobody has more to say.
pub(crate) fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, name: &str) -> Outcome {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let (mut client_failure, mut server_failure) = (None, None);
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        if server_failure.is_none() {
            server_failure = feed(&bytes, |input| {
                server.read_tls(input).unwrap();
                server.process_new_packets().map(drop)
            });
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        if client_failure.is_none() {
            client_failure = feed(&bytes, |input| {
                client.read_tls(input).unwrap();
                client.process_new_packets().map(drop)
            });
        }
    }
    Outcome { client, server, client_failure, server_failure }
}

fn feed(
    mut bytes: &[u8],
    mut read: impl FnMut(&mut &[u8]) -> Result<(), rustls::Error>,
) -> Option<HandshakeFailure> {
    while !bytes.is_empty() {
        if let Err(problem) = read(&mut bytes) {
            return Some(HandshakeFailure::from(&problem));
        }
    }
    None
}

/// Runs openssl in a directory; its output when it succeeds.
pub(crate) fn openssl(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).current_dir(directory).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {}: {errors}", arguments.join(" "));
    String::from_utf8(output.stdout).unwrap()
}
