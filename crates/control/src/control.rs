//! The parts of a control plane, started and stopped together.
//!
//! Invariant: every task has an owner that joins it; the end of one ends all.

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use leno_ca::{Authority, AuthorityPem, AuthorityProblem, CacertsProblem};
use leno_identity::{ClientAuth, IdentityStore, SpiffeIdError, server_config};
use leno_sources::SourceError;
use leno_xds::{
    proto::{identity::identity_server::IdentityServer, replicas::replicas_server::ReplicasServer},
    transport::{
        Publisher,
        server::{DiscoveryService, ServeError, ServerConfig, serve},
    },
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{self, Api},
    authorize::Admission,
    certificate::{self, Own, OwnCertificateError},
    clock::now,
    config::{ControlConfig, KubernetesConfig},
    identity_service::{IdentityService, IssueCounts, Proofs},
    input::{self, Input, Said},
    kubernetes::{
        Cluster, KubernetesError, authority, east_west,
        leader::{self, Leader},
        lease, monitoring,
        token_review::{AUDIENCE, TokenReviews},
        webhook::Webhook,
    },
    listen,
    peering::{Listener, Memory, Peers, listen_to},
    published::Newest,
    replicas::ReplicasService,
    store::{StoreError, Writer},
    tokens::Tokens,
};

/// How long parts may take to end.
const STOP_GRACE: Duration = Duration::from_secs(8);

