//! `leno-proxy capture` in a real kernel: what is redirected, with which destination, and what is left alone.

use crate::namespace::{APP, NODE, Namespace, Network, PROXY, pod_addresses};

const ALL: [&str; 2] = ["0.0.0.0", "::"];
/// Virtual addresses: nobody has them.
const VIRTUAL: [&str; 2] = ["198.19.0.9", "fd00:19::9"];

/// A node with a server on some ports, and a pod with what a proxy and an application listen on.
fn network() -> Option<Network> {
    let network = Network::new(1)?;
    let pod = &network.pods[0];
    pod.serve(&ALL, 15001, "outbound");
    pod.serve(&ALL, 15006, "inbound");
    pod.serve(&ALL, 15020, "own");
    pod.serve(&ALL, 9000, "application");
    for port in [8080, 8081, 53] {
        network.node.serve(&NODE, port, "outside");
    }
    network.node.echo_udp(&NODE, 5300);
    network.node.echo_udp(&NODE, 53);
    Some(network)
}

fn capture(pod: &Namespace, options: &[&str]) {
    let mut arguments = vec![env!("CARGO_BIN_EXE_leno-proxy"), "capture"];
    arguments.extend(options);
    pod.run(0, &arguments).unwrap();
}

fn said(name: &str, address: &str, port: u16) -> Result<String, String> {
    let address: std::net::IpAddr = address.parse().unwrap();
    Ok(format!("{name} {}", std::net::SocketAddr::new(address, port)))
}

#[test]
fn an_application_that_dials_an_address_nobody_has_comes_to_the_proxy_with_it() {
    let Some(network) = network() else { return };
    let pod = &network.pods[0];
    capture(pod, &[]);
    for address in VIRTUAL {
        assert_eq!(pod.dial(APP, address, 80), said("outbound", address, 80));
        assert_eq!(pod.dial(0, address, 443), said("outbound", address, 443), "whatever the user");
    }
    assert_eq!(pod.dial(APP, NODE[0], 8080), said("outbound", NODE[0], 8080), "also what exists");
}

#[test]
fn a_caller_from_outside_comes_to_the_proxy_with_the_port_that_it_dialled() {
    let Some(network) = network() else { return };
    capture(&network.pods[0], &[]);
    for address in &pod_addresses(0) {
        assert_eq!(network.node.dial(APP, address, 9000), said("inbound", address, 9000));
        assert_eq!(
            network.node.dial(APP, address, 4242),
            said("inbound", address, 4242),
            "nobody listens there"
        );
        assert_eq!(
            network.node.dial(APP, address, 15020),
            said("own", address, 15020),
            "the proxy's own port"
        );
        assert_eq!(network.node.dial(APP, address, 15001), said("outbound", address, 15001), "as it is");
    }
}

#[test]
fn the_proxys_own_connections_are_left_alone_but_for_its_probe() {
    let Some(network) = network() else { return };
    let pod = &network.pods[0];
    capture(pod, &[]);
    for address in NODE {
        assert_eq!(pod.dial(PROXY, address, 8080), said("outside", address, 8080));
    }
    for address in &pod_addresses(0) {
        assert_eq!(pod.dial(PROXY, address, 9000), said("application", address, 9000), "to its application");
        assert_eq!(pod.dial(PROXY, address, 15020), said("own", address, 15020), "to itself");
    }
    for probe in ["192.0.0.8", "100::8"] {
        assert_eq!(pod.dial(PROXY, probe, 15001), said("outbound", probe, 15001));
    }
}

#[test]
fn loopback_udp_and_dns_are_left_alone() {
    let Some(network) = network() else { return };
    let pod = &network.pods[0];
    capture(pod, &[]);
    for address in ["127.0.0.1", "::1"].into_iter().chain(pod_addresses(0).iter().map(String::as_str)) {
        assert_eq!(pod.dial(APP, address, 9000), said("application", address, 9000), "within the pod");
    }
    for address in NODE {
        assert_eq!(pod.ask_udp(APP, address, 5300), Ok("hello\n".to_owned()));
        assert_eq!(pod.ask_udp(APP, address, 53), Ok("hello\n".to_owned()));
        assert_eq!(pod.dial(APP, address, 53), said("outside", address, 53), "DNS over TCP");
    }
}

