//! A gateway's listeners: which one a connection and a request belong to.
//!
//! Invariant: of several listeners of a port, the most specific host wins, and a request is only ever answered by the routes
//! of that one (gateway-api: listener isolation). A request for a host that another listener serves, on a connection whose
//! TLS handshake chose this one, is misdirected (421, RFC 9110 15.5.20; PAINS P20).

use std::{collections::BTreeMap, sync::Arc};

use leno_model::{Gateway, HostPattern, HostRoutes, Listener, Origin, Port};

use crate::{
    matching::BadPattern,
    route::HttpTable,
    tcp::{TcpTable, host_matches},
};

/// Compiled listeners.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayTable {
    gateway: Arc<Gateway>,
    /// Most specific host first.
    ports: BTreeMap<Port, Vec<ListenerTable>>,
}

/// A compiled listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerTable {
    /// The listener: its name, protocol, TLS.
    pub listener: Listener,
    /// TCP and passthrough routes.
    pub tcp: TcpTable,
    /// Most specific host first.
    hosts: Vec<(HostPattern, HttpTable)>,
}

/// Which routes serve a host.
#[derive(Clone, Copy, Debug)]
pub enum HostSelection<'g> {
    /// These.
    Routes {
        /// The listener.
        listener: &'g ListenerTable,
        /// The host that was chosen.
        host: &'g HostPattern,
        /// Its routes.
        routes: &'g HttpTable,
    },
    /// None: 404. The listener's origin when one serves the host, without routes for it.
    NotFound(Option<&'g Origin>),
    /// Another listener serves the host: 421.
    Misdirected(&'g ListenerTable),
}

impl GatewayTable {
    /// Compiles a gateway.
    ///
    /// # Errors
    /// When a regular expression does not compile.
    pub fn compile(gateway: &Arc<Gateway>) -> Result<Self, BadPattern> {
        let mut ports: BTreeMap<Port, Vec<ListenerTable>> = BTreeMap::new();
        for listener in &gateway.listeners {
            ports.entry(listener.port).or_default().push(ListenerTable::compile(listener)?);
        }
        for listeners in ports.values_mut() {
            listeners.sort_by_key(|table| std::cmp::Reverse(table.listener.host.specificity()));
        }
        Ok(Self { gateway: gateway.clone(), ports })
    }

    /// The gateway.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// The ports to listen on.
    pub fn ports(&self) -> impl Iterator<Item = Port> {
        self.ports.keys().copied()
    }

    /// The listeners of a port, most specific host first.
    pub fn listeners(&self, port: Port) -> &[ListenerTable] {
        self.ports.get(&port).map_or(&[], Vec::as_slice)
    }

    /// The listener that a TLS handshake is for. Without a name only one for every host fits.
    pub fn by_sni(&self, port: Port, sni: Option<&str>) -> Option<&ListenerTable> {
        self.listeners(port).iter().find(|table| match sni {
            Some(sni) => host_matches(&table.listener.host, sni),
            None => table.listener.host == HostPattern::Any,
        })
    }

    /// The routes of a request's host (without port). `accepted` is the listener that the connection's TLS handshake chose.
    pub fn select_host(&self, port: Port, accepted: Option<&Listener>, host: &str) -> HostSelection<'_> {
        let listeners = self.listeners(port);
        let Some(best) = listeners.iter().find(|table| host_matches(&table.listener.host, host)) else {
            return HostSelection::NotFound(None);
        };
        let equal = || listeners.iter().filter(|table| table.listener.host == best.listener.host);
        if accepted.is_some_and(|accepted| !equal().any(|table| table.listener.name == accepted.name)) {
            return HostSelection::Misdirected(best);
        }
        // Several Istio Gateways may have merged listeners for one host.
        for listener in equal() {
            if let Some((pattern, routes)) =
                listener.hosts.iter().find(|(pattern, _)| host_matches(pattern, host))
            {
                return HostSelection::Routes { listener, host: pattern, routes };
            }
        }
        HostSelection::NotFound(Some(&best.listener.origin))
    }
}

impl ListenerTable {
    fn compile(listener: &Listener) -> Result<Self, BadPattern> {
        let compile = |routes: &HostRoutes| {
            let HostRoutes { host, routes } = routes;
            Ok((host.clone(), HttpTable::compile(routes)?))
        };
        let mut hosts = listener.routes.iter().map(compile).collect::<Result<Vec<_>, BadPattern>>()?;
        hosts.sort_by_key(|(host, _)| std::cmp::Reverse(host.specificity()));
        Ok(Self { listener: listener.clone(), tcp: TcpTable::compile(&listener.tcp), hosts })
    }
}

#[cfg(test)]
mod tests;
