//! SPIFFE ids, CSRs, certificates, trust bundles, peer verification and rustls configurations.
