//! `leno up --traces` where no collector is.

use crate::rig::{SHOP, Up, alone, eventually, get, stderr};

#[test]
fn what_is_no_collector_is_refused_before_anything_starts() {
    for (url, why) in
        [("nonsense", "does not begin with http://"), ("ftp://x", "does not begin with http://")]
    {
        let refused = alone(&["up", "-f", "-", "--traces", url]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(stderr(&refused).contains(why), "{refused:?}");
    }
}

#[test]
fn a_collector_that_is_away_is_told_of_once_whoever_notices() {
    // Nobody listens there: the port is for tests that discard what they get.
    let mesh = Up::of(SHOP, &["--traces", "http://127.0.0.1:9", "--trace-share", "1"]);
    let edge = mesh.edge();
    let record = mesh.record().unwrap();
    let web = record.clusters[0].workloads.iter().find(|it| it.owner == "web").unwrap().admin.unwrap();
    let gateway = record.clusters[0].gateways[0].admin;
    let dropped = |admin| {
        let page = get(admin, "/stats/prometheus");
        let line = page.lines().find(|it| it.starts_with("leno_spans_dropped_total{reason=\"collector\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    for round in 1..=2 {
        let before = (dropped(web), dropped(gateway));
        assert!(get(edge, "/").starts_with("HTTP/1.1 200"));
        eventually("both give spans up", || {
            (dropped(web) > before.0 && dropped(gateway) > before.1).then_some(())
        });
        let told = mesh.errors();
        assert_eq!(told.matches("spans cannot be delivered").count(), 1, "round {round}: {told}");
    }
    mesh.stop();
}
