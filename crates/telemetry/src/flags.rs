//! Response flags: why a response is not simply the application's, in the letters Envoy uses.
//!
//! Invariant: the text of a set lists its letters in Envoy's order, joined by commas, and is `-` when it is empty.

use std::fmt;

/// A set of response flags.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ResponseFlags(u32);

macro_rules! flags {
    ($($bit:literal $name:ident $letters:literal $meaning:literal;)*) => {
        impl ResponseFlags {
            $(#[doc = concat!("`", $letters, "`: ", $meaning, ".")]
            pub const $name: Self = Self(1 << $bit);)*
        }
        const LETTERS: &[(ResponseFlags, &str)] = &[$((ResponseFlags::$name, $letters)),*];
    };
}

flags! {
    0 FAILED_LOCAL_HEALTH_CHECK "LH" "the local service failed its health check";
    1 NO_HEALTHY_UPSTREAM "UH" "no healthy endpoint";
    2 UPSTREAM_REQUEST_TIMEOUT "UT" "the upstream did not answer in time";
    3 LOCAL_RESET "LR" "reset by this proxy";
    4 UPSTREAM_REMOTE_RESET "UR" "reset by the upstream";
    5 UPSTREAM_CONNECTION_FAILURE "UF" "the connection to the upstream failed";
    6 UPSTREAM_CONNECTION_TERMINATION "UC" "the upstream closed the connection";
    7 UPSTREAM_OVERFLOW "UO" "a connection or request limit was reached";
    8 NO_ROUTE "NR" "no route";
    9 DELAY_INJECTED "DI" "a fault rule delayed it";
    10 FAULT_INJECTED "FI" "a fault rule aborted it";
    11 RATE_LIMITED "RL" "rate limited";
    12 UNAUTHORIZED_EXTERNAL "UAEX" "refused by an external authorizer";
    13 RATE_LIMIT_SERVICE_ERROR "RLSE" "the rate limit service failed";
    14 DOWNSTREAM_CONNECTION_TERMINATION "DC" "the client closed the connection";
    15 UPSTREAM_RETRY_LIMIT "URX" "the retry limit was reached";
    16 STREAM_IDLE_TIMEOUT "SI" "the stream was idle for too long";
    17 INVALID_HEADERS "IH" "a strictly checked header was invalid";
    18 DOWNSTREAM_PROTOCOL_ERROR "DPE" "the client broke the protocol";
    19 UPSTREAM_MAX_STREAM_DURATION "UMSDR" "the upstream's stream lasted too long";
    20 NO_FILTER_CONFIG_FOUND "NFCF" "configuration did not arrive in time";
    21 DURATION_TIMEOUT "DT" "the request or connection exceeded its longest duration";
    22 UPSTREAM_PROTOCOL_ERROR "UPE" "the upstream broke the protocol";
    23 NO_CLUSTER "NC" "the route's service does not exist";
    24 OVERLOAD "OM" "refused by overload protection";
    25 DNS_FAILURE "DF" "a name did not resolve";
    26 DROP_OVERLOAD "DO" "dropped by a drop policy";
    27 DOWNSTREAM_REMOTE_RESET "DR" "reset by the client";
    28 UNCONDITIONAL_DROP_OVERLOAD "UDO" "every request is dropped by a drop policy";
}

impl ResponseFlags {
    /// No flag.
    pub const NONE: Self = Self(0);

    /// Both sets' flags.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Adds flags.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether none is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (flag, letters) in LETTERS {
            if self.contains(*flag) {
                f.write_str(separator)?;
                f.write_str(letters)?;
                separator = ",";
            }
        }
        if self.is_empty() { f.write_str("-") } else { Ok(()) }
    }
}

impl fmt::Debug for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_written_as_envoy_writes_them() {
        assert_eq!(ResponseFlags::NONE.to_string(), "-");
        let both = ResponseFlags::UPSTREAM_RETRY_LIMIT.with(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
        assert_eq!(both.to_string(), "UF,URX");
    }

    #[test]
    fn every_flag_has_its_own_bit_and_letters() {
        for (index, (flag, letters)) in LETTERS.iter().enumerate() {
            let others = || LETTERS.iter().skip(index + 1);
            assert!(others().all(|(other, text)| !flag.contains(*other) && letters != text), "{letters}");
        }
    }
}
