//! The phases: what happens in each, what is claimed, and what would refute it.
//!
//! Invariant: a phase leaves the mesh as it found it, the canary's share apart.
//! Must not know: how requests are sent and counted.

use std::{net::SocketAddr, time::Duration};

use http::StatusCode;
use tokio::time::{Instant, sleep};

use super::{
    Broken, DemoError, Overhead, measure,
    scenario::PORT,
    stage::{Judgement, Outcome, Probe, Stage, until_ready},
    traffic::{Cut, dialer, direct},
};

/// The canary's shares: before, after, and as changed while the control plane is away.
const STEPS: [u32; 3] = [10, 50, 70];
/// Requests through every kind of connection before latencies are shown.
const WARM_UP: Duration = Duration::from_secs(1);
/// What a lost cluster had under way ends in it.
const JUST_LOST: Duration = Duration::from_millis(500);
const BACK: Duration = Duration::from_secs(60);
const RETURNS: Duration = Duration::from_secs(20);
const CONVERGED: Duration = Duration::from_secs(30);
/// Workloads that are asked in plaintext in later phases.
const SOME: usize = 30;

/// Nothing happens; overhead is measured, and counts are compared.
pub(super) async fn steady(stage: &Stage<'_>, time: Duration) -> Result<(Outcome, Overhead), DemoError> {
    let mut judgement = Judgement::default();
    stage.hold("warming up", WARM_UP.min(time / 3)).await;
    let warm_up = stage.traffic.cut();
    let ledger = measure::workloads(stage.mesh)
        .into_iter()
        .find(|workload| workload.owner.starts_with("ledger-"))
        .ok_or(DemoError::Scenario("the ledger"))?;
    let beside = direct(SocketAddr::new(ledger.app_address, PORT), stage.options.rate * 0.05)?;
    stage.hold("steady", time.saturating_sub(WARM_UP)).await;
    stage.traffic.pause().await;
    let mut cut = stage.traffic.cut();
    let direct = beside.stop().await;
    let answered = measure::stand_ins(stage.mesh).await;
    let (p50, p99) = measure::overhead(stage.mesh).await;
    stage.try_plaintext(&mut judgement, usize::MAX).await;
    stage.traffic.resume();
    let overhead = Overhead { p50, p99, outside_p50: cut.ledger_p50_ms - direct.p50_ms };
    // Warm-up counts; its latencies do not.
    cut.add(&Cut { latencies: None, ..warm_up });

    let sent = cut.requests + direct.requests;
    judgement.figure("sent", sent);
    judgement.figure("called_by_applications", answered.called);
    judgement.figure("answered_by_applications", answered.answered);
    judgement.require(answered.asked > 0 && answered.answered == sent + answered.called, || {
        format!(
            "applications answered {} requests, but {sent} were sent and {} calls made",
            answered.answered, answered.called
        )
    });
    let claim = "every request arrives once, as whom it says, over mutual TLS only";
    Ok((judgement.verdict("steady", claim, &cut), overhead))
}

/// The canary's share is changed by editing a file.
pub(super) async fn canary(stage: &Stage<'_>, time: Duration) -> Result<Outcome, DemoError> {
    let mut judgement = Judgement::default();
    let [before, after, _] = STEPS;
    stage.hold("canary at 90/10", time.mul_f64(0.4)).await;
    let mut cut = stage.traffic.cut();
    let written = if stage.options.broken == Some(Broken::Canary) { before } else { after };
    let saved = Instant::now();
    stage.scenario.split(after, written)?;
    let probe = Probe::new(dialer(stage.mesh, first(stage), "web")?, "checkout.shop");
    judgement
        .in_force("seconds_from_save_to_effect", probe.until(saved, |seen| seen.step == Some(after)).await);
    stage.hold("canary at 50/50", time.mul_f64(0.6).saturating_sub(saved.elapsed())).await;
    cut.add(&stage.traffic.cut());
    share(&mut judgement, "share_of_v2_at_90_10", &cut, before, before);
    share(&mut judgement, "share_of_v2_at_50_50", &cut, after, after);
    let claim = "a canary moves from 90/10 to 50/50 by editing a file, as its weights say";
    Ok(judgement.verdict("canary", claim, &cut))
}

