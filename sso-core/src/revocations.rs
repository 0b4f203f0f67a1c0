//! Which SSO servers lost their right to the master secret.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How far ahead of what is known here somebody's word may be. Nobody revokes so often, and a number at
/// the end of its range could never be followed by another.
const AHEAD_MAX: u32 = 1000;

/// By name of a server, how often its right was revoked or given back: odd = it is revoked. Of two
/// numbers the higher one is the later word, so that whoever has not heard of a revocation, such as a
/// master that was cut off or restored, does not undo it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revocations(BTreeMap<String, u32>);

impl Revocations {
    /// Whether the right of a server is revoked.
    #[must_use]
    pub fn is_revoked(&self, server: &str) -> bool {
        self.0.get(server).is_some_and(|number| number % 2 == 1)
    }

    /// The servers whose right is revoked.
    pub fn revoked(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, number)| *number % 2 == 1).map(|(server, _)| server.as_str())
    }

    /// Every server that was ever revoked, with its number.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.0.iter().map(|(server, number)| (server.as_str(), *number))
    }

    /// Revokes the right of a server; whether it had it.
    pub fn revoke(&mut self, server: &str) -> bool {
        let had = !self.is_revoked(server);
        if had {
            self.raise(server, 1);
        }
        had
    }

    /// Gives a server its right back, above whatever somebody else may have said meanwhile; whether it was
    /// revoked as far as is known here.
    pub fn readmit(&mut self, server: &str) -> bool {
        let was = self.is_revoked(server);
        self.raise(server, if was { 1 } else { 2 });
        was
    }

    /// Takes over every later word; whether there was one.
    pub fn take(&mut self, told: &Self) -> bool {
        self.take_if(told, |_| true)
    }

    /// Takes over revocations that are not known here, and never that a right was given back: for words
    /// of somebody who may revoke but not readmit.
    pub fn take_revoked(&mut self, told: &Self) -> bool {
        self.take_if(told, |number| number % 2 == 1)
    }

    fn take_if(&mut self, told: &Self, accept: impl Fn(u32) -> bool) -> bool {
        let mut news = false;
        for (server, number) in told.iter() {
            let known = self.0.get(server).copied().unwrap_or(0);
            if number > known && number - known <= AHEAD_MAX && accept(number) {
                let _ = self.0.insert(server.to_owned(), number);
                news = true;
            }
        }
        news
    }

    fn raise(&mut self, server: &str, by: u32) {
        let number = self.0.entry(server.to_owned()).or_default();
        *number = number.saturating_add(by);
    }
}

impl FromIterator<(String, u32)> for Revocations {
    fn from_iter<T: IntoIterator<Item = (String, u32)>>(numbers: T) -> Self {
        Self(numbers.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(numbers: &[(&str, u32)]) -> Revocations {
        numbers.iter().map(|(server, number)| ((*server).to_owned(), *number)).collect()
    }

    #[test]
    fn a_right_is_revoked_and_given_back() {
        let mut known = Revocations::default();
        assert!(!known.is_revoked("a"));
        assert!(known.revoke("a") && !known.revoke("a") && known.is_revoked("a"));
        assert_eq!(known.revoked().collect::<Vec<_>>(), ["a"]);
        assert!(known.readmit("a") && !known.is_revoked("a"));
        assert!(known.revoke("a"));
        assert_eq!(known, of(&[("a", 3)]));
    }

    #[test]
    fn who_has_not_heard_of_a_revocation_does_not_undo_it() {
        let mut database = of(&[("a", 1), ("b", 3)]);
        // A master that was cut off before: it never heard of a, and gave b back long ago.
        assert!(!database.take(&of(&[("b", 2)])));
        assert!(database.is_revoked("a") && database.is_revoked("b"));
        // There somebody gives a back on purpose.
        let mut promoted = of(&[("b", 2)]);
        assert!(!promoted.readmit("a"));
        assert!(database.take(&promoted));
        assert!(!database.is_revoked("a") && database.is_revoked("b"));
    }

    #[test]
    fn a_server_can_revoke_but_neither_readmit_nor_use_up_the_numbers() {
        let mut known = of(&[("a", 1), ("b", 2)]);
        assert!(!known.take_revoked(&of(&[("a", 2)])));
        assert!(!known.take_revoked(&of(&[("b", u32::MAX)])));
        assert!(known.take_revoked(&of(&[("b", 3), ("c", 1)])));
        assert_eq!(known.revoked().collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    proptest! {
        #[test]
        fn in_whatever_order_words_come_the_same_is_known(
            words in prop::collection::vec(("[ab]", 0_u32..6), 0..12),
        ) {
            let (mut one, mut other) = (Revocations::default(), Revocations::default());
            for (server, number) in &words {
                let _ = one.take(&of(&[(server, *number)]));
            }
            for (server, number) in words.iter().rev() {
                let _ = other.take(&of(&[(server, *number)]));
            }
            prop_assert_eq!(
                one.iter().filter(|it| it.1 > 0).collect::<Vec<_>>(),
                other.iter().filter(|it| it.1 > 0).collect::<Vec<_>>()
            );
        }
    }
}
