//! Watches a directory of manifests (or Kubernetes) and emits object changes.
