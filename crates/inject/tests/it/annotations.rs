//! What a pod's annotations change.

use serde_json::json;

use crate::{init_container, injected, pod, proxy_config, refused};

fn resources(annotations: &[(&str, &str)]) -> serde_json::Value {
    init_container(&injected(&pod("", annotations)).pod, "istio-proxy")["resources"].clone()
}

#[test]
fn ports_and_ranges_are_arguments_of_the_capture() {
    let annotated = pod(
        "",
        &[
            ("traffic.sidecar.istio.io/includeInboundPorts", "80, 443"),
            ("traffic.sidecar.istio.io/excludeInboundPorts", "9000"),
            ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.1.2.3/8,fd00::/8"),
            ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.2.0.0/16"),
            ("traffic.sidecar.istio.io/includeOutboundPorts", "8443"),
            ("traffic.sidecar.istio.io/excludeOutboundPorts", "5432,6379"),
        ],
    );
    let injected = injected(&annotated).pod;
    let expected = json!([
        "capture",
        "--inbound-ports",
        "80,443",
        "--exclude-inbound-ports",
        "9000,15008,15020,15021,15090",
        "--outbound-cidrs",
        "10.0.0.0/8,fd00::/8",
        "--exclude-outbound-cidrs",
        "10.2.0.0/16",
        "--outbound-ports",
        "8443",
        "--exclude-outbound-ports",
        "5432,6379",
        "--proxy-uid",
        "1337",
    ]);
    assert_eq!(init_container(&injected, "leno-init")["args"], expected);
}

#[test]
fn everything_is_captured_by_default_and_an_empty_list_captures_nothing() {
    let arguments = |annotations: &[(&str, &str)]| {
        let injected = injected(&pod("", annotations)).pod;
        init_container(&injected, "leno-init")["args"].as_array().unwrap().clone()
    };
    let everything = arguments(&[]);
    assert_eq!((&everything[2], &everything[6]), (&json!("*"), &json!("*")));
    let nothing = arguments(&[
        ("traffic.sidecar.istio.io/includeInboundPorts", ""),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", ""),
    ]);
    assert_eq!((&nothing[2], &nothing[6]), (&json!(""), &json!("")));
}

#[test]
fn a_resource_that_is_asked_for_replaces_the_default_of_that_resource_only() {
    assert_eq!(
        resources(&[]),
        json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}})
    );
    let asked = [
        ("sidecar.istio.io/proxyCPU", "100m"),
        ("sidecar.istio.io/proxyCPULimit", "2"),
        ("sidecar.istio.io/proxyMemory", "1Gi"),
    ];
    let expected = json!({"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "2"}});
    assert_eq!(resources(&asked), expected);
    let only_cpu = json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}});
    assert_eq!(resources(&asked[..1]), only_cpu);
}

#[test]
fn log_level_threads_drain_and_readiness_are_the_pods_to_choose() {
    let annotated = pod(
        "",
        &[
            ("sidecar.istio.io/logLevel", "warning"),
            ("proxy.istio.io/config", "concurrency: 2\ndrainDuration: 25s"),
            ("readiness.status.sidecar.istio.io/initialDelaySeconds", "2"),
            ("readiness.status.sidecar.istio.io/periodSeconds", "7"),
            ("readiness.status.sidecar.istio.io/failureThreshold", "9"),
        ],
    );
    let injected = injected(&annotated);
    assert_eq!(injected.warnings, Vec::<String>::new());
    let config = proxy_config(&injected.pod);
    assert_eq!(config["logLevel"], "warn");
    assert_eq!(config["concurrency"], 2);
    assert_eq!(config["drainDuration"], "25s");
    let readiness = &init_container(&injected.pod, "istio-proxy")["readinessProbe"];
    assert_eq!(readiness["initialDelaySeconds"], 2);
    assert_eq!(readiness["periodSeconds"], 7);
    assert_eq!(readiness["failureThreshold"], 9);
}

