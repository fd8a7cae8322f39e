//! Decoders of single values: strings, numbers, durations, percentages, choices.
//!
//! Invariant: each either gives the value or reports why not, at the value's own place.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{Cursor, closest, schema, shorten};
use crate::codes;
use crate::yaml::Value;

/// A string.
pub(crate) fn text(value: Cursor<'_>) -> Option<String> {
    match &value.node().value {
        Value::Text(text) => Some(text.clone()),
        _ => {
            value.wrong_type("a string");
            None
        }
    }
}

/// A string that is not empty.
pub(crate) fn name(value: Cursor<'_>) -> Option<String> {
    let found = text(value.clone())?;
    if found.is_empty() {
        value.invalid("must not be empty");
        return None;
    }
    Some(found)
}

/// `true` or `false`.
pub(crate) fn boolean(value: Cursor<'_>) -> Option<bool> {
    match value.node().value {
        Value::Bool(flag) => Some(flag),
        _ => {
            value.wrong_type("true or false");
            None
        }
    }
}

/// An integer in a range.
pub(crate) fn integer<T: TryFrom<i64>>(min: i64, max: i64) -> impl Fn(Cursor<'_>) -> Option<T> {
    move |value| {
        let Value::Int(int) = value.node().value else {
            value.wrong_type("an integer");
            return None;
        };
        let fits = (min..=max).contains(&int).then(|| T::try_from(int).ok()).flatten();
        if fits.is_none() {
            value.invalid(format!("{int} is not between {min} and {max}"));
        }
        fits
    }
}

/// An unsigned integer of 32 bits.
pub(crate) fn unsigned(value: Cursor<'_>) -> Option<u32> {
    integer(0, i64::from(u32::MAX))(value)
}

/// A port, 1 to 65535.
pub(crate) fn port(value: Cursor<'_>) -> Option<u16> {
    integer(1, 65535)(value)
}

/// A number.
pub(crate) fn number(value: Cursor<'_>) -> Option<f64> {
    match value.node().value {
        Value::Int(int) => Some(int as f64),
        Value::Float(float) if float.is_finite() => Some(float),
        _ => {
            value.wrong_type("a number");
            None
        }
    }
}

/// A number from 0 to 100.
pub(crate) fn percent(value: Cursor<'_>) -> Option<f64> {
    let found = number(value.clone())?;
    if (0.0..=100.0).contains(&found) {
        return Some(found);
    }
    value.invalid(format!("{found} is not a percentage between 0 and 100"));
    None
}

/// One of the words that the API allows and we honour.
pub(crate) fn choice<T: Copy>(choices: &'static [(&'static str, T)]) -> impl Fn(Cursor<'_>) -> Option<T> {
    move |value| {
        let found = text(value.clone())?;
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == found) {
            return Some(*choice);
        }
        let known = schema::field(value.context.schema, &value.path(true));
        if known.is_some_and(|field| field.values.contains(&found.as_str())) {
            value.refuse(codes::UNSUPPORTED_VALUE, format!("{found} is not supported by this release"), None);
            return None;
        }
        let words = || choices.iter().map(|(word, _)| *word);
        let expected = match closest(&found, words()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("expected one of {}", words().collect::<Vec<_>>().join(", ")),
        };
        value.refuse(
            codes::INVALID_VALUE,
            format!("{:?} is not a value of this field", shorten(&found)),
            Some(expected),
        );
        None
    }
}

/// A duration as Istio writes it: Go's form, such as `1.5s`, `100ms`, `1h30m`.
pub(crate) fn go_duration(value: Cursor<'_>) -> Option<Duration> {
    duration(value, parse_go_duration, "expected a duration such as `1.5s`, `100ms` or `1h30m`")
}

/// A duration of the Gateway API (GEP-2257): whole numbers, such as `10s`, `1h30m`, `500ms`.
pub(crate) fn gateway_duration(value: Cursor<'_>) -> Option<Duration> {
    duration(
        value,
        parse_gateway_duration,
        "expected a duration such as `10s`, `500ms` or `1h30m` (GEP-2257)",
    )
}

fn duration(value: Cursor<'_>, parse: fn(&str) -> Option<Duration>, expected: &str) -> Option<Duration> {
    let Value::Text(found) = &value.node().value else {
        value.wrong_type("a duration such as `10s`");
        return None;
    };
    let parsed = parse(found);
    if parsed.is_none() {
        let message = format!("{:?} is not a duration", shorten(found));
        value.refuse(codes::INVALID_VALUE, message, Some(expected.to_owned()));
    }
    parsed
}

const UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Splits `12.5ms...` into whole part, fraction digits, unit in nanoseconds and rest.
fn component(text: &str) -> Option<(&str, &str, u64, &str)> {
    let whole_end = text.find(|c: char| !c.is_ascii_digit())?;
    let (whole, rest) = text.split_at(whole_end);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let nanos = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    Some((whole, fraction, nanos, rest))
}

fn parse_go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, 0_u64);
    while !rest.is_empty() || rest.len() == text.len() {
        let (whole, fraction, unit, next) = component(rest)?;
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let mut nanos = whole.checked_mul(unit)?;
        let mut scale = unit;
        for digit in fraction.bytes() {
            scale /= 10;
            nanos = nanos.checked_add(u64::from(digit - b'0') * scale)?;
        }
        total = total.checked_add(nanos)?;
        rest = next;
    }
    Some(Duration::from_nanos(total))
}

fn parse_gateway_duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total, mut parts) = (text, 0_u64, 0);
    while !rest.is_empty() {
        let (whole, fraction, unit, next) = component(rest)?;
        parts += 1;
        let allowed =
            (1..=5).contains(&whole.len()) && unit >= 1_000_000 && rest.as_bytes()[whole.len()] != b'.';
        if parts > 4 || !allowed || !fraction.is_empty() {
            return None;
        }
        total = total.checked_add(whole.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = next;
    }
    (parts > 0).then(|| Duration::from_nanos(total))
}

/// An address or a block of addresses; a lone address is a block of one.
pub(crate) fn ip_block(value: Cursor<'_>) -> Option<IpNet> {
    let found = text(value.clone())?;
    let block = found.parse::<IpNet>().ok().or_else(|| found.parse::<IpAddr>().ok().map(IpNet::from));
    if block.is_none() {
        value.invalid(format!("{:?} is not an IP address or CIDR block", shorten(&found)));
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_add_their_parts() {
        let millis = |text: &str| parse_go_duration(text).map(|duration| duration.as_micros());
        assert_eq!(millis("1.5s"), Some(1_500_000));
        assert_eq!(millis("1h30m"), Some(5_400_000_000));
        assert_eq!(millis("100ms"), Some(100_000));
        assert_eq!(millis("0s"), Some(0));
        assert_eq!(millis(".5s"), Some(500_000));
        for wrong in ["", "5", "s", "-1s", "1x", "1s ", "1.s.", "99999999999999999999s", "."] {
            assert_eq!(millis(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn gateway_durations_are_whole_numbers_of_at_most_five_digits() {
        assert_eq!(parse_gateway_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_gateway_duration("500ms"), Some(Duration::from_millis(500)));
        for wrong in ["", "1.5s", "100000s", "1us", "1", "1s1s1s1s1s", "-1s"] {
            assert_eq!(parse_gateway_duration(wrong), None, "{wrong}");
        }
    }
}