/// Whether v2 has its share of the answers of a step, within four standard deviations and a point.
fn share(judgement: &mut Judgement, name: &'static str, cut: &Cut, step: u32, expected: u32) {
    let of_step = cut.count(|answer| answer.step == Some(step));
    let v2 = cut.count(|answer| answer.step == Some(step) && answer.version == "v2");
    judgement.require(of_step > 0, || format!("no request met the canary at {step} of 100"));
    if of_step == 0 {
        return;
    }
    let (share, expected) = (v2 as f64 / of_step as f64, f64::from(expected) / 100.0);
    let tolerance = 4.0 * (expected * (1.0 - expected) / of_step as f64).sqrt() + 0.01;
    judgement.figure(name, format!("{:.1} % of {of_step}", share * 100.0));
    judgement.require((share - expected).abs() <= tolerance, || {
        format!(
            "v2 had {:.1} % of {of_step} requests, not {:.0} % (within {:.1} points)",
            share * 100.0,
            expected * 100.0,
            tolerance * 100.0
        )
    });
}

/// A policy denies one caller of the ledger, and is taken back.
pub(super) async fn policy(stage: &Stage<'_>, time: Duration) -> Result<Outcome, DemoError> {
    let mut judgement = Judgement { denies: true, ..Judgement::default() };
    let probe = Probe::new(dialer(stage.mesh, first(stage), "reports")?, "ledger.billing");
    let denied: &[&str] =
        if stage.options.broken == Some(Broken::Policy) { &["reports", "web"] } else { &["reports"] };
    let saved = Instant::now();
    stage.scenario.lock(denied)?;
    let effect = probe.until(saved, |seen| seen.status == StatusCode::FORBIDDEN).await;
    judgement.in_force("seconds_until_denied", effect);
    let mut cut = stage.traffic.cut();
    stage.hold("reports is denied", time.mul_f64(0.5)).await;
    let during = stage.traffic.cut();
    let saved = Instant::now();
    stage.scenario.lock(&[])?;
    let effect = probe.until(saved, |seen| seen.status == StatusCode::OK).await;
    judgement.in_force("seconds_until_allowed", effect);
    cut.add(&stage.traffic.cut());
    stage.hold("reports is allowed", time.mul_f64(0.25)).await;
    let after = stage.traffic.cut();

    judgement.figure("denied", cut.denied + during.denied);
    judgement.require(during.denied > 0, || "nothing was denied".to_owned());
    judgement.require(during.reports_allowed == 0, || {
        format!("{} requests of reports were allowed while the policy was in force", during.reports_allowed)
    });
    judgement.require(after.denied == 0, || {
        format!("{} requests of reports were denied after the policy was gone", after.denied)
    });
    cut.add(&during);
    cut.add(&after);
    let claim = "a policy denies one caller, each refusal with an id, and nobody else; and can be taken back";
    Ok(judgement.verdict("policy", claim, &cut))
}

/// Certificates of short life are renewed.
pub(super) async fn certificates(stage: &Stage<'_>, time: Duration, proxies: usize) -> Outcome {
    let mut judgement = Judgement::default();
    let ttl = stage.options.lifetime();
    let before = measure::certificates_issued(stage.mesh).await;
    let since = Instant::now();
    stage.hold("certificates are renewed", time).await;
    let mut renewed = 0;
    while renewed == 0 && since.elapsed() < time + ttl {
        renewed = measure::certificates_issued(stage.mesh).await.saturating_sub(before);
        stage.hold("certificates are renewed", Duration::from_millis(250)).await;
    }
    let cut = stage.traffic.cut();
    judgement.figure("renewed", renewed);
    judgement.figure("lifetime_seconds", ttl.as_secs());
    judgement.require(renewed > 0, || "no certificate was renewed".to_owned());
    // Half of a life, a fifth of that earlier at most; and once each, since all may fall into this time.
    let lives = since.elapsed().as_secs_f64() / ttl.mul_f64(0.4).as_secs_f64().max(0.1);
    let most = (proxies as f64 * (lives + 1.0)) as u64;
    judgement.require(renewed <= most, || {
        format!("{renewed} certificates were renewed, where {proxies} proxies need {most} at most")
    });
    let claim = "certificates are renewed under load, at half of their life, and no request notices";
    judgement.verdict("certificates", claim, &cut)
}

