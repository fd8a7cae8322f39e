//! What the mesh itself cost a request (PAINS F1): time by step, and the sum a hop reports to the other.
//!
//! Invariant: only time this proxy added counts, from when its runtime learned that bytes are there; waiting for the
//! upstream and setting up new connections do not.
//! Must not know: clocks. Callers give nanoseconds.

/// The request and response header that carries a hop's total, in microseconds. Stripped at every edge.
pub const OVERHEAD_HEADER: &str = "x-leno-overhead";

/// More than this is not a measurement but garbage (or a lie): a minute, in microseconds.
const MOST_BELIEVABLE_MICROS: u64 = 60_000_000;

/// A step of the data path whose time is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Step {
    /// Waiting for the runtime to run us.
    Queue,
    /// Reading and parsing heads.
    Parse,
    /// Choosing the route.
    Route,
    /// Policies.
    Policy,
    /// Choosing an endpoint and a pooled connection.
    Balance,
    /// Encryption and decryption, with the socket's reads and writes below them.
    Tls,
    /// Encoding and writing.
    Write,
}

impl Step {
    /// All steps in the order a request passes them.
    pub const ALL: [Self; 7] =
        [Self::Queue, Self::Parse, Self::Route, Self::Policy, Self::Balance, Self::Tls, Self::Write];

    /// The value of the `step` label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Parse => "parse",
            Self::Route => "route",
            Self::Policy => "policy",
            Self::Balance => "balance",
            Self::Tls => "tls",
            Self::Write => "write",
        }
    }
}

/// The time one hop added to one request, by step, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Overhead {
    nanos: [u64; Step::ALL.len()],
}

impl Overhead {
    /// Adds time to a step.
    pub fn add(&mut self, step: Step, nanos: u64) {
        let slot = &mut self.nanos[step as usize];
        *slot = slot.saturating_add(nanos);
    }

    /// The nanoseconds of a step.
    pub const fn of(&self, step: Step) -> u64 {
        self.nanos[step as usize]
    }

    /// The nanoseconds of all steps.
    pub fn total(&self) -> u64 {
        self.nanos.iter().fold(0, |sum, nanos| sum.saturating_add(*nanos))
    }

    /// All steps with their nanoseconds.
    pub fn steps(&self) -> impl Iterator<Item = (Step, u64)> {
        Step::ALL.into_iter().zip(self.nanos)
    }

    /// The total as [`OVERHEAD_HEADER`] carries it: whole microseconds, rounded.
    pub fn header_value(&self) -> u64 {
        (self.total().saturating_add(500) / 1000).min(MOST_BELIEVABLE_MICROS)
    }
}

/// The microseconds in a hop header; `None` for anything that is not a believable number.
pub fn parse_header_value(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 8 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let micros = value.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    (micros <= MOST_BELIEVABLE_MICROS).then_some(micros)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn time_accumulates_by_step() {
        let mut overhead = Overhead::default();
        overhead.add(Step::Policy, 1_000);
        overhead.add(Step::Policy, 500);
        overhead.add(Step::Write, 2_000);
        assert_eq!(overhead.of(Step::Policy), 1_500);
        assert_eq!(overhead.total(), 3_500);
        assert_eq!(overhead.header_value(), 4);
    }

    #[test]
    fn garbage_in_the_hop_header_is_no_measurement() {
        for value in ["", "-1", "1.5", "12 ", "abc", "999999999", "60000001", "\u{663}"] {
            assert_eq!(parse_header_value(value.as_bytes()), None, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn a_hop_header_survives_the_hop(nanos in any::<u64>()) {
            let mut overhead = Overhead::default();
            overhead.add(Step::Parse, nanos);
            let micros = overhead.header_value();
            prop_assert_eq!(parse_header_value(micros.to_string().as_bytes()), Some(micros));
        }

        #[test]
        fn no_bytes_make_the_hop_header_panic(bytes in any::<Vec<u8>>()) {
            let _ = parse_header_value(&bytes);
        }
    }
}
