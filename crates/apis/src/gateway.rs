//! Kinds of the Kubernetes Gateway API.
//!
//! Invariant: the innermost refusable parts are `Rule`s: a match, the action of a rule, a backend, a listener.

pub mod backend_tls_policy;
pub mod grpc_route;
pub mod http_filters;
pub mod http_route;
pub mod listeners;
pub mod reference;
pub mod reference_grant;
pub mod stream_route;

pub use backend_tls_policy::BackendTlsPolicy;
pub use grpc_route::GrpcRoute;
pub use http_route::HttpRoute;
pub use listeners::{Gateway, GatewayClass, ListenerSet};
pub use reference::{BackendRef, ParentRef};
pub use reference_grant::ReferenceGrant;
pub use stream_route::{TcpRoute, TlsRoute};

pub(crate) use backend_tls_policy::backend_tls_policy;
pub(crate) use grpc_route::grpc_route;
pub(crate) use http_route::http_route;
pub(crate) use listeners::{gateway, gateway_class, listener_set};
pub(crate) use reference_grant::reference_grant;
pub(crate) use stream_route::{tcp_route, tls_route};
