//! Documents to typed objects.
//!
//! Invariants: a document that is an object of a recognised kind with a name gives an `AnyObject`, if only a `Refused` one;
//! the order of the objects is that of the text.
//! Must not know: files, clusters, how objects refer to each other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::codes;
use crate::decode::{Context, Cursor, Fields, Frame};
use crate::diagnostic::{Diagnostic, ObjectRef, Refused, Source};
use crate::kind::{Kind, KindInfo, Support};
use crate::metadata::{Metadata, metadata};
use crate::yaml::{self, Node, Span, Value};
use crate::{gateway, istio, k8s};

/// An object of the API.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<S> {
    /// Its kind.
    pub kind: Kind,
    /// Group and version, as written.
    pub api_version: String,
    /// Name, labels, age.
    pub metadata: Metadata,
    /// What its kind says.
    pub spec: S,
    /// Where the object starts.
    pub source: Source,
}

/// An object that is withheld as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusedObject {
    /// The first reason; all of them are among the diagnostics of the parse.
    pub because: Arc<Diagnostic>,
}

fn reference(kind: Kind, metadata: &Metadata) -> ObjectRef {
    let info = kind.info();
    ObjectRef {
        group: info.group.into(),
        kind: info.name.into(),
        namespace: metadata.namespace.as_deref().map(Into::into),
        name: metadata.name.as_str().into(),
    }
}

impl<S> Object<S> {
    /// Names the object.
    pub fn reference(&self) -> ObjectRef {
        reference(self.kind, &self.metadata)
    }

    /// The namespace; empty for kinds that have none.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace()
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }
}

macro_rules! any_object {
    ($($variant:ident($spec:ty) = $decode:path),* $(,)?) => {
        /// An object of any kind that we act on, or one that is withheld.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "each variant is the kind of that name")]
        #[expect(clippy::large_enum_variant, reason = "objects live behind an `Arc`, one allocation each")]
        pub enum AnyObject {
            $($variant(Object<$spec>),)*
            Refused(Object<RefusedObject>),
        }

        impl AnyObject {
            /// Name, labels, age.
            #[must_use]
            pub fn metadata(&self) -> &Metadata {
                match self {
                    $(Self::$variant(object) => &object.metadata,)*
                    Self::Refused(object) => &object.metadata,
                }
            }

            /// Its group and version, as read.
            #[must_use]
            pub fn api_version(&self) -> &str {
                match self {
                    $(Self::$variant(object) => &object.api_version,)*
                    Self::Refused(object) => &object.api_version,
                }
            }

            /// Its kind.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$variant(object) => object.kind,)*
                    Self::Refused(object) => object.kind,
                }
            }

            /// Where the object starts.
            #[must_use]
            pub fn source(&self) -> &Source {
                match self {
                    $(Self::$variant(object) => &object.source,)*
                    Self::Refused(object) => &object.source,
                }
            }
        }

        fn decode_kind(head: Head, fields: &mut Fields<'_>) -> Option<AnyObject> {
            Some(match head.kind {
                $(Kind::$variant => AnyObject::$variant(head.object($decode(fields)?)),)*
                Kind::UdpRoute
                | Kind::Sidecar
                | Kind::WorkloadEntry
                | Kind::WorkloadGroup
                | Kind::EnvoyFilter
                | Kind::ProxyConfig
                | Kind::RequestAuthentication
                | Kind::WasmPlugin
                | Kind::TrafficExtension
                | Kind::Telemetry => return None,
            })
        }
    };
}

any_object! {
    Namespace(k8s::Namespace) = k8s::namespace,
    Node(k8s::Node) = k8s::node,
    ServiceAccount(k8s::ServiceAccount) = k8s::service_account,
    Secret(k8s::Secret) = k8s::secret,
    Service(k8s::Service) = k8s::service,
    Pod(k8s::Pod) = k8s::pod,
    Deployment(k8s::Workload) = k8s::workload,
    StatefulSet(k8s::Workload) = k8s::workload,
    DaemonSet(k8s::Workload) = k8s::workload,
    ReplicaSet(k8s::Workload) = k8s::workload,
    EndpointSlice(k8s::EndpointSlice) = k8s::endpoint_slice,
    GatewayClass(gateway::GatewayClass) = gateway::gateway_class,
    Gateway(gateway::Gateway) = gateway::gateway,
    HttpRoute(gateway::HttpRoute) = gateway::http_route,
    GrpcRoute(gateway::GrpcRoute) = gateway::grpc_route,
    TcpRoute(gateway::TcpRoute) = gateway::tcp_route,
    TlsRoute(gateway::TlsRoute) = gateway::tls_route,
    ReferenceGrant(gateway::ReferenceGrant) = gateway::reference_grant,
    BackendTlsPolicy(gateway::BackendTlsPolicy) = gateway::backend_tls_policy,
    ListenerSet(gateway::ListenerSet) = gateway::listener_set,
    VirtualService(istio::VirtualService) = istio::virtual_service,
    DestinationRule(istio::DestinationRule) = istio::destination_rule,
    IstioGateway(istio::Gateway) = istio::gateway,
    ServiceEntry(istio::ServiceEntry) = istio::service_entry,
    AuthorizationPolicy(istio::AuthorizationPolicy) = istio::authorization_policy,
    PeerAuthentication(istio::PeerAuthentication) = istio::peer_authentication,
}

