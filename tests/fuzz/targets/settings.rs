//! A settings request's body, and an amount of money.
//!
//! Properties: a body is accepted exactly if it is an object of allowed fields, none repeated and
//! none `null`; a refusal names a problem that the body has, and reveals none of its values. An
//! amount means what its digits say, by a second reading of them, or it is refused for a reason; it
//! survives being written and read.

#![no_main]

use account::{Credits, CreditsPerUsd, DecimalError, Usd};
use edge::{ApiError, Code, Fields};
use fuzz::Members;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

/// The fields of settings requests: the switches, a key, a purchase.
const ALLOWED: [&[&str]; 3] = [&["enabled", "always_use_key"], &["key"], &["usd"]];

fuzz_target!(|data: &[u8]| {
    for allowed in ALLOWED {
        fields(data, allowed);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        amounts(text.trim_end_matches('\n'));
    }
    if let Some(bytes) = data.first_chunk() {
        credits_survive(Credits::from_micros(i64::from_le_bytes(*bytes)));
        let cents = u64::from_le_bytes(*bytes);
        assert_eq!(Usd::from_cents(cents).whole_cents(), Some(cents));
    }
    if let Some(bytes) = data.first_chunk() {
        usd_survives(Usd::from_attos(u128::from_le_bytes(*bytes)));
    }
});

