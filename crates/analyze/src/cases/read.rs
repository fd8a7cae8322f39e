//! Text to cases.
//!
//! Invariant: every key is taken or reported with its line and column; a case with an error is not among those that are run,
//! nor is any of a document with an error outside of its cases, so that a misspelt expectation never passes.

mod expect;
mod fields;

use std::sync::Arc;

use leno_apis::{
    AnyObject, Diagnostic, Parsed,
    yaml::{self, Node, Value},
};

use super::format::{Caller, Case, CaseFile, Place, Request, Target, WorkloadName};
use fields::{Errors, Fields};

/// What is wrong with a file of cases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct CaseError {
    /// The file.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// What is wrong, and what was expected.
    pub message: String,
}

/// Reads the cases of a text. `load` gives the text of a path in `files`, relative to the file of cases.
///
/// # Errors
/// Everything that is wrong with the text, in its order.
pub fn read(
    file: &str,
    text: &str,
    load: &dyn Fn(&str) -> Result<String, String>,
) -> Result<CaseFile, Vec<CaseError>> {
    let (cases, errors) = read_sound(file, text, load);
    if errors.is_empty() { Ok(cases) } else { Err(errors) }
}

/// The same, with the cases in which nothing is wrong although it is in others.
pub fn read_sound(
    file: &str,
    text: &str,
    load: &dyn Fn(&str) -> Result<String, String>,
) -> (CaseFile, Vec<CaseError>) {
    let errors = Errors::new(file);
    let mut cases = Vec::new();
    for document in yaml::documents(text) {
        match document {
            Ok(node) => cases.extend(read_document(&node, &errors, load)),
            Err(problem) => errors.add(problem.at, problem.message),
        }
    }
    (CaseFile { file: file.into(), cases }, errors.into_all())
}

/// What the cases of a document share.
#[derive(Clone, Default)]
struct Shared {
    objects: Vec<Arc<AnyObject>>,
    diagnostics: Vec<Diagnostic>,
    from: Option<Caller>,
    source: Option<String>,
}

impl Shared {
    fn add(&mut self, parsed: Parsed) {
        self.objects.extend(parsed.objects);
        self.diagnostics.extend(parsed.diagnostics);
    }
}

/// The sound cases of a document: none when something is wrong outside of its cases, because all of them depend on it.
fn read_document(node: &Node, errors: &Errors, load: &dyn Fn(&str) -> Result<String, String>) -> Vec<Case> {
    let before = errors.count();
    let Some(mut fields) = Fields::of(node, errors) else { return Vec::new() };
    let mut shared = Shared::default();
    for path in fields.list("files") {
        let Some(name) = fields::text(path, errors) else { continue };
        match load(&name) {
            Ok(text) => shared.add(leno_apis::parse(&name, &text)),
            Err(problem) => errors.add(path.at, format!("`{name}` cannot be read: {problem}")),
        }
    }
    for object in fields.list("objects") {
        shared.add(leno_apis::parse_node(&errors.file, object));
    }
    shared.from = fields.take("from").and_then(|from| caller(from, errors));
    shared.source = fields.text("source");
    let written = fields.list("cases");
    if written.is_empty() {
        errors.add(node.at, "a file of cases has a list `cases`");
    }
    fields.finish();
    let is_sound = errors.count() == before;
    let mut cases = Vec::new();
    for case in written {
        let before = errors.count();
        let read = read_case(case, &shared, errors);
        cases.extend(read.filter(|_| is_sound && errors.count() == before));
    }
    cases
}

fn read_case(node: &Node, shared: &Shared, errors: &Errors) -> Option<Case> {
    let mut fields = Fields::of(node, errors)?;
    let mut world = shared.clone();
    for object in fields.list("objects") {
        world.add(leno_apis::parse_node(&errors.file, object));
    }
    let name = fields.text("name");
    if name.is_none() {
        errors.add(node.at, "a case has a `name`: a sentence about behaviour");
    }
    let spec = fields.text("spec");
    let source = fields.text("source").or(world.source);
    let from = fields.take("from").and_then(|from| caller(from, errors)).or(world.from);
    let request = fields.take("request").and_then(|request| read_request(request, errors));
    let expect = match fields.take("expect") {
        Some(expect) => expect::read(expect, errors)?,
        None => {
            // What is misspelt is told, and may be it.
            if fields.finish() {
                errors.add(node.at, "a case has an `expect`");
            }
            return None;
        }
    };
    if expect.needs_request() && request.is_none() {
        errors.add(node.at, "what is expected needs a `request`");
    }
    let calls_by_itself =
        request.as_ref().is_none_or(|request| request.to.is_some() || request.gateway.is_some());
    if from.is_none() && !calls_by_itself {
        errors.add(node.at, "a case with a request says `from`: NAMESPACE/WORKLOAD or `outside`");
    }
    fields.finish();
    Some(Case {
        name: name?,
        spec,
        source,
        place: Place { file: errors.file.clone(), line: node.at.line },
        objects: world.objects,
        diagnostics: world.diagnostics,
        from: from.unwrap_or(Caller::Outside),
        request,
        expect,
    })
}

