//! Which connections of a network namespace the kernel redirects to the proxy in it.
//!
//! | module | its job |
//! | --- | --- |
//! | [`plan`] | what is to be captured, as the user says it |
//! | [`arguments`] | a plan from the arguments of `leno-proxy capture`, as an injected pod carries them |
//! | [`rules`] | a plan as nftables rules: text, nothing else |
//! | [`write`](mod@write) | that text, given to `nft` in the calling thread's network namespace |
//! | [`ports`] | the proxy's own ports |
//!
//! Invariants: whoever writes them (an init container, a node's agent), the rules of a plan are the same; all but `write` is pure.
//! Must not know: proxies, pods, Kubernetes.

#![forbid(unsafe_code)]

pub mod arguments;
pub mod plan;
pub mod ports;
pub mod rules;
pub mod write;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use plan::{Network, Plan, Selection};
pub use rules::render;

use self::ports::OUTBOUND_PORT;

/// What the proxy dials to see whether its rules are there: they redirect this for every user, itself included. Nobody is there
/// otherwise: IPv4's dummy address (RFC 7600) and an address of IPv6's discard-only block (RFC 6666).
pub const PROBES: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)), OUTBOUND_PORT),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 8)), OUTBOUND_PORT),
];
