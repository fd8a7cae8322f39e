//! A control plane and the proxies of a world, in this process: real sockets, real mTLS, recording applications.
//!
//! ```text
//! World --write--> manifests, overlay --> control plane --discovery--> proxies (one a pod, one a gateway)
//!                                             \--/v1/world--> Published: names, endpoints, as in force
//! ```
//!
//! Invariants: a world is in force only when every proxy of it has acknowledged the newest generation; what runs for one
//! world keeps running, so that the next one with the same pods needs only a change of files.
//! Must not know: cases.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use leno_control::{Control, ControlConfig};
use leno_lab::{
    embedded::{Addresses, Block, Planned, PlannedService, PodPlan, PodState, plan},
    mesh::api,
};
use leno_model::{SpiffeId, TrustDomain, WorkloadId};
use leno_proxy::{Proxy, bootstrap::Role};
use leno_sources::Overlay;
use serde_json::{Value, json};

use crate::{
    app::{App, Ledger},
    documents::World,
    loopback::Places,
    proxies::{Joining, Starter, now},
    published::Published,
};

/// How long a change may take to be in force.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// See the module.
pub(crate) struct Rig {
    pub(crate) places: Places,
    pub(crate) ledger: Ledger,
    pub(crate) published: Published,
    _outside: Block,
    addresses: Addresses,
    folder: tempfile::TempDir,
    _control: Control,
    api: SocketAddr,
    starter: Starter,
    pods: BTreeMap<WorkloadId, Pod>,
    gateways: BTreeMap<WorkloadId, (Proxy, IpAddr)>,
    outsiders: BTreeMap<IpAddr, App>,
    planned: Planned,
    current: Option<Arc<World>>,
    changes: u32,
}

struct Pod {
    proxy: Option<Proxy>,
    app: App,
}

