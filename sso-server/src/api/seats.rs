//! How much of this server one account may take at once, so that no account takes all of it; and how much
//! all of them may.
//!
//! Only who waits takes something: a request that is answered at once never has company.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::model::Account;

/// Counts what each account has in work.
#[derive(Debug)]
pub(super) struct Seats {
    most: usize,
    taken: Mutex<HashMap<String, usize>>,
}

/// One seat; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    key: String,
}

impl Seats {
    /// So many for each account.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// A seat for the account; `None` while it has all of its.
    pub(super) fn take(self: &Arc<Self>, account: &Account) -> Option<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(account.key().to_owned()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Seat { seats: Arc::clone(self), key: account.key().to_owned() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

/// Counts what all have in work.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: AtomicUsize,
}

/// One place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Places>);

impl Places {
    /// So many for everybody together.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: AtomicUsize::new(0) })
    }

    /// A place; `None` while there is none left.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let place = Place(Arc::clone(self));
        // Given back at once where it is one too many.
        (self.taken.fetch_add(1, Ordering::Relaxed) < self.most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_places_as_there_are() {
        let places = Places::new(2);
        let (first, second) = (places.take().unwrap(), places.take());
        assert!(second.is_some() && places.take().is_none() && places.take().is_none());
        drop(first);
        assert!(places.take().is_some());
        drop(second);
        assert_eq!(places.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn no_account_takes_the_seats_of_another() {
        let seats = Seats::new(2);
        let [ann, also_ann, bo] = ["D\\ann", "d\\ANN", "D\\bo"].map(|a| Account::parse(a).unwrap());
        let (first, second) = (seats.take(&ann).unwrap(), seats.take(&also_ann).unwrap());
        assert!(seats.take(&ann).is_none());
        assert!(seats.take(&bo).is_some());
        drop(first);
        let third = seats.take(&ann).unwrap();
        drop((second, third));
        assert!(seats.taken.lock().unwrap().is_empty(), "nothing is kept of who is gone");
    }
}
