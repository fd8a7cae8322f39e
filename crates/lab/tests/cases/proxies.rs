//! Starts proxies in this process, each with a join token of its own.
//!
//! Must not know: worlds.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use leno_control::tokens::{TokenFile, TokenGrant};
use leno_identity::{UnixTime, control_plane_identity};
use leno_lab::embedded::PodPlan;
use leno_model::{Millis, SpiffeId, TrustDomain, WorkloadId};
use leno_proxy::{
    JoinToken, Proxy, ProxyOptions, Workers,
    bootstrap::{AccessLog, Bootstrap, Capture, Role, Roots},
};

/// How long a proxy may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// Threads for their traffic.
const WORKERS: usize = 2;

/// A proxy that is to join the mesh.
pub(crate) struct Joining {
    pub(crate) id: WorkloadId,
    pub(crate) identity: SpiffeId,
    pub(crate) role: Role,
    pub(crate) address: IpAddr,
    pub(crate) app_address: IpAddr,
}

impl Joining {
    /// The one beside a pod.
    pub(crate) fn of_pod(plan: &PodPlan) -> Self {
        let namespace = plan.id.namespace.as_str();
        Self {
            id: plan.id.clone(),
            identity: SpiffeId::workload(&TrustDomain::default(), namespace, &plan.service_account).unwrap(),
            role: Role::Sidecar,
            address: plan.address,
            app_address: plan.app_address,
        }
    }
}

/// See the module.
pub(crate) struct Starter {
    control: SocketAddr,
    roots: String,
    workers: Arc<Workers>,
    tokens: PathBuf,
    issued: usize,
    low_port_offset: u16,
}

impl Starter {
    /// For the mesh of a control plane, whose file of tokens this is.
    pub(crate) fn new(control: SocketAddr, roots: String, tokens: PathBuf) -> Self {
        // Low ports stay as they are where they may be bound.
        let low_port_offset = if TcpListener::bind((control.ip(), 1)).is_ok() { 0 } else { 20_000 };
        let workers = Workers::start(WORKERS, "traffic").unwrap();
        Self { control, roots, workers, tokens, issued: 0, low_port_offset }
    }

    /// Starts proxies and waits until all are ready.
    pub(crate) async fn start(&mut self, joining: &[Joining]) -> Vec<Proxy> {
        let tokens = self.issue(joining);
        let starting = joining.iter().zip(tokens).enumerate();
        let starting = starting.map(|(nth, (joining, token))| self.proxy(joining, token, nth));
        futures_util::future::join_all(starting).await
    }

    /// Where a proxy's access log is.
    pub(crate) fn log(&self, proxy: IpAddr) -> PathBuf {
        self.tokens.with_file_name(format!("{proxy}.log"))
    }

    fn issue(&mut self, joining: &[Joining]) -> Vec<String> {
        let mut file = TokenFile::new();
        let mut tokens = Vec::new();
        for Joining { id, identity, .. } in joining {
            self.issued += 1;
            let token = format!("token {} of this test", self.issued);
            let (workload, expires) = (id.to_string(), now().as_secs() + 600);
            let grant = TokenGrant { workload, identity: identity.clone(), expires };
            file.insert(leno_ca::token_digest(token.as_bytes()), grant);
            tokens.push(token);
        }
        if !tokens.is_empty() {
            let beside = self.tokens.with_extension("new");
            std::fs::write(&beside, serde_json::to_vec(&file).unwrap()).unwrap();
            std::fs::rename(&beside, &self.tokens).unwrap();
        }
        tokens
    }

    async fn proxy(&self, joining: &Joining, token: String, nth: usize) -> Proxy {
        let Joining { id, role, address, app_address, .. } = joining;
        let bootstrap = Bootstrap {
            workload: id.clone(),
            uid: format!("{}.{}", id.name, id.namespace).into(),
            role: *role,
            cluster: "local".into(),
            trust_domain: TrustDomain::default(),
            control: vec![self.control.into()],
            control_identity: control_plane_identity(&TrustDomain::default()),
            roots: Roots::Pem(self.roots.clone()),
            certificate_ttl: Millis(3_600_000),
            state_dir: None,
            capture: Capture::ProxyProtocol,
            address: *address,
            app_ports: BTreeMap::new(),
            app_address: *app_address,
            low_port_offset: self.low_port_offset,
            cores: 1,
            drain: Millis(1000),
            allow_unknown: true,
            access_log: AccessLog::File(self.log(*address)),
            tracing: None,
            probes: BTreeMap::new(),
        };
        let workers = vec![self.workers.get(nth)];
        let join_token = JoinToken::Once(token);
        let proxy = Box::pin(Proxy::start(ProxyOptions { bootstrap, join_token, workers }));
        let proxy = proxy.await.unwrap();
        tokio::time::timeout(PATIENCE, proxy.ready()).await.unwrap_or_else(|_| panic!("{id} is not ready"));
        proxy
    }
}

/// The time.
pub(crate) fn now() -> UnixTime {
    UnixTime::since_unix_epoch(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
