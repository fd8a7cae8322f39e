//! References from one object to another.

use crate::decode::{Cursor, Fields, integer, name, port, spanned, text};
use crate::diagnostic::{Source, Spanned};

/// The Gateway API's own group.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// What a route attaches to: a Gateway, a listener set, or (GAMMA) a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRef {
    /// Where it starts.
    pub at: Source,
    /// Group; the Gateway API's when the text does not say, empty for core.
    pub group: String,
    /// Kind; `Gateway` when the text does not say.
    pub kind: String,
    /// Namespace; absent means the route's.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Listener.
    pub section_name: Option<String>,
    /// Port of the listener or service.
    pub port: Option<u16>,
}

/// What a route sends to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendRef {
    /// Where it starts.
    pub at: Source,
    /// Group; empty (core) when the text does not say.
    pub group: String,
    /// Kind; `Service` when the text does not say.
    pub kind: String,
    /// Namespace; absent means the route's.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Port; required for a Service.
    pub port: Option<Spanned<u16>>,
}

/// A reference to an object, such as a Secret or a policy's target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRef {
    /// Where it starts.
    pub at: Source,
    /// Group; empty for core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace; absent means the referring object's.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Port or listener by name.
    pub section_name: Option<String>,
}

pub(super) fn parent_ref(value: Cursor<'_>) -> Option<ParentRef> {
    let at = value.source();
    value.object(|o| {
        Some(ParentRef {
            at,
            group: o.or("group", GROUP.to_owned(), text)?,
            kind: o.or("kind", "Gateway".to_owned(), name)?,
            namespace: o.opt("namespace", name),
            section_name: o.opt("sectionName", name),
            port: o.opt("port", port),
            name: o.req("name", name)?,
        })
    })
}

/// The fields of a backend, without its weight and filters.
pub(super) fn backend_fields(o: &mut Fields<'_>) -> Option<BackendRef> {
    Some(BackendRef {
        at: o.here().source(),
        group: o.or("group", String::new(), text)?,
        kind: o.or("kind", "Service".to_owned(), name)?,
        namespace: o.opt("namespace", name),
        port: o.opt("port", spanned(port)),
        name: o.req("name", name)?,
    })
}

/// A share; 1 when the text does not say.
pub(super) fn weight(o: &mut Fields<'_>) -> Option<u32> {
    o.or("weight", 1, integer(0, 1_000_000))
}

/// A reference whose group and kind have these defaults; `None` makes one required.
pub(super) fn local_ref<'d>(
    group: Option<&'static str>,
    kind: Option<&'static str>,
    with_namespace: bool,
) -> impl Fn(Cursor<'d>) -> Option<LocalRef> {
    move |value| {
        let at = value.source();
        value.object(|o| {
            let group = match group {
                Some(group) => o.or("group", group.to_owned(), text)?,
                None => o.req("group", text)?,
            };
            let kind = match kind {
                Some(kind) => o.or("kind", kind.to_owned(), name)?,
                None => o.req("kind", name)?,
            };
            Some(LocalRef {
                at,
                group,
                kind,
                namespace: if with_namespace { o.opt("namespace", name) } else { None },
                section_name: if with_namespace { None } else { o.opt("sectionName", name) },
                name: o.req("name", name)?,
            })
        })
    }
}
