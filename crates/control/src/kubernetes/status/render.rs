//! A compiler's status as the JSON of the object's `status`.

use std::collections::BTreeMap;

use leno_compile::{Condition, ListenerStatus, ObjectStatus, ParentName, status::TYPES};
use serde_json::{Map, Value, json};

use crate::replicas::Said;

/// Names us in the entries of routes' parents.
pub(in crate::kubernetes) const CONTROLLER: &str = "leno.dev/gateway-controller";
/// The condition that says that proxies have it.
const ACKNOWLEDGED: &str = "leno.dev/Acknowledged";

/// What a status is rendered with.
pub(super) struct Context<'a> {
    /// The status as it is.
    pub(super) before: &'a Value,
    /// The generation of the object that is spoken of.
    pub(super) generation: Option<i64>,
    /// RFC 3339.
    pub(super) now: String,
    pub(super) acknowledged: &'a Acknowledged,
}

/// How far proxies are with what a status speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// All have it: so many.
    All(usize),
    /// All have it, as an earlier leader has said.
    AsBefore,
    /// Some have not.
    Pending,
    /// The replica of the control plane that runs in this pod does not say whether its proxies have it.
    Silent(String),
}

impl Acknowledged {
    /// Whether all have it.
    pub(super) fn is_everywhere(&self) -> bool {
        matches!(self, Self::All(_) | Self::AsBefore)
    }

    /// With what other replicas say; those that answered have `acknowledged` it or not.
    pub(super) fn add(&mut self, said: &Said, acknowledged: bool) {
        if let Self::All(here) = self {
            *self = match said.silent.first() {
                _ if !acknowledged => Self::Pending,
                Some(pod) => Self::Silent(pod.clone()),
                None => Self::All(*here + said.connected),
            };
        }
    }
}

/// The new status; `None` when it is what is there.
pub(super) fn render(group: &str, status: &ObjectStatus, context: &Context<'_>) -> Option<Value> {
    let ObjectStatus { conditions, parents, listeners } = status;
    let mut after = Map::new();
    if !conditions.is_empty() || group != "gateway.networking.k8s.io" || !listeners.is_empty() {
        let old = context.before.get("conditions");
        let mut all = render_conditions(conditions, old, context);
        all.push(context.acknowledged(old));
        after.insert("conditions".to_owned(), keep_others(all, old));
    }
    if !parents.is_empty() {
        after.insert("parents".to_owned(), render_parents(parents, context));
    }
    if !listeners.is_empty() {
        after.insert("listeners".to_owned(), render_listeners(listeners, context));
    }
    if group != "gateway.networking.k8s.io" {
        after.insert("observedGeneration".to_owned(), json!(context.generation));
    }
    let same = after.iter().all(|(key, value)| context.before.get(key) == Some(value));
    (!same).then_some(Value::Object(after))
}

impl Context<'_> {
    fn acknowledged(&self, old: Option<&Value>) -> Value {
        let condition = match self.acknowledged {
            Acknowledged::All(count) => {
                let message = format!("acknowledged {count}/{count}");
                Condition { status: true, reason: "Acknowledged", message }
            }
            Acknowledged::Pending => Condition::no("Pending", "proxies have not acknowledged it yet"),
            Acknowledged::Silent(pod) => {
                let text = format!("replica {pod} does not say whether its proxies have acknowledged it");
                Condition::no("Pending", text)
            }
            // Nothing is equal to what is missing.
            Acknowledged::AsBefore => return self.acknowledged_before(old).cloned().unwrap_or_default(),
        };
        self.condition(ACKNOWLEDGED, &condition, old)
    }

    /// The condition that is there, when it says of this generation that all have it.
    fn acknowledged_before<'o>(&self, old: Option<&'o Value>) -> Option<&'o Value> {
        let old = old?.as_array()?.iter().find(|it| it["type"] == ACKNOWLEDGED)?;
        (old["status"] == "True" && old["observedGeneration"] == json!(self.generation)).then_some(old)
    }

    /// One condition; its time is the old one's unless it changed.
    fn condition(&self, name: &str, condition: &Condition, old: Option<&Value>) -> Value {
        let Condition { status, reason, message } = condition;
        let status = if *status { "True" } else { "False" };
        let old = old.and_then(Value::as_array).and_then(|all| all.iter().find(|it| it["type"] == name));
        let since =
            old.filter(|old| old["status"] == status).and_then(|old| old["lastTransitionTime"].as_str());
        json!({
            "type": name, "status": status, "reason": reason, "message": message,
            "observedGeneration": self.generation, "lastTransitionTime": since.unwrap_or(&self.now),
        })
    }
}

