//! Durations as Go and protobuf write them.

use std::time::Duration;

/// Longest duration that is believed: a day.
const LONGEST: f64 = 24.0 * 3600.0;

/// Reads `45s`, `1.5s`, `500ms`, `1m30s`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration such as `45s`");
    let mut rest = text.trim();
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let units = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| at + digits);
        seconds += number
            * match &rest[digits..units] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return Err(wrong()),
            };
        rest = &rest[units..];
    }
    if seconds > LONGEST {
        return Err(format!("`{text}` is longer than a day"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Writes whole seconds as `45s`, anything else as milliseconds.
pub(crate) fn write(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_and_protobuf_write_them() {
        for (text, millis) in [("45s", 45_000), ("1.5s", 1500), ("500ms", 500), ("1m30s", 90_000), ("0s", 0)]
        {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "45", "s", "-1s", "1x", "1s2", "25h", "1..2s"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(write(Duration::from_millis(1500)), "1500ms");
        assert_eq!(write(Duration::from_secs(90)), "90s");
    }
}
