//! Which services routes lead to.

use leno_model::{Action, Backend, BackendTarget, Gateway, HttpRoutes, RouteTable, ServiceId, TcpEntry};

/// Whether some rule of a table leads to a service that `wanted` holds of.
pub(super) fn table_leads_to(table: &RouteTable, wanted: &dyn Fn(&ServiceId) -> bool) -> bool {
    table.ports.values().any(|port| {
        port.http.iter().any(|routes| http_leads_to(routes, wanted)) || tcp_leads_to(&port.tcp, wanted)
    })
}

/// Whether some listener of a gateway leads to a service that `wanted` holds of.
pub(super) fn gateway_leads_to(gateway: &Gateway, wanted: &dyn Fn(&ServiceId) -> bool) -> bool {
    gateway.listeners.iter().any(|listener| {
        listener.routes.iter().any(|host| http_leads_to(&host.routes, wanted))
            || tcp_leads_to(&listener.tcp, wanted)
    })
}

fn http_leads_to(routes: &HttpRoutes, wanted: &dyn Fn(&ServiceId) -> bool) -> bool {
    routes.rules.iter().any(|rule| {
        let backends =
            matches!(&rule.action, Action::Forward(backends) if backends_lead_to(backends, wanted));
        backends || rule.mirrors.iter().any(|mirror| target_is(&mirror.target, wanted))
    })
}

fn tcp_leads_to(entries: &[TcpEntry], wanted: &dyn Fn(&ServiceId) -> bool) -> bool {
    entries.iter().any(|entry| backends_lead_to(&entry.backends, wanted))
}

fn backends_lead_to(backends: &[Backend], wanted: &dyn Fn(&ServiceId) -> bool) -> bool {
    backends.iter().any(|backend| target_is(&backend.target, wanted))
}

fn target_is(target: &BackendTarget, wanted: &dyn Fn(&ServiceId) -> bool) -> bool {
    matches!(target, BackendTarget::Service { service, .. } if wanted(service))
}
