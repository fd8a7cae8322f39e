//! `leno run`: a program of the user's in a stand-in's place.

use crate::rig::{SHOP, Up, eventually, get, page, signal, stderr, stdout};

/// Answers every request with what the cart says, which it calls at the address that its environment names, and by name.
const PROGRAM: &str = "
import http.server, json, os, urllib.request

class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        called = json.load(urllib.request.urlopen('http://' + os.environ['CART_ADDR'] + '/'))
        named = json.load(urllib.request.urlopen('http://cart.shop/'))
        body = json.dumps({
            'program': True, 'headers': {name.lower(): value for name, value in self.headers.items()},
            'cart': called, 'named': named,
        }).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer((os.environ.get(ADDRESS, ADDRESS), int(os.environ['PORT'])), Answer).serve_forever()
";

#[test]
fn a_users_program_receives_and_makes_calls_and_the_stand_in_comes_back() {
    let mesh = Up::of(SHOP, &[]);
    let edge = mesh.edge();
    for address in ["LENO_APP_ADDRESS", "127.0.0.1", "0.0.0.0"] {
        let program = PROGRAM.replace("ADDRESS", &format!("'{address}'"));
        let mut program = mesh.spawn(&["run", "--workload", "shop/web", "--", "python3", "-c", &program]);
        let answer = eventually("the program answers", || {
            let answer = get(edge, "/");
            answer.contains("\"program\": true").then(|| page(edge, "/"))
        });
        let caller = |answer: &serde_json::Value| answer["headers"]["x-forwarded-client-cert"].to_string();
        assert!(caller(&answer).contains("URI=spiffe://cluster.local/ns/shop/sa/edge-istio"), "{answer}");
        for called in ["cart", "named"] {
            assert_eq!(answer[called]["service"], "cart", "{answer}");
            assert!(
                caller(&answer[called]).contains("URI=spiffe://cluster.local/ns/shop/sa/web"),
                "{answer}"
            );
        }
        signal("TERM", &program.id().to_string());
        assert!(!program.wait().unwrap().success(), "the program was killed");
        eventually("the stand-in is back", || get(edge, "/").contains("\"service\":\"web\"").then_some(()));
    }
    let code = |program: &str| {
        mesh.leno(&["run", "--workload", "shop/web", "--", "sh", "-c", program]).status.code()
    };
    assert_eq!((code("exit 0"), code("exit 7")), (Some(0), Some(7)), "its exit code is handed on");
    mesh.stop();
}

#[test]
fn who_gets_no_place_is_told_why() {
    let mesh = Up::of(SHOP, &[]);
    for (name, parts) in [
        ("web", &["names no namespace", "did you mean shop/web?"][..]),
        ("shop/wbe", &["no workload of this name", "did you mean shop/web?"]),
        ("shop/nobody", &["no workload of this name", "there are shop/cart, shop/web"]),
    ] {
        let refused = mesh.leno(&["run", "--workload", name, "--", "true"]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        parts.iter().for_each(|part| assert!(stderr(&refused).contains(part), "{part}: {refused:?}"));
    }
    let begun = mesh.folder.path().join("begun");
    let program = format!("touch {}; exec sleep 600", begun.display());
    let mut first = mesh.spawn(&["run", "--workload", "shop/web", "--", "sh", "-c", &program]);
    eventually("the first is in the place", || begun.exists().then_some(()));
    let second = mesh.leno(&["run", "--workload", "shop/web", "--", "true"]);
    assert_eq!(second.status.code(), Some(3), "{second:?}");
    assert!(stderr(&second).contains("each of its replicas (1) has a program in its place"), "{second:?}");
    signal("TERM", &first.id().to_string());
    first.wait().unwrap();
    mesh.stop();
}

#[test]
fn a_program_is_told_its_place_and_where_it_is_expected_to_listen() {
    let shop =
        SHOP.replace("value: 'cart:80'}", "value: 'cart:80'}, {name: CART_URL, value: 'http://cart/x'}");
    let mesh = Up::of(&shop, &[]);
    let silent = mesh.leno(&["run", "--workload", "shop/cart", "--", "sleep", "5"]);
    let said = stderr(&silent);
    for part in [
        "in the place of shop/cart-",
        "(cluster local); requests go to 1 stand-in of the workload, too",
        "nothing listens on PORT ",
        "nor on port 8080 of 127.",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(said.matches("nothing listens").count(), 1, "{said}");
    let quick = mesh.leno(&["run", "--workload", "shop/web", "--", "sh", "-c", "echo $CART_URL"]);
    let url = stdout(&quick);
    assert!(url.starts_with("http://127.0.0.1:") && url.ends_with("/x\n"), "{quick:?}");
    assert!(stderr(&quick).contains("no stand-in of the workload is left"), "{quick:?}");
    assert!(!stderr(&quick).contains("nothing listens"), "{quick:?}");
    mesh.stop();
}
