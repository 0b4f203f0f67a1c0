//! Places for handshakes: so many at once, and nobody who stalls keeps one while others wait.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// A handshake that takes longer has to go when its place is wanted: peers that do their part are done
/// long before.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked for one that has to go.
const LOOK: Duration = Duration::from_millis(50);

/// The places.
#[derive(Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    taken: Arc<Mutex<Taken>>,
}

/// Who has a place, in the order of coming.
#[derive(Debug, Default)]
struct Taken {
    next: u64,
    by: BTreeMap<u64, Seated>,
}

#[derive(Debug)]
struct Seated {
    since: Instant,
    from: Option<IpAddr>,
    wanted: CancellationToken,
}

/// One place; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    wanted: CancellationToken,
    taken: Arc<Mutex<Taken>>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(crate) fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), taken: Arc::default() }
    }

    /// Waits for a place, and asks who has had one for too long to go.
    ///
    /// `from`: the address of who will have it.
    pub(crate) async fn take(&self, from: Option<IpAddr>) -> Place {
        loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                return self.sit_down(permit, from);
            }
            self.ask_to_go();
            let free = Arc::clone(&self.free).acquire_owned();
            if let Ok(Ok(permit)) = tokio::time::timeout(LOOK, free).await {
                return self.sit_down(permit, from);
            }
        }
    }

    fn sit_down(&self, permit: OwnedSemaphorePermit, from: Option<IpAddr>) -> Place {
        let wanted = CancellationToken::new();
        let mut taken = lock(&self.taken);
        let number = taken.next;
        taken.next += 1;
        let seated = Seated { since: Instant::now(), from, wanted: wanted.clone() };
        taken.by.insert(number, seated);
        drop(taken);
        Place { number, wanted, taken: Arc::clone(&self.taken), _permit: permit }
    }

    /// Of the address with the most places, so that nobody drives others out, who came first: nobody has
    /// been there longer.
    fn ask_to_go(&self) {
        let taken = lock(&self.taken);
        let staying = || taken.by.values().filter(|seated| !seated.wanted.is_cancelled());
        let count = |from| staying().filter(|seated| seated.from == from).count();
        let Some(most) = staying().map(|seated| seated.from).max_by_key(|from| count(*from)) else {
            return;
        };
        let first = staying().find(|seated| seated.from == most);
        if let Some(first) = first.filter(|first| first.since.elapsed() >= PATIENCE) {
            first.wanted.cancel();
        }
    }
}

impl Place {
    /// Ends when the place is wanted for others.
    pub(crate) async fn is_wanted(&self) {
        self.wanted.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.taken).by.remove(&self.number);
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_stalls_goes_when_others_wait() {
        let places = Places::new(2);
        let (first, second) = (places.take(None).await, places.take(None).await);
        tokio::time::sleep(PATIENCE * 3).await;
        // Nobody waits, nobody has to go.
        assert!(!first.wanted.is_cancelled() && !second.wanted.is_cancelled());
        let leaving = tokio::spawn(async move {
            first.is_wanted().await;
        });
        let third = places.take(None).await;
        leaving.await.unwrap();
        assert!(!second.wanted.is_cancelled() && !third.wanted.is_cancelled());
        drop((second, third));
        assert!(lock(&places.taken).by.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_does_not_drive_another_out() {
        let places = Places::new(3);
        let one = |last: u8| Some(IpAddr::from([10, 0, 0, last]));
        let quiet = places.take(one(1)).await;
        let (first, second) = (places.take(one(2)).await, places.take(one(2)).await);
        tokio::time::sleep(PATIENCE * 2).await;
        let leaving = tokio::spawn(async move {
            first.is_wanted().await;
        });
        let _third = places.take(one(2)).await;
        leaving.await.unwrap();
        assert!(!quiet.wanted.is_cancelled() && !second.wanted.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_just_come_stays() {
        let places = Places::new(1);
        let first = places.take(None).await;
        let began = Instant::now();
        let leaving = tokio::spawn(async move {
            first.is_wanted().await;
            began.elapsed()
        });
        drop(places.take(None).await);
        assert!(leaving.await.unwrap() >= PATIENCE);
    }
}
