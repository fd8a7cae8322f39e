//! Sessions against small catalogs, message by message.

use super::*;
use crate::test_world::{World, hello, key, node, pump};

fn open(world: &World, have: &[(ResourceKey, Version)], scopes: &[&str]) -> ServerSession {
    let mut session = ServerSession::open(Limits::default(), hello(&node("a"), have, scopes)).unwrap();
    session.publish(world.catalog(), 1, &Change::everything());
    session
}

fn ack(generation: u64) -> pb::Request {
    refuse(generation, "")
}

fn refuse(generation: u64, error: &str) -> pb::Request {
    let ack = pb::Ack { generation, rejected: Vec::new(), error: error.into() };
    pb::Request { message: Some(Message::Ack(ack)) }
}

fn names(delta: &pb::Delta) -> Vec<&str> {
    delta.resources.iter().map(|it| it.key.as_ref().unwrap().name.as_str()).collect()
}

#[test]
fn a_resuming_client_gets_differences_only() {
    let mut world = World::default();
    world.scope("s", &[("same", 1), ("changed", 2), ("new", 1)]);
    let have =
        [(key("same"), world.version("same")), (key("changed"), Version(7)), (key("gone"), Version(7))];
    let delta = open(&world, &have, &["s"]).next_message().unwrap();
    assert_eq!(names(&delta), ["changed", "new"]);
    assert_eq!(delta.removed, [key("gone").to_proto()]);
    assert_eq!(delta.answered_scopes, ["s"]);
    assert!(delta.complete);
}

#[test]
fn nothing_is_sent_before_there_is_a_catalog() {
    let have = [(key("kept"), Version(7))];
    let mut session = ServerSession::open(Limits::default(), hello(&node("a"), &have, &[])).unwrap();
    assert_eq!(session.next_message(), None);
}

#[test]
fn changes_coalesce_while_a_generation_is_in_flight() {
    let mut world = World::default();
    world.scope("s", &[("r", 1)]);
    let mut session = open(&world, &[], &["s"]);
    assert_eq!(session.next_message().unwrap().generation, 1);
    for round in 2..10 {
        world.put("r", round);
        session.publish(world.catalog(), round, &Change::of_resources([key("r")]));
        assert_eq!(session.next_message(), None);
    }
    session.receive(ack(1)).unwrap();
    let delta = session.next_message().unwrap();
    assert_eq!((delta.generation, delta.publication), (2, 9));
    assert_eq!(session.next_message(), None);
}

#[test]
fn a_change_that_does_not_concern_the_client_is_acknowledged_without_a_message() {
    let mut world = World::default();
    world.scope("s", &[("r", 1)]);
    let mut session = open(&world, &[], &["s"]);
    session.next_message().unwrap();
    session.receive(ack(1)).unwrap();
    world.put("other", 1);
    session.publish(world.catalog(), 2, &Change::of_resources([key("other")]));
    assert_eq!(session.next_message(), None);
    assert_eq!(session.status().acked_publication, Some(2));
}

#[test]
fn a_scope_that_does_not_exist_is_said_so_and_answered_when_it_appears() {
    let mut world = World::default();
    let mut session = open(&world, &[], &["s"]);
    let delta = session.next_message().unwrap();
    assert_eq!(delta.not_found_scopes, ["s"]);
    session.receive(ack(1)).unwrap();
    world.scope("s", &[("r", 1)]);
    session.publish(world.catalog(), 2, &Change::of_resources([key("r")]));
    let delta = session.next_message().unwrap();
    assert_eq!((names(&delta), delta.answered_scopes.len()), (vec!["r"], 1));
}

#[test]
fn what_the_client_cannot_honour_is_withheld_and_reported() {
    let mut world = World::default();
    world.scope("s", &[("r", 1)]);
    world.needing("r", 1, &["telepathy"]);
    let mut session = open(&world, &[], &["s"]);
    let delta = session.next_message().unwrap();
    assert!(delta.resources.is_empty());
    assert_eq!(delta.withheld[0].features_missing, ["telepathy"]);
    assert_eq!(session.status().withheld[0].key, key("r"));
    session.receive(ack(1)).unwrap();
    world.put("r", 2);
    session.publish(world.catalog(), 2, &Change::of_resources([key("r")]));
    assert_eq!(names(&session.next_message().unwrap()), ["r"]);
    assert!(session.status().withheld.is_empty());
}

