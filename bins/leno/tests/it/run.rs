//! `leno run`: a program of the user's in a stand-in's place.

use crate::rig::{SHOP, Up, eventually, get, page, signal};

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
    let nobody = mesh.leno(&["run", "--workload", "shop/nobody", "--", "true"]);
    assert_eq!(nobody.status.code(), Some(3), "{nobody:?}");
    mesh.stop();
}
