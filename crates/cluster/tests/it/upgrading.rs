//! What an upgrade would change, and what it leaves nothing of.

use http::Method;
use leno_cluster::{
    Installation, Step, install,
    upgrade::{Change, Plan, plan, prune},
};
use leno_install::{Overrides, Values, objects, values};
use serde_json::json;

use crate::fake::{Fake, State};

const HOW: Installation = Installation { wait: None, force: false };

fn with(set: &[&str]) -> Values {
    let set = set.iter().map(|it| (*it).to_owned()).collect();
    values(&Overrides { files: Vec::new(), set }).unwrap()
}

async fn installed(values: &Values) -> Fake {
    let fake = Fake::start(State { reviews: Some(|_, body| body.clone()), ..State::default() }).await;
    let version = json!({
        "major": "1", "minor": "34", "gitVersion": "v1.34.0", "buildDate": "", "compiler": "", "gitCommit": "", "gitTreeState": "",
        "goVersion": "", "platform": "",
    });
    fake.state.lock().unwrap().objects.insert("/version".to_owned(), version);
    install(&fake.client().await, &objects(values), HOW, drop).await.unwrap();
    fake
}

async fn planned(fake: &Fake, values: &Values) -> Plan {
    plan(&fake.client().await, values, 0).await.unwrap()
}

fn change<'p>(plan: &'p Plan, object: &str) -> &'p Change {
    &plan
        .lines
        .iter()
        .find(|line| line.object == object)
        .unwrap_or_else(|| panic!("no line of {object}"))
        .change
}

#[tokio::test]
async fn the_same_values_change_nothing_and_nothing_is_written() {
    let values = with(&[]);
    let fake = installed(&values).await;
    let before = fake.state.lock().unwrap().objects.clone();
    let plan = planned(&fake, &values).await;
    let others: Vec<_> = plan.lines.iter().filter(|line| line.change != Change::Same).collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(fake.state.lock().unwrap().objects, before);
    let patches = fake.asked().into_iter().filter(|it| it.starts_with("PATCH")).skip(objects(&values).len());
    assert!(patches.into_iter().all(|asked| asked.contains("dryRun=All")));
}

#[tokio::test]
async fn what_differs_is_named_field_by_field() {
    let fake = installed(&with(&[])).await;
    let plan = planned(&fake, &with(&["replicas=3"])).await;
    let Change::Fields(fields, _) = change(&plan, "Deployment leno-system/leno-control") else {
        panic!("{:?}", plan.lines)
    };
    assert!(fields.contains(&"spec.replicas: 2 -> 3".to_owned()), "{fields:?}");
}

#[tokio::test]
async fn what_this_release_has_no_object_for_goes_after_the_upgrade() {
    let before = with(&["gateways.secretNamespaces=[edge]"]);
    let after = with(&["gateways.secretNamespaces=[]"]);
    let fake = installed(&before).await;
    let role = "Role edge/leno-control-gateway-secrets";
    let plan = planned(&fake, &after).await;
    assert!(matches!(change(&plan, role), Change::Left(_)));
    let mut steps = Vec::new();
    install(&fake.client().await, &objects(&after), HOW, drop).await.unwrap();
    prune(&fake.client().await, &plan, |step| steps.push(step)).await.unwrap();
    assert!(steps.contains(&Step::Deleted(role.to_owned())), "{steps:?}");
    assert!(!fake.paths().iter().any(|path| path.contains("gateway-secrets")), "{:?}", fake.paths());
    let again = planned(&fake, &after).await;
    assert!(again.lines.iter().all(|line| line.change == Change::Same), "{:?}", again.lines);
}

#[tokio::test]
async fn another_revisions_objects_are_left_alone() {
    let values = with(&[]);
    let fake = installed(&values).await;
    install(&fake.client().await, &objects(&with(&["revision=canary"])), HOW, drop).await.unwrap();
    let plan = planned(&fake, &values).await;
    assert!(!plan.lines.iter().any(|line| matches!(line.change, Change::Left(_))), "{:?}", plan.lines);
}

#[tokio::test]
async fn a_conflict_is_said_before_anything_is_changed() {
    let values = with(&[]);
    let fake = installed(&values).await;
    let said = "Apply failed with 1 conflict: conflict with \"helm\": .spec.replicas";
    fake.state.lock().unwrap().refuses = vec![(Method::PATCH, "/apis/apps/v1/", 409, said)];
    let plan = planned(&fake, &values).await;
    let Change::Refused(why) = change(&plan, "Deployment leno-system/leno-control") else {
        panic!("{:?}", plan.lines)
    };
    assert!(why.contains("helm") && why.contains("--force-conflicts"), "{why}");
}
