//! Many real control planes and proxies on one machine: stand-in applications, load, the demo.
