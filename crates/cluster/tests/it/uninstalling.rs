//! Uninstalling: reverse order, and what stays because others need it.

use leno_cluster::{Installation, Problem, Step, install, uninstall};
use leno_install::{Overrides, Values, objects, values};
use serde_json::{Value, json};

use crate::fake::{Fake, State};

const HOW: Installation = Installation { wait: None, force: false };

fn of_revision(revision: &str) -> Vec<Value> {
    let set = vec![format!("revision={revision}")];
    objects(&values(&Overrides { files: Vec::new(), set }).unwrap())
}

async fn with(all: &[&[Value]]) -> Fake {
    let fake = Fake::start(State::default()).await;
    for objects in all {
        install(&fake.client().await, objects, HOW, drop).await.unwrap();
    }
    fake
}

async fn uninstalled(fake: &Fake, objects: &[Value]) -> (Result<(), Problem>, Vec<Step>) {
    let mut steps = Vec::new();
    let reversed: Vec<Value> = objects.iter().rev().cloned().collect();
    let result = uninstall(&fake.client().await, &reversed, |step| steps.push(step)).await;
    (result, steps)
}

#[tokio::test]
async fn an_installation_goes_in_reverse_order_and_a_second_time_is_no_error() {
    let all = objects(&Values::default());
    let fake = with(&[&all]).await;
    let (result, steps) = uninstalled(&fake, &all).await;
    result.unwrap();
    assert_eq!(steps.len(), all.len());
    assert!(matches!(&steps[0], Step::Deleted(name) if name.starts_with("MutatingWebhookConfiguration ")));
    assert_eq!(steps.last(), Some(&Step::Deleted("Namespace leno-system".to_owned())));
    assert_eq!(fake.paths(), Vec::<String>::new());
    let (again, steps) = uninstalled(&fake, &all).await;
    again.unwrap();
    assert!(steps.iter().all(|step| matches!(step, Step::Absent(_))), "{steps:?}");
}

#[tokio::test]
async fn the_namespace_stays_while_another_revision_is_in_it() {
    let (default, canary) = (of_revision("default"), of_revision("canary"));
    let fake = with(&[&default, &canary]).await;
    let (result, steps) = uninstalled(&fake, &canary).await;
    result.unwrap();
    let kept = steps.last().unwrap();
    assert!(
        matches!(kept, Step::Skipped(name, why) if name == "Namespace leno-system" && why.contains("leno-control ")),
        "{kept:?}"
    );
    assert!(
        fake.paths().contains(&"/apis/apps/v1/namespaces/leno-system/deployments/leno-control".to_owned())
    );
}

#[tokio::test]
async fn the_namespace_stays_while_the_users_authority_is_in_it() {
    let all = objects(&Values::default());
    let fake = with(&[&all]).await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cacerts"}});
    let path = "/api/v1/namespaces/leno-system/secrets/cacerts".to_owned();
    fake.state.lock().unwrap().objects.insert(path, secret);
    let (result, steps) = uninstalled(&fake, &all).await;
    result.unwrap();
    assert!(matches!(steps.last().unwrap(), Step::Skipped(_, why) if why.contains("cacerts")));
}
