//! Whether the agent has to be asked about a call.
//!
//! Invariant: the agent being away can only stop pods that have the capture annotation and are of this revision. Those of excluded
//! namespaces never have to wait, nor does anybody's end.

use crate::{CAPTURE_ANNOTATION, Call, Command, Question, REVISION_ANNOTATION, Wanted};

/// What is to be done about a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Pass,
    /// The agent is told, and whether it answers does not matter.
    Tell(Question),
    /// The agent is asked, and the call fails unless it says that it is done.
    Ask(Question),
}

/// Decides.
#[must_use]
pub fn decide(call: &Call) -> Decision {
    let wanted = match call.command {
        Command::Add => Wanted::Capture,
        Command::Check => Wanted::Verify,
        // The rules go with the namespace.
        Command::Delete | Command::Other | Command::Version => return Decision::Pass,
    };
    let Some((namespace, name)) = &call.pod else { return Decision::Pass };
    if call.entry.exclude_namespaces.contains(namespace) {
        return Decision::Pass;
    }
    let pod = format!("{namespace}/{name}");
    let Some(annotations) = &call.annotations else {
        return Decision::Tell(Question { wanted: Wanted::Blind, pod, capture: String::new() });
    };
    let Some(capture) = annotations.get(CAPTURE_ANNOTATION) else { return Decision::Pass };
    if annotations.get(REVISION_ANNOTATION).is_some_and(|revision| *revision != call.entry.revision) {
        return Decision::Pass;
    }
    Decision::Ask(Question { wanted, pod, capture: capture.clone() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{ANNOTATIONS, Failure, read, versions};

    /// A call for a pod with these annotations, if the runtime tells any.
    fn call(command: &str, namespace: &str, annotations: Option<serde_json::Value>) -> Call {
        let mut input = json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "leno-cni", "revision": "default",
            "socket": "/run/leno-cni/agent.sock", "excludeNamespaces": ["kube-system", "leno-system"],
            "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "198.18.0.7/24", "interface": 2}], "unheard": {"of": [1]}},
        });
        if let Some(annotations) = annotations {
            input["runtimeConfig"] = json!({ ANNOTATIONS: annotations });
        }
        read(environment(command, namespace), &input.to_string()).unwrap()
    }

    fn environment(command: &str, namespace: &str) -> impl Fn(&str) -> Option<String> {
        let all = [
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", "c1".to_owned()),
            ("CNI_NETNS", "/run/netns/x".to_owned()),
            (
                "CNI_ARGS",
                format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=web-0;K8S_POD_UID=u"),
            ),
        ];
        move |name| all.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    fn injected() -> Option<serde_json::Value> {
        Some(json!({"leno.dev/capture": "[]", "leno.dev/rev": "default", "other": "x"}))
    }

    #[test]
    fn only_a_pod_that_says_so_waits_for_the_agent() {
        let question = Question { wanted: Wanted::Capture, pod: "shop/web-0".into(), capture: "[]".into() };
        assert_eq!(decide(&call("ADD", "shop", injected())), Decision::Ask(question));
        assert_eq!(decide(&call("ADD", "shop", Some(json!({"other": "x"})))), Decision::Pass);
        assert_eq!(decide(&call("ADD", "shop", Some(json!({})))), Decision::Pass);
    }

    #[test]
    fn system_namespaces_never_wait_whatever_their_pods_say() {
        for namespace in ["kube-system", "leno-system"] {
            assert_eq!(decide(&call("ADD", namespace, injected())), Decision::Pass);
            assert_eq!(decide(&call("ADD", namespace, None)), Decision::Pass);
        }
    }

    #[test]
    fn a_pod_of_another_revision_is_left_to_its_own_plugin() {
        let other = Some(json!({"leno.dev/capture": "[]", "leno.dev/rev": "canary"}));
        assert_eq!(decide(&call("ADD", "shop", other)), Decision::Pass);
    }

    #[test]
    fn a_runtime_that_tells_no_annotations_stops_nobody_and_is_told_of() {
        for unknown in [None, Some(json!(null)), Some(json!(["x"]))] {
            let Decision::Tell(question) = decide(&call("ADD", "shop", unknown)) else { panic!() };
            assert_eq!(question.wanted, Wanted::Blind);
        }
    }

    #[test]
    fn deleting_asks_nobody_and_checking_asks_for_the_rules() {
        for command in ["DEL", "GC", "STATUS"] {
            assert_eq!(decide(&call(command, "shop", injected())), Decision::Pass);
        }
        let Decision::Ask(question) = decide(&call("CHECK", "shop", injected())) else { panic!() };
        assert_eq!(question.wanted, Wanted::Verify);
    }

    #[test]
    fn what_the_plugins_before_have_made_is_given_on_untouched() {
        let call = call("ADD", "shop", injected());
        let wanted = json!({"cniVersion": "1.0.0", "ips": [{"address": "198.18.0.7/24", "interface": 2}], "unheard": {"of": [1]}});
        assert_eq!(call.result().unwrap().to_string(), wanted.to_string());
        let alone = Call { previous: None, ..call };
        assert_eq!(alone.result().unwrap_err().code, 7);
    }

    #[test]
    fn what_is_not_understood_has_the_codes_of_the_specification() {
        let failed = |command: &str, input: &str| read(environment(command, "shop"), input).unwrap_err().code;
        assert_eq!(failed("ADD", "{"), 6);
        assert_eq!(failed("ADD", "{}"), 6);
        assert_eq!(failed("DANCE", "{}"), 4);
        let old = json!({"cniVersion": "0.2.0", "type": "leno-cni", "revision": "r", "socket": "/s", "excludeNamespaces": []});
        assert_eq!(failed("ADD", &old.to_string()), 1);
        assert_eq!(
            read(|_| None, "{}").unwrap_err(),
            Failure {
                code: 4,
                message: "a variable of the environment is missing".into(),
                details: "CNI_COMMAND".into()
            }
        );
        assert_eq!(versions("1.0.0")["cniVersion"], "1.0.0");
        assert_eq!(versions("9.9.9")["supportedVersions"][3], "1.0.0");
    }

    #[test]
    fn outside_kubernetes_nothing_is_captured() {
        let mut call = call("ADD", "shop", injected());
        call.pod = None;
        assert_eq!(decide(&call), Decision::Pass);
    }
}
