//! Which failures are tried again, and when.

use std::time::{Duration, SystemTime};

use farthing::upstream::retry::{Verdict, judge, pause};
use http::{HeaderMap, HeaderName, HeaderValue};

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    pairs.iter().map(pair).collect()
}

#[test]
fn statuses() {
    let none = HeaderMap::new();
    for status in 100..600 {
        let retried = judge(status, &none, SystemTime::now()) == Verdict::Retry(None);
        assert_eq!(retried, matches!(status, 408 | 409 | 429) || status >= 500, "{status}");
    }
}

#[test]
fn the_server_decides() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let wait = |milliseconds| Verdict::Retry(Some(Duration::from_millis(milliseconds)));
    type Case = (u16, &'static [(&'static str, &'static str)], Verdict);
    let cases: &[Case] = &[
        (400, &[("x-should-retry", "true")], Verdict::Retry(None)),
        (500, &[("x-should-retry", "false")], Verdict::Final),
        (500, &[("x-should-retry", "perhaps")], Verdict::Retry(None)),
        (429, &[("retry-after", "3")], wait(3000)),
        (429, &[("retry-after", "0.5")], wait(500)),
        (429, &[("retry-after-ms", "20"), ("retry-after", "3")], wait(20)),
        (429, &[("retry-after-ms", "x"), ("retry-after", "3")], wait(3000)),
        (429, &[("retry-after", "Sun, 09 Sep 2001 01:46:45 GMT")], wait(5000)),
        (429, &[("retry-after", "Sun, 09 Sep 2001 01:46:30 GMT")], Verdict::Retry(None)),
        (429, &[("retry-after", "120")], wait(120_000)),
        (429, &[("retry-after", "121")], Verdict::Final),
        (429, &[("retry-after", "1e300")], Verdict::Final),
        (429, &[("retry-after", "-1")], Verdict::Retry(None)),
        (429, &[("retry-after", "NaN")], Verdict::Retry(None)),
        (429, &[("retry-after", "soon")], Verdict::Retry(None)),
        (200, &[("retry-after", "3")], Verdict::Final),
    ];
    for (status, pairs, expected) in cases {
        assert_eq!(judge(*status, &headers(pairs), now), *expected, "{status} {pairs:?}");
    }
}

#[test]
fn pauses_grow_to_a_bound() {
    for (retry, most) in [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 8.0), (1000, 8.0), (u32::MAX, 8.0)] {
        assert_eq!(pause(retry, 0.0), Duration::from_secs_f64(most));
        assert_eq!(pause(retry, 1.0), Duration::from_secs_f64(most * 0.75));
    }
}
