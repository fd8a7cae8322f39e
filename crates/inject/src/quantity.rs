//! Kubernetes' resource quantities: read far enough to tell a wrong one and to compare two.

/// Value of a quantity such as `100m`, `1.5`, `64Mi`, `2G`, `1e3`.
pub(crate) fn parse(text: &str) -> Result<f64, String> {
    let wrong = || format!("`{text}` is no quantity such as `100m` or `64Mi`");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| wrong())?;
    let factor = match &text[end..] {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => f64::from(1 << 20),
        "Gi" => f64::from(1 << 30),
        "Ti" => f64::from(1 << 30) * 1024.0,
        other => {
            let power = other.strip_prefix(['e', 'E']).and_then(|power| power.parse::<i8>().ok());
            10_f64.powi(i32::from(power.filter(|power| power.abs() <= 18).ok_or_else(wrong)?))
        }
    };
    Ok(number * factor)
}

/// Why a text is no quantity, when it is none.
#[must_use]
pub fn fault(text: &str) -> Option<String> {
    parse(text).err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_compared_across_units() {
        assert!(parse("100m").unwrap() < parse("1").unwrap());
        assert!((parse("64Mi").unwrap() - 67_108_864.0).abs() < 0.5);
        assert!(parse("1Gi").unwrap() > parse("1G").unwrap());
        assert!((parse("1e3").unwrap() - parse("1k").unwrap()).abs() < 0.5);
        for text in ["", "lots", "-1", "1MB", "1 Gi", "1e99", ".", "1.2.3"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
