//! What an injected pod consists of.

use leno_inject::{Capture, Image, InjectionConfig, Tracing};
use serde_json::{Value, json};

use crate::{init_container, injected, injected_with, pod, proxy_config, refused};

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

fn with_cni() -> InjectionConfig {
    InjectionConfig { capture: Capture::Cni, ..InjectionConfig::default() }
}

#[test]
fn the_proxy_is_a_native_sidecar_after_the_capture_and_before_everything_of_the_users() {
    let mut pod = pod("", &[]);
    pod["spec"]["initContainers"] =
        json!([{"name": "migrate", "image": "a"}, {"name": "log", "image": "b", "restartPolicy": "Always"}]);
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    pod["spec"]["imagePullSecrets"] = json!([{"name": "mine"}]);
    let image = Image {
        pull_policy: "Never".to_owned(),
        pull_secrets: vec!["mine".to_owned(), "registry".to_owned()],
        name: "x/proxy:1".to_owned(),
    };
    let injected = injected_with(&InjectionConfig { image, ..InjectionConfig::default() }, &pod).pod;
    let spec = &injected["spec"];
    assert_eq!(names(&spec["initContainers"]), ["leno-init", "istio-proxy", "migrate", "log"]);
    assert_eq!(names(&spec["containers"]), ["app"]);
    assert_eq!(names(&spec["volumes"]), ["data", "leno-state", "leno-token", "leno-ca-root"]);
    assert_eq!(names(&spec["imagePullSecrets"]), ["mine", "registry"]);
    let proxy = init_container(&injected, "istio-proxy");
    assert_eq!(proxy["restartPolicy"], "Always");
    assert_eq!(proxy["args"], json!(["sidecar"]));
    for name in ["istio-proxy", "leno-init"] {
        let container = init_container(&injected, name);
        assert_eq!(container["image"], "x/proxy:1");
        assert_eq!(container["imagePullPolicy"], "Never");
    }
}

#[test]
fn the_application_waits_for_the_proxys_start_which_is_looked_at_each_second() {
    let injected = injected(&pod("", &[])).pod;
    let proxy = init_container(&injected, "istio-proxy");
    let health = json!({"path": "/healthz/ready", "port": 15021, "scheme": "HTTP"});
    assert_eq!(proxy["startupProbe"]["httpGet"], health);
    assert_eq!(proxy["startupProbe"]["periodSeconds"], 1);
    assert_eq!(proxy["readinessProbe"]["httpGet"], health);
    assert!(proxy["livenessProbe"].get("httpGet").is_none(), "not being ready must not restart it");
}

#[test]
fn the_capture_container_may_change_the_network_and_nothing_else() {
    let injected = injected(&pod("", &[])).pod;
    let context = &init_container(&injected, "leno-init")["securityContext"];
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"], "add": ["NET_ADMIN"]}));
    assert_eq!(context["privileged"], false);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["runAsUser"], 0);
    assert_eq!(context["runAsNonRoot"], false, "or a pod with runAsNonRoot could not run it");
}

/// What the `restricted` level of the Pod Security Standards asks of a container.
fn restricted(container: &Value) -> bool {
    let context = &container["securityContext"];
    let added = context["capabilities"]["add"].as_array().map_or(&[][..], Vec::as_slice);
    context["allowPrivilegeEscalation"] == false
        && context["privileged"] != true
        && context["runAsNonRoot"] == true
        && context["runAsUser"] != 0
        && context["capabilities"]["drop"] == json!(["ALL"])
        && added.iter().all(|capability| capability == "NET_BIND_SERVICE")
        && context["seccompProfile"]["type"] == "RuntimeDefault"
}