#[test]
fn a_drain_that_the_pods_grace_period_cuts_is_reported() {
    let long = || pod("", &[("proxy.istio.io/config", "terminationDrainDuration: 45s")]);
    let warnings = injected(&long()).warnings;
    assert_eq!(
        warnings,
        ["the drain of 45s does not fit into terminationGracePeriodSeconds (30) and will be cut"]
    );
    let mut patient = long();
    patient["spec"]["terminationGracePeriodSeconds"] = json!(60);
    assert_eq!(injected(&patient).warnings, Vec::<String>::new());
}

#[test]
fn the_default_drain_fits_into_a_short_grace_period() {
    let mut hasty = pod("", &[]);
    hasty["spec"]["terminationGracePeriodSeconds"] = json!(5);
    let injected = injected(&hasty);
    assert_eq!(proxy_config(&injected.pod)["drainDuration"], "4s");
    assert_eq!(injected.warnings, Vec::<String>::new());
}

#[test]
fn values_that_cannot_be_read_refuse_the_pod_and_name_the_annotation() {
    for (key, value, said) in [
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "5432,postgres", "`postgres` is no port"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "0", "`0` is no port"),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.0.0.1", "no range of addresses"),
        ("sidecar.istio.io/proxyCPU", "lots", "no quantity"),
        ("sidecar.istio.io/logLevel", "loud", "none of trace"),
        ("sidecar.istio.io/rewriteAppHTTPProbers", "no", "neither true nor false"),
        ("readiness.status.sidecar.istio.io/periodSeconds", "0", "not between 1 and 3600"),
        ("proxy.istio.io/config", "drainDuration: 2h", "more than an hour"),
        ("proxy.istio.io/config", "tracing: {sampling: 5}", "needs a collector"),
    ] {
        let refusal = refused(&pod("", &[(key, value)]));
        assert!(refusal.contains(key) && refusal.contains(said), "{key}={value}: {refusal}");
    }
    let asked = [("sidecar.istio.io/proxyCPU", "2"), ("sidecar.istio.io/proxyCPULimit", "100m")];
    assert!(refused(&pod("", &asked)).contains("more than the limit"));
}

#[test]
fn what_is_not_honoured_is_refused_or_reported() {
    for (key, value) in [
        ("sidecar.istio.io/interceptionMode", "TPROXY"),
        ("sidecar.istio.io/bootstrapOverride", "x"),
        ("sidecar.istio.io/userVolume", "[]"),
        ("sidecar.istio.io/proxyImage", "x"),
        ("status.sidecar.istio.io/port", "0"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "eth1"),
        ("proxy.istio.io/overrides", "{}"),
        ("inject.istio.io/templates", "gateway"),
        ("istio.io/reroute-virtual-interfaces", "tap0"),
        ("proxy.istio.io/config", "proxyMetadata: {A: b}"),
    ] {
        let refusal = refused(&pod("", &[(key, value)]));
        assert!(refusal.contains(key), "{key}: {refusal}");
    }
    for (key, value) in [
        ("sidecar.istio.io/componentLogLevel", "misc:error"),
        ("sidecar.istio.io/statsInclusionPrefixes", "cluster"),
        ("sidecar.istio.io/extraStatTags", "a"),
        ("sidecar.istio.io/nativeSidecar", "false"),
        ("sidecar.istio.io/colour", "blue"),
    ] {
        let injected = injected(&pod("", &[(key, value)]));
        assert!(
            injected.warnings.iter().any(|warning| warning.contains(key)),
            "{key}: {:?}",
            injected.warnings
        );
    }
    let harmless =
        [("sidecar.istio.io/interceptionMode", "REDIRECT"), ("sidecar.istio.io/nativeSidecar", "true")];
    assert_eq!(injected(&pod("", &harmless)).warnings, Vec::<String>::new());
}

#[test]
fn a_pod_may_keep_its_metrics_to_itself() {
    let injected = injected(&pod("", &[("prometheus.istio.io/merge-metrics", "false")])).pod;
    assert!(injected["metadata"]["annotations"].get("prometheus.io/scrape").is_none());
}
