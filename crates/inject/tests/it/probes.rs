//! Probes and lifecycle hooks that go through the proxy.

use serde_json::{Value, json};

use crate::{injected, pod, proxy_config, refused};

fn with(container: Value) -> Value {
    let mut pod = pod("", &[]);
    let app = pod["spec"]["containers"][0].as_object_mut().unwrap();
    app.extend(container.as_object().unwrap().clone());
    pod
}

fn app(pod: &Value) -> &Value {
    &pod["spec"]["containers"][0]
}

#[test]
fn network_probes_ask_the_proxy_and_the_originals_are_handed_over() {
    let pod = with(json!({
        "livenessProbe": {"initialDelaySeconds": 3, "httpGet": {"path": "/live", "port": "http", "scheme": "HTTPS",
            "httpHeaders": [{"name": "X-Cost", "value": "$(HOME)$5"}]}, "periodSeconds": 4, "timeoutSeconds": 2},
        "readinessProbe": {"tcpSocket": {"port": 5432}, "failureThreshold": 7},
        "startupProbe": {"grpc": {"port": 9090, "service": "ready"}, "terminationGracePeriodSeconds": 9},
    }));
    let injected = injected(&pod).pod;
    let by_proxy =
        |kind: &str| json!({"path": format!("/app-health/app/{kind}"), "port": 15020, "scheme": "HTTP"});
    let liveness = json!({"initialDelaySeconds": 3, "httpGet": by_proxy("livez"), "periodSeconds": 4, "timeoutSeconds": 2});
    assert_eq!(app(&injected)["livenessProbe"], liveness);
    assert_eq!(
        app(&injected)["readinessProbe"],
        json!({"httpGet": by_proxy("readyz"), "failureThreshold": 7})
    );
    let startup = json!({"httpGet": by_proxy("startupz"), "terminationGracePeriodSeconds": 9});
    assert_eq!(app(&injected)["startupProbe"], startup);
    let expected = json!({
        "app/livez": {"httpGet": {"path": "/live", "port": 8080, "scheme": "HTTPS",
            "httpHeaders": [{"name": "X-Cost", "value": "$(HOME)$5"}]}, "timeoutSeconds": 2},
        "app/readyz": {"tcpSocket": {"port": 5432}, "timeoutSeconds": 1},
        "app/startupz": {"grpc": {"port": 9090, "service": "ready"}, "timeoutSeconds": 1},
    });
    assert_eq!(proxy_config(&injected)["probes"], expected);
}

#[test]
fn values_of_the_environment_that_kubernetes_would_expand_are_escaped() {
    let pod = with(json!({"livenessProbe": {"httpGet": {"path": "/$(POD_NAME)", "port": 80}}}));
    let injected = injected(&pod).pod;
    let environment = crate::init_container(&injected, "istio-proxy")["env"].to_string();
    assert!(environment.contains("/$$(POD_NAME)"), "{environment}");
}

#[test]
fn a_probe_means_the_same_whether_kubernetes_filled_in_its_defaults() {
    let short =
        with(json!({"livenessProbe": {"httpGet": {"port": 8080}}, "readinessProbe": {"grpc": {"port": 1}}}));
    let long = with(json!({
        "livenessProbe": {"httpGet": {"scheme": "HTTP", "path": "/", "port": 8080}, "timeoutSeconds": 1},
        "readinessProbe": {"grpc": {"service": "", "port": 1}, "timeoutSeconds": 1},
    }));
    assert_eq!(proxy_config(&injected(&short).pod), proxy_config(&injected(&long).pod));
}

#[test]
fn commands_and_probes_of_other_hosts_stay_as_they_are() {
    let probes = json!({
        "livenessProbe": {"exec": {"command": ["true"]}},
        "readinessProbe": {"httpGet": {"port": 80, "host": "example.com"}},
        "startupProbe": {"tcpSocket": {"port": 80, "host": "127.0.0.1"}},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}, "postStart": {"sleep": {"seconds": 1}}},
    });
    let injected = injected(&with(probes.clone())).pod;
    for (field, value) in probes.as_object().unwrap() {
        assert_eq!(app(&injected)[field], *value);
    }
    assert!(proxy_config(&injected).get("probes").is_none());
}

