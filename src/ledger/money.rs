//! Exact money: USD as whole numbers of 1e-12, so that sums of many small charges are what was charged.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// USD, in units of 1e-12: a price of 0.000001 USD per million tokens is one unit a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(i128);

/// Decimals of the unit.
const DECIMALS: usize = 12;
const UNITS: u128 = 1_000_000_000_000;

impl Money {
    pub const ZERO: Self = Self(0);

    /// `units` of 1e-12 USD.
    pub const fn from_pico(units: i128) -> Self {
        Self(units)
    }

    /// In units of 1e-12 USD.
    pub const fn pico(self) -> i128 {
        self.0
    }

    /// What `Display` writes. None: it is no such text.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || part.len() > DECIMALS || !is_digits(whole) || !is_digits(part) {
            return None;
        }
        let units: i128 = format!("{whole}{part:0<DECIMALS$}").parse().ok()?;
        Some(Self(if negative { -units } else { units }))
    }
}

// Saturating: 1e26 USD is out of reach, and a bill must not panic.
impl Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Money {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

/// Plain decimal text without an exponent and without trailing zeros.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        let whole = units / UNITS;
        let part = format!("{:0DECIMALS$}", units % UNITS);
        match part.trim_end_matches('0') {
            "" => write!(f, "{sign}{whole}"),
            part => write!(f, "{sign}{whole}.{part}"),
        }
    }
}

/// As text: a JSON number would become a float in most readers.
impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(format!("no amount of money: {text}")))
    }
}