fn fields(body: &[u8], allowed: &[&'static str]) {
    let read = Fields::parse(body, allowed);
    let members = serde_json::from_slice::<Members<Value>>(body);
    let members = match (&read, members) {
        (Ok(_), members) => members.expect("what is taken is an object").0,
        (Err(error), Ok(members)) => return refused(error, members.0, allowed),
        (Err(error), Err(_)) => {
            let codes: &[Code] = match serde_json::from_slice::<Value>(body) {
                Ok(_) => &[Code::InvalidRequest],
                // If the first byte does not begin an object, the code need not check that it is
                // JSON.
                Err(_) => &[Code::InvalidJson, Code::InvalidRequest],
            };
            assert!(codes.contains(&error.code()), "{error}");
            return;
        }
    };
    assert_eq!(problems(&members, allowed), []);
    let Ok(read) = read else { return };
    for name in allowed {
        let value = members.iter().find(|(other, _)| other == name);
        let value = value.map(|(_, value)| value);
        match (read.optional_bool(name), value) {
            (Ok(read), value) => assert_eq!(read, value.and_then(Value::as_bool)),
            (Err(error), value) => {
                assert!(value.is_some_and(|value| !value.is_boolean()));
                assert_eq!(error.code(), Code::InvalidRequest);
            }
        }
        match (read.required_string(name), value) {
            (Ok(read), value) => assert_eq!(Some(read), value.and_then(Value::as_str)),
            (Err(error), value) => {
                assert!(value.is_none_or(|value| !value.is_string()));
                assert_eq!(error.code(), Code::InvalidRequest);
            }
        }
    }
}

/// All problems of an object.
fn problems(members: &[(String, Value)], allowed: &[&str]) -> Vec<Code> {
    let mut problems = Vec::new();
    for (at, (name, value)) in members.iter().enumerate() {
        if !allowed.contains(&name.as_str()) {
            problems.push(Code::UnknownField);
        } else if value.is_null() || members[..at].iter().any(|(other, _)| other == name) {
            problems.push(Code::InvalidRequest);
        }
    }
    if members.is_empty() {
        problems.push(Code::InvalidRequest);
    }
    problems
}

fn refused(error: &ApiError, members: Vec<(String, Value)>, allowed: &[&'static str]) {
    assert!(problems(&members, allowed).contains(&error.code()), "{error}");
    // Other values, and other names that do not look like names, would not change the message.
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let others = members.into_iter().map(|(name, value)| {
        let like_a_name = name.len() <= 40 && name.bytes().all(letter);
        let name = if like_a_name { name } else { "?".to_owned() };
        let value = if value.is_null() { value } else { json!(7) };
        format!("{}:{value}", Value::from(name))
    });
    let others = format!("{{{}}}", others.collect::<Vec<_>>().join(","));
    let other = Fields::parse(others.as_bytes(), allowed);
    let other = other.err().expect("the same problems");
    assert_eq!((error.code(), error.detail()), (other.code(), other.detail()));
}

fn amounts(text: &str) {
    let read = Decimal::read(text);
    match text.parse::<Credits>() {
        Ok(credits) => {
            let decimal = read.as_ref().expect("an amount is a decimal");
            let (units, is_exact) = decimal.shifted(6).expect("an amount can be counted");
            assert!(is_exact, "{text} has more than six decimals");
            assert_eq!(u128::from(credits.micros().unsigned_abs()), units);
            assert!(credits == Credits::ZERO || credits.is_negative() == decimal.negative);
            credits_survive(credits);
        }
        Err(error) => assert_reason(error, text, 6),
    }
    match text.parse::<Usd>() {
        Ok(usd) => {
            let decimal = read.as_ref().expect("an amount is a decimal");
            let (units, is_exact) = decimal.shifted(18).expect("an amount can be counted");
            let units = units + u128::from(!is_exact);
            assert_eq!(usd, Usd::from_attos(units));
            assert!(units == 0 || !decimal.negative);
            usd_survives(usd);
            in_credits(usd, units);
            if let Some(cents) = usd.whole_cents() {
                assert_eq!(Usd::from_cents(cents), usd);
            }
        }
        Err(error) => assert_reason(error, text, 18),
    }
}

fn assert_reason(error: DecimalError, text: &str, scale: i64) {
    let read = Decimal::read(text);
    let is_so = match (error, &read) {
        (DecimalError::NotADecimal, read) => read.is_none(),
        (_, None) => false,
        (DecimalError::Negative, Some(decimal)) => decimal.negative && !decimal.digits.is_empty(),
        (DecimalError::TooManyDecimals, Some(decimal)) => {
            decimal.shifted(scale).is_some_and(|(_, is_exact)| !is_exact)
        }
        (DecimalError::OutOfRange, Some(decimal)) => {
            let most = if scale == 6 {
                // One more below zero than above.
                u128::from(i64::MAX.unsigned_abs()) + u128::from(decimal.negative)
            } else {
                u128::MAX
            };
            let units = decimal.shifted(scale).map(|(units, _)| units);
            // This many digits are refused whatever they are.
            decimal.digits.len() > 38 || units.is_none_or(|units| units > most)
        }
    };
    assert!(is_so, "{text} was refused: {error}");
}

fn in_credits(usd: Usd, attos: u128) {
    for rate in [1, 10, u32::MAX] {
        let Some(rate) = CreditsPerUsd::new(rate) else {
            continue;
        };
        let Some(exact) = attos.checked_mul(rate.get().into()) else {
            assert_eq!(usd.in_credits(rate), None);
            continue;
        };
        let micros = usd.in_credits(rate).map(Credits::micros);
        let micros = micros.map(|micros| u128::try_from(micros).expect("not negative"));
        // A micro-credit is 10^12 of these.
        let unit = 1_000_000_000_000;
        match micros {
            Some(micros) => assert!(micros * unit >= exact && micros * unit < exact + unit),
            None => assert!(exact > u128::from(i64::MAX.unsigned_abs()) * unit),
        }
    }
}

fn credits_survive(credits: Credits) {
    assert_eq!(credits.to_string().parse(), Ok(credits));
    let json = serde_json::to_string(&credits).expect("an amount as JSON");
    assert_eq!(serde_json::from_str::<Credits>(&json).ok(), Some(credits));
}

fn usd_survives(usd: Usd) {
    assert_eq!(usd.to_string().parse(), Ok(usd));
}

/// A decimal: its digits without leading zeros, and how many of them precede the point.
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    point: i64,
}

impl Decimal {
    /// A JSON number's text; leading zeros are allowed, and exponents that Rust parses as an `i32`.
    fn read(text: &str) -> Option<Self> {
        let negative = text.starts_with('-');
        let text = text.strip_prefix('-').unwrap_or(text);
        let end = text.find(['e', 'E']).unwrap_or(text.len());
        let (mantissa, exponent) = text.split_at(end);
        let exponent: i32 = match exponent.get(1..) {
            Some(exponent) => exponent.parse().ok()?,
            None => 0,
        };
        let (whole, fraction) = match mantissa.find('.') {
            Some(at) => (&mantissa[..at], Some(&mantissa[at + 1..])),
            None => (mantissa, None),
        };
        if whole.is_empty() || fraction == Some("") {
            return None;
        }
        let digits = [whole, fraction.unwrap_or_default()].concat();
        if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let zeros = digits.len() - digits.trim_start_matches('0').len();
        let point = i64::try_from(whole.len()).ok()? + i64::from(exponent);
        Some(Self {
            negative,
            point: point - i64::try_from(zeros).ok()?,
            digits: digits[zeros..].into(),
        })
    }

    /// The whole number of units of `10^-scale`, and whether it is exact. `None` if it needs more
    /// than 128 bits.
    fn shifted(&self, scale: i64) -> Option<(u128, bool)> {
        if self.digits.is_empty() {
            return Some((0, true));
        }
        let places = self.point + scale;
        let Ok(places) = usize::try_from(places) else {
            return Some((0, false));
        };
        // 39 digits can exceed 128 bits.
        if places > 39 {
            return None;
        }
        let digit = |place: usize| self.digits.get(place).copied().unwrap_or(b'0');
        let whole: String = (0..places).map(digit).map(char::from).collect();
        let rest = self.digits.get(places..).unwrap_or_default();
        let units = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        Some((units, rest.iter().all(|digit| *digit == b'0')))
    }
}
