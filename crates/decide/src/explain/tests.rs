//! One call through a small mesh, and the laws of tables.

use std::{net::IpAddr, sync::Arc};

use leno_model::{
    Action, AuthorizationPolicy, Backend, Destination, EndpointSet, EndpointState, Exposure, HeaderEdits,
    HttpEntry, HttpMatch, HttpRoutes, InboundPort, IndexEntry, IndexPort, Locality, MtlsMode, Operation,
    Origin, PathMatch, PathRewrite, PolicyAction, PolicyRule, PortRoutes, Protocol, Resource, Rewrite,
    RouteTable, ServiceId, SpiffeId, StringMatch, TrafficPolicy, TrustDomain, Tunnel, Weight, Workload,
    WorkloadId,
};
use proptest::prelude::*;

use super::*;
use crate::{
    facts::NoHeaders,
    outbound::Outbound,
    tables::{Change, WhoAmI},
};

#[test]
fn a_split_shows_every_branch_and_a_denial_cites_its_policy() {
    let client = client(&all());
    let server = Tables::new(WhoAmI::new(WorkloadId::new("shop", "cart-1"))).apply(all());
    let facts = request("/");
    let explanation = explain(&call(&client, &facts), &[&server]);
    let route = explanation.route.as_ref().unwrap();
    let ActionFinding::Forward(branches) = &route.action else { panic!("{route:?}") };
    assert_eq!(branches.iter().map(|branch| branch.percent).collect::<Vec<_>>(), [75.0, 25.0]);
    assert!(matches!(branches[0].state, BranchState::Ready { endpoints: 1, ready: 1, .. }));
    assert!(
        matches!(&branches[1].state, BranchState::Unresolved { status: 503, reason } if reason.contains("not loaded"))
    );
    let [verdict] = explanation.servers.as_slice() else { panic!("{:?}", explanation.servers) };
    assert!(!verdict.allowed);
    assert_eq!((verdict.policy.as_deref(), verdict.rule), (Some("shop/only-put"), Some(0)));
    assert!(verdict.transport.contains("spiffe://cluster.local/ns/web/sa/front"), "{}", verdict.transport);
    let text = explanation.to_string();
    for part in
        ["VirtualService shop/cart spec.http[0]", "75.0000%", "STRICT", "DENIED", "to.operation.methods"]
    {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(serde_json::to_string(&explanation).is_ok());
}

/// All, with another rule in the routes and another operation in the policy.
fn changed(rule: impl Fn(&mut HttpRule), operation: Operation) -> Vec<Change> {
    let mut table = routes();
    let http = table.ports.get_mut(&80).and_then(|port| port.http.as_mut()).unwrap();
    http.rules.iter_mut().for_each(rule);
    let policy = AuthorizationPolicy {
        id: "shop/only-put".into(),
        origin: origin("AuthorizationPolicy", "only-put", ""),
        action: PolicyAction::Allow,
        rules: vec![PolicyRule { to: vec![operation], ..PolicyRule::default() }],
        withheld: None,
    };
    let mut changes = all();
    changes.push(Change::Upsert(Resource::Routes(Arc::new(table))));
    changes.push(Change::Upsert(Resource::Policy(Arc::new(policy))));
    changes
}

#[test]
fn a_server_judges_what_it_is_sent_and_not_what_the_caller_asked_for() {
    let rule = |rule: &mut HttpRule| {
        rule.rewrite.path = Some(PathRewrite::Full("/inside".into()));
        rule.request_headers.set.push(("host".into(), "inside.example.com".into()));
    };
    let inside = Operation {
        paths: vec![PathMatch::Exact("/inside".into())],
        hosts: vec![StringMatch::Exact("inside.example.com".into())],
        ..Operation::default()
    };
    let changes = changed(rule, inside);
    let client = client(&changes);
    let server = Tables::new(WhoAmI::new(WorkloadId::new("shop", "cart-1"))).apply(changes);
    let facts = request("/outside");
    let explanation = explain(&call(&client, &facts), &[&server]);
    assert_eq!(explanation.route.as_ref().unwrap().path.as_deref(), Some("/inside"));
    assert!(explanation.servers[0].allowed, "{explanation}");
    assert!(explanation.is_served());
}

#[test]
fn a_call_that_nobody_takes_is_not_served() {
    let client = client(&all());
    let facts = request("/");
    // Nobody is asked, so only the route counts: one branch leads to an endpoint.
    assert!(explain(&call(&client, &facts), &[]).is_served());
    let nobody =
        Change::Upsert(Resource::Endpoints(Arc::new(EndpointSet { endpoints: vec![], ..endpoints() })));
    assert!(!explain(&call(&client.apply([nobody]), &facts), &[]).is_served());
    let mut without = routes();
    let http = without.ports.get_mut(&80).and_then(|port| port.http.as_mut()).unwrap();
    http.entries[0].matcher.path = Some(PathMatch::Prefix("/only".into()));
    let without = client.apply([Change::Upsert(Resource::Routes(Arc::new(without)))]);
    assert!(!explain(&call(&without, &facts), &[]).is_served(), "no route matches");
}

#[test]
fn an_endpoint_without_a_proxy_is_said_to_be_called_in_plaintext_or_not_at_all() {
    let mut plain = endpoints();
    plain.endpoints.iter_mut().for_each(|endpoint| endpoint.tunnel = Tunnel::Plain);
    let without = client(&all()).apply([Change::Upsert(Resource::Endpoints(Arc::new(plain)))]);
    let facts = request("/");
    let said = explain(&call(&without, &facts), &[]).to_string();
    assert!(said.contains("shop/cart-1 (by plaintext)"), "{said}");
    let mut demanding = destination();
    demanding.policy.tls = ClientTls::Mesh;
    let demanding = without.apply([Change::Upsert(Resource::Destination(Arc::new(demanding)))]);
    let said = explain(&call(&demanding, &facts), &[]).to_string();
    assert!(said.contains("shop/cart-1 (fails: it has no proxy for mTLS)"), "{said}");
    let with = explain(&call(&client(&all()), &facts), &[]).to_string();
    assert!(with.contains("tier 1: shop/cart-1\n"), "{with}");
}

#[test]
fn a_service_is_known_before_it_is_loaded() {
    let without_scope = all().into_iter().filter(|change| !matches!(change, Change::Scope(..)));
    let tables = Tables::new(WhoAmI::new(WorkloadId::new("web", "front-1"))).apply(without_scope);
    for host in ["cart.shop.svc.cluster.local", "cart.shop.svc", "CART.shop", "cart.shop.svc.cluster.local."]
    {
        match tables.outbound_by_host(host, 80) {
            Outbound::Known(known) => assert!(known.loaded.is_none(), "{host}"),
            other => panic!("{host}: {other:?}"),
        }
    }
    assert!(matches!(tables.outbound_by_host("cart", 80), Outbound::Unknown));
    assert!(matches!(tables.outbound_by_address([10, 96, 0, 1].into(), 80), Outbound::Known(_)));
    assert!(matches!(tables.outbound_by_address([10, 96, 0, 1].into(), 81), Outbound::NoSuchPort(_)));
    assert!(matches!(tables.outbound_by_address([10, 96, 0, 9].into(), 80), Outbound::Unknown));
    assert!(matches!(tables.outbound_by_host("secret.shop", 80), Outbound::Hidden(_)));
    assert!(matches!(tables.outbound_by_host("a.b.example.com", 443), Outbound::Known(_)));
    assert!(matches!(tables.outbound_by_host("example.com", 443), Outbound::Unknown));
}

#[test]
fn a_change_of_endpoints_shares_everything_else() {
    let before = client(&all());
    let mut endpoints = endpoints();
    endpoints.endpoints.clear();
    let after = before.apply([Change::Upsert(Resource::Endpoints(Arc::new(endpoints)))]);
    assert!(Arc::ptr_eq(&before.index, &after.index));
    assert!(Arc::ptr_eq(&before.services, &after.services));
    assert!(after.endpoints(&cart()).unwrap().endpoints.is_empty());
    assert!(!before.endpoints(&cart()).unwrap().endpoints.is_empty());
}

#[test]
fn routes_that_do_not_compile_are_rejected_and_the_last_good_ones_stay() {
    let bad = || {
        let mut table = routes();
        let http = table.ports.get_mut(&80).and_then(|port| port.http.as_mut()).unwrap();
        http.entries[0].matcher.path = Some(PathMatch::Regex("(".into()));
        Change::Upsert(Resource::Routes(Arc::new(table)))
    };
    let good = client(&all());
    let after = good.apply([bad()]);
    assert_eq!(after.rejected().len(), 1);
    assert!(Arc::ptr_eq(good.loaded(&cart(), 80).unwrap().routes, after.loaded(&cart(), 80).unwrap().routes));
    assert!(after.apply([Change::Upsert(Resource::Routes(Arc::new(routes())))]).rejected().is_empty());
    // Without any good ones requests fail; they do not slip past their routes.
    let mut changes = all();
    changes.retain(|change| !matches!(change, Change::Upsert(Resource::Routes(_))));
    changes.push(bad());
    let tables = client(&changes);
    let facts = request("/");
    let explanation = explain(&call(&tables, &facts), &[]);
    let action = explanation.route.map(|route| route.action);
    assert!(matches!(action, Some(ActionFinding::Answer { status: 500, .. })), "{action:?}");
}

#[test]
fn a_namespace_with_a_variant_uses_it() {
    let mut own = routes();
    own.variant = Some("web".into());
    own.ports.clear();
    let mut destination = destination();
    destination.variant = Some("web".into());
    let base = client(&all());
    let tables = base.apply([
        Change::Upsert(Resource::Destination(Arc::new(destination.clone()))),
        Change::Upsert(Resource::Routes(Arc::new(own.clone()))),
    ]);
    assert_eq!(tables.loaded(&cart(), 80).unwrap().destination.variant, Some("web".into()));
    let back = tables.apply([
        Change::Remove(Resource::Destination(Arc::new(destination)).key()),
        Change::Remove(Resource::Routes(Arc::new(own)).key()),
    ]);
    assert_eq!(back, base);
}

proptest! {
    /// Whatever the order of changes, and however they are cut into deltas: the tables are those of what is left.
    #[test]
    fn applying_deltas_is_building_from_what_is_left(
        order in Just((0..all().len()).collect::<Vec<_>>()).prop_shuffle(),
        gone in proptest::collection::vec(any::<bool>(), all().len()),
        cut in 0..all().len(),
    ) {
        let me = || Tables::new(WhoAmI::new(WorkloadId::new("web", "front-1")));
        let changes = all();
        let shuffled: Vec<Change> = order.iter().map(|at| changes[*at].clone()).collect();
        let removals = changes.iter().zip(&gone).filter(|(_, gone)| **gone).filter_map(|(change, _)| match change {
            Change::Upsert(Resource::Workload(_)) | Change::Remove(_) => None,
            Change::Upsert(resource) => Some(Change::Remove(resource.key())),
            Change::Scope(service, _) => Some(Change::Scope(service.clone(), false)),
        });
        let (first, second) = shuffled.split_at(cut);
        let step_by_step = me().apply(first.to_vec()).apply(second.to_vec()).apply(removals);
        let left = changes.iter().zip(&gone).filter(|(change, gone)| {
            !**gone || matches!(change, Change::Upsert(Resource::Workload(_)))
        });
        let at_once = me().apply(left.map(|(change, _)| change.clone()));
        prop_assert_eq!(step_by_step, at_once);
    }
}

fn cart() -> ServiceId {
    ServiceId::kubernetes("shop", "cart")
}

fn call<'c>(tables: &'c Tables, request: &'c RequestFacts<'c>) -> Call<'c> {
    Call { tables, to: CallTarget::Host("cart.shop"), port: 80, request: Some(request), sni: None }
}

