//! Matches of HTTPRoutes and GRPCRoutes in the model's terms.
//!
//! Invariant: a gRPC match holds only for what can be a gRPC call (a POST whose content type says so).

use leno_apis::{
    Diagnostic, Spanned,
    gateway::{grpc_route, http_route as api},
};
use leno_model::{HeaderMatch, HeaderTest, HttpMatch, PathMatch, QueryMatch, StringMatch};

use crate::virtual_service::matching::regex;

type Found<T> = Result<T, Box<Diagnostic>>;

/// A match of an HTTPRoute.
pub(crate) fn http(given: &api::HttpMatch) -> Found<HttpMatch> {
    let path = match &given.path {
        api::PathMatch::Exact(path) => PathMatch::Exact(path.as_str().into()),
        api::PathMatch::Prefix(path) => PathMatch::SegmentPrefix(path.as_str().into()),
        api::PathMatch::Regex(path) => PathMatch::Regex(regex(path)?),
    };
    let mut query: Vec<QueryMatch> = Vec::new();
    for given in &given.query_params {
        // Gateway API: of entries with an equivalent name, only the first counts.
        if query.iter().all(|known| *known.name != *given.name) {
            query.push(QueryMatch {
                name: given.name.as_str().into(),
                test: HeaderTest::Value(value(&given.value)?),
            });
        }
    }
    Ok(HttpMatch {
        path: Some(path),
        method: given.method.as_deref().map(|method| StringMatch::Exact(method.into())),
        headers: headers(&given.headers)?,
        query,
        ..HttpMatch::default()
    })
}

fn headers(given: &[api::NamedMatch]) -> Found<Vec<HeaderMatch>> {
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for given in given {
        let name = given.name.to_ascii_lowercase();
        // As above; names of headers are compared ignoring case.
        if headers.iter().all(|known| *known.name != *name) {
            let test = HeaderTest::Value(value(&given.value)?);
            headers.push(HeaderMatch { name: name.into(), test, invert: false });
        }
    }
    Ok(headers)
}

fn value(given: &api::ValueMatch) -> Found<StringMatch> {
    Ok(match given {
        api::ValueMatch::Exact(text) => StringMatch::Exact(text.as_str().into()),
        api::ValueMatch::Regex(text) => StringMatch::Regex(regex(text)?),
    })
}

/// A match of a GRPCRoute.
pub(crate) fn grpc(given: &grpc_route::GrpcMatch) -> Found<HttpMatch> {
    let path = match &given.method {
        Some(method) => Some(grpc_path(method)?),
        None => None,
    };
    let mut matcher = HttpMatch { path, ..any_grpc() };
    let own = std::mem::take(&mut matcher.headers);
    matcher.headers = headers(&given.headers)?;
    matcher.headers.extend(own);
    Ok(matcher)
}

/// Any gRPC call.
pub(crate) fn any_grpc() -> HttpMatch {
    let grpc = HeaderTest::Value(StringMatch::Prefix("application/grpc".into()));
    HttpMatch {
        method: Some(StringMatch::Exact("POST".into())),
        headers: vec![HeaderMatch { name: "content-type".into(), test: grpc, invert: false }],
        ..HttpMatch::default()
    }
}

/// The path of a call is `/SERVICE/METHOD`.
fn grpc_path(given: &grpc_route::GrpcMethodMatch) -> Found<PathMatch> {
    let text = |part: &Option<Spanned<String>>| part.as_ref().map(|part| part.value.clone());
    if given.regex {
        for part in given.service.iter().chain(&given.method) {
            regex(part)?;
        }
        let or_any =
            |part: Option<String>| part.map_or_else(|| "[^/]+".to_owned(), |part| format!("(?:{part})"));
        let pattern = format!("/{}/{}", or_any(text(&given.service)), or_any(text(&given.method)));
        return Ok(PathMatch::Regex(pattern.into()));
    }
    Ok(match (text(&given.service), text(&given.method)) {
        (Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}").into()),
        (Some(service), None) => PathMatch::Prefix(format!("/{service}/").into()),
        (None, Some(method)) => PathMatch::Regex(format!("/[^/]+/{}", ::regex::escape(&method)).into()),
        (None, None) => PathMatch::Prefix("/".into()),
    })
}