/// All of a region ends at once, and comes back.
pub(super) async fn region(stage: &Stage<'_>, time: Duration) -> Result<Outcome, DemoError> {
    let mut judgement = Judgement::default();
    let lost = stage.scenario.lost();
    let is_there = |cut: &Cut| cut.count(|answer| answer.cluster == lost);
    stage.hold("before the loss", time.mul_f64(0.2)).await;
    let mut cut = stage.traffic.cut();
    let had = is_there(&cut);
    stage.mesh.kill_cluster(lost).await?;
    sleep(JUST_LOST).await;
    cut.add(&stage.traffic.cut());
    stage.hold(&format!("{lost} is lost"), time.mul_f64(0.4)).await;
    let without = stage.traffic.cut();
    let restored = Instant::now();
    stage.mesh.restore_cluster(lost).await?;
    let ready = until_ready(stage.mesh, BACK, stage.say).await;
    judgement.require(ready.is_ok(), || format!("{lost} did not come back: {}", text_of(ready)));
    judgement.seconds("seconds_until_ready_again", restored.elapsed());
    let mut returned = Cut::default();
    let back = Instant::now();
    while is_there(&returned) == 0 && back.elapsed() < RETURNS {
        stage.hold("traffic returns", Duration::from_millis(250)).await;
        returned.add(&stage.traffic.cut());
    }
    stage.hold(&format!("{lost} is back"), time.mul_f64(0.2)).await;
    returned.add(&stage.traffic.cut());

    judgement.figure("answers_there_before", had);
    judgement.figure("answers_there_while_lost", is_there(&without));
    judgement.figure("answers_there_after", is_there(&returned));
    judgement.require(had > 0, || format!("{lost} had no traffic to lose"));
    judgement.require(is_there(&without) == 0, || format!("{lost} answered although it was lost"));
    judgement.require(is_there(&returned) > 0, || format!("no traffic returned to {lost}"));
    cut.add(&without);
    cut.add(&returned);
    let claim = "a region is lost and comes back: traffic moves and returns, and nothing that may be tried again fails";
    Ok(judgement.verdict("region", claim, &cut))
}

fn text_of(ready: Result<(), crate::mesh::NotReady>) -> String {
    ready.err().map(|error| error.to_string()).unwrap_or_default()
}

/// All control planes are killed, a file is edited meanwhile, and they come back.
pub(super) async fn control_plane(stage: &Stage<'_>, time: Duration) -> Result<Outcome, DemoError> {
    let mut judgement = Judgement::default();
    let [.., later] = STEPS;
    let clusters = || stage.scenario.clusters.iter().map(|cluster| cluster.name.as_str());
    for cluster in clusters() {
        stage.mesh.kill_control(cluster).await?;
    }
    stage.hold("control planes are dead", time.mul_f64(0.3)).await;
    stage.scenario.split(later, later)?;
    stage.try_plaintext(&mut judgement, SOME).await;
    stage.hold("control planes are dead", time.mul_f64(0.3)).await;
    let mut cut = stage.traffic.cut();
    let early = cut.count(|answer| answer.step == Some(later));
    judgement.require(early == 0, || "a change came into force without a control plane".to_owned());
    let restored = Instant::now();
    let restoring = clusters().map(|cluster| stage.mesh.restore_control(cluster));
    for back in futures_util::future::join_all(restoring).await {
        back?;
    }
    let probe = Probe::new(dialer(stage.mesh, first(stage), "web")?, "checkout.shop");
    let effect = probe.until(restored, |seen| seen.step == Some(later)).await;
    judgement.in_force("seconds_until_missed_change", effect);
    let (converged, acknowledged, expected) = stage.converged(CONVERGED).await;
    judgement.figure("acknowledged", format!("{acknowledged} of {expected}"));
    judgement.seconds("seconds_until_converged", restored.elapsed());
    judgement.require(converged.is_some(), || {
        format!("{acknowledged} of {expected} proxies acknowledged within {CONVERGED:?}")
    });
    stage.hold("control planes are back", time.mul_f64(0.3)).await;
    cut.add(&stage.traffic.cut());
    let claim = "control planes are killed and come back: proxies serve on, then all take up what changed";
    Ok(judgement.verdict("control-plane", claim, &cut))
}

/// The first cluster, which stays.
fn first<'s>(stage: &Stage<'s>) -> &'s str {
    stage.scenario.kept().next().unwrap_or_default()
}
