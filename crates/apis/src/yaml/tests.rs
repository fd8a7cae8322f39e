//! Positions, limits and the core schema.

use super::*;

fn one(text: &str) -> Node {
    let mut all = documents(text);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0).unwrap()
}

#[test]
fn positions_are_lines_and_columns_of_the_file() {
    let all = documents("# first\na: 1\n---\n# second\nb:\n  - c: x\n");
    let second = all[1].as_ref().unwrap();
    let Value::List(items) = &second.get("b").unwrap().value else { panic!("a list") };
    assert_eq!(items[0].get("c").unwrap().at, Span { line: 6, column: 8 });
}

#[test]
fn a_broken_document_does_not_lose_the_next_one() {
    let all = documents("a: [1\n---\nb: 2\n---\nc: {\n---\nd: 4\n");
    assert_eq!(all.len(), 4);
    assert_eq!(all[0].as_ref().unwrap_err().code, codes::SYNTAX);
    assert_eq!(all[1].as_ref().unwrap().get("b").unwrap().value, Value::Int(2));
    let broken = all[2].as_ref().unwrap_err();
    assert!(broken.at.line >= 5, "{broken:?}");
    assert_eq!(all[3].as_ref().unwrap().get("d").unwrap().value, Value::Int(4));
}

#[test]
fn duplicate_keys_are_errors_at_the_second_key() {
    let problem = documents("a: 1\nb:\n  c: 1\n  c: 2\n").remove(0).unwrap_err();
    assert_eq!((problem.code, problem.at), (codes::DUPLICATE_KEY, Span { line: 4, column: 3 }));
}

#[test]
fn aliases_and_merge_keys_expand() {
    let node = one("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\nagain: *b\n");
    let used = node.get("use").unwrap();
    assert_eq!(used.get("x").unwrap().value, Value::Int(1));
    assert_eq!(used.get("y").unwrap().value, Value::Int(3));
    assert_eq!(node.get("again").unwrap().get("y").unwrap().value, Value::Int(2));
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let refs = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
    }
    assert_eq!(documents(&text).remove(0).unwrap_err().code, codes::LIMIT);
}

#[test]
fn deep_nesting_is_refused() {
    let problem = documents(&"- ".repeat(1000)).remove(0).unwrap_err();
    assert_eq!(problem.code, codes::LIMIT);
}

#[test]
fn scalars_follow_the_core_schema() {
    let node = one("a: 1.10\nb: '1.10'\nc: yes\nd: 0x10\ne: 1.2.3\nf: ~\ng: -5\nh: 10s\ni: 1e3\nj: .\n");
    let value = |key: &str| node.get(key).unwrap().value.clone();
    assert_eq!(value("a"), Value::Float(1.1));
    assert_eq!(value("b"), Value::Text("1.10".into()));
    assert_eq!(value("c"), Value::Text("yes".into()));
    assert_eq!(value("d"), Value::Int(16));
    assert_eq!(value("e"), Value::Text("1.2.3".into()));
    assert_eq!(value("f"), Value::Null);
    assert_eq!(value("g"), Value::Int(-5));
    assert_eq!(value("h"), Value::Text("10s".into()));
    assert_eq!(value("i"), Value::Float(1000.0));
    assert_eq!(value("j"), Value::Text(".".into()));
}

#[test]
fn integer_keys_are_strings() {
    assert_eq!(one("8080: x\n").get("8080").unwrap().as_text(), Some("x"));
}

#[test]
fn separators_with_comments_and_empty_documents_are_skipped() {
    assert_eq!(documents("---\n# only a comment\n---\n---  # named\na: 1\n---\n").len(), 1);
    assert_eq!(documents("").len(), 0);
}

#[test]
fn values_are_written_as_people_write_them() {
    let value = serde_json::json!({
        "kind": "Pod", "on": "yes", "port": 80, "text": "80", "ratio": 0.5, "none": null, "empty": {"a": {}, "b": []},
        "list": [{"name": "a", "args": ["x", "*"]}, ["nested", ["deep"]], {}],
        "script": "one\n  two\n\nthree\n", "odd": "ends in a space \nx", "date": "2026-11-27", "json": "{\"a\": \"b\\\\\"}", "é": "\u{85}\u{2028}~",
    });
    let text = "kind: Pod\n\"on\": \"yes\"\nport: 80\ntext: \"80\"\nratio: 0.5\nnone: null\nempty:\n  a: {}\n  b: []\nlist:\n\
                - name: a\n  args:\n  - x\n  - \"*\"\n- - nested\n  - - deep\n- {}\nscript: |\n  one\n    two\n\n  three\n\
                odd: \"ends in a space \\nx\"\ndate: \"2026-11-27\"\njson: '{\"a\": \"b\\\\\"}'\n\"é\": \"\\u0085\\u2028~\"\n";
    assert_eq!(write(&value), text);
    assert_eq!(one(text).to_json(), value);
}

fn json() -> impl proptest::strategy::Strategy<Value = serde_json::Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        "[-a-c:#&*|>'\"%@~.0-9 \n\t\r\u{85}\u{2028}é]{0,12}".prop_map(serde_json::Value::from),
        any::<String>().prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
            prop::collection::vec(("[-a-z:# .0-9]{1,8}", inner), 0..5)
                .prop_map(|fields| fields.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest::proptest! {
    #[test]
    fn what_is_written_reads_as_it_was(value in json()) {
        let wrapped = serde_json::json!({ "value": value });
        let documents = documents(&write(&wrapped));
        proptest::prop_assert_eq!(documents.len(), 1);
        proptest::prop_assert_eq!(documents[0].as_ref().unwrap().to_json(), wrapped);
    }

    #[test]
    fn arbitrary_text_never_panics(text in "[-a-c:#&*<>{}\\[\\],'\"|?!%@`~.0-9 \n\t]{0,200}") {
        let _ = documents(&text);
    }
}
