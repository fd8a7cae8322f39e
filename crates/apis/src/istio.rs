//! Istio's kinds that we act on.
//!
//! Invariant: the innermost refusable parts are `Rule`s: a route's match, a route's action, a destination, a subset, a server.

pub mod authorization_policy;
pub mod destination_rule;
pub mod gateway;
pub mod peer_authentication;
pub mod selector;
pub mod service_entry;
pub mod virtual_service;

pub use authorization_policy::AuthorizationPolicy;
pub use destination_rule::DestinationRule;
pub use gateway::Gateway;
pub use peer_authentication::PeerAuthentication;
pub use selector::{Selection, TargetRef};
pub use service_entry::ServiceEntry;
pub use virtual_service::VirtualService;

pub(crate) use authorization_policy::authorization_policy;
pub(crate) use destination_rule::destination_rule;
pub(crate) use gateway::gateway;
pub(crate) use peer_authentication::peer_authentication;
pub(crate) use service_entry::service_entry;
pub(crate) use virtual_service::virtual_service;
