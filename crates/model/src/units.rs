//! Numbers with their units in the type.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// A TCP port. 0 is never a port of a service.
pub type Port = u16;

/// A duration in whole milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// As a [`Duration`].
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl From<Duration> for Millis {
    /// Rounds up, so that a timeout of 0.5 ms is not "none".
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms >= 1000 && ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

/// A relative weight. Only its share of the sum matters; 0 gets nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Weight(pub u32);

/// A share of requests in parts per million, so that `0.0001 %` is exact. Never above [`Percent::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Percent(u32);

impl Percent {
    /// No request.
    pub const NONE: Self = Self(0);
    /// Every request.
    pub const ALL: Self = Self(1_000_000);

    /// From a percentage, clamped to 0..=100.
    pub fn from_percent(percent: f64) -> Self {
        Self((percent.clamp(0.0, 100.0) * 10_000.0).round() as u32)
    }

    /// From parts per million, clamped.
    pub fn from_parts_per_million(parts: u32) -> Self {
        Self(parts.min(Self::ALL.0))
    }

    /// In parts per million.
    pub const fn parts_per_million(self) -> u32 {
        self.0
    }

    /// Whether a roll that is uniform in 0..1,000,000 falls within this share.
    pub const fn hit(self, roll: u32) -> bool {
        roll < self.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 10_000.0)
    }
}

/// A generation of the compiled world; means something within one control plane's process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_hits_exactly_its_parts() {
        let half = Percent::from_percent(50.0);
        assert!(half.hit(499_999));
        assert!(!half.hit(500_000));
        assert!(Percent::ALL.hit(999_999));
        assert!(!Percent::NONE.hit(0));
    }

    #[test]
    fn a_sub_millisecond_timeout_does_not_become_none() {
        assert_eq!(Millis::from(Duration::from_micros(1)), Millis(1));
        assert_eq!(Millis(3000).to_string(), "3s");
    }
}
