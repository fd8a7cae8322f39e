//! A plan as an nftables ruleset. Pure: the text is given to `nft -f -` by whoever is allowed to.
//!
//! Invariants: one transaction that replaces the whole table, so there is never a moment with half of it, and writing it
//! twice is writing it once; only TCP is touched; the proxy's own connections are never redirected to it, except the probe
//! that tells it whether the rules are there. Must not know: pods, files, processes.

use std::fmt::Write as _;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::ports::{
    ADMIN_PORT, HEALTH_PORT, INBOUND_PORT, MESH_PORT, METRICS_PORT, OUTBOUND_PORT, PROMETHEUS_PORT,
};
use crate::{
    PROBES,
    plan::{Network, Plan, Selection},
};

/// The table, of family `inet`: IPv4 and IPv6 by the same rules.
pub const TABLE: &str = "leno";

/// The proxy's own ports, which are reached as they are.
const OWN_PORTS: [u16; 7] =
    [ADMIN_PORT, OUTBOUND_PORT, INBOUND_PORT, MESH_PORT, METRICS_PORT, HEALTH_PORT, PROMETHEUS_PORT];

/// DNS is left as it is, over TCP too.
const DNS_PORT: u16 = 53;

/// The ruleset of a plan.
pub fn render(plan: &Plan) -> String {
    let mut rules = Rules::default();
    // `delete` alone fails where there is nothing; `add` first makes it always succeed.
    rules.line(0, &format!("add table inet {TABLE}"));
    rules.line(0, &format!("delete table inet {TABLE}"));
    rules.line(0, &format!("table inet {TABLE} {{"));
    output(&mut rules, plan);
    prerouting(&mut rules, plan);
    for (chain, port) in [("outbound", OUTBOUND_PORT), ("inbound", INBOUND_PORT)] {
        rules.line(1, &format!("chain {chain} {{"));
        rules.line(2, &format!("meta l4proto tcp redirect to :{port}"));
        rules.line(1, "}");
    }
    rules.line(0, "}");
    rules.0
}

/// What processes of the namespace dial.
fn output(rules: &mut Rules, plan: &Plan) {
    rules.line(1, "chain output {");
    rules.line(2, "type nat hook output priority -100; policy accept;");
    rules.line(2, "meta l4proto != tcp return");
    for probe in PROBES {
        let family = if probe.is_ipv4() { "ip" } else { "ip6" };
        rules.line(2, &format!("{family} daddr {} tcp dport {} goto outbound", probe.ip(), probe.port()));
    }
    // Also what is dialled at the pod's own address: an application that calls itself past the mesh, and the proxy's way to its
    // application and, when a service leads back to its caller, to itself.
    rules.line(2, "oifname \"lo\" return");
    rules.line(2, &format!("meta skuid {} return", plan.proxy_uid));
    rules.ports(&plan.exclude_outbound_ports, "return");
    rules.networks(&plan.exclude_outbound_cidrs, "return");
    rules.ports(&plan.outbound_ports, "goto outbound");
    rules.ports(&[DNS_PORT], "return");
    match &plan.outbound_cidrs {
        Selection::All => rules.line(2, "goto outbound"),
        Selection::Only(networks) => rules.networks(networks, "goto outbound"),
    }
    rules.line(1, "}");
}

/// What comes from outside the namespace.
fn prerouting(rules: &mut Rules, plan: &Plan) {
    rules.line(1, "chain prerouting {");
    rules.line(2, "type nat hook prerouting priority -100; policy accept;");
    rules.line(2, "meta l4proto != tcp return");
    rules.line(2, "iifname \"lo\" return");
    rules.ports(&OWN_PORTS, "return");
    rules.ports(&plan.exclude_inbound_ports, "return");
    match &plan.inbound_ports {
        Selection::All => rules.line(2, "goto inbound"),
        Selection::Only(ports) => rules.ports(ports, "goto inbound"),
    }
    rules.line(1, "}");
}

#[derive(Default)]
struct Rules(String);

impl Rules {
    fn line(&mut self, depth: usize, text: &str) {
        let _ = writeln!(self.0, "{}{text}", "\t".repeat(depth));
    }

    fn ports(&mut self, ports: &[u16], verdict: &str) {
        let mut ports = ports.to_vec();
        ports.sort_unstable();
        ports.dedup();
        if !ports.is_empty() {
            self.line(2, &format!("tcp dport {} {verdict}", set(&ports)));
        }
    }

    fn networks(&mut self, networks: &[Network], verdict: &str) {
        let of = |network: &Network| match network.0 {
            IpNet::V4(network) => (Some(network), None),
            IpNet::V6(network) => (None, Some(network)),
        };
        // A set whose intervals overlap is refused by nft.
        let v4 = Ipv4Net::aggregate(&networks.iter().filter_map(|network| of(network).0).collect());
        let v6 = Ipv6Net::aggregate(&networks.iter().filter_map(|network| of(network).1).collect());
        if !v4.is_empty() {
            self.line(2, &format!("ip daddr {} {verdict}", set(&v4)));
        }
        if !v6.is_empty() {
            self.line(2, &format!("ip6 daddr {} {verdict}", set(&v6)));
        }
    }
}

