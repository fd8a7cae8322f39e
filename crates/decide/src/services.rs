//! One service as this proxy's namespace calls it: its destination and its compiled routes.
//!
//! Invariant: every port of the destination has routes; where no table speaks about a port, these lead to the service
//! itself with the mesh's defaults.

use std::{collections::HashMap, sync::Arc};

use leno_model::{
    Action, Backend, BackendTarget, Destination, HeaderEdits, HttpEntry, HttpMatch, HttpRoutes, HttpRule,
    Origin, Port, PortRoutes, RetryPolicy, Rewrite, RouteTable, ServiceId, TcpEntry, TcpMatch, Weight,
};

use crate::{matching::BadPattern, route::HttpTable, tcp::TcpTable};

/// The routes of one port of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct PortTable {
    /// For requests.
    pub http: HttpTable,
    /// For connections whose requests are not seen.
    pub tcp: TcpTable,
}

type Ports = HashMap<Port, Arc<PortTable>>;

#[derive(Clone, Debug, Default, PartialEq)]
struct Variant {
    destination: Option<Arc<Destination>>,
    /// As the route table says, by port.
    routed: Option<Ports>,
    /// `routed`, and the defaults of all other ports.
    ports: Ports,
}

/// The common variant of a service, and that of the proxy's own namespace.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServiceState {
    service: ServiceId,
    common: Variant,
    own: Variant,
}

impl ServiceState {
    pub(crate) fn new(service: ServiceId) -> Self {
        Self { service, common: Variant::default(), own: Variant::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        [&self.common, &self.own]
            .iter()
            .all(|variant| variant.destination.is_none() && variant.routed.is_none())
    }

    /// The variant that applies: the namespace's own where there is one.
    fn variant(&self) -> &Variant {
        if self.own.destination.is_some() { &self.own } else { &self.common }
    }

    pub(crate) fn destination(&self) -> Option<&Arc<Destination>> {
        self.variant().destination.as_ref()
    }

    pub(crate) fn port(&self, port: Port) -> Option<&Arc<PortTable>> {
        self.variant().ports.get(&port)
    }

    fn side(&mut self, own: bool) -> &mut Variant {
        if own { &mut self.own } else { &mut self.common }
    }

    pub(crate) fn set_destination(&mut self, destination: Arc<Destination>) {
        let own = destination.variant.is_some();
        self.side(own).destination = Some(destination);
        self.rebuild(own);
    }

    pub(crate) fn remove_destination(&mut self, own: bool) {
        self.side(own).destination = None;
        self.rebuild(own);
    }

    /// Sets the routes; returns why they are refused, in which case the last good ones stay. Without any, requests fail.
    pub(crate) fn set_routes(&mut self, table: &RouteTable) -> Option<String> {
        let own = table.variant.is_some();
        let compiled: Result<Ports, BadPattern> = table
            .ports
            .iter()
            .map(|(port, routes)| Ok((*port, Arc::new(compile_port(&self.service, *port, routes)?))))
            .collect();
        let problem = match compiled {
            Ok(ports) => {
                self.side(own).routed = Some(ports);
                None
            }
            Err(problem) => {
                let reason: Arc<str> = problem.to_string().into();
                let failing =
                    || table.ports.keys().map(|port| (*port, Arc::new(failing_port(&reason)))).collect();
                self.side(own).routed.get_or_insert_with(failing);
                Some(problem.to_string())
            }
        };
        self.rebuild(own);
        problem
    }

    pub(crate) fn remove_routes(&mut self, own: bool) {
        self.side(own).routed = None;
        self.rebuild(own);
    }

    fn rebuild(&mut self, own: bool) {
        let service = self.service.clone();
        let side = self.side(own);
        let mut ports = side.routed.clone().unwrap_or_default();
        for port in side.destination.iter().flat_map(|destination| &destination.ports) {
            ports.entry(port.port).or_insert_with(|| Arc::new(default_port(&service, port.port)));
        }
        side.ports = ports;
    }
}

fn compile_port(service: &ServiceId, port: Port, routes: &PortRoutes) -> Result<PortTable, BadPattern> {
    let PortRoutes { http, tcp } = routes;
    Ok(PortTable {
        http: match http {
            Some(routes) => HttpTable::compile(routes)?,
            None => default_http(service, port),
        },
        tcp: if tcp.is_empty() { default_tcp(service, port) } else { TcpTable::compile(tcp) },
    })
}

fn default_port(service: &ServiceId, port: Port) -> PortTable {
    PortTable { http: default_http(service, port), tcp: default_tcp(service, port) }
}

fn failing_port(reason: &Arc<str>) -> PortTable {
    let failing = Action::Fail { status: 500, reason: reason.clone() };
    PortTable {
        http: one_rule(failing, Origin::built_in("routes that could not be read")),
        tcp: TcpTable::closed(),
    }
}

fn default_http(service: &ServiceId, port: Port) -> HttpTable {
    one_rule(Action::Forward(vec![itself(service, port)]), Origin::built_in("no route: the service itself"))
}

fn default_tcp(service: &ServiceId, port: Port) -> TcpTable {
    TcpTable::compile(&[TcpEntry {
        matcher: TcpMatch::default(),
        backends: vec![itself(service, port)],
        origin: Origin::built_in("no route: the service itself"),
    }])
}

fn itself(service: &ServiceId, port: Port) -> Backend {
    Backend {
        weight: Weight(1),
        target: BackendTarget::Service { service: service.clone(), port, subset: None },
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        timeout: None,
        origin: Origin::built_in("the service itself"),
    }
}

fn one_rule(action: Action, origin: Origin) -> HttpTable {
    let rule = HttpRule {
        name: "default".into(),
        origin: origin.clone(),
        action,
        rewrite: Rewrite::default(),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        timeout: None,
        retry: RetryPolicy::safe(),
        fault: None,
        mirrors: Vec::new(),
    };
    let entry = HttpEntry { matcher: HttpMatch::default(), rule: 0, origin };
    HttpTable::without_patterns(HttpRoutes { entries: vec![entry], rules: vec![rule] })
}
