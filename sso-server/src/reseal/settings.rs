//! Section `[reseal]`.

use serde::Deserialize;

/// How this server seals values again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResealSettings {
    /// It does so at all; another server may, either way.
    pub enabled: bool,
    /// Rows a second at the most, unless the master says otherwise; 0 = as many as the database gives.
    pub rows_per_second: u32,
    /// Rows of one transaction at the most.
    pub batch_rows: u32,
}

impl Default for ResealSettings {
    fn default() -> Self {
        Self { enabled: true, rows_per_second: 0, batch_rows: 1000 }
    }
}

impl ResealSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The key and, in words, what is wrong with its value.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let ranges = [
            ("batch_rows", self.batch_rows, 1, 5000),
            ("rows_per_second", self.rows_per_second, 0, 1_000_000),
        ];
        for (key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err((key, format!("{value} is outside its range, {least} to {most}")));
            }
        }
        Ok(())
    }
}