fn client(changes: &[Change]) -> Tables {
    Tables::new(WhoAmI::new(WorkloadId::new("web", "front-1"))).apply(changes.to_vec())
}

fn request(path: &str) -> RequestFacts<'_> {
    RequestFacts {
        method: "GET",
        path,
        query: None,
        scheme: "http",
        authority: "cart.shop",
        headers: &NoHeaders,
        remote_ip: None,
    }
}

fn all() -> Vec<Change> {
    let external = ServiceId { namespace: "shop".into(), host: "*.example.com".into() };
    let only_put = Operation { methods: vec![StringMatch::Exact("PUT".into())], ..Operation::default() };
    let rule = PolicyRule { to: vec![only_put], ..PolicyRule::default() };
    let policy = AuthorizationPolicy {
        id: "shop/only-put".into(),
        origin: origin("AuthorizationPolicy", "only-put", ""),
        action: PolicyAction::Allow,
        rules: vec![rule],
        withheld: None,
    };
    let resources = [
        Resource::Index(Arc::new(index(cart(), [10, 96, 0, 1], 80, Exposure::Everywhere))),
        Resource::Index(Arc::new(index(
            ServiceId::kubernetes("shop", "secret"),
            [10, 96, 0, 2],
            80,
            Exposure::Only(vec!["shop".into()]),
        ))),
        Resource::Index(Arc::new(index(external, [10, 96, 0, 3], 443, Exposure::Everywhere))),
        Resource::Workload(Arc::new(workload("web", "front-1", "front", [10, 0, 0, 9]))),
        Resource::Workload(Arc::new(workload("shop", "cart-1", "cart", [10, 0, 0, 1]))),
        Resource::Policy(Arc::new(policy)),
        Resource::Destination(Arc::new(destination())),
        Resource::Routes(Arc::new(routes())),
        Resource::Endpoints(Arc::new(endpoints())),
    ];
    resources.into_iter().map(Change::Upsert).chain([Change::Scope(cart(), true)]).collect()
}

