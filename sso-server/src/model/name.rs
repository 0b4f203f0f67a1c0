//! Names that compare without regard to case: one canonical form each, made in one place.

use std::fmt;

use sso_proto::Reason;
use unicode_normalization::UnicodeNormalization as _;

use crate::error::Error;

/// The canonical form under which two spellings are the same name.
pub(crate) fn canonical(text: &str) -> String {
    // Most names are, and of them nothing else changes.
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    of_any_script(text)
}

fn of_any_script(text: &str) -> String {
    text.nfkc().collect::<String>().to_lowercase().nfkc().collect()
}

/// The canonical form, refused where applying it again would give another one: such a text could
/// pass a check under one spelling and be used under the other.
pub(super) fn parse_key(kind: &str, text: &str, most: usize) -> Result<String, Error> {
    let refuse = |what: &str| {
        let shown: String = text.chars().filter(|c| !c.is_control()).take(64).collect();
        Err(Error::new(Reason::InvalidName, format!("{kind} \"{shown}\" {what}")))
    };
    if text.is_empty() {
        return Err(Error::new(Reason::InvalidName, format!("{kind} must not be empty")));
    }
    if text.chars().count() > most {
        return refuse(&format!("is longer than {most} characters"));
    }
    if text.trim() != text {
        return refuse("must not begin or end with white space");
    }
    if text.chars().any(|c| c.is_control() || (c.is_whitespace() && c != ' ') || invisible(c)) {
        return refuse("must not hold control characters, tabs or invisible characters");
    }
    let key = canonical(text);
    if key.is_empty() || canonical(&key) != key || key.trim() != key {
        return refuse("holds characters that have no stable lower-case form");
    }
    if key.chars().any(|c| c.is_control() || invisible(c)) || key.len() > 4 * most {
        return refuse("holds characters that have no stable lower-case form");
    }
    Ok(key)
}

/// Zero-width and direction-changing characters: two names that look the same would differ.
fn invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{ffff}')
}

/// A text as it was written and its canonical form, in one piece of memory.
#[derive(Clone)]
pub(super) struct Spelling {
    /// The text, and behind it the canonical form where that is another one.
    both: Box<str>,
    /// Length of the text: a boundary of characters.
    text: usize,
}

impl Spelling {
    pub(super) fn new(text: &str, key: &str) -> Self {
        if text == key {
            return Self { both: text.into(), text: text.len() };
        }
        let mut both = String::with_capacity(text.len() + key.len());
        both.push_str(text);
        both.push_str(key);
        Self { both: both.into_boxed_str(), text: text.len() }
    }

    /// Of a text whose canonical form is itself in lower case of ASCII.
    pub(super) fn lowered(text: &str) -> Self {
        if !text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Self::new(text, text);
        }
        let mut both = String::with_capacity(2 * text.len());
        both.push_str(text);
        both.push_str(text);
        if let Some(key) = both.get_mut(text.len()..) {
            key.make_ascii_lowercase();
        }
        Self { both: both.into_boxed_str(), text: text.len() }
    }

    pub(super) fn text(&self) -> &str {
        self.both.get(..self.text).unwrap_or_default()
    }

    pub(super) fn key(&self) -> &str {
        match self.both.get(self.text..) {
            Some(key) if !key.is_empty() => key,
            Some(_) | None => &self.both,
        }
    }
}

/// What every text with a canonical form has: its spelling, shown as written, equal by key.
macro_rules! canonical_text {
    ($type:ident) => {
        impl $type {
            /// As it was written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.text()
            }

            /// The canonical form: equal for all spellings.
            #[must_use]
            pub fn key(&self) -> &str {
                self.0.key()
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.key() == other.key()
            }
        }

        impl Eq for $type {}
    };
}
pub(super) use canonical_text;