fn caller(node: &Node, errors: &Errors) -> Option<Caller> {
    let text = fields::text(node, errors)?;
    if text == "outside" {
        return Some(Caller::Outside);
    }
    workload(&text, node, errors).map(Caller::Workload)
}

fn workload(text: &str, node: &Node, errors: &Errors) -> Option<WorkloadName> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Some(WorkloadName { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => {
            errors.add(node.at, format!("`{text}` is not NAMESPACE/NAME"));
            None
        }
    }
}

fn read_request(node: &Node, errors: &Errors) -> Option<Request> {
    if let Value::Text(url) = &node.value {
        let target = http_target(url, node, errors)?;
        return Some(Request {
            target,
            method: "GET".to_owned(),
            headers: Vec::new(),
            sni: None,
            to: None,
            identity: None,
            source_ip: None,
            gateway: None,
        });
    }
    let mut fields = Fields::of(node, errors)?;
    let url = fields.take("url").and_then(|url| http_target(&fields::text(url, errors)?, url, errors));
    let tcp = fields.take("tcp").and_then(|tcp| tcp_target(&fields::text(tcp, errors)?, tcp, errors));
    let method = fields.text("method").unwrap_or_else(|| "GET".to_owned());
    let headers = fields.take("headers").map(|headers| read_headers(headers, errors)).unwrap_or_default();
    let sni = fields.text("sni");
    let to = fields.take("to").and_then(|to| workload(&fields::text(to, errors)?, to, errors));
    let gateway = fields.take("gateway").and_then(|to| workload(&fields::text(to, errors)?, to, errors));
    let identity = fields.text("identity");
    let source_ip = fields.take("source_ip").and_then(|ip| match fields::text(ip, errors)?.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            errors.add(ip.at, "not an IP address");
            None
        }
    });
    fields.finish();
    let target = match (url, tcp) {
        (Some(target), None) | (None, Some(target)) => target,
        (Some(_), Some(_)) => {
            errors.add(node.at, "`url` and `tcp` exclude each other");
            return None;
        }
        (None, None) => {
            errors.add(node.at, "a request has `url: http://HOST[:PORT]/PATH` or `tcp: HOST:PORT`");
            return None;
        }
    };
    Some(Request { target, method, headers, sni, to, identity, source_ip, gateway })
}

fn read_headers(node: &Node, errors: &Errors) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, value) in fields::entries(node, errors) {
        let name = name.to_ascii_lowercase();
        match &value.value {
            Value::List(values) => {
                found.extend(values.iter().filter_map(|v| Some((name.clone(), fields::text(v, errors)?))));
            }
            _ => found.extend(fields::text(value, errors).map(|text| (name, text))),
        }
    }
    found
}

fn http_target(url: &str, node: &Node, errors: &Errors) -> Option<Target> {
    let wrong = || {
        errors.add(node.at, format!("`{url}` is not http://HOST[:PORT]/PATH"));
        None
    };
    let Some((scheme, rest)) = url.split_once("://") else { return wrong() };
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return wrong(),
    };
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => match port.parse() {
            Ok(port) => (host, port),
            Err(_) => return wrong(),
        },
        None => (authority, default_port),
    };
    if host.is_empty() {
        return wrong();
    }
    let path = match path {
        "" => "/".to_owned(),
        query if query.starts_with('?') => format!("/{query}"),
        path => path.to_owned(),
    };
    Some(Target::Http { scheme: scheme.to_owned(), host: host.to_owned(), port, path })
}

fn tcp_target(text: &str, node: &Node, errors: &Errors) -> Option<Target> {
    if let Some((host, port)) = text.rsplit_once(':')
        && let Ok(port) = port.parse()
        && !host.is_empty()
    {
        return Some(Target::Tcp { host: host.to_owned(), port });
    }
    errors.add(node.at, format!("`{text}` is not HOST:PORT"));
    None
}