fn origin(kind: &str, name: &str, field: &str) -> Origin {
    Origin {
        kind: kind.into(),
        namespace: "shop".into(),
        name: name.into(),
        field: field.into(),
        place: "".into(),
    }
}

fn index(service: ServiceId, address: [u8; 4], port: Port, exposure: Exposure) -> IndexEntry {
    IndexEntry {
        service,
        addresses: vec![IpAddr::from(address)],
        ports: vec![IndexPort { port, protocol: Protocol::Http1 }],
        exposure,
        external: false,
        variants: vec![],
    }
}

fn workload(namespace: &str, name: &str, account: &str, address: [u8; 4]) -> Workload {
    let strict = origin("PeerAuthentication", "strict", "spec.mtls.mode");
    Workload {
        id: WorkloadId::new(namespace, name),
        identity: SpiffeId::workload(&TrustDomain::default(), namespace, account).unwrap(),
        address: Some(IpAddr::from(address)),
        cluster: "one".into(),
        network: "".into(),
        locality: Locality::default(),
        labels: [("app".into(), account.into())].into(),
        owner: account.into(),
        canonical_name: account.into(),
        canonical_revision: "latest".into(),
        ports: vec![InboundPort {
            port: 8080,
            protocol: Protocol::Http1,
            mtls: MtlsMode::Strict,
            mtls_origin: strict.clone(),
            services: vec![],
        }],
        mtls: MtlsMode::Permissive,
        mtls_origin: strict,
        policies: if namespace == "shop" { vec!["shop/only-put".into()] } else { vec![] },
    }
}