#[test]
fn excluded_ports_and_networks_are_left_alone() {
    let Some(network) = network() else { return };
    let pod = &network.pods[0];
    capture(pod, &["--exclude-inbound-ports", "9000", "--exclude-outbound-ports", "8081"]);
    for (node, address) in NODE.iter().zip(&pod_addresses(0)) {
        assert_eq!(pod.dial(APP, node, 8081), said("outside", node, 8081));
        assert_eq!(pod.dial(APP, node, 8080), said("outbound", node, 8080));
        assert_eq!(network.node.dial(APP, address, 9000), said("application", address, 9000));
        assert_eq!(network.node.dial(APP, address, 9001), said("inbound", address, 9001));
    }
    capture(pod, &["--exclude-outbound-cidrs", "198.18.0.0/15,198.18.0.1,fd00:18::/64"]);
    for (node, outside) in NODE.iter().zip([false, true]) {
        assert_eq!(pod.dial(APP, node, 8080), said("outside", node, 8080));
        if outside {
            assert_eq!(pod.dial(APP, VIRTUAL[1], 80), said("outbound", VIRTUAL[1], 80));
        }
    }
}

#[test]
fn only_listed_networks_and_ports_are_captured() {
    let Some(network) = network() else { return };
    let pod = &network.pods[0];
    let networks = "198.19.0.0/16,fd00:19::/32";
    capture(pod, &["--outbound-cidrs", networks, "--outbound-ports", "8081", "--inbound-ports", "9001,9002"]);
    for index in 0..2 {
        let (node, address) = (NODE[index], &pod_addresses(0)[index]);
        assert_eq!(pod.dial(APP, VIRTUAL[index], 80), said("outbound", VIRTUAL[index], 80));
        assert_eq!(pod.dial(APP, node, 8080), said("outside", node, 8080));
        assert_eq!(pod.dial(APP, node, 8081), said("outbound", node, 8081));
        assert_eq!(network.node.dial(APP, address, 9001), said("inbound", address, 9001));
        assert_eq!(network.node.dial(APP, address, 9000), said("application", address, 9000));
    }
}

#[test]
fn writing_the_rules_again_replaces_them_and_leaves_other_tables_alone() {
    let Some(network) = network() else { return };
    let pod = &network.pods[0];
    pod.run(0, &["nft", "add table inet another"]).unwrap();
    capture(pod, &[]);
    let once = pod.run(0, &["nft", "list", "ruleset"]).unwrap();
    capture(pod, &["--exclude-outbound-ports", "8081"]);
    assert_ne!(pod.run(0, &["nft", "list", "ruleset"]).unwrap(), once);
    capture(pod, &[]);
    assert_eq!(pod.run(0, &["nft", "list", "ruleset"]).unwrap(), once);
    assert!(once.contains("table inet another"), "{once}");
}

#[test]
fn nft_is_found_where_the_search_path_leaves_sbin_out() {
    let Some(network) = network() else { return };
    let pod = &network.pods[0];
    let program = env!("CARGO_BIN_EXE_leno-proxy");
    pod.run(0, &["/usr/bin/env", "PATH=/bin:/usr/bin", program, "capture"]).unwrap();
    assert!(pod.run(0, &["nft", "list", "ruleset"]).unwrap().contains("table inet leno"));
}

#[test]
fn without_the_capability_nothing_is_written_and_it_says_what_is_missing() {
    let Some(network) = network() else { return };
    let pod = &network.pods[0];
    let program = env!("CARGO_BIN_EXE_leno-proxy");
    let refused = pod.run(APP, &[program, "capture"]).unwrap_err();
    assert!(refused.contains("NET_ADMIN"), "{refused}");
    let printed = pod.run(APP, &[program, "capture", "--dry-run", "--proxy-uid", "7"]).unwrap();
    assert!(printed.contains("meta skuid 7 return"), "{printed}");
    assert_eq!(pod.run(0, &["nft", "list", "ruleset"]).unwrap(), "");
}
