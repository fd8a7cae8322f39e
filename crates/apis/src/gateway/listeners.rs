//! GatewayClass, Gateway and ListenerSet: where traffic comes in.
//!
//! Invariant: a listener that asks for something we cannot do is refused alone; the others serve.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codes;
use crate::decode::{Cursor, Fields, choice, name, port, spanned, text};
use crate::diagnostic::{Diagnostic, Refused, Rule, Source, Spanned};
use crate::yaml::{Node, Value};

use super::reference::{LocalRef, ParentRef, local_ref, parent_ref};

/// A GatewayClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayClass {
    /// Who serves gateways of the class.
    pub controller_name: Spanned<String>,
}

/// A Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Its class.
    pub class_name: Spanned<String>,
    /// Listeners.
    pub listeners: Vec<Rule<Listener>>,
    /// Those of them that are refused and have a name.
    pub refused: Vec<RefusedListener>,
    /// Labels and annotations of what runs it.
    pub infrastructure: Infrastructure,
}

/// What is known of a listener that is refused, for its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedListener {
    /// Its name.
    pub name: String,
    /// Whether its protocol is one that we do not carry.
    pub unsupported_protocol: bool,
    /// Why.
    pub because: Arc<Diagnostic>,
}

/// Labels and annotations of what runs a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Infrastructure {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations; they mean something to Kubernetes and clouds only.
    pub annotations: BTreeMap<String, String>,
    /// Where changes to the objects that run it are; they mean something on Kubernetes only.
    pub parameters: Option<ParametersRef>,
}

/// The object that holds a gateway's parameters, in the Gateway's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParametersRef {
    /// Its API group; empty for the core group.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Listeners that are added to a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerSet {
    /// The Gateway.
    pub parent_ref: ParentRef,
    /// Listeners.
    pub listeners: Vec<Rule<Listener>>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Where it starts.
    pub at: Source,
    /// Name.
    pub name: String,
    /// Host; absent means all.
    pub hostname: Option<Spanned<String>>,
    /// Port.
    pub port: Spanned<u16>,
    /// Protocol.
    pub protocol: ListenerProtocol,
    /// TLS, for HTTPS and TLS.
    pub tls: Option<ListenerTls>,
    /// Namespaces whose routes may attach.
    pub namespaces: FromNamespaces,
    /// Group and kind of routes that may attach; empty means those of the protocol.
    pub route_kinds: Vec<Spanned<(String, String)>>,
}

/// Protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of the API")]
pub enum ListenerProtocol {
    Http,
    Https,
    Tls,
    Tcp,
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Whether the inner connection is passed on as it is.
    pub passthrough: bool,
    /// Secrets with certificates.
    pub certificate_refs: Vec<LocalRef>,
}

/// A choice of namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromNamespaces {
    /// The object's own.
    Same,
    /// All.
    All,
    /// Those with labels.
    Selector(LabelSelector),
}

/// A choice by labels: all conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// Labels and their values.
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions.
    pub match_expressions: Vec<LabelExpression>,
}

/// A condition on a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelExpression {
    /// Label.
    pub key: String,
    /// Operator.
    pub operator: LabelOperator,
    /// Values, for `In` and `NotIn`.
    pub values: Vec<String>,
}

/// Operator of a condition on a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of the API")]
pub enum LabelOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// Whether an object with these labels is chosen.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let expression = |e: &LabelExpression| {
            let value = labels.get(&e.key);
            match e.operator {
                LabelOperator::In => value.is_some_and(|value| e.values.contains(value)),
                LabelOperator::NotIn => !value.is_some_and(|value| e.values.contains(value)),
                LabelOperator::Exists => value.is_some(),
                LabelOperator::DoesNotExist => value.is_none(),
            }
        };
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(expression)
    }
}

const PROTOCOLS: &[(&str, ListenerProtocol)] = &[
    ("HTTP", ListenerProtocol::Http),
    ("HTTPS", ListenerProtocol::Https),
    ("TLS", ListenerProtocol::Tls),
    ("TCP", ListenerProtocol::Tcp),
];

#[derive(Clone, Copy, PartialEq)]
enum From {
    Same,
    All,
    Selector,
}

const FROM_ROUTES: &[(&str, From)] =
    &[("Same", From::Same), ("All", From::All), ("Selector", From::Selector)];

pub(crate) fn gateway_class(o: &mut Fields<'_>) -> Option<GatewayClass> {
    o.req("spec", |value| {
        value.object(|o| {
            o.remark("description", "a comment: it is shown nowhere");
            o.unsupported("parametersRef", Refused::Field, "this release has no parameters of a class");
            Some(GatewayClass { controller_name: o.req("controllerName", spanned(name))? })
        })
    })
}

