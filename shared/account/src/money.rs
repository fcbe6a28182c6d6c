//! Credits and dollars, as whole numbers of a small unit.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::decimal::{self, DecimalError, Excess};

const CREDIT_SCALE: u32 = 6;
const USD_SCALE: u32 = 18;
/// Atto-dollars × credits per dollar ÷ this = micro-credits.
const ATTO_TO_MICRO: u128 = 1_000_000_000_000;

/// An amount of Greta credits, in whole micro-credits (1 credit = 1,000,000). Ledger entries that
/// take credits are negative. On the wire it is a decimal string, for example `"12.5"`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Credits(i64);

impl Credits {
    pub const ZERO: Self = Self(0);
    pub const MICRO: Self = Self(1);

    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub const fn micros(self) -> i64 {
        self.0
    }

    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    pub fn checked_neg(self) -> Option<Self> {
        self.0.checked_neg().map(Self)
    }

    pub fn is_negative(self) -> bool {
        self.0 < 0
    }
}

impl std::str::FromStr for Credits {
    type Err = DecimalError;

    /// Parses a plain amount, with an optional minus.
    fn from_str(text: &str) -> Result<Self, DecimalError> {
        if !decimal::is_plain(text.strip_prefix('-').unwrap_or(text)) {
            return Err(DecimalError::NotADecimal);
        }
        let (negative, micros) = decimal::parse(text, CREDIT_SCALE, Excess::Refuse)?;
        let micros = u64::try_from(micros).map_err(|_| DecimalError::OutOfRange)?;
        let signed = if negative {
            0_i64.checked_sub_unsigned(micros)
        } else {
            0_i64.checked_add_unsigned(micros)
        };
        signed.map(Self).ok_or(DecimalError::OutOfRange)
    }
}

impl TryFrom<String> for Credits {
    type Error = DecimalError;
    fn try_from(text: String) -> Result<Self, DecimalError> {
        text.parse()
    }
}

impl From<Credits> for String {
    fn from(credits: Credits) -> Self {
        credits.to_string()
    }
}

impl fmt::Display for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = decimal::format(self.0 < 0, u128::from(self.0.unsigned_abs()), CREDIT_SCALE);
        f.write_str(&text)
    }
}

/// Atto-dollars in a cent.
const ATTO_TO_CENT: u128 = 10_u128.pow(16);

/// A price or a cost in US dollars, in whole atto-dollars (10^-18), rounded up; never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Usd(u128);

impl Usd {
    pub const ZERO: Self = Self(0);

    /// Parses a caller's amount: digits with an optional fraction.
    pub fn from_amount(text: &str) -> Result<Self, DecimalError> {
        if decimal::is_plain(text) { text.parse() } else { Err(DecimalError::NotADecimal) }
    }

    pub const fn from_attos(attos: u128) -> Self {
        Self(attos)
    }

    pub fn from_cents(cents: u64) -> Self {
        Self(u128::from(cents).saturating_mul(ATTO_TO_CENT))
    }

    pub fn times(self, count: u64) -> Option<Self> {
        self.0.checked_mul(u128::from(count)).map(Self)
    }

    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The amount in cents; `None` if that is not a whole number, or too large.
    pub fn whole_cents(self) -> Option<u64> {
        let cents = self.0.checked_div(ATTO_TO_CENT)?;
        let is_whole = self.0.checked_rem(ATTO_TO_CENT) == Some(0);
        u64::try_from(cents).ok().filter(|_| is_whole)
    }

    /// The amount in credits, rounded up to a micro-credit; `None` if it is too large.
    pub fn in_credits(self, rate: CreditsPerUsd) -> Option<Credits> {
        let micros = self.0.checked_mul(u128::from(rate.get()))?.div_ceil(ATTO_TO_MICRO);
        i64::try_from(micros).ok().map(Credits)
    }

    /// Number of units at this price that `credits` cover in addition to `fixed`. `None`: free.
    pub(crate) fn affordable(
        self,
        credits: Credits,
        fixed: Self,
        rate: CreditsPerUsd,
    ) -> Option<u64> {
        if self.is_zero() {
            return None;
        }
        let micros = u128::try_from(credits.0).unwrap_or(0);
        // Maximum number of atto-dollars whose rounded-up credits are within `micros`.
        let budget =
            micros.saturating_mul(ATTO_TO_MICRO).checked_div(u128::from(rate.get())).unwrap_or(0);
        let left = budget.saturating_sub(fixed.0);
        let units = left.checked_div(self.0).unwrap_or(0);
        Some(u64::try_from(units).unwrap_or(u64::MAX))
    }
}

