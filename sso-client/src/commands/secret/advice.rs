//! Advice about passwords. A few rules that catch what is tried first; whether a password is good no
//! rule can tell.

use sso_client::SecretText;
use zeroize::Zeroizing;

use crate::output::Output;

/// Fewer characters than these should be more.
const GOOD_LENGTH: usize = 12;
/// Words of a reminder that are shorter say nothing.
const WORD: usize = 4;

/// What most collections of stolen passwords begin with, and what stands near this product.
const COMMON: &[&str] = &[
    "password",
    "passwort",
    "kennwort",
    "123456",
    "654321",
    "qwerty",
    "qwertz",
    "asdfgh",
    "letmein",
    "welcome",
    "admin",
    "root",
    "secret",
    "geheim",
    "changeme",
    "default",
    "iloveyou",
    "monkey",
    "dragon",
    "football",
    "sunshine",
    "master",
    "login",
    "abc123",
    "biztalk",
    "enterprise",
    "backup",
    "sommer",
    "summer",
    "winter",
    "spring",
    "autumn",
];

/// What is weak about a password; empty when nothing was found.
pub(in crate::commands) fn weaknesses(password: &SecretText, reminder: &str) -> Vec<&'static str> {
    // Expose: to look at its letters, in buffers that wipe themselves.
    let text = password.expose();
    let lower = Zeroizing::new(text.to_lowercase());
    let mut found = Vec::new();
    if text.chars().count() < GOOD_LENGTH {
        found.push("it has fewer than 12 characters");
    }
    let kinds: [fn(char) -> bool; 4] =
        [char::is_lowercase, char::is_uppercase, char::is_numeric, |letter| {
            !letter.is_alphanumeric()
        }];
    let long = text.chars().count() >= 2 * GOOD_LENGTH;
    if !long && kinds.iter().filter(|is_kind| text.chars().any(is_kind)).count() < 2 {
        found.push("it has one kind of characters");
    }
    if COMMON.iter().any(|word| lower.contains(word)) {
        found.push("it contains a word that is tried first");
    }
    if is_monotonous(text) {
        found.push("its characters repeat or follow one another");
    }
    let words = reminder.split(|letter: char| !letter.is_alphanumeric());
    let in_reminder =
        |word: &str| word.chars().count() >= WORD && lower.contains(&word.to_lowercase());
    if words.into_iter().any(in_reminder) {
        found.push("it contains a word of the reminder, which everybody who has the file can read");
    }
    found
}

/// Whether most characters are the same as, or neighbours of, the one before.
fn is_monotonous(text: &str) -> bool {
    let (mut steps, mut short) = (0_usize, 0_usize);
    for (one, next) in text.chars().zip(text.chars().skip(1)) {
        steps += 1;
        short += usize::from(u32::from(one).abs_diff(u32::from(next)) <= 1);
    }
    steps > 0 && short * 2 > steps
}

/// Warns about a weak password; it is used all the same.
pub(super) fn warn_about(password: &SecretText, reminder: &str, output: &Output) {
    let found = weaknesses(password, reminder);
    if !found.is_empty() {
        output.warn(
            None,
            &format!("the password is weak: {}; it is used all the same", found.join(", ")),
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(password: &str, reminder: &str) -> String {
        weaknesses(&SecretText::new(password.to_owned()), reminder).join("; ")
    }

    #[test]
    fn weak_passwords_are_told_why() {
        for (password, reminder, why) in [
            ("Ab1-xyR", "", "fewer than 12"),
            ("kvwpzmxqtrgh", "", "one kind"),
            ("My-Password-2031!", "", "tried first"),
            ("aaaaaaaaaaaa-1", "", "repeat"),
            ("abcdefghijklm1", "", "follow one another"),
            ("the-Mill-of-77-Oaks", "what stands by the mill?", "reminder"),
        ] {
            let found = of(password, reminder);
            assert!(found.contains(why), "{password}: {found}");
            assert!(!found.contains(password), "{found}");
        }
    }

    #[test]
    fn good_ones_pass() {
        for password in ["tall-Horse 4 staple?", "correct horse battery staple", "k7#Vq92!mXz_w"] {
            assert_eq!(of(password, "as always, on the card"), "", "{password}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(password in ".{0,40}", reminder in ".{0,40}") {
            let _ = of(&password, &reminder);
        }
    }
}
