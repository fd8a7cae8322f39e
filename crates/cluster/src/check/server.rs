//! The API server: its version, and its clock against this machine's.

use http::header;
use kube::client::Body;
use serde_json::Value;

use super::{Finding, Look};
use crate::problem::{Problem, chain};

/// Native sidecars are on by default from here on (ADR 0015).
const OLDEST: (u32, u32) = (1, 29);
/// Proxies' certificates begin a little before they are issued; more than this is not forgiven everywhere.
const SKEW_WARN: i64 = 5;
const SKEW_FAIL: i64 = 60;

pub(super) async fn findings(look: &Look<'_>) -> Result<Vec<Finding>, Problem> {
    let object = "GET /version".to_owned();
    let unreachable =
        |error: kube::Error| Problem::Unreachable { object: object.clone(), why: chain(&error) };
    let request = http::Request::get("/version").body(Body::empty());
    let request =
        request.map_err(|error| Problem::Unreachable { object: object.clone(), why: error.to_string() })?;
    let response = look.client.send(request).await.map_err(unreachable)?;
    let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
    let info: Value =
        serde_json::to_value(look.client.apiserver_version().await.map_err(unreachable)?).unwrap_or_default();
    Ok(vec![version(&info), clock(date.as_deref(), look.now)])
}

fn version(info: &Value) -> Finding {
    let text = info["gitVersion"].as_str().unwrap_or("unknown");
    // EKS says `34+` or the like.
    let number = |key: &str| {
        let digits = info[key].as_str().unwrap_or_default();
        digits.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok()
    };
    match (number("major"), number("minor")) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => {
            Finding::ok("version", format!("the API server is of version {text}"))
        }
        (Some(_), Some(_)) => Finding::fail(
            "version",
            format!("the API server is of version {text}, which has no native sidecars"),
            format!("Leno needs Kubernetes {}.{} or later", OLDEST.0, OLDEST.1),
        ),
        _ => Finding::warn(
            "version",
            format!("the API server's version {text} is not understood"),
            format!("Leno needs Kubernetes {}.{} or later", OLDEST.0, OLDEST.1),
        ),
    }
}

fn clock(date: Option<&str>, now: i64) -> Finding {
    let parsed = date.and_then(|date| httpdate::parse_http_date(date).ok());
    let seconds = parsed.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let Some(seconds) = seconds.and_then(|it| i64::try_from(it.as_secs()).ok()) else {
        return Finding::warn(
            "clock",
            "the API server does not say what time it is",
            "compare clocks by hand: certificates need them",
        );
    };
    let skew = now - seconds;
    let text = format!(
        "this machine's clock is {} s {} the API server's",
        skew.abs(),
        if skew < 0 { "behind" } else { "ahead of" }
    );
    let advice = "set both by NTP: certificates are valid by the clock";
    match skew.abs() {
        skew if skew > SKEW_FAIL => Finding::fail("clock", text, advice),
        skew if skew > SKEW_WARN => Finding::warn("clock", text, advice),
        _ => Finding::ok("clock", "the API server's clock and this machine's agree"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::check::Level;

    #[test]
    fn old_api_servers_fail_and_managed_ones_are_understood() {
        let level = |major: &str, minor: &str| {
            version(&json!({"gitVersion": "v", "major": major, "minor": minor})).level
        };
        assert_eq!(level("1", "34"), Level::Ok);
        assert_eq!(level("1", "29+"), Level::Ok);
        assert_eq!(level("1", "28"), Level::Fail);
        assert_eq!(level("", ""), Level::Warn);
    }

    #[test]
    fn clocks_may_differ_by_seconds_and_not_by_minutes() {
        let date = Some("Thu, 01 Jan 1970 01:00:00 GMT");
        assert_eq!(clock(date, 3602).level, Level::Ok);
        assert_eq!(clock(date, 3580).level, Level::Warn);
        let ahead = clock(date, 3700);
        assert_eq!((ahead.level, ahead.text.contains("100 s ahead")), (Level::Fail, true), "{ahead}");
        assert_eq!(clock(None, 0).level, Level::Warn);
    }
}
