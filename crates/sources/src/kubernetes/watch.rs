//! The watch of one kind: lists, watches, lists again when it must, for ever.

use futures_util::StreamExt as _;
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, watcher},
    },
};
use leno_apis::Kind;
use serde_json::Value;
use tokio::sync::mpsc;

use super::Watched;

/// What is new of one kind.
#[derive(Debug)]
pub(super) enum Event {
    /// A list begins; what was held stays until it is complete.
    Listing,
    /// One object of the list.
    Listed(Value),
    /// The list is complete: what was not in it is gone.
    Complete,
    /// An object is new or different.
    Put(Value),
    /// An object is gone.
    Gone(Value),
    /// The watch is in trouble and goes on trying.
    Trouble(String),
}

/// Runs until the receiver is gone.
pub(super) async fn watch(
    client: Client,
    watched: Watched,
    resource: ApiResource,
    said: mpsc::Sender<(Watched, Event)>,
) {
    let api: Api<DynamicObject> = match &watched.namespace {
        None => Api::all_with(client, &resource),
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
    };
    let mut events = Box::pin(watcher(api, settings(watched.kind)).default_backoff());
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(watcher::Event::Init) => Event::Listing,
            Ok(watcher::Event::InitApply(object)) => Event::Listed(json(object, &resource)),
            Ok(watcher::Event::InitDone) => Event::Complete,
            Ok(watcher::Event::Apply(object)) => Event::Put(json(object, &resource)),
            Ok(watcher::Event::Delete(object)) => Event::Gone(json(object, &resource)),
            Err(error) => Event::Trouble(format!("{} cannot be watched: {error}", resource.plural)),
        };
        if said.send((watched.clone(), event)).await.is_err() {
            return;
        }
    }
}

fn settings(kind: Kind) -> watcher::Config {
    let config = watcher::Config::default().page_size(500);
    match kind {
        // Others are none of our business, and may not be readable for us.
        Kind::Secret => config.fields("type=kubernetes.io/tls"),
        _ => config,
    }
}

/// The object without what nobody reads. Items of lists do not repeat their type, so it is added.
fn json(mut object: DynamicObject, resource: &ApiResource) -> Value {
    object.metadata.managed_fields = None;
    // A change of nothing but it (and of a status that we do not read) is none.
    object.metadata.resource_version = None;
    object.types =
        Some(kube::core::TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() });
    serde_json::to_value(object).unwrap_or_default()
}