#[test]
fn lifecycle_hooks_by_http_go_through_the_proxy() {
    let injected = injected(&with(json!({"lifecycle": {
        "preStop": {"httpGet": {"path": "/drain", "port": "http"}},
        "postStart": {"httpGet": {"path": "/warm", "port": 8080}},
    }})))
    .pod;
    let by_proxy = |kind: &str| json!({"httpGet": {"path": format!("/app-health/app/{kind}"), "port": 15020, "scheme": "HTTP"}});
    assert_eq!(
        app(&injected)["lifecycle"],
        json!({"preStop": by_proxy("prestopz"), "postStart": by_proxy("poststartz")})
    );
    let expected = json!({
        "app/poststartz": {"httpGet": {"path": "/warm", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 600},
        "app/prestopz": {"httpGet": {"path": "/drain", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 30},
    });
    assert_eq!(proxy_config(&injected)["probes"], expected);
}

#[test]
fn a_hook_may_take_as_long_as_the_pod_has() {
    let mut pod = with(json!({"lifecycle": {"preStop": {"httpGet": {"port": 80}}}}));
    pod["spec"]["terminationGracePeriodSeconds"] = json!(90);
    assert_eq!(proxy_config(&injected(&pod).pod)["probes"]["app/prestopz"]["timeoutSeconds"], 90);
    let odd = json!({"lifecycle": {"preStop": {"tcpSocket": {"port": 80}}}});
    assert_eq!(
        app(&injected(&with(odd.clone())).pod)["lifecycle"],
        odd["lifecycle"],
        "kubelet does not do these"
    );
}

#[test]
fn every_container_is_rewritten_also_sidecars_among_the_init_containers() {
    let mut pod = with(json!({"livenessProbe": {"tcpSocket": {"port": 1}}}));
    pod["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "second", "image": "a", "readinessProbe": {"tcpSocket": {"port": 2}}}));
    pod["spec"]["initContainers"] = json!([
        {"name": "log", "image": "a", "restartPolicy": "Always", "ports": [{"name": "health", "containerPort": 3}],
         "startupProbe": {"httpGet": {"port": "health"}}},
    ]);
    let config = proxy_config(&injected(&pod).pod);
    let keys: Vec<_> = config["probes"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys.len(), 3, "{keys:?}");
    assert_eq!(config["probes"]["log/startupz"]["httpGet"]["port"], 3);
    assert!(config["probes"].get("second/readyz").is_some());
}

#[test]
fn a_port_name_that_the_container_does_not_have_refuses_the_pod() {
    let pod = with(json!({"livenessProbe": {"httpGet": {"port": "admin"}}}));
    assert!(refused(&pod).contains("container app, livenessProbe: the container has no port named `admin`"));
    let number = with(json!({"livenessProbe": {"httpGet": {"port": "8080"}}}));
    assert_eq!(proxy_config(&injected(&number).pod)["probes"]["app/livez"]["httpGet"]["port"], 8080);
    assert!(
        refused(&with(json!({"livenessProbe": {"tcpSocket": {"port": 70000}}}))).contains("70000 is no port")
    );
}

#[test]
fn a_pod_may_keep_its_probes_and_is_told_what_that_means() {
    let mut pod = with(json!({"livenessProbe": {"tcpSocket": {"port": 1}}}));
    pod["metadata"]["annotations"]["sidecar.istio.io/rewriteAppHTTPProbers"] = json!("false");
    let injected = injected(&pod);
    assert_eq!(app(&injected.pod)["livenessProbe"], json!({"tcpSocket": {"port": 1}}));
    assert_eq!(injected.warnings, ["probes are not rewritten, as asked: under STRICT mTLS they fail"]);
}
