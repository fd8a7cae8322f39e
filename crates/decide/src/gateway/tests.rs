//! Listener isolation and misdirected requests.

use leno_model::{GatewayProtocol, HttpRoutes, SpiffeId, WorkloadId};

use super::*;

#[test]
fn the_most_specific_listener_serves_a_host_alone() {
    let table = gateway(&[
        ("any", "*", &["*"]),
        ("wild", "*.example.com", &["*.example.com"]),
        ("exact", "a.example.com", &[]),
    ]);
    assert_eq!(served(&table, None, "x.org"), "any *");
    assert_eq!(served(&table, None, "B.Example.com"), "wild *.example.com");
    // gateway-api: it has no routes for this host, and another listener's are not used in their place.
    assert_eq!(served(&table, None, "a.example.com"), "404");
}

#[test]
fn the_most_specific_host_of_the_routes_wins() {
    let table = gateway(&[("any", "*", &["*", "*.example.com", "a.example.com"])]);
    assert_eq!(served(&table, None, "a.example.com"), "any a.example.com");
    assert_eq!(served(&table, None, "b.example.com"), "any *.example.com");
}

#[test]
fn a_request_for_the_host_of_another_listener_is_misdirected() {
    let table = gateway(&[("a", "a.example.com", &["*"]), ("b", "b.example.com", &["*"])]);
    let accepted = &table.by_sni(443, Some("A.example.com")).unwrap().listener;
    assert_eq!(served(&table, Some(accepted), "a.example.com"), "a *");
    assert_eq!(served(&table, Some(accepted), "b.example.com"), "421");
    assert_eq!(served(&table, Some(accepted), "c.example.com"), "404");
}

#[test]
fn a_handshake_without_a_name_fits_only_a_listener_for_every_host() {
    assert!(gateway(&[("a", "a.example.com", &[])]).by_sni(443, None).is_none());
    assert!(gateway(&[("any", "*", &[])]).by_sni(443, None).is_some());
}

fn served(table: &GatewayTable, accepted: Option<&Listener>, host: &str) -> String {
    match table.select_host(443, accepted, host) {
        HostSelection::Routes { listener, host, .. } => format!("{} {host}", listener.listener.name),
        HostSelection::NotFound(_) => "404".to_owned(),
        HostSelection::Misdirected(_) => "421".to_owned(),
    }
}

fn gateway(listeners: &[(&str, &str, &[&str])]) -> GatewayTable {
    let listener = |(name, host, routes): &(&str, &str, &[&str])| Listener {
        name: (*name).into(),
        port: 443,
        protocol: GatewayProtocol::Http,
        host: HostPattern::parse(host),
        routes: routes
            .iter()
            .map(|host| HostRoutes { host: HostPattern::parse(host), routes: HttpRoutes::default() })
            .collect(),
        tcp: vec![],
        https_redirect: false,
        origin: Origin::default(),
    };
    let gateway = Gateway {
        id: WorkloadId::new("edge", "gw"),
        identity: SpiffeId::parse("spiffe://cluster.local/ns/edge/sa/gw").unwrap(),
        listeners: listeners.iter().map(listener).collect(),
        origin: Origin::default(),
    };
    GatewayTable::compile(&Arc::new(gateway)).unwrap()
}