#[test]
fn a_refused_generation_is_offered_again_with_the_next_change_and_not_before() {
    let mut world = World::default();
    world.scope("s", &[("r", 1)]);
    let mut session = open(&world, &[], &["s"]);
    session.next_message().unwrap();
    session.receive(refuse(1, "cannot")).unwrap();
    assert_eq!(session.next_message(), None);
    assert_eq!(&*session.status().refused.unwrap().error, "cannot");
    session.publish(world.catalog(), 2, &Change::default());
    let delta = session.next_message().unwrap();
    assert_eq!((names(&delta), delta.answered_scopes.len()), (vec!["r"], 1));
}

#[test]
fn a_rejected_resource_is_reported_and_not_offered_again_in_that_version() {
    let mut world = World::default();
    world.scope("s", &[("bad", 1), ("good", 1)]);
    let mut session = open(&world, &[], &["s"]);
    session.next_message().unwrap();
    let rejected = vec![pb::Rejection { key: Some(key("bad").to_proto()), reason: "odd".into() }];
    let message = Message::Ack(pb::Ack { generation: 1, rejected, error: String::new() });
    session.receive(pb::Request { message: Some(message) }).unwrap();
    let status = session.status();
    assert_eq!((&status.rejected[0].key, &*status.rejected[0].reason), (&key("bad"), "odd"));
    session.publish(world.catalog(), 2, &Change::everything());
    assert_eq!(session.next_message(), None);
    world.put("bad", 2);
    session.publish(world.catalog(), 3, &Change::of_resources([key("bad")]));
    assert_eq!(names(&session.next_message().unwrap()), ["bad"]);
    session.receive(ack(2)).unwrap();
    assert!(session.status().rejected.is_empty());
}

#[test]
fn a_large_generation_is_cut_into_messages_of_which_only_the_last_is_complete() {
    let mut world = World::default();
    world.scope("s", &[("a", 1), ("b", 1), ("c", 1)]);
    let limits = Limits { chunk_bytes: 1, ..Limits::default() };
    let mut session = ServerSession::open(limits, hello(&node("a"), &[], &["s"])).unwrap();
    session.publish(world.catalog(), 1, &Change::everything());
    let messages: Vec<pb::Delta> = std::iter::from_fn(|| session.next_message()).collect();
    let complete: Vec<bool> = messages.iter().map(|delta| delta.complete).collect();
    assert_eq!(complete, [false, false, false, true]);
    assert!(messages.iter().all(|delta| delta.generation == 1));
}

#[test]
fn two_hundred_clients_share_the_encoded_bytes() {
    let mut world = World::default();
    world.scope("s", &[("r", 1)]);
    let bytes: BTreeSet<*const u8> = (0..200)
        .map(|_| open(&world, &[], &["s"]).next_message().unwrap().resources[0].payload.as_ptr())
        .collect();
    assert_eq!(bytes.len(), 1);
}

#[test]
fn broken_requests_end_the_stream_and_nothing_else() {
    let world = World::default();
    let empty = pb::Request { message: None };
    assert_eq!(ServerSession::open(Limits::default(), ack(1)).err(), Some(Violation::NoHello));
    let mut session = open(&world, &[], &[]);
    assert_eq!(session.receive(empty), Err(Violation::EmptyRequest));
    assert_eq!(session.receive(ack(9)), Err(Violation::StrayAck(9)));
    assert_eq!(session.receive(hello(&node("a"), &[], &[])), Err(Violation::LateResume));
    let stale = pb::Subscription { sequence: 0, ..Default::default() };
    let stale = pb::Request { message: Some(Message::Subscription(stale)) };
    assert_eq!(session.receive(stale), Err(Violation::Sequence { last: 0, found: 0 }));
}

#[test]
fn a_client_and_a_session_agree_over_a_pair_of_queues() {
    let mut world = World::default();
    world.scope("s", &[("r", 1), ("q", 1)]);
    let mut client = crate::client::ClientState::new(Limits::default(), node("a"), []);
    client.subscribe("s".into()).unwrap();
    client.open_stream();
    let mut session = ServerSession::open(Limits::default(), client.next_message().unwrap()).unwrap();
    session.publish(world.catalog(), 1, &Change::everything());
    let landed = pump(&mut client, &mut session);
    assert_eq!(landed.len(), 1);
    assert_eq!(client.have().len(), 2);
    assert_eq!(session.status().acked_publication, Some(1));
}
