//! The answering side: the service that another replica asks.
//!
//! Invariant: what is remembered between questions is bounded; without it an answer may be "no" for longer, never "yes" too early.

use std::{collections::BTreeMap, time::Duration};

use leno_compile::ObjectKey;
use leno_identity::SpiffeId;
use leno_xds::{
    proto::replicas::{AcknowledgedRequest, AcknowledgedResponse, replicas_server::Replicas},
    transport::{Peer, Sessions},
};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{Form, MOST};
use crate::{
    published::{Newest, Published},
    rollout::Attendance,
};

/// What nobody has asked about for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// Most objects that are remembered; of more, a "yes" waits for the newest publication.
const REMEMBERED: usize = 10_000;

/// The service.
pub(crate) struct ReplicasService {
    newest: Newest,
    sessions: Sessions,
    /// Who may ask.
    control: SpiffeId,
    remembered: Mutex<Remembered>,
}

impl ReplicasService {
    /// Answers for the proxies of these sessions, to `control`.
    pub(crate) fn new(newest: Newest, sessions: Sessions, control: SpiffeId) -> Self {
        Self { newest, sessions, control, remembered: Mutex::default() }
    }

    fn check(&self, peer: &Peer) -> Result<(), Status> {
        match peer.identity.as_deref() {
            Some(identity) if identity == self.control.as_str() => Ok(()),
            identity => {
                tracing::warn!(identity, address = ?peer.address, "who is no control plane asks for what replicas know");
                Err(Status::permission_denied("only a control plane may ask"))
            }
        }
    }

    fn answer(&self, request: AcknowledgedRequest) -> Result<AcknowledgedResponse, Status> {
        let AcknowledgedRequest { objects } = request;
        if objects.len() > MOST {
            return Err(Status::invalid_argument(format!("more than {MOST} objects")));
        }
        let published = self.newest.load().ok_or_else(|| Status::unavailable("nothing is published yet"))?;
        let (mut remembered, now) = (self.remembered.lock(), Instant::now());
        let reach = remembered.attendance.look(&self.sessions, &published);
        remembered.forget(now);
        let acknowledged = objects.into_iter().map(|object| {
            let since =
                Form::from_proto(object).and_then(|(key, form)| remembered.since(&published, key, form, now));
            since.is_some_and(|since| reach.has(since))
        });
        Ok(AcknowledgedResponse {
            acknowledged: acknowledged.collect(),
            connected: u32::try_from(reach.connected).unwrap_or(u32::MAX),
        })
    }
}

#[tonic::async_trait]
impl Replicas for ReplicasService {
    async fn acknowledged(
        &self,
        request: Request<AcknowledgedRequest>,
    ) -> Result<Response<AcknowledgedResponse>, Status> {
        self.check(&request.extensions().get::<Peer>().cloned().unwrap_or_default())?;
        Ok(Response::new(self.answer(request.into_inner())?))
    }
}

/// What is remembered between two questions.
#[derive(Default)]
struct Remembered {
    attendance: Attendance,
    /// Objects that were asked about.
    objects: BTreeMap<ObjectKey, Known>,
}

struct Known {
    form: Form,
    /// A publication that has it in this form; the first one is older.
    since: u64,
    asked: Instant,
}

impl Remembered {
    fn forget(&mut self, now: Instant) {
        self.objects.retain(|_, known| now.saturating_duration_since(known.asked) < FORGOTTEN);
    }