#[test]
fn with_a_cni_plugin_nothing_in_the_pod_exceeds_the_restricted_level() {
    let injected = injected_with(&with_cni(), &pod("", &[])).pod;
    let added = injected["spec"]["initContainers"].as_array().unwrap();
    assert_eq!(added.len(), 1);
    assert!(added.iter().all(restricted));
    for volume in injected["spec"]["volumes"].as_array().unwrap() {
        let kinds = ["emptyDir", "projected", "configMap"];
        assert!(
            kinds.iter().any(|kind| volume.get(kind).is_some()),
            "{volume} is no volume of the restricted level"
        );
    }
    let arguments = injected["metadata"]["annotations"]["leno.dev/capture"].as_str().unwrap();
    assert!(
        arguments.starts_with(r#"["--inbound-ports","*","--exclude-inbound-ports","15008,"#),
        "{arguments}"
    );
}

#[test]
fn the_proxy_is_told_who_it_is_by_the_pod_and_where_the_mesh_is_by_the_configuration() {
    let config = InjectionConfig {
        cluster: "west".to_owned(),
        network: "vpc-1".to_owned(),
        ..InjectionConfig::default()
    };
    let injected = injected_with(&config, &pod("", &[])).pod;
    let environment = init_container(&injected, "istio-proxy")["env"].as_array().unwrap().clone();
    let variable = |name: &str| environment.iter().find(|variable| variable["name"] == name).unwrap().clone();
    for (name, path) in [
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("POD_UID", "metadata.uid"),
        ("POD_IP", "status.podIP"),
        ("SERVICE_ACCOUNT", "spec.serviceAccountName"),
    ] {
        assert_eq!(variable(name)["valueFrom"]["fieldRef"]["fieldPath"], path);
    }
    for (name, value) in [
        ("LENO_CLUSTER", "west"),
        ("LENO_NETWORK", "vpc-1"),
        ("LENO_TRUST_DOMAIN", "cluster.local"),
        ("LENO_CONTROL", "leno-control.leno-system.svc:15012"),
        ("LENO_CONTROL_NAMESPACE", "leno-system"),
    ] {
        assert_eq!(variable(name)["value"], value);
    }
    let expected = json!({"concurrency": 1, "drainDuration": "10s", "logLevel": "info", "accessLog": "off"});
    assert_eq!(proxy_config(&injected), expected);
}

#[test]
fn a_pods_network_label_wins_over_the_clusters_network() {
    let injected = injected(&pod("topology.istio.io/network=edge", &[])).pod;
    let environment = init_container(&injected, "istio-proxy")["env"].to_string();
    assert!(environment.contains(r#"{"name":"LENO_NETWORK","value":"edge"}"#), "{environment}");
}

#[test]
fn token_root_and_state_are_where_the_proxy_looks_for_them() {
    let injected = injected(&pod("", &[])).pod;
    let volume = |name: &str| {
        let volumes = injected["spec"]["volumes"].as_array().unwrap();
        volumes.iter().find(|volume| volume["name"] == name).unwrap().clone()
    };
    let token = &volume("leno-token")["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(*token, json!({"audience": "leno-ca", "expirationSeconds": 43200, "path": "leno-token"}));
    assert_eq!(volume("leno-state")["emptyDir"]["medium"], "Memory");
    assert_eq!(volume("leno-ca-root")["configMap"]["name"], "leno-ca-root-cert");
    let mounts = &init_container(&injected, "istio-proxy")["volumeMounts"];
    let paths: Vec<_> =
        mounts.as_array().unwrap().iter().map(|mount| mount["mountPath"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/var/lib/leno", "/var/run/secrets/tokens", "/var/run/secrets/leno"]);
}

#[test]
fn labels_and_annotations_say_what_other_tools_look_for() {
    let injected = injected(&pod("app=shop-web version=v2", &[])).pod;
    let metadata = &injected["metadata"];
    assert_eq!(metadata["labels"]["service.istio.io/canonical-name"], "shop-web");
    assert_eq!(metadata["labels"]["service.istio.io/canonical-revision"], "v2");
    assert_eq!(metadata["labels"]["security.istio.io/tlsMode"], "disabled");
    let annotations = &metadata["annotations"];
    assert_eq!(annotations["prometheus.io/scrape"], "true");
    assert_eq!(annotations["prometheus.io/port"], "15020");
    assert_eq!(annotations["prometheus.io/path"], "/stats/prometheus");
    assert_eq!(annotations["leno.dev/rev"], "default");
    let status: Value =
        serde_json::from_str(annotations["sidecar.istio.io/status"].as_str().unwrap()).unwrap();
    assert_eq!(status["initContainers"], json!(["leno-init", "istio-proxy"]));
    assert_eq!(status["volumes"], json!(["leno-state", "leno-token", "leno-ca-root"]));
    assert_eq!(status["revision"], "default");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_live_istio_is_told_to_send_plaintext_and_to_leave_capture_to_us() {
    let tls_mode = |config: &InjectionConfig, labels: &str| {
        injected_with(config, &pod(labels, &[])).pod["metadata"]["labels"]["security.istio.io/tlsMode"]
            .clone()
    };
    let beside = InjectionConfig::default();
    assert_eq!(tls_mode(&beside, ""), "disabled");
    assert_eq!(tls_mode(&beside, "security.istio.io/tlsMode=istio"), "istio", "the template's own is kept");
    let in_place = InjectionConfig { istio_labels: true, ..InjectionConfig::default() };
    assert_eq!(tls_mode(&in_place, ""), "istio", "Istio is gone, and its tools may go by the label");
    for config in [beside, in_place] {
        let injected = injected_with(&config, &pod("", &[])).pod;
        let environment = init_container(&injected, "istio-proxy")["env"].as_array().unwrap().clone();
        assert!(environment.contains(&json!({"name": "DISABLE_ENVOY", "value": "true"})), "{environment:?}");
    }
}

#[test]
fn an_applications_own_metrics_stay_announced() {
    let injected = injected(&pod("", &[("prometheus.io/scrape", "true"), ("prometheus.io/port", "9100")]));
    assert_eq!(injected.pod["metadata"]["annotations"]["prometheus.io/port"], "9100");
    assert!(
        injected.warnings.iter().any(|warning| warning.contains("prometheus.io")),
        "{:?}",
        injected.warnings
    );
}

#[test]
fn a_pod_that_has_only_containers_gets_the_rest() {
    let bare = json!({"spec": {"containers": [{"name": "app", "image": "a"}], "volumes": null}});
    let injected = injected(&bare).pod;
    assert_eq!(injected["metadata"]["labels"]["service.istio.io/canonical-name"], "web");
    assert_eq!(names(&injected["spec"]["volumes"]).len(), 3);
}

#[test]
fn what_leaves_no_place_for_the_proxy_is_refused_with_every_reason() {
    let mut crowded = pod("", &[]);
    crowded["spec"]["volumes"] = json!([{"name": "leno-token", "emptyDir": {}}]);
    crowded["spec"]["containers"][0]["ports"] = json!([{"containerPort": 15021}]);
    crowded["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 1337});
    let refusal = refused(&crowded);
    for said in ["volume \"leno-token\"", "port 15021", "runs as user 1337"] {
        assert!(refusal.contains(said), "{refusal}");
    }
    let mut own = pod("", &[]);
    own["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "istio-proxy", "image": "auto"}));
    assert!(refused(&own).contains("a container istio-proxy of its own"));
    let mut all = pod("", &[]);
    all["spec"]["securityContext"] = json!({"runAsUser": 1337});
    assert!(refused(&all).contains("runs as user 1337"));
    all["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 1000});
    assert!(crate::outcome(&all).is_ok(), "the container's own user counts");
}

#[test]
fn objects_that_are_no_pods_are_refused_without_a_panic() {
    for odd in [json!({}), json!(null), json!([1]), json!({"spec": []}), json!({"spec": {"containers": {}}})]
    {
        assert!(crate::outcome(&odd).is_err(), "{odd}");
    }
    let mut odd = pod("", &[]);
    odd["spec"]["initContainers"] = json!("none");
    assert!(refused(&odd).contains("initContainers is no list"));
}

#[test]
fn the_meshs_collector_and_access_log_are_passed_on() {
    let mut config = InjectionConfig::default();
    config.proxy.tracing = Some(Tracing { endpoint: "http://otel:4317".to_owned(), sampling: 0.01 });
    config.proxy.access_log = leno_inject::AccessLog::Json;
    let injected = injected_with(&config, &pod("", &[])).pod;
    assert_eq!(proxy_config(&injected)["tracing"], json!({"endpoint": "http://otel:4317", "sampling": 0.01}));
    assert_eq!(proxy_config(&injected)["accessLog"], "json");
    let less = injected_with(&config, &pod("", &[("proxy.istio.io/config", "tracing: {sampling: 50}")])).pod;
    assert_eq!(proxy_config(&less)["tracing"]["sampling"], 0.5);
}
