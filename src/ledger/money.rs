//! Exact money: USD as whole numbers of 1e-12, so that sums of many small charges are what was charged.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};

use serde::{Serialize, Serializer};

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
