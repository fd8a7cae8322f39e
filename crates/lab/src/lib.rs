//! Many real control planes and proxies on one machine: stand-in applications, load, the demo.
//!
//! ```text
//!   demo      a scenario of our own with load, failures and a verdict; what `leno demo` runs
//!   mesh      a whole mesh from manifests: control planes, proxies, stand-ins; what `leno up` runs
//!   embedded  what Kubernetes' controllers do: pods from templates, addresses    (knows no proxy, no control plane)
//!   standin   applications that answer and call each other as manifests say    (knows no proxy, no control plane)
//!   load      requests at a fixed rate, with latencies and failures            (knows no proxy, no control plane)
//! ```

pub mod demo;
pub mod embedded;
pub mod load;
pub mod mesh;
pub mod standin;