impl std::str::FromStr for Usd {
    type Err = DecimalError;

    /// Reads a JSON number's text, exponent allowed; digits below 10^-18 are rounded up.
    fn from_str(text: &str) -> Result<Self, DecimalError> {
        match decimal::parse(text, USD_SCALE, Excess::RoundUp)? {
            (true, _) => Err(DecimalError::Negative),
            (false, attos) => Ok(Self(attos)),
        }
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&decimal::format(false, self.0, USD_SCALE))
    }
}

/// The number of credits for one US dollar (`CREDITS_PER_USD`).
pub type CreditsPerUsd = NonZeroU32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEN: CreditsPerUsd = CreditsPerUsd::new(10).unwrap();

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    #[test]
    fn cents_are_whole() {
        let table = [
            ("5", Some(500)),
            ("12.34", Some(1_234)),
            ("12.340", Some(1_234)),
            ("0.001", None),
            ("1e1", Some(1_000)),
            ("0", Some(0)),
        ];
        for (usd, cents) in table {
            assert_eq!(usd.parse::<Usd>().unwrap().whole_cents(), cents, "{usd}");
        }
    }

    #[test]
    fn dollars_become_credits_rounded_up() {
        let table = [
            ("0", 0),
            ("1", 10_000_000),
            ("0.0000001", 1),
            ("0.00000010000000001", 2),
            ("0.000014250000000000001", 143),
            ("1e-18", 1),
        ];
        for (text, micros) in table {
            assert_eq!(usd(text).in_credits(TEN), Some(Credits::from_micros(micros)), "{text}");
        }
    }

    #[test]
    fn amounts_of_callers_have_no_exponent() {
        for text in ["1e2", "1E-2", "+5", "5."] {
            assert_eq!(Usd::from_amount(text), Err(DecimalError::NotADecimal), "{text}");
            assert_eq!(text.parse::<Credits>(), Err(DecimalError::NotADecimal), "{text}");
        }
        assert_eq!(Usd::from_amount("-5"), Err(DecimalError::NotADecimal));
        assert_eq!("-5".parse(), Ok(Credits::from_micros(-5_000_000)));
        assert_eq!(Usd::from_amount("12.5"), Ok(usd("12.5")));
    }

    #[test]
    fn a_negative_price_is_refused() {
        assert_eq!("-1".parse::<Usd>(), Err(DecimalError::Negative));
    }

    #[test]
    fn the_smallest_and_the_largest_amounts_survive_the_wire() {
        for (micros, text) in
            [(i64::MAX, "9223372036854.775807"), (i64::MIN, "-9223372036854.775808")]
        {
            let credits = Credits::from_micros(micros);
            assert_eq!(credits.to_string(), text);
            assert_eq!(text.parse(), Ok(credits));
        }
        for text in ["9223372036854.775808", "-9223372036854.775809"] {
            assert_eq!(text.parse::<Credits>(), Err(DecimalError::OutOfRange));
        }
    }

    proptest! {
        #[test]
        fn credits_survive_the_wire(micros in any::<i64>()) {
            let credits = Credits::from_micros(micros);
            prop_assert_eq!(credits.to_string().parse(), Ok(credits));
        }

        /// The affordable units are paid within the credits, and one more is not.
        #[test]
        fn affordable_is_exact(
            credits in 0_i64..10_000_000,
            price in 1_u128..1_000_000_000_000_000,
            fixed in 0_u128..1_000_000_000_000_000,
            rate in 1_u32..1000,
        ) {
            let (price, fixed, rate) = (Usd(price), Usd(fixed), CreditsPerUsd::new(rate).unwrap());
            let units = price.affordable(Credits(credits), fixed, rate).unwrap();
            let cost = |units: u64| {
                price.times(units).unwrap().checked_add(fixed).unwrap().in_credits(rate).unwrap()
            };
            if units > 0 {
                prop_assert!(cost(units) <= Credits(credits));
            }
            prop_assert!(cost(units + 1) > Credits(credits));
        }
    }
}
