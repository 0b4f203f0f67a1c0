//! Bills, and the numbers they are paid under: what both systems mean by them.

use std::{fmt, str::FromStr};

use rand::TryRng as _;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Largest amount in minor units: ten million of a currency with cents.
const AMOUNT_MAX: u64 = 1_000_000_000;
const NUMBER_MAX: usize = 40;
const TEXT_MAX: usize = 140;
/// Digits of a payment number, the check digit included.
const DIGITS: usize = 12;

/// Names one bill between the two systems: chosen by the sender before it sends anything, and the same
/// at every repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BillKey(Uuid);

impl BillKey {
    /// A key that nobody else has.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for BillKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for BillKey {
    type Err = BillError;

    fn from_str(text: &str) -> Result<Self, BillError> {
        Uuid::try_parse(text).map(Self).map_err(|_| BillError::Key)
    }
}

/// What is to be paid, by whom and for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bill {
    /// The number of it at whoever hands it in, such as that of the policy.
    pub number: String,
    /// In the smallest unit of the currency: 12990 is EUR 129.90.
    pub amount_minor: u64,
    /// Three capital letters, such as `EUR`.
    pub currency: String,
    /// Who pays.
    pub payer: String,
    /// What for.
    #[serde(default)]
    pub purpose: String,
}

/// Why something is no bill, or no number of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BillError {
    /// Not the fields of a bill.
    #[error("this is not a bill: {0}")]
    Form(String),
    /// The number has other characters, none or too many.
    #[error("number: write 1 to 40 letters, digits, '.', '-', '_' or '/'")]
    Number,
    /// Nothing to pay, or too much.
    #[error("amount_minor: write 1 to 1000000000, in the smallest unit of the currency")]
    Amount,
    /// Not a currency.
    #[error("currency: write three capital letters, such as EUR")]
    Currency,
    /// A text is missing, too long or has control characters.
    #[error("{0}: write up to 140 characters without control characters")]
    Text(&'static str),
    /// Not a key of a bill.
    #[error("the key of a bill is a UUID")]
    Key,
    /// Not a payment number, or one with a slip of the pen in it.
    #[error("a payment number has 12 digits, of which the last one checks the others")]
    PaymentNumber,
}

impl Bill {
    /// Reads a bill from JSON and checks it.
    ///
    /// # Errors
    /// Names the field and what it has to be.
    pub fn parse(json: &[u8]) -> Result<Self, BillError> {
        let bill: Self =
            serde_json::from_slice(json).map_err(|error| BillError::Form(error.to_string()))?;
        bill.check()?;
        Ok(bill)
    }

    fn check(&self) -> Result<(), BillError> {
        let number = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if self.number.is_empty()
            || self.number.len() > NUMBER_MAX
            || !self.number.chars().all(number)
        {
            return Err(BillError::Number);
        }
        if !(1..=AMOUNT_MAX).contains(&self.amount_minor) {
            return Err(BillError::Amount);
        }
        if self.currency.len() != 3 || !self.currency.bytes().all(|b| b.is_ascii_uppercase()) {
            return Err(BillError::Currency);
        }
        let sound =
            |text: &str| text.chars().count() <= TEXT_MAX && !text.chars().any(char::is_control);
        if self.payer.trim().is_empty() || !sound(&self.payer) {
            return Err(BillError::Text("payer"));
        }
        if !sound(&self.purpose) {
            return Err(BillError::Text("purpose"));
        }
        Ok(())
    }

    /// The bill as it is sent and stored.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A struct of texts and a number has no value that JSON lacks.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What a customer types in at the bank: 12 digits, of which the last one checks the others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PaymentNumber(String);

impl PaymentNumber {
    /// A number that cannot be guessed from others. Whether it is free is for the store to say.
    ///
    /// # Errors
    /// The operating system gives no random numbers.
    pub fn generate() -> std::io::Result<Self> {
        let mut digits = String::with_capacity(DIGITS);
        while digits.len() < DIGITS - 1 {
            let mut random = [0_u8; 16];
            rand::rngs::SysRng.try_fill_bytes(&mut random).map_err(std::io::Error::other)?;
            // 250 is a multiple of 10: every digit is as likely as the others.
            let fresh = random.iter().filter(|byte| **byte < 250).map(|byte| byte % 10);
            let room = DIGITS - 1 - digits.len();
            digits.extend(fresh.take(room).map(|digit| char::from(b'0' + digit)));
        }
        digits.push(char::from(b'0' + check_digit(&digits)));
        Ok(Self(digits))
    }

