//! The client against hand-made and hostile messages, and, at random, against real sessions.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::catalog::Change;
use crate::server::ServerSession;
use crate::test_world::{World, key, node, pump_some};

fn connected() -> ClientState {
    let mut client = ClientState::new(Limits::default(), node("a"), []);
    client.subscribe("s".into()).unwrap();
    client.open_stream();
    client.next_message().unwrap();
    client
}

fn delta(generation: u64, names: &[&str], complete: bool) -> pb::Delta {
    let resource = |name: &&str| pb::Resource {
        key: Some(key(name).to_proto()),
        version: 5,
        payload: Bytes::new(),
        features_needed: Vec::new(),
    };
    let resources = names.iter().map(resource).collect();
    pb::Delta { generation, resources, complete, ..pb::Delta::default() }
}

fn sent_ack(client: &mut ClientState) -> Option<pb::Ack> {
    match client.next_message()?.message? {
        Message::Ack(ack) => Some(ack),
        Message::Hello(_) | Message::Resume(_) | Message::Subscription(_) => None,
    }
}

#[test]
fn a_batch_lands_only_when_it_is_complete() {
    let mut client = connected();
    client.receive(delta(1, &["a"], false)).unwrap();
    assert!(client.is_staging());
    assert_eq!(client.next_landing(), None);
    client.receive(delta(1, &["b"], true)).unwrap();
    assert_eq!(client.next_landing().unwrap().resources.len(), 2);
    assert_eq!(sent_ack(&mut client), None);
    client.landed(Verdict::Accepted(Vec::new()));
    assert_eq!(sent_ack(&mut client).unwrap().generation, 1);
}

#[test]
fn an_unsound_generation_is_refused_and_what_was_held_stays() {
    let mut client = connected();
    client.receive(delta(1, &["a"], true)).unwrap();
    client.next_landing().unwrap();
    client.landed(Verdict::Accepted(Vec::new()));
    sent_ack(&mut client).unwrap();
    for (generation, names) in [(2, ["b", "b"]), (3, ["c", ""])] {
        client.receive(delta(generation, &names, true)).unwrap();
        assert_eq!(client.next_landing(), None);
        assert!(!sent_ack(&mut client).unwrap().error.is_empty());
    }
    assert_eq!(client.have().keys().collect::<Vec<_>>(), [&key("a")]);
}

#[test]
fn staging_is_bounded() {
    let limits = Limits { generation_bytes: 3, ..Limits::default() };
    let mut client = ClientState::new(limits, node("a"), []);
    client.open_stream();
    client.next_message().unwrap();
    client.receive(delta(1, &["aa", "bb"], false)).unwrap();
    client.receive(delta(1, &["c"], true)).unwrap();
    assert!(sent_ack(&mut client).unwrap().error.contains("3 bytes"));
}

#[test]
fn generations_that_skip_or_overrun_end_the_stream() {
    let mut client = connected();
    let skipped = Violation::Generation { expected: 1, found: 2 };
    assert_eq!(client.receive(delta(2, &[], true)), Err(skipped));
    client.receive(delta(1, &["a"], true)).unwrap();
    assert_eq!(client.receive(delta(2, &[], true)), Err(Violation::Overrun(2)));
}

#[test]
fn a_rejected_resource_is_not_held() {
    let mut client = connected();
    client.receive(delta(1, &["a", "b"], true)).unwrap();
    client.next_landing().unwrap();
    client.landed(Verdict::Accepted(vec![(key("b"), "odd".into())]));
    assert_eq!(client.have().keys().collect::<Vec<_>>(), [&key("a")]);
    assert_eq!(sent_ack(&mut client).unwrap().rejected[0].reason, "odd");
}

#[test]
fn a_batch_in_judgement_when_the_stream_breaks_is_resumed_as_unknown() {
    let mut client = connected();
    client.receive(delta(1, &["a"], true)).unwrap();
    client.next_landing().unwrap();
    client.disconnected(0);
    client.open_stream();
    let Some(Message::Hello(hello)) = client.next_message().unwrap().message else { panic!("no hello") };
    assert_eq!(hello.resume.unwrap().have[0].version, Version::UNKNOWN.0);
    client.landed(Verdict::Accepted(Vec::new()));
    assert_eq!(client.have()[&key("a")], Version(5));
    assert_eq!(sent_ack(&mut client), None);
}