impl AnyObject {
    /// Names the object.
    #[must_use]
    pub fn reference(&self) -> ObjectRef {
        reference(self.kind(), self.metadata())
    }
}

/// What was read from a text.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// The objects of recognised kinds, in the order of the text.
    pub objects: Vec<Arc<AnyObject>>,
    /// What is wrong with them, and with the text.
    pub diagnostics: Vec<Diagnostic>,
    /// Kinds that a mesh has no business with, as `group/Kind` or `Kind`, and how many objects of each.
    pub unused_kinds: BTreeMap<String, usize>,
}

/// Reads all objects of a text. `file` is only quoted.
#[must_use]
pub fn parse(file: &str, text: &str) -> Parsed {
    let mut reader = Reader { file: file.into(), parsed: Parsed::default() };
    for document in yaml::documents(text) {
        match document {
            Ok(node) => reader.read(&node, None),
            Err(problem) => {
                let at = reader.source(problem.at);
                let diagnostic =
                    Diagnostic::error(problem.code, at, problem.message).refusing(Refused::Object);
                reader.parsed.diagnostics.push(diagnostic);
            }
        }
    }
    reader.parsed
}

/// Reads one object (or list of objects) as an API server gives it. `origin` is quoted in place of a file.
#[must_use]
pub fn parse_json(origin: &str, json: &serde_json::Value) -> Parsed {
    let mut reader = Reader { file: origin.into(), parsed: Parsed::default() };
    reader.read(&Node::from_json(json), None);
    reader.parsed
}

/// Reads one object (or list of objects) that stands inside a larger document of `file`, at its own lines.
#[must_use]
pub fn parse_node(file: &str, node: &Node) -> Parsed {
    let mut reader = Reader { file: file.into(), parsed: Parsed::default() };
    reader.read(node, None);
    reader.parsed
}

struct Reader {
    file: Arc<str>,
    parsed: Parsed,
}

/// Group, version and kind of an object.
#[derive(Clone)]
struct TypeName {
    api_version: String,
    kind: String,
}

impl TypeName {
    fn group_and_version(&self) -> (&str, &str) {
        self.api_version.split_once('/').unwrap_or(("", &self.api_version))
    }
}

struct Head {
    kind: Kind,
    api_version: String,
    metadata: Metadata,
    source: Source,
}

impl Head {
    fn object<S>(self, spec: S) -> Object<S> {
        let Self { kind, api_version, metadata, source } = self;
        Object { kind, api_version, metadata, spec, source }
    }
}

impl Reader {
    fn source(&self, at: Span) -> Source {
        Source { file: Arc::clone(&self.file), line: at.line, column: at.column, field: "".into() }
    }

    fn not_an_object(&mut self, at: Span, message: &str) {
        let diagnostic =
            Diagnostic::error(codes::NOT_AN_OBJECT, self.source(at), message).refusing(Refused::Object);
        self.parsed.diagnostics.push(diagnostic);
    }