impl Rig {
    /// A control plane without a world.
    pub(crate) async fn start() -> Self {
        let (block, outside) = (Arc::new(Block::take().unwrap()), Block::take().unwrap());
        let listen = SocketAddr::new(block.control(0), 15012);
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["ca", "manifests", "overlay", "state"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        let root = leno_ca::Root::generate(&TrustDomain::default(), now()).unwrap();
        leno_ca::Intermediate::issue_by(&root, "local", now()).unwrap().pem().write(&path("ca")).unwrap();
        std::fs::write(path("manifests/0-marker.yaml"), marker(0)).unwrap();
        std::fs::write(path("tokens.json"), "{}").unwrap();
        Overlay::default().write(&path("overlay/overlay.json")).unwrap();
        let config = json!({
            "cluster": "local",
            "listen": listen,
            "api": SocketAddr::new(listen.ip(), 15014),
            "paths": [path("manifests")],
            "overlay": path("overlay/overlay.json"),
            "ca_dir": path("ca"),
            "tokens": path("tokens.json"),
            // One case's objects are not the next one's.
            "reference_patience": 0,
        });
        let config: ControlConfig = serde_json::from_value(config).unwrap();
        let api = config.api;
        let control = Control::start(config).await.unwrap();
        control.ready().await.unwrap();
        Self {
            places: Places::new(&block, &outside),
            ledger: Ledger::default(),
            published: Published::default(),
            addresses: Addresses::new(block, 0),
            starter: Starter::new(listen, root.certificate_pem(), path("tokens.json")),
            pods: BTreeMap::new(),
            gateways: BTreeMap::new(),
            outsiders: BTreeMap::new(),
            planned: Planned::default(),
            current: None,
            changes: 0,
            _control: control,
            _outside: outside,
            folder,
            api,
        }
    }

    /// Puts a world in force.
    pub(crate) async fn put(&mut self, world: &Arc<World>) {
        if self.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, world)) {
            return;
        }
        if world.broken {
            // What is broken would keep an earlier object of its name in force.
            self.change(&world.base()).await;
        }
        self.change(world).await;
        self.current = Some(world.clone());
    }

    async fn change(&mut self, world: &World) {
        self.changes += 1;
        self.planned = plan(world.objects().iter(), &mut self.addresses);
        self.serve_apps().await;
        self.write(world);
        let marked = format!("/v1/objects?kind=Namespace&name=lab-{}", self.changes);
        let api = self.api;
        until("the manifests are read", async || {
            let objects = api::get_json(api, &marked).await.unwrap();
            objects["objects"].as_array().is_some_and(|found| !found.is_empty())
        })
        .await;
        self.start_proxies().await;
        self.settle().await;
        self.published = Published::of(&api::get_json(self.api, "/v1/world").await.unwrap());
        self.serve_outside(world).await;
    }

    /// Manifests, with the marker last and read first, after the pods that they speak of.
    fn write(&self, world: &World) {
        let pods = self.planned.pods.iter();
        let ready = PodState { ready: true, terminating: false };
        let allotted = self.planned.services.iter().filter(|service| service.allotted);
        let named =
            |it: &PlannedService| Some((format!("{}/{}", it.namespace, it.name), *it.addresses.first()?));
        let overlay = Overlay {
            services: allotted.filter_map(named).chain(self.hidden(world)).collect(),
            pods: pods.map(|pod| pod.to_json(ready)).collect(),
        };
        overlay.write(&self.path("overlay/overlay.json")).unwrap();
        self.replace("shared.yaml", &text(&world.shared));
        self.replace(&world.file, &text(&world.own));
        self.replace("0-marker.yaml", &marker(self.changes));
    }

    /// Services that not everybody may see, where whoever passes by the mesh finds somebody.
    fn hidden(&self, world: &World) -> Vec<(String, IpAddr)> {
        let objects = world.shared.iter().chain(&world.own);
        let hidden = objects.filter(|object| {
            object["kind"] == "Service"
                && object["metadata"]["annotations"]["networking.istio.io/exportTo"].is_string()
        });
        let name = |object: &Value| {
            let text = |key: &str| object["metadata"][key].as_str().unwrap().to_owned();
            format!("{}/{}", text("namespace"), text("name"))
        };
        hidden.zip(1..).map(|(object, index)| (name(object), self.places.hidden(index))).collect()
    }

    fn replace(&self, name: &str, text: &str) {
        // A file that is empty deletes nothing.
        let text = if text.trim().is_empty() { "# no objects" } else { text };
        let beside = self.path("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, self.path("manifests").join(name)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn serve_apps(&mut self) {
        for plan in &self.planned.pods {
            // Without a proxy the application has the pod's own address.
            let address = if plan.has_proxy() { plan.app_address } else { plan.address };
            let fresh = || Pod { proxy: None, app: App::new(&plan.owner.1, address, &self.ledger) };
            let pod = self.pods.entry(plan.id.clone()).or_insert_with(fresh);
            for port in &plan.ports {
                pod.app.serve(port.port).await.unwrap();
            }
        }
    }

    /// Servers at the addresses of endpoints that are no pods, and one that no service leads to.
    async fn serve_outside(&mut self, world: &World) {
        let hidden = self.hidden(world).into_iter().map(|(_, address)| address);
        let elsewhere = hidden.chain([self.places.elsewhere()]);
        let mut wanted: Vec<_> =
            elsewhere.map(|address| (address, "elsewhere".to_owned(), vec![80, 9080])).collect();
        for endpoint in self.published.endpoints().filter(|it| self.places.is_outside(it.address)) {
            let ports = endpoint.ports.values().copied().chain([leno_proxy::bootstrap::MESH_PORT]);
            wanted.push((endpoint.address, endpoint.owner.to_string(), ports.collect()));
        }
        for (address, owner, ports) in wanted {
            let app =
                self.outsiders.entry(address).or_insert_with(|| App::new(&owner, address, &self.ledger));
            for port in ports {
                app.serve(port).await.unwrap();
            }
        }
    }

    async fn start_proxies(&mut self) {
        let mut joining = Vec::new();
        for plan in self.planned.pods.iter().filter(|plan| plan.has_proxy()) {
            if self.pods.get(&plan.id).is_some_and(|pod| pod.proxy.is_none()) {
                joining.push(Joining::of_pod(plan));
            }
        }
        for (id, identity) in self.gateways_wanted().await {
            if !self.gateways.contains_key(&id) {
                let (address, app_address) = self.addresses.workload(&id).unwrap();
                joining.push(Joining { id, identity, role: Role::Gateway, address, app_address });
            }
        }
        let started = self.starter.start(&joining).await;
        for (joining, proxy) in joining.into_iter().zip(started) {
            if joining.role == Role::Gateway {
                self.gateways.insert(joining.id, (proxy, joining.address));
            } else if let Some(pod) = self.pods.get_mut(&joining.id) {
                pod.proxy = Some(proxy);
            }
        }
    }

    async fn gateways_wanted(&self) -> Vec<(WorkloadId, SpiffeId)> {
        let answer = api::get_json(self.api, "/v1/gateways").await.unwrap();
        let gateways = answer["gateways"].as_array().unwrap().iter();
        let id = |gateway: &Value| {
            let text = |key: &str| gateway[key].as_str().unwrap().to_owned();
            assert_eq!(gateway["has_pod"], false, "a gateway with a pod of its own is not built here");
            (WorkloadId::new(&text("namespace"), &text("name")), SpiffeId::parse(&text("identity")).unwrap())
        };
        gateways.map(id).collect()
    }

    /// Every proxy of the world has acknowledged the newest generation, and every gateway listens where it should.
    async fn settle(&self) {
        let gateways = self.gateways_wanted().await;
        let pods = self.planned.pods.iter().filter(|plan| plan.has_proxy()).map(|plan| plan.id.to_string());
        let expected: Vec<String> = pods.chain(gateways.iter().map(|(id, _)| id.to_string())).collect();
        let api = self.api;
        until("all proxies acknowledge", async || {
            let answer = api::get_json(api, "/v1/proxies").await.unwrap();
            let proxies = answer["proxies"].as_array().unwrap();
            let has = |id: &String| proxies.iter().any(|it| it["workload"] == **id && it["lag"] == 0);
            expected.iter().all(has)
        })
        .await;
        let answer = api::get_json(self.api, "/v1/gateways").await.unwrap();
        for gateway in answer["gateways"].as_array().unwrap() {
            let id =
                WorkloadId::new(gateway["namespace"].as_str().unwrap(), gateway["name"].as_str().unwrap());
            let ports: Vec<u16> = serde_json::from_value(gateway["ports"].clone()).unwrap();
            until("a gateway listens", async || {
                let listening = self.gateways[&id].0.listening();
                ports.iter().all(|port| listening.contains_key(port))
            })
            .await;
        }
    }

    /// The pods of the present world.
    pub(crate) fn pods(&self) -> &[PodPlan] {
        &self.planned.pods
    }

    /// Where a gateway's listener is.
    pub(crate) fn listener(&self, id: &WorkloadId, port: u16) -> Option<SocketAddr> {
        self.gateways.get(id)?.0.listening().get(&port).copied()
    }

    /// The address of a gateway's proxy.
    pub(crate) fn gateway_address(&self, id: &WorkloadId) -> Option<IpAddr> {
        self.gateways.get(id).map(|(_, address)| *address)
    }

    /// The addresses of all proxies that run.
    pub(crate) fn proxies(&self) -> Vec<IpAddr> {
        let pods = self.planned.pods.iter().filter(|plan| plan.has_proxy()).map(|plan| plan.address);
        pods.chain(self.gateways.values().map(|(_, address)| *address)).collect()
    }

    /// The access log of a proxy.
    pub(crate) fn log(&self, proxy: IpAddr) -> PathBuf {
        self.starter.log(proxy)
    }

    /// A page of the control plane's.
    pub(crate) async fn ask(&self, path: &str) -> Value {
        api::get_json(self.api, path).await.unwrap()
    }
}

fn marker(change: u32) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: lab-{change}}}\n")
}

fn text(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("{object}\n---\n")).collect()
}

/// Tries until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(LOOK).await;
    }
}
