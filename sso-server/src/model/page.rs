//! Pages of long lists: how many are wanted, and after which one.

use std::fmt::Write as _;

use sso_proto::Reason;

use crate::error::Error;

const DEFAULT: u32 = 100;
const MOST: u32 = 1000;
/// Characters; the longest is of a mapping: name, account and id, in two digits a byte.
const LONGEST_TOKEN: usize = 8192;

/// Which page of a list is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// How many entries at most, 1 to 1000.
    pub size: u32,
    /// The last entry of the page before; `None` = from the start.
    pub after: Option<String>,
}

/// One page, and where the next one starts.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The entries, in the order of the list.
    pub entries: Vec<T>,
    /// The last entry, where there may be more behind it.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The token for the page behind this one of the list named `list`; empty at the end. Opaque to
    /// clients.
    #[must_use]
    pub fn next_token(&self, list: &str) -> String {
        self.next.as_deref().map_or_else(String::new, |after| token(list, after))
    }
}

impl PageRequest {
    /// Reads size and token of a request for the list named `list`.
    ///
    /// # Errors
    /// `OUT_OF_RANGE` for the size, `INVALID_PAGE_TOKEN` for a token of another list.
    pub fn parse(list: &str, size: u32, token: &str) -> Result<Self, Error> {
        let size = if size == 0 { DEFAULT } else { size };
        if size > MOST {
            let message = format!("page_size is {size}; it must be 1 to {MOST}");
            return Err(Error::new(Reason::OutOfRange, message));
        }
        let after =
            if token.is_empty() { None } else { Some(read(list, token).ok_or_else(refused)?) };
        Ok(Self { size, after })
    }
}

/// The token that makes [`PageRequest::parse`] go on behind `after`.
fn token(list: &str, after: &str) -> String {
    format!("{list}\0{after}").bytes().fold(String::new(), |mut token, byte| {
        // Writing to a String cannot fail.
        let _ = write!(token, "{byte:02x}");
        token
    })
}

fn read(list: &str, token: &str) -> Option<String> {
    let digits = token.as_bytes();
    if token.len() > LONGEST_TOKEN || !token.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for pair in digits.chunks_exact(2) {
        let &[high, low] = pair else { return None };
        bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
    }
    let text = String::from_utf8(bytes).ok()?;
    let (of, after) = text.split_once('\0')?;
    (of == list).then(|| after.to_owned())
}

fn refused() -> Error {
    Error::new(
        Reason::InvalidPageToken,
        "the page token was not issued for this list; begin again without one",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tokens_survive(after in "\\PC{0,40}") {
            let token = token("applications", &after);
            let page = PageRequest::parse("applications", 0, &token).unwrap();
            prop_assert_eq!(page, PageRequest { size: 100, after: Some(after) });
        }

        #[test]
        fn reading_never_panics(token in "\\PC{0,40}") {
            let _ = PageRequest::parse("audit", 1, &token);
        }
    }

    #[test]
    fn the_longest_place_has_a_token() {
        // Canonical name and account of four bytes a character, and an id.
        let after =
            format!("{}\n{}\n{}", "\u{10400}".repeat(255), "\u{10400}".repeat(255), "0".repeat(36));
        let token = token("mappings", &after);
        assert_eq!(PageRequest::parse("mappings", 0, &token).unwrap().after, Some(after));
    }

    #[test]
    fn a_token_of_another_list_is_refused() {
        let token = token("audit", "x");
        let error = PageRequest::parse("applications", 0, &token).unwrap_err();
        assert_eq!(error.reason, Reason::InvalidPageToken);
        assert_eq!(PageRequest::parse("audit", 1001, "").unwrap_err().reason, Reason::OutOfRange);
    }
}
