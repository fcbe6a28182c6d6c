//! Exact decimals, read from and written as text.

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    #[error("an amount is a decimal number, for example 12.5")]
    NotADecimal,
    #[error("an amount of this size cannot be counted")]
    OutOfRange,
    #[error("an amount has at most 6 decimals")]
    TooManyDecimals,
    #[error("an amount is not negative here")]
    Negative,
}

/// The treatment of digits beyond the unit's scale.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    Refuse,
    RoundUp,
}

/// Reads a JSON number's text (sign, fraction and exponent allowed) as a whole number of units of
/// `10^-scale`: the sign, and the magnitude.
pub(crate) fn parse(text: &str, scale: u32, excess: Excess) -> Result<(bool, u128), DecimalError> {
    use DecimalError::{NotADecimal, OutOfRange, TooManyDecimals};
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| NotADecimal)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let dangling = mantissa.ends_with('.');
    if whole.is_empty() || dangling || !digits(whole) || !digits(fraction) {
        return Err(NotADecimal);
    }
    let units: u128 = format!("{whole}{fraction}").parse().map_err(|_| OutOfRange)?;
    if units == 0 {
        return Ok((false, 0));
    }
    // units × 10^(exponent − fraction digits) is the number; shift it by `scale` more.
    let fraction_digits = i64::try_from(fraction.len()).map_err(|_| OutOfRange)?;
    let shift = i64::from(exponent).saturating_sub(fraction_digits);
    let shift = shift.saturating_add(i64::from(scale));
    let power = u32::try_from(shift.unsigned_abs()).unwrap_or(u32::MAX);
    let factor = 10_u128.checked_pow(power);
    let scaled = if shift >= 0 {
        factor.and_then(|factor| units.checked_mul(factor)).ok_or(OutOfRange)?
    } else {
        // A divisor beyond u128 exceeds all units: less than one unit is left.
        let divisor = factor.unwrap_or(u128::MAX);
        let rest = match factor {
            Some(divisor) => units.checked_rem(divisor).unwrap_or(0),
            None => units,
        };
        match excess {
            Excess::Refuse if rest != 0 => return Err(TooManyDecimals),
            Excess::Refuse => units.checked_div(divisor).unwrap_or(0),
            Excess::RoundUp => units.div_ceil(divisor),
        }
    };
    Ok((negative, scaled))
}

/// Whether `text` is a plain amount, `^\d+(\.\d+)?$`: no sign, no exponent.
pub(crate) fn is_plain(text: &str) -> bool {
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    is_digits(whole) && is_digits(fraction)
}

/// Writes `units` of `10^-scale` as a decimal without trailing zeros.
pub(crate) fn format(negative: bool, units: u128, scale: u32) -> String {
    let unit = 10_u128.checked_pow(scale).unwrap_or(1);
    let whole = units.checked_div(unit).unwrap_or(0);
    let fraction = units.checked_rem(unit).unwrap_or(0);
    let sign = if negative && units != 0 { "-" } else { "" };
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let width = usize::try_from(scale).unwrap_or(0);
    let padded = format!("{fraction:0width$}");
    format!("{sign}{whole}.{}", padded.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_json_numbers_exactly() {
        let table = [
            ("0", 6, Ok((false, 0))),
            ("-0.0", 6, Ok((false, 0))),
            ("1", 6, Ok((false, 1_000_000))),
            ("-1.5", 6, Ok((true, 1_500_000))),
            ("1e3", 0, Ok((false, 1_000))),
            ("1.425e-05", 18, Ok((false, 14_250_000_000_000))),
            ("0.00000015", 18, Ok((false, 150_000_000_000))),
            ("1E+2", 0, Ok((false, 100))),
            ("", 6, Err(DecimalError::NotADecimal)),
            (".5", 6, Err(DecimalError::NotADecimal)),
            ("5.", 6, Err(DecimalError::NotADecimal)),
            ("1,5", 6, Err(DecimalError::NotADecimal)),
            ("NaN", 6, Err(DecimalError::NotADecimal)),
            ("--1", 6, Err(DecimalError::NotADecimal)),
            ("1e999", 6, Err(DecimalError::OutOfRange)),
            ("1e-999999999999", 6, Err(DecimalError::NotADecimal)),
            ("0.0000001", 6, Err(DecimalError::TooManyDecimals)),
        ];
        for (text, scale, expected) in table {
            assert_eq!(parse(text, scale, Excess::Refuse), expected, "{text}");
        }
    }

    /// The maximum number of digits, each of them below the unit.
    #[test]
    fn the_most_digits_are_less_than_one_unit() {
        let text = format!("{}e-50", u128::MAX);
        assert_eq!(parse(&text, 6, Excess::Refuse), Err(DecimalError::TooManyDecimals));
        assert_eq!(parse(&text, 6, Excess::RoundUp), Ok((false, 1)));
    }

    #[test]
    fn an_amount_on_the_wire_has_no_sign_and_no_exponent() {
        for plain in ["0", "5", "05", "12.34", "0.000001", "1000.00"] {
            assert!(is_plain(plain), "{plain}");
        }
        let others =
            ["", ".", "5.", ".5", "1.2.3", "-1", "+1", "1e2", "1E2", " 1", "1,0", "\u{0661}"];
        for other in others {
            assert!(!is_plain(other), "{other}");
        }
    }

    #[test]
    fn rounds_up_digits_below_the_unit() {
        assert_eq!(parse("0.0000001", 6, Excess::RoundUp), Ok((false, 1)));
        assert_eq!(parse("1e-300", 18, Excess::RoundUp), Ok((false, 1)));
        assert_eq!(parse("2.0000000", 6, Excess::RoundUp), Ok((false, 2_000_000)));
    }

    #[test]
    fn writes_without_trailing_zeros() {
        assert_eq!(format(false, 50_000_000, 6), "50");
        assert_eq!(format(false, 142, 6), "0.000142");
        assert_eq!(format(true, 1_500_000, 6), "-1.5");
        assert_eq!(format(true, 0, 6), "0");
    }
}