    /// Reads an object or the items of a list; `items` of typed lists need not repeat their kind.
    fn read(&mut self, node: &Node, item_of: Option<&TypeName>) {
        let text = |key: &str| node.get(key).and_then(Node::as_text).map(str::to_owned);
        let named = match (text("apiVersion"), text("kind")) {
            (Some(api_version), Some(kind)) => Some(TypeName { api_version, kind }),
            _ => item_of.cloned(),
        };
        let Some(name) = named else {
            self.not_an_object(node.at, "not a Kubernetes object: `apiVersion` and `kind` are required");
            return;
        };
        if let (Some(item_kind), Some(items)) = (name.kind.strip_suffix("List"), node.get("items")) {
            if item_of.is_some() {
                self.not_an_object(node.at, "a list inside a list");
            } else if let Value::List(items) = &items.value {
                let item_type =
                    TypeName { api_version: name.api_version.clone(), kind: item_kind.to_owned() };
                for item in items {
                    self.read(item, Some(&item_type));
                }
            } else if items.value != Value::Null {
                self.not_an_object(items.at, "`items` must be a list");
            }
            return;
        }
        let (group, version) = name.group_and_version();
        match Kind::find(group, &name.kind) {
            Some(info) => self.read_object(node, info, &name, version),
            None => match Kind::meant(group, &name.kind) {
                Some(info) => self.misspelt(node, &name, info),
                None => {
                    let kind = if group.is_empty() { name.kind } else { format!("{group}/{}", name.kind) };
                    *self.parsed.unused_kinds.entry(kind).or_default() += 1;
                }
            },
        }
    }

    fn read_object(&mut self, node: &Node, info: &'static KindInfo, name: &TypeName, version: &str) {
        if self.misspelt_metadata(node, info) {
            return;
        }
        let mut context = Context {
            file: Arc::clone(&self.file),
            object: reference(info.kind, &as_written(node, info)),
            schema: info.kind.fields(),
            found: RefCell::new(Vec::new()),
        };
        let frame = Frame::object();
        let decoded = Cursor::root(&context, &frame, node)
            .object_partly(|o| o.req("metadata", |value| metadata(value, info.namespaced)));
        let Some(metadata) = decoded else {
            self.parsed.diagnostics.append(context.found.get_mut());
            return;
        };
        let source = self.source(node.at);
        let head = || Head {
            kind: info.kind,
            api_version: name.api_version.clone(),
            metadata: metadata.clone(),
            source: source.clone(),
        };
        if let Some(because) = refused_kind(info, version) {
            let because = because(source.clone()).about(context.object.clone()).refusing(Refused::Object);
            self.parsed.diagnostics.append(context.found.get_mut());
            self.parsed.diagnostics.push(because.clone());
            let refused = RefusedObject { because: Arc::new(because) };
            self.parsed.objects.push(Arc::new(AnyObject::Refused(head().object(refused))));
            return;
        }
        let object = decode_object(&context, &frame, node, info, head());
        let object = match (frame.refusal(), object) {
            (None, Some(object)) => Some(object),
            (Some(because), _) => Some(AnyObject::Refused(head().object(RefusedObject { because }))),
            (None, None) => None,
        };
        self.parsed.diagnostics.extend(context.found.into_inner());
        self.parsed.objects.extend(object.map(Arc::new));
    }
}

/// Name and namespace as they stand in the text, so that every diagnostic can name the object.
fn as_written(node: &Node, info: &KindInfo) -> Metadata {
    let field =
        |key: &str| node.get("metadata").and_then(|m| m.get(key)).and_then(Node::as_text).unwrap_or("");
    let namespace =
        || Some(field("namespace")).filter(|namespace| !namespace.is_empty()).unwrap_or("default");
    Metadata {
        name: field("name").to_owned(),
        namespace: info.namespaced.then(|| namespace().to_owned()),
        ..Metadata::default()
    }
}

fn refused_kind(info: &'static KindInfo, version: &str) -> Option<impl FnOnce(Source) -> Diagnostic> {
    let (code, message, expected) = if !info.versions.contains(&version) {
        let message = format!("{} has no version {version:?}", info.name);
        (codes::UNKNOWN_VERSION, message, Some(format!("expected one of {}", info.versions.join(", "))))
    } else if let Support::Refused(why) = info.support {
        let message =
            format!("{} is not supported by this release: {why}; the object has no effect", info.name);
        (codes::UNSUPPORTED_KIND, message, None)
    } else {
        return None;
    };
    Some(move |at| Diagnostic { expected, ..Diagnostic::error(code, at, message) })
}

fn decode_object(
    context: &Context,
    frame: &Rc<Frame>,
    node: &Node,
    info: &'static KindInfo,
    head: Head,
) -> Option<AnyObject> {
    let strict = !context.schema.is_empty();
    let root = Cursor::root(context, frame, node);
    let decode = |o: &mut Fields<'_>| {
        for taken in ["apiVersion", "kind", "metadata"] {
            o.ignore(taken);
        }
        if strict {
            o.ignore("status");
        }
        decode_kind(head, o)
    };
    debug_assert_eq!(info.support, Support::Used);
    if strict { root.object(decode) } else { root.object_partly(decode) }
}

mod misspelt;
#[cfg(test)]
mod tests;