fn render_conditions(
    conditions: &BTreeMap<&'static str, Condition>,
    old: Option<&Value>,
    context: &Context<'_>,
) -> Vec<Value> {
    conditions.iter().map(|(name, condition)| context.condition(name, condition, old)).collect()
}

/// Conditions of types that are not ours stay.
fn keep_others(mut ours: Vec<Value>, old: Option<&Value>) -> Value {
    let is_ours =
        |it: &Value| it["type"].as_str().is_some_and(|name| name == ACKNOWLEDGED || TYPES.contains(&name));
    let others = old.and_then(Value::as_array).into_iter().flatten();
    ours.extend(others.filter(|it| !is_ours(it)).cloned());
    Value::Array(ours)
}

fn render_parents(
    parents: &BTreeMap<ParentName, leno_compile::ParentStatus>,
    context: &Context<'_>,
) -> Value {
    let old = context.before.get("parents").and_then(Value::as_array);
    let mut all: Vec<Value> = Vec::new();
    for (name, status) in parents {
        let reference = reference(name);
        let before = old
            .into_iter()
            .flatten()
            .find(|it| it["parentRef"] == reference && it["controllerName"] == CONTROLLER);
        let before = before.and_then(|it| it.get("conditions"));
        let mut conditions = render_conditions(&status.conditions, before, context);
        conditions.push(context.acknowledged(before));
        all.push(json!({"parentRef": reference, "controllerName": CONTROLLER, "conditions": conditions}));
    }
    all.extend(old.into_iter().flatten().filter(|it| it["controllerName"] != CONTROLLER).cloned());
    Value::Array(all)
}

fn reference(name: &ParentName) -> Value {
    let ParentName { group, kind, namespace, name, section_name, port } = name;
    let mut reference = json!({"group": group, "kind": kind, "namespace": namespace, "name": name});
    if let Some(section) = section_name {
        reference["sectionName"] = json!(section);
    }
    if let Some(port) = port {
        reference["port"] = json!(port);
    }
    reference
}