fn destination() -> Destination {
    Destination {
        service: cart(),
        variant: None,
        ports: vec![IndexPort { port: 80, protocol: Protocol::Http1 }],
        identities: vec![],
        external: false,
        policy: TrafficPolicy::default(),
        port_policies: Default::default(),
        subsets: vec![],
        origin: Origin::built_in("destination"),
    }
}

fn routes() -> RouteTable {
    let rule = HttpRule {
        name: "".into(),
        origin: origin("VirtualService", "cart", "spec.http[0]"),
        action: Action::Forward(vec![
            backend(cart(), 3),
            backend(ServiceId::kubernetes("shop", "elsewhere"), 1),
        ]),
        rewrite: Rewrite::default(),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        timeout: None,
        retry: RetryPolicy::safe(),
        fault: None,
        mirrors: vec![],
    };
    let matcher = HttpMatch { path: Some(PathMatch::Prefix("/".into())), ..HttpMatch::default() };
    let entry =
        HttpEntry { matcher, rule: 0, origin: origin("VirtualService", "cart", "spec.http[0].match[0]") };
    let http = HttpRoutes { entries: vec![entry], rules: vec![rule] };
    let ports = [(80, PortRoutes { http: Some(http), tcp: vec![] })].into();
    RouteTable { service: cart(), variant: None, ports }
}

fn backend(service: ServiceId, weight: u32) -> Backend {
    Backend {
        weight: Weight(weight),
        target: BackendTarget::Service { service, port: 80, subset: None },
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        timeout: None,
        origin: origin("VirtualService", "cart", "spec.http[0].route"),
    }
}

fn endpoints() -> EndpointSet {
    let endpoint = Endpoint {
        workload: WorkloadId::new("shop", "cart-1"),
        uid: "1".into(),
        address: [10, 0, 0, 1].into(),
        ports: [(80, 8080)].into(),
        tunnel: Tunnel::Mesh,
        identity: None,
        state: EndpointState::Ready,
        locality: Locality::default(),
        cluster: "one".into(),
        network: "".into(),
        labels: Default::default(),
        owner: "cart".into(),
        weight: Weight(1),
    };
    EndpointSet { service: cart(), endpoints: vec![endpoint], stale: vec![] }
}
