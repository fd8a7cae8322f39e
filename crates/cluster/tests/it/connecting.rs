//! Which kubeconfig is used, and that none is passed over.

use leno_cluster::{Access, ConnectProblem, connect};

use crate::fake::{Fake, State};

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_an_error_and_never_passed_over() {
    let missing = Access { kubeconfig: Some("/nowhere/config".into()), context: None };
    assert!(matches!(connect(&missing).await, Err(ConnectProblem::Kubeconfig(_))));
    let fake = Fake::start(State::default()).await;
    let other = Access { context: Some("there".to_owned()), ..fake.access() };
    assert!(matches!(connect(&other).await, Err(ConnectProblem::Kubeconfig(_))));
    let named = Access { context: Some("here".to_owned()), ..fake.access() };
    assert!(connect(&named).await.is_ok());
}