#[test]
fn an_answer_to_an_earlier_subscription_is_not_one_to_a_later() {
    let mut client = connected();
    client.unsubscribe("s");
    client.subscribe("s".into()).unwrap();
    client.next_message().unwrap();
    let answer = |generation, sequence| pb::Delta {
        answered_scopes: vec!["s".into()],
        subscription_sequence: sequence,
        ..delta(generation, &[], true)
    };
    client.receive(answer(1, 0)).unwrap();
    client.next_landing().unwrap();
    assert_eq!(client.landed(Verdict::Accepted(Vec::new())), []);
    sent_ack(&mut client).unwrap();
    client.receive(answer(2, 1)).unwrap();
    client.next_landing().unwrap();
    assert_eq!(client.landed(Verdict::Accepted(Vec::new())), [("s".into(), ScopeAnswer::Loaded)]);
}

#[test]
fn a_long_resume_is_cut_and_only_its_end_is_complete() {
    let limits = Limits { chunk_bytes: 1, ..Limits::default() };
    let have = [(key("a"), Version(1)), (key("b"), Version(1))];
    let mut client = ClientState::new(limits.clone(), node("a"), have);
    client.open_stream();
    let mut session = ServerSession::open(limits, client.next_message().unwrap()).unwrap();
    assert_eq!(session.awaits(), Some(0));
    session.receive(client.next_message().unwrap()).unwrap();
    assert_eq!(session.awaits(), None);
    assert_eq!(client.next_message(), None);
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Act {
    Publish { scope: u8, members: Vec<(u8, u8)>, needs: bool },
    Withdraw { scope: u8 },
    Subscribe { scope: u8 },
    Unsubscribe { scope: u8 },
    Disconnect { judge_first: bool },
    Exchange { messages: u8, verdict: u8 },
}

fn act() -> impl Strategy<Value = Act> {
    let members = prop::collection::vec((0..6_u8, 0..3_u8), 0..4);
    prop_oneof![
        3 => (0..4_u8, members, prop::bool::weighted(0.2))
            .prop_map(|(scope, members, needs)| Act::Publish { scope, members, needs }),
        1 => (0..4_u8).prop_map(|scope| Act::Withdraw { scope }),
        2 => (0..4_u8).prop_map(|scope| Act::Subscribe { scope }),
        1 => (0..4_u8).prop_map(|scope| Act::Unsubscribe { scope }),
        1 => any::<bool>().prop_map(|judge_first| Act::Disconnect { judge_first }),
        4 => (0..12_u8, 0..8_u8).prop_map(|(messages, verdict)| Act::Exchange { messages, verdict }),
    ]
}

/// A client with its consumer, a session and the world it publishes.
struct Pair {
    world: World,
    publication: u64,
    client: ClientState,
    session: Option<ServerSession>,
    in_judgement: Option<Landed>,
    view: BTreeMap<ResourceKey, Option<Version>>,
}

impl Pair {
    fn limits() -> Limits {
        Limits { chunk_bytes: 24, ..Limits::default() }
    }

    fn new() -> Self {
        let client = ClientState::new(Self::limits(), node("a"), []);
        let (world, view) = (World::default(), BTreeMap::new());
        Self { world, publication: 0, client, session: None, in_judgement: None, view }
    }

    fn play(&mut self, act: Act) {
        match act {
            Act::Publish { scope, members, needs } => {
                let names: Vec<(String, u8)> = members.iter().map(|(n, v)| (format!("r{n}"), *v)).collect();
                let members: Vec<(&str, u64)> =
                    names.iter().map(|(n, v)| (n.as_str(), u64::from(*v))).collect();
                let before = self.world.clone();
                self.world.scope(&format!("s{scope}"), &members);
                if let (true, Some((name, version))) = (needs, members.first()) {
                    self.world.needing(name, *version, &["telepathy"]);
                }
                self.publish(&before);
            }
            Act::Withdraw { scope } => {
                let before = self.world.clone();
                self.world.withdraw(&format!("s{scope}"));
                self.publish(&before);
            }
            Act::Subscribe { scope } => {
                self.client.subscribe(format!("s{scope}").into()).unwrap();
            }
            Act::Unsubscribe { scope } => self.client.unsubscribe(&format!("s{scope}")),
            Act::Disconnect { judge_first } => {
                if judge_first {
                    self.judge(0);
                }
                self.session = None;
                self.client.disconnected(0);
            }
            Act::Exchange { messages, verdict } => self.exchange(usize::from(messages), verdict),
        }
    }

    fn publish(&mut self, before: &World) {
        self.publication += 1;
        let change = self.world.change_since(before);
        if let Some(session) = &mut self.session {
            session.publish(self.world.catalog(), self.publication, &change);
        }
    }

    fn exchange(&mut self, messages: usize, verdict: u8) {
        let session = match &mut self.session {
            Some(session) => session,
            none => {
                self.client.open_stream();
                let session =
                    ServerSession::open(Self::limits(), self.client.next_message().unwrap()).unwrap();
                let session = none.insert(session);
                session.publish(self.world.catalog(), self.publication, &Change::everything());
                session
            }
        };
        pump_some(&mut self.client, session, messages);
        if self.in_judgement.is_none() {
            self.in_judgement = self.client.next_landing();
        }
        if verdict != 1 {
            self.judge(verdict);
        }
    }

    /// The consumer: takes all, refuses all, or takes all but the first.
    fn judge(&mut self, verdict: u8) {
        let Some(landed) = self.in_judgement.take() else { return };
        if verdict == 2 {
            self.client.landed(Verdict::Refused("no".into()));
            return;
        }
        let rejected = landed.resources.first().filter(|_| verdict == 3).map(|it| it.key.clone());
        for it in &landed.resources {
            assert_eq!(it.version, Version::of(&it.payload, &it.features_needed));
            if rejected.as_ref() != Some(&it.key) {
                self.view.insert(it.key.clone(), Some(it.version));
            }
        }
        self.view.extend(landed.withheld.iter().map(|(key, _)| (key.clone(), None)));
        for key in &landed.removed {
            self.view.remove(key);
        }
        let rejected = rejected.into_iter().map(|key| (key, "odd".to_owned())).collect();
        self.client.landed(Verdict::Accepted(rejected));
    }

    fn settle(&mut self) {
        // A fresh stream offers again what was refused or rejected.
        self.judge(0);
        self.play(Act::Disconnect { judge_first: true });
        for _ in 0..20 {
            self.exchange(200, 0);
        }
        let session = self.session.as_mut().unwrap();
        assert_eq!((session.awaits(), session.next_message()), (None, None));
        assert_eq!(session.status().acked_publication, Some(self.publication));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_client_ends_with_what_its_scopes_contain(acts in prop::collection::vec(act(), 0..40)) {
        let mut pair = Pair::new();
        for act in acts {
            pair.play(act);
        }
        pair.settle();
        let scopes: Vec<Arc<str>> = pair.client.wanted.keys().cloned().collect();
        prop_assert_eq!(&pair.view, &pair.world.view(&node("a"), &scopes));
        for (scope, wanted) in &pair.client.wanted {
            let exists = if pair.world.has_scope(scope) { ScopeAnswer::Loaded } else { ScopeAnswer::NotFound };
            prop_assert_eq!(wanted.answer, Some(exists));
        }
        // Once more, with nothing new: nothing but answers is sent, except what is withheld.
        pair.session = None;
        pair.client.disconnected(0);
        pair.exchange(200, 1);
        if let Some(landed) = &pair.in_judgement {
            prop_assert!(landed.resources.is_empty() && landed.removed.is_empty());
        }
    }

    #[test]
    fn histories_without_refusals_need_no_fresh_stream(acts in prop::collection::vec(act(), 0..40)) {
        let mut pair = Pair::new();
        for act in acts {
            pair.play(match act {
                Act::Exchange { messages, verdict } if verdict > 1 => Act::Exchange { messages, verdict: 0 },
                other => other,
            });
        }
        for _ in 0..20 {
            pair.exchange(200, 0);
        }
        let scopes: Vec<Arc<str>> = pair.client.wanted.keys().cloned().collect();
        prop_assert_eq!(&pair.view, &pair.world.view(&node("a"), &scopes));
    }
}