/// For texts that caches keep in their two parts.
macro_rules! from_parts {
    ($type:ident) => {
        impl $type {
            /// Puts together again what was taken apart into [`Self::as_str`] and [`Self::key`];
            /// `None` for a key that is the text in lower case of ASCII.
            pub(crate) fn from_parts(text: &str, key: Option<&str>) -> Self {
                Self(key.map_or_else(|| Spelling::lowered(text), |key| Spelling::new(text, key)))
            }
        }
    };
}
pub(super) use from_parts;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $most:literal, $forbidden:expr) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $type(Spelling);

        impl $type {
            /// Parses `text`, keeping its case.
            ///
            /// # Errors
            /// `INVALID_NAME`, saying which rule the text breaks.
            pub fn parse(text: &str) -> Result<Self, Error> {
                let key = parse_key($kind, text, $most)?;
                let forbidden: &[char] = $forbidden;
                if let Some(c) = key.chars().find(|c| forbidden.contains(c)) {
                    return Err(Error::new(
                        Reason::InvalidName,
                        format!("{} \"{text}\" must not hold {c}", $kind),
                    ));
                }
                Ok(Self(Spelling::new(text, &key)))
            }
        }

        canonical_text!($type);

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }
    };
}

name! {
    /// The name of an application: 1 to 255 characters (ESSO.md 3.2). A space inside is accepted,
    /// because files of the reference product use it.
    ApplicationName, "application name", 255, &['/', '\\', '"', '\'', ';', '<', '>', '*', '?', '|']
}

name! {
    /// The identifier of a configuration: 1 to 255 characters (ESSO.md 8.1).
    Identifier, "identifier", 255, &['"', '\'', ';', '<', '>', '*', '?', '|']
}

name! {
    /// The label of a field: 1 to 128 characters (ESSO.md 3.5).
    Label, "field label", 128, &['"', '\'', ';', '<', '>', '=']
}

/// A user of another system: 1 to 256 characters, compared without regard to case (ESSO.md 4.1). Every
/// visible character may stand in it: systems differ in what they take.
#[derive(Clone)]
pub struct ExternalUser(Spelling);

impl ExternalUser {
    /// Parses `text`, keeping its case.
    ///
    /// # Errors
    /// `EXTERNAL_USER_INVALID`, saying which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let key = parse_key("external user", text, 256)
            .map_err(|error| Error::new(Reason::ExternalUserInvalid, error.message))?;
        Ok(Self(Spelling::new(text, &key)))
    }
}

canonical_text!(ExternalUser);
from_parts!(ExternalUser);
from_parts!(Identifier);

impl fmt::Debug for ExternalUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_name_are_equal() {
        let one = ApplicationName::parse("Order Routing").unwrap();
        assert_eq!(one, ApplicationName::parse("ORDER ROUTING").unwrap());
        assert_eq!(one.as_str(), "Order Routing");
        assert_eq!(
            Identifier::parse("{56D74464-67EA}").unwrap().key(),
            Identifier::parse("{56d74464-67ea}").unwrap().key()
        );
        // Full-width letters and the decomposed umlaut are the same letters.
        assert_eq!(Label::parse("Ｋｅｙ").unwrap(), Label::parse("key").unwrap());
        assert_eq!(Label::parse("u\u{308}ber").unwrap(), Label::parse("Über").unwrap());
    }

    #[test]
    fn bad_names_are_refused_with_the_rule() {
        for bad in
            ["", " a", "a ", "a\tb", "a\0b", "a\nb", "x;y", "\u{feff}a", "a\u{200b}b", "a\u{202e}b"]
        {
            let error = ApplicationName::parse(bad).unwrap_err();
            assert_eq!(error.reason, Reason::InvalidName, "{bad:?}");
        }
        assert!(ApplicationName::parse(&"n".repeat(255)).is_ok());
        assert!(ApplicationName::parse(&"n".repeat(256)).is_err());
        assert!(Label::parse(&"n".repeat(129)).is_err());
    }

    proptest! {
        #[test]
        fn the_short_way_gives_what_the_long_one_does(text in "[ -~]{0,40}|[\\x00-\\x7f]{0,40}") {
            prop_assert_eq!(canonical(&text), of_any_script(&text));
        }

        #[test]
        fn the_canonical_form_is_stable(text in "\\PC{1,40}") {
            if let Ok(name) = Identifier::parse(&text) {
                let again = Identifier::parse(name.key()).unwrap();
                prop_assert_eq!(again.key(), name.key());
            }
            if let Ok(user) = ExternalUser::parse(&text) {
                let again = ExternalUser::parse(user.key()).unwrap();
                prop_assert_eq!(again.key(), user.key());
            }
        }
    }
}