pub(crate) fn gateway(o: &mut Fields<'_>) -> Option<Gateway> {
    o.req("spec", |value| {
        value.object(|o| {
            o.unsupported(
                "addresses",
                Refused::Field,
                "not supported by this release: a gateway is served at the addresses of its workload",
            );
            o.unsupported(
                "allowedListeners",
                Refused::Field,
                "not supported by this release: listener sets are not acted on",
            );
            let (listeners, refused) = listeners(o);
            Some(Gateway {
                listeners,
                refused,
                infrastructure: o
                    .droppable("infrastructure", |value| {
                        value.object(|o| {
                            let why =
                                "without effect on traffic: on Kubernetes what runs the gateway gets them";
                            Some(Infrastructure {
                                parameters: o.remarked("parametersRef", why, parameters_ref),
                                labels: o.map("labels", text),
                                annotations: o.remarked_map("annotations", why, text),
                            })
                        })
                    })
                    .unwrap_or_default(),
                class_name: o.req("gatewayClassName", spanned(name))?,
            })
        })
    })
}

fn parameters_ref(value: Cursor<'_>) -> Option<ParametersRef> {
    value.object(|o| {
        Some(ParametersRef {
            group: o.req("group", text)?,
            kind: o.req("kind", text)?,
            name: o.req("name", text)?,
        })
    })
}

pub(crate) fn listener_set(o: &mut Fields<'_>) -> Option<ListenerSet> {
    o.req("spec", |value| {
        value.object(|o| {
            let listeners = o.rules("listeners", listener);
            Some(ListenerSet { parent_ref: o.req("parentRef", parent_ref)?, listeners })
        })
    })
}

fn listeners(o: &mut Fields<'_>) -> (Vec<Rule<Listener>>, Vec<RefusedListener>) {
    let items = o.take("listeners").and_then(|list| list.items());
    let mut refused = Vec::new();
    let mut decode = |item: Cursor<'_>| {
        let node = item.node();
        let rule = item.rule(listener);
        if let (Some(because), Some(name)) = (rule.refusal(), text_of(node, "name")) {
            let protocol = text_of(node, "protocol");
            let unsupported_protocol =
                protocol.is_some_and(|given| !PROTOCOLS.iter().any(|(known, _)| *known == given));
            let (name, because) = (name.to_owned(), because.clone());
            refused.push(RefusedListener { name, unsupported_protocol, because });
        }
        rule
    };
    let rules = items.into_iter().flatten().map(&mut decode).collect();
    (rules, refused)
}

/// A field's text, whether or not the object that holds it can be read.
fn text_of<'d>(node: &'d Node, key: &str) -> Option<&'d str> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == key)?.value.as_text()
}

fn listener(value: Cursor<'_>) -> Option<Listener> {
    let at = value.source();
    value.object(|o| {
        let (namespaces, route_kinds) =
            o.or("allowedRoutes", (FromNamespaces::Same, Vec::new()), |value| {
                value.object(|o| {
                    let kinds = o.list("kinds", spanned(route_kind));
                    Some((o.or("namespaces", FromNamespaces::Same, namespaces)?, kinds))
                })
            })?;
        Some(Listener {
            at,
            hostname: o.opt("hostname", spanned(text)).filter(|host| !host.is_empty()),
            tls: o.opt("tls", listener_tls),
            namespaces,
            route_kinds,
            name: o.req("name", name)?,
            port: o.req("port", spanned(port))?,
            protocol: o.req("protocol", protocol)?,
        })
    })
}

/// The schema leaves protocols open; UDP is the one of the API that we do not carry.
fn protocol(value: Cursor<'_>) -> Option<ListenerProtocol> {
    if value.node().as_text() == Some("UDP") {
        value.refuse(codes::UNSUPPORTED_VALUE, "UDP is not supported by this release", None);
        return None;
    }
    choice(PROTOCOLS)(value)
}

fn route_kind(value: Cursor<'_>) -> Option<(String, String)> {
    value.object(|o| Some((o.or("group", super::reference::GROUP.to_owned(), text)?, o.req("kind", name)?)))
}

fn listener_tls(value: Cursor<'_>) -> Option<ListenerTls> {
    value.object(|o| {
        Some(ListenerTls {
            passthrough: o.or("mode", false, choice(&[("Terminate", false), ("Passthrough", true)]))?,
            certificate_refs: o.list("certificateRefs", local_ref(Some(""), Some("Secret"), true)),
        })
    })
}

fn namespaces(value: Cursor<'_>) -> Option<FromNamespaces> {
    value.object(|o| {
        Some(match o.or("from", From::Same, choice(FROM_ROUTES))? {
            From::Same => FromNamespaces::Same,
            From::All => FromNamespaces::All,
            From::Selector => FromNamespaces::Selector(o.req("selector", label_selector)?),
        })
    })
}

fn label_selector(value: Cursor<'_>) -> Option<LabelSelector> {
    value.object(|o| {
        Some(LabelSelector {
            match_labels: o.map("matchLabels", text),
            match_expressions: o.list("matchExpressions", |value| {
                value.object(|o| {
                    Some(LabelExpression {
                        key: o.req("key", name)?,
                        operator: o.req(
                            "operator",
                            choice(&[
                                ("In", LabelOperator::In),
                                ("NotIn", LabelOperator::NotIn),
                                ("Exists", LabelOperator::Exists),
                                ("DoesNotExist", LabelOperator::DoesNotExist),
                            ]),
                        )?,
                        values: o.list("values", text),
                    })
                })
            }),
        })
    })
}
