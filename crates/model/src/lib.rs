//! The mesh's vocabulary: services, workloads, routes, policies, identities, each with its origin in the user's YAML.
