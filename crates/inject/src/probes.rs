//! Probes and lifecycle hooks by network: kubelet asks the proxy, which asks the application.
//!
//! Kubelet has no certificate, so under STRICT its probes would be refused; exempting their ports would open them to everybody.
//! Invariant: what is handed to the proxy means what stood in the pod, with Kubernetes' defaults filled in and names of ports
//! resolved; everything about a probe but its handler stays. `exec` handlers, and those that go to another host, stay too.

use serde_json::{Map, Value, json};

use crate::{contract::METRICS_PORT, json::items};

const PROBES: [(&str, &str); 3] =
    [("livenessProbe", "livez"), ("readinessProbe", "readyz"), ("startupProbe", "startupz")];
const HANDLERS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];
const HOOKS: [(&str, &str); 2] = [("postStart", "poststartz"), ("preStop", "prestopz")];

/// How long a `postStart` hook may take: kubelet itself would wait for ever.
const POST_START: u64 = 600;

/// Rewrites the handlers of a container, of a pod that has `grace` seconds to end; puts the originals into `originals`, under `CONTAINER/livez` and so on.
pub(crate) fn rewrite(
    container: &mut Value,
    grace: u64,
    originals: &mut Map<String, Value>,
    problems: &mut Vec<String>,
) {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    let ports = container["ports"].clone();
    let mut rewriter = Rewriter { name: &name, ports: &ports, originals, problems };
    for (field, kind) in PROBES {
        if let Some(probe) = container.get_mut(field) {
            let timeout = probe["timeoutSeconds"].as_u64().filter(|seconds| *seconds > 0).unwrap_or(1);
            rewriter.handler(probe, field, &format!("/app-health/{name}/{kind}"), kind, timeout);
        }
    }
    for (field, kind) in HOOKS {
        let hook = container.get_mut("lifecycle").and_then(|lifecycle| lifecycle.get_mut(field));
        if let Some(hook) = hook.filter(|hook| hook.get("httpGet").is_some()) {
            // Kubelet waits for a hook until it is done, or the pod's time is over; hooks have no timeout of their own.
            let timeout = if field == "preStop" { grace.max(1) } else { POST_START };
            rewriter.handler(hook, field, &format!("/app-health/{name}/{kind}"), kind, timeout);
        }
    }
}

struct Rewriter<'a> {
    name: &'a str,
    ports: &'a Value,
    originals: &'a mut Map<String, Value>,
    problems: &'a mut Vec<String>,
}

impl Rewriter<'_> {
    fn handler(&mut self, holder: &mut Value, field: &str, path: &str, kind: &str, timeout: u64) {
        let Value::Object(fields) = holder else { return };
        let Some(handler) =
            HANDLERS.iter().find(|handler| fields.get(**handler).is_some_and(Value::is_object))
        else {
            return;
        };
        let original = &fields[*handler];
        if original["host"].as_str().is_some_and(|host| !host.is_empty()) {
            return;
        }
        let port = match self.port(&original["port"]) {
            Ok(port) => port,
            Err(why) => return self.problems.push(format!("container {}, {field}: {why}", self.name)),
        };
        let mut kept = Map::new();
        kept.insert((*handler).to_owned(), complete(handler, original, port));
        kept.insert("timeoutSeconds".to_owned(), json!(timeout));
        self.originals.insert(format!("{}/{kind}", self.name), Value::Object(kept));
        let rewritten = json!({"path": path, "port": METRICS_PORT, "scheme": "HTTP"});
        let rewrite = |(key, value)| match key == *handler {
            true => ("httpGet".to_owned(), rewritten.clone()),
            false => (key, value),
        };
        *fields = std::mem::take(fields).into_iter().map(rewrite).collect();
    }

    /// A port of the container by its number or name, as kubelet finds it.
    fn port(&self, port: &Value) -> Result<u16, String> {
        let number = match port {
            Value::String(name) => {
                let named = items(self.ports).iter().find(|port| port["name"].as_str() == Some(name));
                let named = named.and_then(|port| port["containerPort"].as_u64());
                named
                    .or_else(|| name.parse().ok())
                    .ok_or_else(|| format!("the container has no port named `{name}`"))?
            }
            other => other.as_u64().ok_or_else(|| "it has no port".to_owned())?,
        };
        u16::try_from(number).ok().filter(|port| *port != 0).ok_or_else(|| format!("{number} is no port"))
    }
}

/// The handler with what Kubernetes would fill in, in one order of fields.
fn complete(handler: &str, original: &Value, port: u16) -> Value {
    match handler {
        "httpGet" => {
            let text = |field: &str, default: &str| match original[field].as_str() {
                Some(text) if !text.is_empty() => text.to_owned(),
                _ => default.to_owned(),
            };
            let mut complete =
                json!({"path": text("path", "/"), "port": port, "scheme": text("scheme", "HTTP")});
            if let Some(headers) = original.get("httpHeaders").filter(|headers| !items(headers).is_empty()) {
                complete["httpHeaders"] = headers.clone();
            }
            complete
        }
        "grpc" => json!({"port": port, "service": original["service"].as_str().unwrap_or_default()}),
        _ => json!({ "port": port }),
    }
}