/// Why a control plane does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The manifests or the overlay cannot be read at start.
    #[error("the sources cannot be read")]
    Source(#[from] SourceError),
    /// The authority's files cannot be read.
    #[error("the issuing authority cannot be read")]
    Cacerts(#[from] CacertsProblem),
    /// The authority cannot issue.
    #[error("the issuing authority cannot be used")]
    Authority(#[from] AuthorityProblem),
    /// Nobody can be the control plane of this namespace.
    #[error("the control plane's namespace cannot be part of an identity")]
    Namespace(#[source] SpiffeIdError),
    /// No certificate for itself.
    #[error(transparent)]
    Certificate(#[from] OwnCertificateError),
    /// The list of used tokens cannot be read.
    #[error("the list of used join tokens beside {} cannot be read", path.display())]
    Tokens {
        /// The tokens file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An address cannot be listened on.
    #[error("{address} cannot be listened on")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The API has no authentication, so it stays on the machine.
    #[error("the API's address {address} is not a loopback address")]
    PublicApi {
        /// The address.
        address: SocketAddr,
    },
    /// The discovery server ended.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The store ended.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The Kubernetes API server, or what is needed of it, cannot be used.
    #[error("the Kubernetes cluster cannot be used")]
    Kubernetes(#[from] KubernetesError),
    /// A part panicked, which is a defect.
    #[error("a part of the control plane ended unexpectedly; this is a defect of Leno")]
    Part(#[from] tokio::task::JoinError),
    /// It ended before it was ready.
    #[error("the control plane ended before it was ready")]
    Ended,
}

/// A running control plane.
#[derive(Debug)]
pub struct Control {
    discovery: SocketAddr,
    api: SocketAddr,
    ready: watch::Receiver<bool>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), ControlError>>,
}

/// Runs a control plane until `stop`, or until one of its parts fails.
///
/// # Errors
/// When it does not start or a part fails.
pub async fn run(config: ControlConfig, stop: CancellationToken) -> Result<(), ControlError> {
    let control = Control::start(config).await?;
    let guard = control.stop.clone();
    tokio::select! {
        () = stop.cancelled() => guard.cancel(),
        () = guard.cancelled() => {}
    }
    control.stop().await
}

impl Control {
    /// Starts a control plane: reads the sources once, listens, and runs until [`Control::stop`].
    ///
    /// # Errors
    /// When the sources or the authority cannot be read, or an address is taken.
    pub async fn start(config: ControlConfig) -> Result<Self, ControlError> {
        if !config.api.ip().is_loopback() {
            return Err(ControlError::PublicApi { address: config.api });
        }
        let prepared = match config.kubernetes.clone() {
            Some(kubernetes) => Prepared::of_cluster(config, kubernetes).await?,
            None => tokio::task::spawn_blocking(move || Prepared::read(config)).await??,
        };
        let discovery = bind(prepared.config.listen).await?;
        let api = bind(prepared.config.api).await?;
        let addresses =
            (address_of(&discovery, prepared.config.listen)?, address_of(&api, prepared.config.api)?);
        let stop = CancellationToken::new();
        let (parts, ready) = prepared.spawn(discovery, api, &stop).await?;
        tracing::info!(discovery = %addresses.0, api = %addresses.1, "control plane listens");
        let running = tokio::spawn(supervise(parts, stop.clone()));
        Ok(Self { discovery: addresses.0, api: addresses.1, ready, stop, running })
    }

    /// Where proxies and other control planes connect.
    pub fn discovery_address(&self) -> SocketAddr {
        self.discovery
    }

    /// Where the JSON API is.
    pub fn api_address(&self) -> SocketAddr {
        self.api
    }

    /// Waits until the first generation is published.
    ///
    /// # Errors
    /// When it ends before.
    pub async fn ready(&self) -> Result<(), ControlError> {
        let mut ready = self.ready.clone();
        ready.wait_for(|ready| *ready).await.map_err(|_| ControlError::Ended)?;
        Ok(())
    }

    /// Resolves when it has been stopped or a part has failed.
    pub async fn ended(&self) {
        self.stop.cancelled().await;
    }

    /// Stops it and waits for its end.
    ///
    /// # Errors
    /// When a part failed before.
    pub async fn stop(self) -> Result<(), ControlError> {
        self.stop.cancel();
        self.running.await?
    }
}

/// What is read before anything listens.
struct Prepared {
    config: Arc<ControlConfig>,
    from: From,
    authority: Arc<Authority>,
    own: Own,
    store: Arc<IdentityStore>,
    proofs: Proofs,
    peers: Peers,
    memory: Memory,
}

/// Where objects come from.
enum From {
    Manifests { input: Input, first: Said },
    Cluster(Box<Cluster>),
}

impl Prepared {
    /// Without Kubernetes: everything is in files.
    fn read(config: ControlConfig) -> Result<Self, ControlError> {
        let pem = AuthorityPem::read(&config.ca_dir)?;
        let tokens = Tokens::new(config.tokens.clone()).map_err(|source| ControlError::Tokens {
            path: config.tokens.clone().unwrap_or_default(),
            source,
        })?;
        let mut input = Input::of(&config);
        let first = Said { reading: Some(Arc::new(input.read()?.unwrap_or_default())), error: None };
        let proofs = Proofs::Tokens(Arc::new(tokens));
        Self::new(config, &pem, From::Manifests { input, first }, proofs, Vec::new())
    }

    /// On Kubernetes: its API server knows.
    async fn of_cluster(config: ControlConfig, kubernetes: KubernetesConfig) -> Result<Self, ControlError> {
        let cluster = Cluster::connect(kubernetes).await?;
        let pem = authority::authority(&cluster, &config.trust_domain, config.cluster.as_str()).await?;
        let reviews = TokenReviews {
            client: cluster.client.clone(),
            audience: AUDIENCE.to_owned(),
            domain: config.trust_domain.clone(),
        };
        let names = cluster.service_names();
        Self::new(config, &pem, From::Cluster(Box::new(cluster)), Proofs::Reviews(reviews), names)
    }

    fn new(
        config: ControlConfig,
        pem: &AuthorityPem,
        from: From,
        proofs: Proofs,
        names: Vec<String>,
    ) -> Result<Self, ControlError> {
        let authority = Arc::new(Authority::from_pem(&config.trust_domain, pem, now())?);
        let own = Own { identity: config.control_identity().map_err(ControlError::Namespace)?, names };
        let store = certificate::first(&authority, &own, config.certificates.granted(0))?;
        let memory = Memory { folder: config.state_dir.clone() };
        let known = config
            .peers
            .iter()
            .map(|peer| (peer.cluster.clone(), memory.remote(&peer.cluster, &config.trust_domain)));
        let peers = Peers::new(known);
        Ok(Self { config: Arc::new(config), from, authority, own, store, proofs, peers, memory })
    }

    async fn spawn(
        self,
        discovery: TcpListener,
        api_listener: TcpListener,
        stop: &CancellationToken,
    ) -> Result<(JoinSet<Result<(), ControlError>>, watch::Receiver<bool>), ControlError> {
        let Self { config, from, authority, own, store, proofs, peers, memory } = self;
        let mut parts = JoinSet::new();
        let newest = Newest::default();
        let publisher = Publisher::default();
        let counts = Arc::new(IssueCounts::default());
        let said = Arc::new(watch::Sender::new(match &from {
            From::Manifests { first, .. } => first.clone(),
            From::Cluster(_) => Said::default(),
        }));
        let ttl = config.certificates.granted(0);

        for peer in config.peers.clone() {
            let listener = Listener {
                cluster: config.cluster.clone(),
                domain: config.trust_domain.clone(),
                control: own.identity.clone(),
                store: store.clone(),
                peers: peers.clone(),
                memory: memory.clone(),
            };
            part(&mut parts, listen_to(peer, listener, stop.clone()));
        }
        let admission = Admission::new(newest.clone(), config.cluster.clone(), own.identity.clone());
        let service = DiscoveryService::new(ServerConfig::default(), publisher.clone(), admission);
        let identity = IdentityService {
            authority: authority.clone(),
            proofs,
            newest: newest.clone(),
            lifetimes: config.certificates,
            counts: counts.clone(),
            stop: stop.clone(),
        };
        let replicas = ReplicasService::new(newest.clone(), service.sessions().clone(), own.identity.clone());
        let api = Arc::new(Api {
            config: config.clone(),
            newest: newest.clone(),
            sessions: service.sessions().clone(),
            said: said.subscribe(),
            peers: peers.clone(),
            store: store.clone(),
            authority: authority.clone(),
            counts,
            started: now(),
        });
        let (accepted_in, accepted) = mpsc::channel(64);
        let tls = server_config(&store, ClientAuth::Optional, &[b"h2"]);
        part(&mut parts, listen::accept(discovery, tls, accepted_in, stop.clone()));
        let (readiness, ready) = watch::channel(false);
        let (gateways_in, gateways) = watch::channel(match &from {
            From::Manifests { .. } => Some(config.gateways.clone()),
            From::Cluster(_) => None,
        });
        let writer = Writer {
            config: config.clone(),
            said: said.subscribe(),
            peers,
            gateways,
            publisher,
            newest,
            readiness,
        };
        match from {
            From::Manifests { input, first: _ } => part(&mut parts, input::follow(input, said, stop.clone())),
            From::Cluster(cluster) => {
                let cluster = *cluster;
                let found = east_west::follow(config.mesh(), said.subscribe(), gateways_in, stop.clone());
                part(&mut parts, found);
                let secrets = cluster.config.gateways.secret_namespaces.clone();
                let follow = input::follow_kubernetes(cluster.client.clone(), secrets, said, stop.clone());
                part(&mut parts, follow);
                let (webhook, monitoring) =
                    (cluster.config.webhook_address(), cluster.config.monitoring_address());
                let tls = server_config(&store, ClientAuth::Optional, &[b"http/1.1"]);
                let webhook = Webhook { cluster: cluster.clone(), listener: bind(webhook).await?, tls };
                part(&mut parts, webhook.serve(stop.clone()));
                part(&mut parts, monitoring::serve(api.clone(), bind(monitoring).await?, stop.clone()));
                let (leads_in, leads) = watch::channel(false);
                part(&mut parts, lease::run(cluster.clone(), leads_in, stop.clone()));
                part(&mut parts, leader::run(Leader { cluster, api: api.clone(), leads }, stop.clone()));
            }
        }
        part(&mut parts, certificate::renew(authority, store, own, ttl, stop.clone()));
        part(&mut parts, api::serve(api, api_listener, stop.clone()));
        let stopped = stop.clone();
        parts.spawn(async move { Ok(writer.run(stopped).await?) });
        let stopped = stop.clone();
        parts.spawn(async move {
            let routes = service.routes().add_service(IdentityServer::new(identity));
            let routes = routes.add_service(ReplicasServer::new(replicas));
            let incoming = ReceiverStream::new(accepted);
            Ok(serve(&service, routes, incoming, stopped.cancelled()).await?)
        });
        Ok((parts, ready))
    }
}

fn part(parts: &mut JoinSet<Result<(), ControlError>>, part: impl Future<Output = ()> + Send + 'static) {
    parts.spawn(async move {
        part.await;
        Ok(())
    });
}

/// Joins all parts; the first that ends stops the others.
async fn supervise(
    mut parts: JoinSet<Result<(), ControlError>>,
    stop: CancellationToken,
) -> Result<(), ControlError> {
    let mut outcome = Ok(());
    let ended = async {
        while let Some(ended) = parts.join_next().await {
            stop.cancel();
            let ended = ended.unwrap_or_else(|error| Err(error.into()));
            if outcome.is_ok() {
                outcome = ended;
            }
        }
    };
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        () = ended => {}
        () = late => tracing::warn!("parts of the control plane did not end in time; they are dropped"),
    }
    outcome
}

/// `[::]` is every address of both families, and of IPv4 alone where the kernel has no IPv6.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, ControlError> {
    let bound = match TcpListener::bind(address).await {
        Err(source) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await.map_err(|_| source)
        }
        bound => bound,
    };
    bound.map_err(|source| ControlError::Listen { address, source })
}

fn address_of(listener: &TcpListener, address: SocketAddr) -> Result<SocketAddr, ControlError> {
    listener.local_addr().map_err(|source| ControlError::Listen { address, source })
}
