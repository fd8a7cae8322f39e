//! Tests of the module above.

use proptest::prelude::*;

use super::*;

const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_valid_traceparent_is_kept_with_its_decision() {
    let parent = TraceParent::parse(VALID.as_bytes()).unwrap();
    let mut random = [0; 32];
    random[23] = 9;
    let context = SpanContext::begin(Some(parent), 0.0, random);
    assert_eq!(context.traceparent(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000009-01");
    assert_eq!(context.parent, Some(parent.span));
}

#[test]
fn what_the_specification_forbids_is_refused() {
    for bad in [
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
        "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
    ] {
        assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn a_later_version_is_read_by_its_first_fields() {
    for later in [
        "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes",
    ] {
        assert!(TraceParent::parse(later.as_bytes()).unwrap().sampled, "{later}");
    }
}

#[test]
fn a_rate_of_one_samples_all_and_of_zero_none() {
    for dice in [0, 1, u64::MAX / 2, u64::MAX] {
        assert!(is_sampled(1.0, dice));
        assert!(!is_sampled(0.0, dice));
    }
    assert!(is_sampled(0.5, u64::MAX / 4));
    assert!(!is_sampled(0.5, u64::MAX / 4 * 3));
}

#[test]
fn a_tracestate_is_checked_by_member() {
    for good in ["", "congo=t61rcWkgMzE", "a=1,b=2", "a=1 , 0tenant@system=x", "a=1,,b=2"] {
        assert!(is_valid_tracestate(good.as_bytes()), "{good}");
    }
    let many = (0..33).map(|index| format!("k{index}=v")).collect::<Vec<_>>().join(",");
    for bad in ["a", "A=1", "a=1,a=2", "0a=1", "a=", "a=b=c", "a@@b=1", "a=\u{7}", &many] {
        assert!(!is_valid_tracestate(bad.as_bytes()), "{bad}");
    }
}

#[test]
fn a_request_id_is_a_version_4_uuid() {
    assert_eq!(request_id([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    assert_eq!(request_id([0; 16]), "00000000-0000-4000-8000-000000000000");
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(random in any::<[u8; 32]>(), rate in 0.0..=1.0) {
        let context = SpanContext::begin(None, rate, random);
        let parsed = TraceParent::parse(context.traceparent().as_bytes()).unwrap();
        prop_assert_eq!(parsed.trace, context.trace);
        prop_assert_eq!(parsed.span, context.span);
        prop_assert_eq!(parsed.sampled, context.sampled);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>()) {
        let _ = TraceParent::parse(&bytes);
        let _ = is_valid_tracestate(&bytes);
    }

    #[test]
    fn a_changed_traceparent_is_another_or_none(index in 0..55_usize, byte in any::<u8>()) {
        let mut bytes = VALID.as_bytes().to_vec();
        bytes[index] = byte;
        if let Some(parsed) = TraceParent::parse(&bytes) {
            prop_assert!(parsed.trace.to_string().len() == 32 && parsed.span.to_string().len() == 16);
        }
    }
}
