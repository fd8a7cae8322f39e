//! Many real control planes and proxies on one machine: stand-in applications, load, the demo.
//!
//! ```text
//!   standin   applications that answer and call each other as manifests say    (knows no proxy, no control plane)
//!   load      requests at a fixed rate, with latencies and failures            (knows no proxy, no control plane)
//! ```

pub mod load;
pub mod standin;
