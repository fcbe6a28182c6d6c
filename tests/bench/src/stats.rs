//! Medians and percentiles of measurements.

/// Nanoseconds.
pub(crate) type Nanos = u64;

/// The measured values of all rounds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(Vec<Nanos>);

impl Sample {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn push(&mut self, value: Nanos) {
        self.0.push(value);
    }

    pub(crate) fn extend(&mut self, values: impl IntoIterator<Item = Nanos>) {
        self.0.extend(values);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value that `permille` thousandths do not exceed; 0 if there are none.
    pub(crate) fn percentile(&self, permille: usize) -> Nanos {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted.get(last * permille / 1000).copied().unwrap_or(0)
    }

    pub(crate) fn p50(&self) -> Nanos {
        self.percentile(500)
    }

    pub(crate) fn p99(&self) -> Nanos {
        self.percentile(990)
    }
}

/// `12,345.6` µs, with one decimal.
pub(crate) fn micros(nanos: impl TryInto<i64>) -> String {
    let nanos = nanos.try_into().unwrap_or(i64::MAX);
    let tenths = (nanos + 50).div_euclid(100);
    let sign = if tenths < 0 { "-" } else { "" };
    format!("{sign}{}.{}", tenths.abs() / 10, tenths.abs() % 10)
}
