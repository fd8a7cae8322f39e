//! Capture: in a pod's network namespace the kernel redirects the application's connections to the proxy.
//!
//! | module | its job |
//! | --- | --- |
//! | [`plan`] | what is to be captured, as the user says it |
//! | [`rules`] | the plan as nftables rules: text, nothing else |
//! | [`arrival`] | what a redirected connection had dialled |
//! | [`verify`] | whether the rules work where this proxy runs |
//!
//! Invariant: what decides is the original destination of a connection, never a listener's port (docs/adr/0014-capture.md).

pub(crate) mod arrival;
pub mod plan;
pub mod rules;
pub(crate) mod verify;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::bootstrap::OUTBOUND_PORT;

pub use plan::{Network, Plan, Selection};
pub use rules::render;

/// What the proxy dials to see whether its rules are there: they redirect this for every user, itself included. Nobody is there
/// otherwise: IPv4's dummy address (RFC 7600) and an address of IPv6's discard-only block (RFC 6666).
pub const PROBES: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)), OUTBOUND_PORT),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 8)), OUTBOUND_PORT),
];
