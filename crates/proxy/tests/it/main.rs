//! A real control plane, real proxies, real sockets: what they promise together.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod edge;
mod enrolment;
mod hop;
mod leaving;
mod open;
mod rig;
mod words;

use std::io::{Read, Write};

use rig::{App, RAW, Rig, admin, app_address, ask, dial, page_at, proxy_address, until};

const ONLY_CLIENT_READS: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/client]}}]
    to: [{operation: {methods: [GET]}}]
";

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
";

fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or("")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_over_mtls_and_both_sides_count_it() {
    let rig = Rig::start("", 1).await;
    let app = App::start("web-0", 200).await;
    let (_server, _client) = (rig.proxy("web-0").await, rig.proxy("client-0").await);
    let response =
        ask("GET", "/a//b/../c?x=%41", "x-forwarded-client-cert: forged\r\nx-leno-deadline: 1\r\n").await;
    assert_eq!(status(&response), "200", "{response}");
    assert!(response.contains("web-0 GET /a/c?x=%41"), "one normalisation: {response}");
    assert!(response.contains("URI=spiffe://cluster.local/ns/default/sa/client"), "{response}");
    assert!(!response.contains("forged") && !response.contains("x-leno-"), "{response}");
    assert_eq!(app.count(), 1);
    let counted = admin("web-0", "/stats/prometheus").await;
    let line =
        counted.lines().find(|line| line.starts_with("istio_requests_total{")).expect("a counted request");
    assert!(
        line.contains(r#"connection_security_policy="mutual_tls""#)
            && line.contains(r#"source_workload="client-0""#),
        "{line}"
    );
    assert!(
        admin("client-0", "/stats/prometheus").await.contains(r#"hop="both""#),
        "both hops' overhead is reported"
    );
}

/// A gateway's load balancer shows 15021 to everybody: names of services and their traffic are not for everybody.
#[tokio::test(flavor = "multi_thread")]
async fn the_health_port_tells_health_and_nothing_else() {
    let rig = Rig::start("", 1).await;
    let _proxy = rig.proxy("web-0").await;
    assert_eq!(page_at("web-0", 15021, "/healthz/ready").await, "LIVE\n");
    for page in ["/stats/prometheus", "/metrics", "/config_dump", "/certs", "/app-health/web/livez"] {
        assert_eq!(page_at("web-0", 15021, page).await, "no such page\n", "{page}");
    }
    for port in [15020, 15090] {
        assert!(page_at("web-0", port, "/stats/prometheus").await.contains("leno_certificate"), "{port}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_has_an_id_whose_record_cites_the_yaml_and_a_change_is_in_force_without_restart() {
    let rig = Rig::start(ONLY_CLIENT_READS, 1).await;
    let app = App::start("web-0", 200).await;
    let (_server, _client) = (rig.proxy("web-0").await, rig.proxy("client-0").await);
    assert_eq!(status(&ask("GET", "/", "").await), "200");
    let denied = ask("POST", "/", "").await;
    assert_eq!(status(&denied), "403");
    let id = denied.lines().find_map(|line| line.strip_prefix("x-leno-denial: ")).expect("an id");
    let record = admin("web-0", &format!("/denials/{id}")).await;
    assert!(record.contains("default/web") && record.contains("all.yaml:"), "{record}");
    assert_eq!(app.count(), 1);
    rig.write_manifests(&ONLY_CLIENT_READS.replace("[GET]", "[POST]"));
    until("the change is in force", async || status(&ask("POST", "/", "").await) == "200").await;
    assert_eq!(status(&ask("GET", "/", "").await), "403");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_restarts_and_serves_without_its_control_plane() {
    let mut rig = Rig::start(ONLY_CLIENT_READS, 1).await;
    let _app = App::start("web-0", 200).await;
    let (server, client) = (rig.proxy("web-0").await, rig.proxy("client-0").await);
    assert_eq!(status(&ask("GET", "/", "").await), "200");
    // The configuration is saved within a second.
    let saved = |pod: &str| rig.folder.path().join(pod).join("snapshot");
    let (one, other) = (saved("web-0"), saved("client-0"));
    let held = || std::fs::read(&other).is_ok_and(|bytes| bytes.windows(6).any(|window| window == b"scope/"));
    until("the snapshots are saved", async || one.exists() && held()).await;
    rig.stop_control().await;
    assert_eq!(status(&ask("GET", "/", "").await), "200", "the control plane's end stops nothing");
    server.stop().await;
    client.stop().await;
    let (_server, _client) = (rig.proxy("web-0").await, rig.proxy("client-0").await);
    assert_eq!(status(&ask("GET", "/", "").await), "200", "restarted proxies serve what they knew");
    assert_eq!(status(&ask("POST", "/", "").await), "403", "and refuse what they refused");
    rig.start_control().await;
    rig.write_manifests(&ONLY_CLIENT_READS.replace("[GET]", "[POST]"));
    until("the control plane is listened to again", async || status(&ask("POST", "/", "").await) == "200")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_into_strict_is_refused_and_counted() {
    let rig = Rig::start("", 1).await;
    let _app = App::start("web-0", 200).await;
    let _server = rig.proxy("web-0").await;
    let plain = async || {
        tokio::task::spawn_blocking(|| {
            let mut stream = std::net::TcpStream::connect((proxy_address("web-0"), 9080)).unwrap();
            write!(stream, "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").unwrap();
            let mut response = String::new();
            let _ = stream.read_to_string(&mut response);
            response
        })
        .await
        .unwrap()
    };
    assert_eq!(status(&plain().await), "200", "PERMISSIVE accepts both");
    rig.write_manifests(STRICT);
    until("STRICT is in force", async || plain().await.is_empty()).await;
    // The one before may have been admitted and then closed by the change.
    assert_eq!(plain().await, "");
    assert!(
        admin("web-0", "/stats/prometheus").await.contains("leno_plaintext_refused_total{port=\"9080\"}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_not_delivered_goes_elsewhere_whatever_its_method() {
    let rig = Rig::start("", 2).await;
    // Nothing listens behind web-0: its proxy says that the request was not delivered.
    let app = App::start("web-1", 200).await;
    let (_one, _other, _client) =
        (rig.proxy("web-0").await, rig.proxy("web-1").await, rig.proxy("client-0").await);
    for _ in 0..20 {
        let response = ask("POST", "/pay", "").await;
        assert_eq!(status(&response), "200", "{response}");
    }
    assert_eq!(app.count(), 20, "each is delivered once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_failed_in_the_application_is_never_sent_again_and_a_get_is() {
    let rig = Rig::start("", 2).await;
    let (bad, good) = (App::start("web-0", 503).await, App::start("web-1", 200).await);
    let (_one, _other, _client) =
        (rig.proxy("web-0").await, rig.proxy("web-1").await, rig.proxy("client-0").await);
    for _ in 0..20 {
        ask("POST", "/pay", "").await;
    }
    assert_eq!(bad.count() + good.count(), 20, "20 payments, each delivered once");
    for _ in 0..20 {
        assert_eq!(status(&ask("GET", "/", "").await), "200", "the safe profile repeats what is idempotent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_told_to_go_loses_nothing() {
    let mut rig = Rig::start("", 2).await;
    let (one, other) = (App::start("web-0", 200).await, App::start("web-1", 200).await);
    let (leaving, _stays, _client) =
        (rig.proxy("web-0").await, rig.proxy("web-1").await, rig.proxy("client-0").await);
    let load = tokio::spawn(async {
        let mut statuses = Vec::new();
        for _ in 0..300 {
            statuses.push(status(&ask("POST", "/", "").await).to_owned());
        }
        statuses
    });
    until("both serve", async || one.count() > 10 && other.count() > 10).await;
    rig.set_ready("web-0", false);
    leaving.stop().await;
    drop(one);
    let statuses = load.await.unwrap();
    assert!(statuses.iter().all(|status| status == "200"), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_speak_first_and_half_closes_are_kept() {
    let rig = Rig::start("", 1).await;
    let listener = std::net::TcpListener::bind((app_address("web-0"), 7000)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.write_all(b"220 hello\r\n").unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        }
    });
    let (_server, _client) = (rig.proxy("web-0").await, rig.proxy("client-0").await);
    let said = tokio::task::spawn_blocking(|| {
        let mut stream = dial(RAW);
        let mut banner = [0; 11];
        stream.read_exact(&mut banner).unwrap();
        stream.write_all(b"bytes").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        (String::from_utf8_lossy(&banner).into_owned(), rest)
    });
    assert_eq!(said.await.unwrap(), ("220 hello\r\n".to_owned(), "bytes".to_owned()));
    assert!(admin("web-0", "/stats/prometheus").await.contains("istio_tcp_connections_opened_total"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_a_headless_service_is_called_by_its_own_address() {
    let rig = Rig::start("", 3).await;
    let mut apps = Vec::new();
    let mut proxies = vec![rig.proxy("client-0").await];
    for pod in ["web-0", "web-1", "web-2"] {
        apps.push(App::start(pod, 200).await);
        proxies.push(rig.proxy(pod).await);
    }
    for _ in 0..10 {
        let called = tokio::task::spawn_blocking(|| {
            let to = std::net::SocketAddr::new(proxy_address("web-1"), 9080).to_string();
            let mut stream = dial(&to);
            write!(stream, "GET / HTTP/1.1\r\nhost: web-1.webs\r\nconnection: close\r\n\r\n").unwrap();
            let mut response = String::new();
            stream.read_to_string(&mut response).unwrap();
            response
        });
        let response = called.await.unwrap();
        assert!(response.contains("web-1 GET /") && response.contains("URI=spiffe://"), "{response}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_threads_share_the_connections() {
    let rig = Rig::start("", 1).await;
    let app = App::start("web-0", 200).await;
    let two = |name: &str| {
        let mut bootstrap = rig.bootstrap(name);
        bootstrap.cores = 2;
        (bootstrap, leno_proxy::JoinToken::Once(format!("token of {name}")))
    };
    let ((server, one), (client, other)) = (two("web-0"), two("client-0"));
    let (server, _client) = (rig.proxy_with(server, one).await, rig.proxy_with(client, other).await);
    for _ in 0..20 {
        assert_eq!(status(&ask("GET", "/", "").await), "200");
    }
    assert_eq!(app.count(), 20);
    server.stop().await;
}
