//! The proxy's own ports, the same on every workload.

/// The mesh's port on every workload (DESIGN: between two proxies).
pub const MESH_PORT: u16 = 15008;
/// Outbound capture.
pub const OUTBOUND_PORT: u16 = 15001;
/// Inbound capture: what the kernel redirects, whatever port was dialled.
pub const INBOUND_PORT: u16 = 15006;
/// Administration, on the proxy's own address.
pub const ADMIN_PORT: u16 = 15000;
/// Metrics, and the application's probes.
pub const METRICS_PORT: u16 = 15020;
/// The proxy's own readiness.
pub const HEALTH_PORT: u16 = 15021;
/// The proxy's own metrics, under Istio's port for them.
pub const PROMETHEUS_PORT: u16 = 15090;