    /// The publication by which proxies have an object in this form; `None` when it is not in force in this form.
    fn since(&mut self, published: &Published, key: ObjectKey, form: Form, now: Instant) -> Option<u64> {
        if Form::of(published, &key).as_ref() != Some(&form) {
            self.objects.remove(&key);
            return None;
        }
        if let Some(known) = self.objects.get_mut(&key).filter(|known| known.form == form) {
            known.asked = now;
            return Some(known.since);
        }
        let since = published.generation;
        if self.objects.len() < REMEMBERED || self.objects.contains_key(&key) {
            self.objects.insert(key, Known { form, since, asked: now });
        }
        Some(since)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use leno_apis::Kind;
    use leno_compile::{MeshSettings, World};
    use leno_identity::UnixTime;
    use serde_json::{Value, json};

    use super::*;

    fn route(uid: &str, generation: i64, backend: &str) -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "split", "namespace": "shop", "uid": uid, "generation": generation},
            "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}],
                "rules": [{"backendRefs": [{"name": backend, "port": 80}]}]},
        })
    }

    fn published(number: u64, objects: &[Value]) -> Published {
        let cart = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"clusterIP": "240.240.0.1", "ports": [{"name": "http", "port": 80}]},
        });
        let objects = objects.iter().chain([&cart]);
        let world = World::of(objects.flat_map(|object| leno_apis::parse_json("", object).objects));
        let compiled = leno_compile::compile(&world, &MeshSettings::default(), &[]);
        Published {
            generation: number,
            world,
            compiled,
            reading: Arc::default(),
            since: UnixTime::since_unix_epoch(Duration::ZERO),
        }
    }

    fn key() -> ObjectKey {
        ObjectKey::new(Kind::HttpRoute, "shop", "split")
    }

    fn form(published: &Published) -> Form {
        Form::of(published, &key()).unwrap()
    }

    #[test]
    fn a_form_counts_from_when_it_was_first_asked_about() {
        let (mut remembered, now) = (Remembered::default(), Instant::now());
        let first = published(3, &[route("u-1", 1, "cart")]);
        assert_eq!(remembered.since(&first, key(), form(&first), now), Some(3));
        let later = published(9, &[route("u-1", 1, "cart")]);
        assert_eq!(remembered.since(&later, key(), form(&first), now), Some(3), "another object changed");
        let changed = published(12, &[route("u-1", 2, "cart")]);
        assert_eq!(remembered.since(&changed, key(), form(&first), now), None, "it is another here");
        assert_eq!(remembered.since(&later, key(), form(&changed), now), None, "it is not here yet");
        assert_eq!(remembered.since(&changed, key(), form(&changed), now), Some(12));
    }

    #[test]
    fn an_object_made_anew_or_meaning_something_else_is_another_form() {
        let first = published(1, &[route("u-1", 1, "cart")]);
        assert_ne!(form(&first), form(&published(1, &[route("u-2", 1, "cart")])));
        let resolved = published(1, &[route("u-1", 1, "cart")]);
        assert_eq!(form(&first), form(&resolved));
        let unresolved = published(1, &[route("u-1", 1, "nothing")]);
        assert_ne!(form(&first), form(&unresolved), "its status is another");
    }

    #[test]
    fn what_nobody_asks_about_is_forgotten() {
        let (mut remembered, now) = (Remembered::default(), Instant::now());
        let published = published(3, &[route("u-1", 1, "cart")]);
        remembered.since(&published, key(), form(&published), now);
        remembered.forget(now + FORGOTTEN / 2);
        assert_eq!(remembered.objects.len(), 1);
        remembered.forget(now + FORGOTTEN);
        assert_eq!(remembered.objects.len(), 0);
    }

    #[test]
    fn a_form_goes_over_the_wire_unchanged() {
        let form = form(&published(1, &[route("u-1", 7, "cart")]));
        assert_eq!(Form::from_proto(form.to_proto(&key())), Some((key(), form)));
    }

    #[test]
    fn only_a_control_plane_may_ask() {
        let control = SpiffeId::parse("spiffe://cluster.local/ns/mesh/sa/leno-control").unwrap();
        let service = ReplicasService::new(Newest::default(), Sessions::default(), control.clone());
        let check = |identity: Option<&str>| {
            service.check(&Peer { identity: identity.map(Into::into), address: None }).is_ok()
        };
        assert!(check(Some(control.as_str())));
        assert!(!check(Some("spiffe://cluster.local/ns/shop/sa/cart")));
        assert!(!check(None));
    }
}
