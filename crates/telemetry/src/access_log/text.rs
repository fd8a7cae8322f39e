//! Istio's default text format (CONTRACTS section 9).
//!
//! Invariant: whatever a peer sends, a record is one line, and a quoted field ends where its quote ends: `"`, `\` and
//! control characters are escaped.

use std::fmt::{self, Display, Write};

use super::facts::Facts;

/// One line with its line feed.
pub(crate) fn line(facts: &Facts<'_>) -> String {
    let mut out = String::with_capacity(512);
    // Writing to a String cannot fail.
    let _ = write_line(&mut out, facts);
    out
}

fn write_line(out: &mut String, facts: &Facts<'_>) -> fmt::Result {
    write!(
        out,
        "[{}] \"{} {} {}\"",
        facts.start_time,
        text(facts.method),
        text(facts.path),
        text(facts.protocol)
    )?;
    write!(
        out,
        " {} {} {} {}",
        facts.response_code,
        facts.response_flags,
        text(facts.response_code_details),
        text(facts.connection_termination_details)
    )?;
    quoted(out, facts.upstream_transport_failure_reason)?;
    write!(out, " {} {} {}", facts.bytes_received, facts.bytes_sent, facts.duration)?;
    write!(out, " {}", text(facts.upstream_service_time.as_deref()))?;
    quoted(out, facts.x_forwarded_for)?;
    quoted(out, facts.user_agent)?;
    quoted(out, facts.request_id)?;
    quoted(out, facts.authority)?;
    write!(out, " \"{}\"", OrDash(facts.upstream_host))?;
    write!(out, " {}", text(facts.upstream_cluster))?;
    write!(
        out,
        " {} {} {}",
        OrDash(facts.upstream_local_address),
        OrDash(facts.downstream_local_address),
        OrDash(facts.downstream_remote_address)
    )?;
    writeln!(out, " {} {}", text(facts.requested_server_name), text(facts.route_name))
}

fn quoted(out: &mut String, value: Option<&str>) -> fmt::Result {
    write!(out, " \"{}\"", text(value))
}

fn text(value: Option<&str>) -> OrDash<Escaped<'_>> {
    OrDash(value.map(Escaped))
}

struct OrDash<T>(Option<T>);

impl<T: Display> Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                control if control.is_control() => write!(f, "{}", control.escape_default())?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}