    /// The 12 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// By Luhn's formula: finds every wrong digit and almost every pair that changed places.
fn check_digit(digits: &str) -> u8 {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, byte)| {
            let digit = u32::from(byte - b'0');
            match place % 2 {
                0 if digit > 4 => 2 * digit - 9,
                0 => 2 * digit,
                _ => digit,
            }
        })
        .sum();
    u8::try_from((10 - sum % 10) % 10).unwrap_or_default()
}

impl FromStr for PaymentNumber {
    type Err = BillError;

    fn from_str(text: &str) -> Result<Self, BillError> {
        let digits: String = text.chars().filter(|c| *c != ' ').collect();
        let sound = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
        match digits.split_at_checked(DIGITS - 1) {
            Some((body, last)) if sound && last == check_digit(body).to_string() => {
                Ok(Self(digits))
            }
            _ => Err(BillError::PaymentNumber),
        }
    }
}

impl TryFrom<String> for PaymentNumber {
    type Error = BillError;

    fn try_from(text: String) -> Result<Self, BillError> {
        text.parse()
    }
}

impl From<PaymentNumber> for String {
    fn from(number: PaymentNumber) -> Self {
        number.0
    }
}

impl fmt::Display for PaymentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bill() -> Bill {
        Bill {
            number: "POL-2031/117".into(),
            amount_minor: 12_990,
            currency: "EUR".into(),
            payer: "Ann Example".into(),
            purpose: "Car insurance".into(),
        }
    }

    #[test]
    fn a_bill_is_read_as_it_is_written() {
        assert_eq!(Bill::parse(bill().to_json().as_bytes()), Ok(bill()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |edit: &dyn Fn(&mut Bill)| {
            let mut bill = bill();
            edit(&mut bill);
            Bill::parse(bill.to_json().as_bytes()).unwrap_err()
        };
        assert_eq!(refused(&|bill| bill.number.clear()), BillError::Number);
        assert_eq!(refused(&|bill| bill.number = "a b".into()), BillError::Number);
        assert_eq!(refused(&|bill| bill.number = "9".repeat(41)), BillError::Number);
        assert_eq!(refused(&|bill| bill.amount_minor = 0), BillError::Amount);
        assert_eq!(refused(&|bill| bill.amount_minor = AMOUNT_MAX + 1), BillError::Amount);
        assert_eq!(refused(&|bill| bill.currency = "eur".into()), BillError::Currency);
        assert_eq!(refused(&|bill| bill.payer = " ".into()), BillError::Text("payer"));
        assert_eq!(refused(&|bill| bill.purpose = "a\nb".into()), BillError::Text("purpose"));
        for form in ["", "[]", "{}", r#"{"number":"1","extra":2}"#] {
            let error = Bill::parse(form.as_bytes()).unwrap_err();
            assert!(matches!(error, BillError::Form(_)), "{form}: {error}");
        }
    }

    #[test]
    fn the_check_digit_is_that_of_the_formula() {
        // The example of ISO/IEC 7812-1, with zeros in front.
        assert_eq!(check_digit("1789372997"), 4);
        assert_eq!("017893729974".parse::<PaymentNumber>().unwrap().as_str(), "017893729974");
    }

    proptest! {
        #[test]
        fn garbage_is_no_bill_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Bill::parse(&bytes).is_err());
        }

        #[test]
        fn every_bill_that_is_taken_survives_the_wire(
            number in "[A-Za-z0-9._/-]{1,40}", amount_minor in 1..=AMOUNT_MAX,
            currency in "[A-Z]{3}", payer in "[^\\p{C}\\s][^\\p{C}]{0,99}", purpose in "[^\\p{C}]{0,100}",
        ) {
            let bill = Bill { number, amount_minor, currency, payer, purpose };
            prop_assert_eq!(Bill::parse(bill.to_json().as_bytes()), Ok(bill));
        }

        #[test]
        fn one_wrong_digit_is_seen(place in 0..DIGITS, change in 1..10_u8) {
            let number = PaymentNumber::generate().unwrap();
            prop_assert_eq!(&number.as_str().parse::<PaymentNumber>().unwrap(), &number);
            let mut digits = number.as_str().as_bytes().to_vec();
            digits[place] = b'0' + (digits[place] - b'0' + change) % 10;
            let wrong = String::from_utf8(digits).unwrap();
            prop_assert_eq!(wrong.parse::<PaymentNumber>(), Err(BillError::PaymentNumber));
        }

        #[test]
        fn no_text_panics_as_a_number(text in ".{0,16}") {
            let _ = text.parse::<PaymentNumber>();
            let _ = text.parse::<BillKey>();
        }
    }
}
