//! What is done with each annotation of Istio's on a pod.
//!
//! Invariant: every annotation below the prefixes of [`FAMILIES`] is honoured, refused or reported. What would change traffic or
//! security is refused when it cannot be honoured; what only concerns Envoy's insides or telemetry is reported.

use std::collections::BTreeMap;

use leno_apis::closest;

/// What is done with an annotation.
pub(crate) enum Treatment {
    /// Its value decides something.
    Honoured,
    /// These values say what is so anyway; any other is refused.
    Only(&'static [&'static str], &'static str),
    /// This value says what is so anyway; any other is reported.
    Moot(&'static str, &'static str),
    /// A warning with this reason.
    Reported(&'static str),
    /// The pod is refused with this reason.
    Refused(&'static str),
}

use Treatment::{Honoured, Moot, Only, Refused, Reported};

const NO_ENVOY: &str = "there is no Envoy whose statistics it could choose";
const NO_AGENT: &str = "there is no separate agent; `sidecar.istio.io/logLevel` is for the whole proxy";

/// Every annotation of Istio's that means something on a pod.
pub(crate) const TABLE: &[(&str, Treatment)] = &[
    ("sidecar.istio.io/inject", Honoured),
    ("sidecar.istio.io/status", Honoured),
    ("sidecar.istio.io/rewriteAppHTTPProbers", Honoured),
    ("sidecar.istio.io/proxyCPU", Honoured),
    ("sidecar.istio.io/proxyCPULimit", Honoured),
    ("sidecar.istio.io/proxyMemory", Honoured),
    ("sidecar.istio.io/proxyMemoryLimit", Honoured),
    ("sidecar.istio.io/logLevel", Honoured),
    ("sidecar.istio.io/interceptionMode", Only(&["REDIRECT"], "traffic is redirected, never TPROXY or NONE")),
    ("sidecar.istio.io/nativeSidecar", Moot("true", "the proxy is always a native sidecar")),
    ("sidecar.istio.io/discoveryAddress", Refused("a pod belongs to the control plane of its revision")),
    ("sidecar.istio.io/controlPlaneAuthPolicy", Moot("MUTUAL_TLS", "the control plane always needs mTLS")),
    ("sidecar.istio.io/proxyImage", Refused("the proxy is Leno's, not an image of Istio's")),
    ("sidecar.istio.io/proxyImageType", Reported("there is one form of the proxy's image")),
    ("sidecar.istio.io/bootstrapOverride", Refused("there is no Envoy bootstrap")),
    ("sidecar.istio.io/userVolume", Refused("volumes are not given to the proxy")),
    ("sidecar.istio.io/userVolumeMount", Refused("volumes are not given to the proxy")),
    ("sidecar.istio.io/enableCoreDump", Reported("the proxy writes no core")),
    ("sidecar.istio.io/componentLogLevel", Reported("the proxy has none of Envoy's components")),
    ("sidecar.istio.io/agentLogLevel", Reported(NO_AGENT)),
    ("sidecar.istio.io/statsInclusionPrefixes", Reported(NO_ENVOY)),
    ("sidecar.istio.io/statsInclusionSuffixes", Reported(NO_ENVOY)),
    ("sidecar.istio.io/statsInclusionRegexps", Reported(NO_ENVOY)),
    ("sidecar.istio.io/statsHistogramBuckets", Reported("the buckets are Istio's defaults")),
    ("sidecar.istio.io/statsHistogramBins", Reported(NO_ENVOY)),
    ("sidecar.istio.io/statsFlushInterval", Reported(NO_ENVOY)),
    ("sidecar.istio.io/statsEvictionInterval", Reported(NO_ENVOY)),
    ("sidecar.istio.io/statsCompression", Reported(NO_ENVOY)),
    ("sidecar.istio.io/extraStatTags", Reported("metrics have Istio's default labels")),
    ("status.sidecar.istio.io/port", Only(&["15020"], "the port is fixed")),
    ("readiness.status.sidecar.istio.io/initialDelaySeconds", Honoured),
    ("readiness.status.sidecar.istio.io/periodSeconds", Honoured),
    ("readiness.status.sidecar.istio.io/failureThreshold", Honoured),
    (
        "readiness.status.sidecar.istio.io/applicationPorts",
        Reported("the proxy is ready when its configuration and capture are"),
    ),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", Honoured),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", Honoured),
    ("traffic.sidecar.istio.io/includeInboundPorts", Honoured),
    ("traffic.sidecar.istio.io/excludeInboundPorts", Honoured),
    ("traffic.sidecar.istio.io/includeOutboundPorts", Honoured),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", Honoured),
    ("traffic.sidecar.istio.io/excludeInterfaces", Refused("capture does not look at interfaces")),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", Refused("capture does not look at interfaces")),
    ("istio.io/reroute-virtual-interfaces", Refused("capture does not look at interfaces")),
    ("proxy.istio.io/config", Honoured),
    ("proxy.istio.io/overrides", Refused("containers of the pod do not change the proxy's; use annotations")),
    ("inject.istio.io/templates", Only(&["sidecar"], "there are no custom templates")),
    ("prometheus.istio.io/merge-metrics", Honoured),
    ("prometheus.istio.io/scrape-targets", Reported("metrics of applications are not merged")),
    ("ambient.istio.io/bypass-inbound-capture", Refused("it is for ambient mode")),
    ("ambient.istio.io/dns-capture", Only(&["false"], "DNS is not captured")),
    ("leno.dev/inject", Honoured),
    ("leno.dev/rev", Honoured),
    ("leno.dev/capture", Honoured),
];

/// Prefixes of annotations, and whether an unknown one below them is refused.
const FAMILIES: &[(&str, bool)] = &[
    ("sidecar.istio.io/", false),
    ("status.sidecar.istio.io/", false),
    ("readiness.status.sidecar.istio.io/", false),
    ("traffic.sidecar.istio.io/", true),
    ("proxy.istio.io/", true),
    ("inject.istio.io/", true),
    ("prometheus.istio.io/", false),
    ("leno.dev/", true),
];

/// Refuses or reports the annotations that are not honoured.
pub(crate) fn judge(
    annotations: &BTreeMap<String, String>,
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) {
    for (key, value) in annotations {
        match TABLE.iter().find(|(known, _)| known == key).map(|(_, treatment)| treatment) {
            Some(Honoured) => {}
            Some(Only(values, _)) if values.contains(&value.as_str()) => {}
            Some(Only(values, why)) => {
                problems.push(format!(
                    "annotation {key}: `{value}` is not supported: {why} (`{}`)",
                    values.join("`, `")
                ));
            }
            Some(Refused(why)) => problems.push(format!("annotation {key} is not supported: {why}")),
            Some(Moot(so, _)) if value == so => {}
            Some(Moot(_, why) | Reported(why)) => {
                warnings.push(format!("annotation {key} has no effect: {why}"))
            }
            None => unknown(key, problems, warnings),
        }
    }
}

fn unknown(key: &str, problems: &mut Vec<String>, warnings: &mut Vec<String>) {
    let Some((_, refused)) = FAMILIES.iter().find(|(prefix, _)| key.starts_with(prefix)) else { return };
    let near = closest(key, TABLE.iter().map(|(known, _)| *known));
    let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    if *refused {
        problems.push(format!("annotation {key} is unknown{hint}"));
    } else {
        warnings.push(format!("annotation {key} is unknown and has no effect{hint}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Annotations of pods in `istio.io/api` 1.31, `annotation/annotations.yaml`, and two of other places of its sources.
    const OF_ISTIO: &str = "prometheus.istio.io/merge-metrics sidecar.istio.io/inject sidecar.istio.io/status \
        sidecar.istio.io/rewriteAppHTTPProbers sidecar.istio.io/discoveryAddress sidecar.istio.io/proxyImage \
        sidecar.istio.io/proxyImageType sidecar.istio.io/proxyCPU sidecar.istio.io/proxyCPULimit \
        sidecar.istio.io/proxyMemory sidecar.istio.io/proxyMemoryLimit sidecar.istio.io/interceptionMode \
        sidecar.istio.io/bootstrapOverride sidecar.istio.io/statsInclusionPrefixes \
        sidecar.istio.io/statsInclusionSuffixes sidecar.istio.io/statsInclusionRegexps \
        sidecar.istio.io/statsHistogramBuckets sidecar.istio.io/statsFlushInterval \
        sidecar.istio.io/statsEvictionInterval sidecar.istio.io/statsHistogramBins sidecar.istio.io/userVolume \
        sidecar.istio.io/userVolumeMount status.sidecar.istio.io/port sidecar.istio.io/logLevel \
        sidecar.istio.io/componentLogLevel sidecar.istio.io/agentLogLevel sidecar.istio.io/nativeSidecar \
        readiness.status.sidecar.istio.io/initialDelaySeconds readiness.status.sidecar.istio.io/periodSeconds \
        readiness.status.sidecar.istio.io/failureThreshold readiness.status.sidecar.istio.io/applicationPorts \
        traffic.sidecar.istio.io/includeOutboundIPRanges traffic.sidecar.istio.io/excludeOutboundIPRanges \
        traffic.sidecar.istio.io/includeInboundPorts traffic.sidecar.istio.io/excludeInboundPorts \
        traffic.sidecar.istio.io/excludeInterfaces traffic.sidecar.istio.io/includeOutboundPorts \
        traffic.sidecar.istio.io/excludeOutboundPorts traffic.sidecar.istio.io/kubevirtInterfaces \
        proxy.istio.io/config proxy.istio.io/overrides inject.istio.io/templates sidecar.istio.io/extraStatTags \
        istio.io/reroute-virtual-interfaces sidecar.istio.io/statsCompression \
        ambient.istio.io/bypass-inbound-capture ambient.istio.io/dns-capture prometheus.istio.io/scrape-targets \
        sidecar.istio.io/controlPlaneAuthPolicy sidecar.istio.io/enableCoreDump";

    #[test]
    fn every_annotation_that_istio_has_for_pods_is_in_the_table_once() {
        for name in OF_ISTIO.split_whitespace() {
            assert_eq!(TABLE.iter().filter(|(known, _)| *known == name).count(), 1, "{name}");
        }
    }

    #[test]
    fn an_unknown_annotation_about_traffic_is_refused_and_one_about_telemetry_reported() {
        let told = |key: &str| {
            let (mut problems, mut warnings) = (Vec::new(), Vec::new());
            judge(&BTreeMap::from([(key.to_owned(), "1".to_owned())]), &mut problems, &mut warnings);
            (problems, warnings)
        };
        let (problems, warnings) = told("traffic.sidecar.istio.io/excludeOutboundPort");
        assert_eq!(
            problems,
            ["annotation traffic.sidecar.istio.io/excludeOutboundPort is unknown; \
              did you mean traffic.sidecar.istio.io/excludeOutboundPorts?"]
        );
        assert!(warnings.is_empty());
        let (problems, warnings) = told("sidecar.istio.io/statsColour");
        assert!(problems.is_empty());
        assert_eq!(warnings.len(), 1);
        assert_eq!(told("example.com/owner"), (vec![], vec![]));
    }
}