fn render_listeners(
    listeners: &BTreeMap<std::sync::Arc<str>, ListenerStatus>,
    context: &Context<'_>,
) -> Value {
    let old = context.before.get("listeners").and_then(Value::as_array);
    let render = |(name, status): (&std::sync::Arc<str>, &ListenerStatus)| {
        let ListenerStatus { attached_routes, supported_kinds, conditions } = status;
        let before =
            old.into_iter().flatten().find(|it| it["name"] == **name).and_then(|it| it.get("conditions"));
        let kinds: Vec<Value> =
            supported_kinds.iter().map(|(group, kind)| json!({"group": group, "kind": kind})).collect();
        json!({
            "name": name, "attachedRoutes": attached_routes, "supportedKinds": kinds,
            "conditions": keep_others(render_conditions(conditions, before, context), before),
        })
    };
    Value::Array(listeners.iter().map(render).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context<'a>(before: &'a Value, now: &str) -> Context<'a> {
        Context { before, generation: Some(2), now: now.to_owned(), acknowledged: &Acknowledged::All(3) }
    }

    fn route() -> ObjectStatus {
        let parent = ParentName {
            group: "".into(),
            kind: "Service".into(),
            namespace: "shop".into(),
            name: "cart".into(),
            section_name: None,
            port: None,
        };
        let conditions = BTreeMap::from([("Accepted", Condition::yes("Accepted"))]);
        let parents = BTreeMap::from([(parent, leno_compile::ParentStatus { conditions })]);
        ObjectStatus { parents, ..ObjectStatus::default() }
    }

    const GROUP: &str = "gateway.networking.k8s.io";

    #[test]
    fn a_status_that_is_there_is_not_written_again() {
        let first = render(GROUP, &route(), &context(&Value::Null, "2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(first["parents"][0]["conditions"][1]["message"], "acknowledged 3/3");
        assert_eq!(render(GROUP, &route(), &context(&first, "2026-01-02T00:00:00Z")), None);
    }

    #[test]
    fn what_an_earlier_leader_has_said_is_known_whatever_its_count() {
        fn as_before(before: &Value) -> Context<'_> {
            Context { acknowledged: &Acknowledged::AsBefore, ..context(before, "2026-01-02T00:00:00Z") }
        }
        let now = "2026-01-01T00:00:00Z";
        let first = render(GROUP, &route(), &context(&Value::Null, now)).unwrap();
        assert_eq!(render(GROUP, &route(), &as_before(&first)), None);
        let older = Context { generation: Some(3), ..as_before(&first) };
        assert!(render(GROUP, &route(), &older).is_some(), "it was said of another generation");
        for not in [Acknowledged::Pending, Acknowledged::Silent("leno-control-1".to_owned())] {
            let said = render(GROUP, &route(), &Context { acknowledged: &not, ..context(&Value::Null, now) });
            let said = said.unwrap();
            assert!(render(GROUP, &route(), &as_before(&said)).is_some(), "{not:?}");
        }
    }

    #[test]
    fn all_have_it_when_all_replicas_say_so() {
        let silent = || vec!["leno-control-1".to_owned(), "leno-control-2".to_owned()];
        let with = |connected, silent, acknowledged| {
            let mut here = Acknowledged::All(3);
            here.add(&Said { connected, acknowledged: Vec::new(), silent }, acknowledged);
            here
        };
        assert_eq!(with(409, Vec::new(), true), Acknowledged::All(412));
        assert_eq!(with(409, Vec::new(), false), Acknowledged::Pending);
        assert_eq!(with(5, silent(), true), Acknowledged::Silent("leno-control-1".to_owned()));
        assert_eq!(with(5, silent(), false), Acknowledged::Pending);
    }

    #[test]
    fn another_controllers_entries_are_kept() {
        let theirs =
            json!({"parentRef": {"name": "edge"}, "controllerName": "example.com/other", "conditions": []});
        let before = json!({"parents": [theirs]});
        let after = render(GROUP, &route(), &context(&before, "2026-01-01T00:00:00Z")).unwrap();
        let parents = after["parents"].as_array().unwrap();
        assert_eq!(parents.len(), 2);
        assert!(parents.contains(&theirs));
    }

    #[test]
    fn conditions_of_a_listener_that_are_not_ours_are_kept() {
        let mut gateway = ObjectStatus::default();
        let accepted = BTreeMap::from([("Accepted", Condition::yes("Accepted"))]);
        let listener = ListenerStatus { conditions: accepted, ..ListenerStatus::default() };
        gateway.listeners.insert("http".into(), listener);
        let theirs = json!({"type": "example.com/Checked", "status": "True", "reason": "Checked"});
        let before = json!({"listeners": [{"name": "http", "conditions": [theirs]}]});
        let after = render(GROUP, &gateway, &context(&before, "2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(after["listeners"][0]["conditions"][0]["type"], "Accepted");
        assert_eq!(after["listeners"][0]["conditions"][1], theirs);
    }

    #[test]
    fn a_condition_of_ours_that_is_not_said_any_more_goes() {
        let accepted = BTreeMap::from([("Accepted", Condition::yes("Accepted"))]);
        let status = ObjectStatus { conditions: accepted, ..ObjectStatus::default() };
        let before = json!({"conditions": [
            {"type": "PartiallyInvalid", "status": "True", "reason": "Refused"},
            {"type": "Programmed", "status": "Unknown", "reason": "Pending"},
            {"type": "example.com/Checked", "status": "Unknown", "reason": "Pending"},
        ]});
        let after =
            render("networking.istio.io", &status, &context(&before, "2026-01-01T00:00:00Z")).unwrap();
        let types: Vec<_> =
            after["conditions"].as_array().unwrap().iter().map(|it| it["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["Accepted", ACKNOWLEDGED, "example.com/Checked"]);
    }

    #[test]
    fn a_transition_has_its_own_time() {
        let first = render(GROUP, &route(), &context(&Value::Null, "2026-01-01T00:00:00Z")).unwrap();
        let mut changed = route();
        let status = changed.parents.values_mut().next().unwrap();
        status.conditions.insert("Accepted", Condition::no("NotAllowed", "because"));
        let second = render(GROUP, &changed, &context(&first, "2026-01-02T00:00:00Z")).unwrap();
        let conditions = &second["parents"][0]["conditions"];
        assert_eq!(conditions[0]["lastTransitionTime"], "2026-01-02T00:00:00Z");
        assert_eq!(conditions[1]["lastTransitionTime"], "2026-01-01T00:00:00Z");
    }
}
