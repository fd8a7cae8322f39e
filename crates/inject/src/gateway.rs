//! The pod of a gateway: the proxy by itself.
//!
//! Invariant: it meets the `restricted` Pod Security level; low ports need no capability, because the pod's own network
//! namespace lets everybody have them.

use serde_json::{Map, Value, json};

use crate::{InjectionConfig, ask, sidecar};

/// Seconds that a pod has beyond its drain: to hear of its end, and to close.
const BEYOND_DRAIN: u64 = 15;

/// The specification of a pod that serves the Gateway `namespace/name` as a service account.
///
/// The pod must not be injected itself.
#[must_use]
pub fn gateway_pod(config: &InjectionConfig, gateway: &str, account: &str) -> Value {
    let asked = ask::of_nobody(config);
    let mut proxy = sidecar::proxy(config, &asked, &config.network, Map::new());
    proxy["args"] = json!(["gateway"]);
    if let Value::Object(proxy) = &mut proxy {
        // It is no init container.
        proxy.shift_remove("restartPolicy");
    }
    if let Some(environment) = proxy["env"].as_array_mut() {
        environment.push(json!({"name": "LENO_GATEWAY", "value": gateway}));
    }
    let mut pod = json!({
        "serviceAccountName": account,
        "terminationGracePeriodSeconds": asked.drain.as_secs() + BEYOND_DRAIN,
        "securityContext": {
            "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
        },
        "containers": [proxy],
        "volumes": sidecar::volumes(),
    });
    let secrets: Vec<Value> = config.image.pull_secrets.iter().map(|name| json!({ "name": name })).collect();
    if !secrets.is_empty() {
        pod["imagePullSecrets"] = json!(secrets);
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_is_a_container_that_knows_its_gateway() {
        let mut config = InjectionConfig::default();
        config.proxy.drain_duration = "45s".to_owned();
        let pod = gateway_pod(&config, "edge/public", "public-leno");
        let proxy = &pod["containers"][0];
        assert_eq!(proxy["args"], json!(["gateway"]));
        assert!(proxy.get("restartPolicy").is_none());
        let environment = proxy["env"].as_array().unwrap();
        assert!(environment.contains(&json!({"name": "LENO_GATEWAY", "value": "edge/public"})));
        assert_eq!(pod["serviceAccountName"], "public-leno");
        assert_eq!(
            pod["terminationGracePeriodSeconds"], 60,
            "a long drain is not cut to the 30 s of pods that do not say"
        );
    }

    #[test]
    fn it_has_no_privilege() {
        let pod = gateway_pod(&InjectionConfig::default(), "edge/public", "public-leno");
        let context = &pod["containers"][0]["securityContext"];
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    }
}