fn set<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!("{{ {} }}", items.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{
        super::plan::{networks, selected_networks, selected_ports},
        *,
    };

    /// The rules of one chain, without its header.
    fn chain(plan: &Plan, name: &str) -> Vec<String> {
        let text = render(plan);
        let (_, rest) = text.split_once(&format!("chain {name} {{\n")).unwrap();
        let (body, _) = rest.split_once("\n\t}").unwrap();
        body.lines().map(|line| line.trim().to_owned()).filter(|line| !line.starts_with("type nat")).collect()
    }

    #[test]
    fn everything_is_captured_but_what_never_may_be() {
        let plan = Plan::default();
        assert_eq!(
            chain(&plan, "output"),
            [
                "meta l4proto != tcp return",
                "ip daddr 192.0.0.8 tcp dport 15001 goto outbound",
                "ip6 daddr 100::8 tcp dport 15001 goto outbound",
                "oifname \"lo\" return",
                "meta skuid 1337 return",
                "tcp dport { 53 } return",
                "goto outbound",
            ]
        );
        assert_eq!(
            chain(&plan, "prerouting"),
            [
                "meta l4proto != tcp return",
                "iifname \"lo\" return",
                "tcp dport { 15000, 15001, 15006, 15008, 15020, 15021, 15090 } return",
                "goto inbound",
            ]
        );
        assert_eq!(chain(&plan, "outbound"), ["meta l4proto tcp redirect to :15001"]);
        assert_eq!(chain(&plan, "inbound"), ["meta l4proto tcp redirect to :15006"]);
    }

    #[test]
    fn the_table_is_replaced_in_one_transaction_on_both_hooks() {
        let text = render(&Plan::default());
        assert!(
            text.starts_with("add table inet leno\ndelete table inet leno\ntable inet leno {\n"),
            "{text}"
        );
        assert_eq!(text.matches("type nat hook output priority -100; policy accept;").count(), 1);
        assert_eq!(text.matches("type nat hook prerouting priority -100; policy accept;").count(), 1);
    }

    #[test]
    fn inbound_ports_are_those_of_the_list_less_the_excluded() {
        let plan = Plan {
            inbound_ports: selected_ports("8080,80").unwrap(),
            exclude_inbound_ports: vec![9000, 22],
            ..Plan::default()
        };
        let rules = chain(&plan, "prerouting");
        assert_eq!(rules[3..], ["tcp dport { 22, 9000 } return", "tcp dport { 80, 8080 } goto inbound"]);
        let none = Plan { inbound_ports: Selection::Only(vec![]), ..Plan::default() };
        assert_eq!(chain(&none, "prerouting").len(), 3, "nothing is captured");
    }

    #[test]
    fn excluded_ports_and_networks_come_before_those_that_are_captured() {
        let plan = Plan {
            exclude_outbound_ports: vec![5432],
            exclude_outbound_cidrs: networks("10.0.0.0/8,fd00::/8").unwrap(),
            outbound_ports: vec![443],
            outbound_cidrs: selected_networks("10.96.0.0/12,fd00:1::/64").unwrap(),
            proxy_uid: 7,
            ..Plan::default()
        };
        assert_eq!(
            chain(&plan, "output")[4..],
            [
                "meta skuid 7 return",
                "tcp dport { 5432 } return",
                "ip daddr { 10.0.0.0/8 } return",
                "ip6 daddr { fd00::/8 } return",
                "tcp dport { 443 } goto outbound",
                "tcp dport { 53 } return",
                "ip daddr { 10.96.0.0/12 } goto outbound",
                "ip6 daddr { fd00:1::/64 } goto outbound",
            ]
        );
    }

    #[test]
    fn networks_that_overlap_become_one() {
        let plan = Plan {
            exclude_outbound_cidrs: networks("10.1.0.0/16,10.0.0.0/8,10.0.0.0/8,fd00::1,fd00::/8").unwrap(),
            ..Plan::default()
        };
        let rules = chain(&plan, "output");
        assert!(rules.contains(&"ip daddr { 10.0.0.0/8 } return".to_owned()), "{rules:?}");
        assert!(rules.contains(&"ip6 daddr { fd00::/8 } return".to_owned()), "{rules:?}");
    }

    #[test]
    fn with_an_empty_list_of_networks_only_the_probe_is_captured() {
        let plan = Plan { outbound_cidrs: selected_networks("").unwrap(), ..Plan::default() };
        let captured = chain(&plan, "output").iter().filter(|rule| rule.contains("goto outbound")).count();
        assert_eq!(captured, 2);
    }
}
