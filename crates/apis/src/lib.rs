//! Types of the Kubernetes, Gateway API and Istio objects that Leno reads, parsed strictly, with source spans.
