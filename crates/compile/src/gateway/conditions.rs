//! What a Gateway of the Gateway API and its listeners are told about themselves.
//!
//! Invariant: each listener that has a name has a status. A Gateway is accepted as long as one of its listeners serves, with the
//! reason `ListenersNotValid` when another does not. Must not know: routes, backends, certificates.

use leno_apis::{
    Object, Rule,
    gateway::{Gateway, listeners::Listener},
};

use super::attachment;
use crate::status::{
    ACCEPTED, CONFLICTED, Condition, ListenerStatus, OVERLAPPING_TLS_CONFIG, ObjectStatus, PROGRAMMED,
    RESOLVED_REFS, say,
};

/// Of a Gateway of whose listeners some may serve, beside what the listeners are told one by one.
pub(super) fn of_gateway(gateway: &Object<Gateway>, serves: bool, status: &mut ObjectStatus) {
    let refused = gateway.spec.listeners.iter().find_map(Rule::refusal).map(|it| it.message.clone());
    let accepted = match refused.or_else(|| conflicts(gateway)) {
        // gateway-api: the reason is given "whether or not they accept the Gateway".
        Some(message) => Condition { status: serves, reason: "ListenersNotValid", message },
        None => Condition::yes("Accepted"),
    };
    status.say(ACCEPTED, accepted);
    let none = "none of its listeners can be served";
    status
        .say(PROGRAMMED, if serves { Condition::yes("Programmed") } else { Condition::no("Invalid", none) });
    for refused in &gateway.spec.refused {
        let reason = if refused.unsupported_protocol { "UnsupportedProtocol" } else { "UnsupportedValue" };
        let mut listener = ListenerStatus::default();
        not_served(reason, &refused.because.message, &mut listener);
        status.listeners.entry(refused.name.as_str().into()).or_insert(listener);
    }
}

/// Which listeners exclude each other, in a sentence.
fn conflicts(gateway: &Object<Gateway>) -> Option<String> {
    let all: Vec<_> = attachment::listeners(gateway).collect();
    let (conflicted, others): (Vec<&Listener>, Vec<&Listener>) =
        all.into_iter().partition(|given| attachment::conflict_of(gateway, given).is_some());
    let names = |listeners: &[&Listener]| {
        let names: Vec<_> = listeners.iter().map(|given| given.name.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    (!conflicted.is_empty())
        .then(|| format!("listeners in conflict: {}; accepted: {}", names(&conflicted), names(&others)))
}

/// Of a listener that another excludes.
pub(super) fn of_conflicted(reason: &'static str, text: &str, status: &mut ListenerStatus) {
    let conflict = Condition { status: true, reason, message: text.to_owned() };
    say(&mut status.conditions, CONFLICTED, conflict);
    not_served(reason, text, status);
}

fn not_served(reason: &'static str, text: &str, status: &mut ListenerStatus) {
    say(&mut status.conditions, ACCEPTED, Condition::no(reason, text));
    say(&mut status.conditions, PROGRAMMED, Condition::no("Invalid", text));
}

/// Of a listener that serves, beside what its certificates have said.
pub(super) fn of_served(gateway: &Object<Gateway>, given: &Listener, status: &mut ListenerStatus) {
    let conditions = &mut status.conditions;
    say(conditions, CONFLICTED, Condition { status: false, ..Condition::yes("NoConflicts") });
    say(conditions, ACCEPTED, Condition::yes("Accepted"));
    say(conditions, PROGRAMMED, Condition::yes("Programmed"));
    let invalid = attachment::invalid_kinds(given);
    if !invalid.is_empty() {
        let text = format!("the protocol does not carry {}", invalid.join(", "));
        say(conditions, RESOLVED_REFS, Condition::no("InvalidRouteKinds", text));
    }
    say(conditions, RESOLVED_REFS, Condition::yes("ResolvedRefs"));
    if let Some(message) = attachment::overlap_of(gateway, given) {
        let overlap = Condition { status: true, reason: "OverlappingHostnames", message };
        say(conditions, OVERLAPPING_TLS_CONFIG, overlap);
    }
}
