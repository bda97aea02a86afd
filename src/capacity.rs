//! Room that many share, which can be made larger and smaller while they do.

use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};

/// So many places, or bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Capacity {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    free: Semaphore,
    /// What is in use beyond the size, since that has shrunk: what comes back is given to nobody.
    owed: AtomicUsize,
    size: watch::Sender<usize>,
    /// Held while `owed` or the size is changed.
    changing: Mutex<()>,
}

/// A share in use. Dropped, it is free again.
#[derive(Debug)]
pub struct Share {
    of: Capacity,
    amount: u32,
}

impl Capacity {
    /// Room of a size, all of it free.
    #[must_use]
    pub fn new(size: usize) -> Self {
        let inner = Inner {
            free: Semaphore::new(size),
            owed: AtomicUsize::new(0),
            size: watch::Sender::new(size),
            changing: Mutex::new(()),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Makes it larger or smaller. What is in use stays in use: until less than the new size is,
    /// nobody gets any.
    pub fn resize(&self, size: usize) {
        let inner = &*self.inner;
        let changing = self.lock();
        let old = inner.size.send_replace(size);
        if size < old {
            inner.owed.fetch_add(old - size, Ordering::Relaxed);
            self.settle(&changing);
        } else {
            self.pay(size - old, &changing);
        }
    }

    /// Takes so much, if it is free; who asks for more than there is in all takes all of it.
    #[must_use]
    pub fn try_take(&self, amount: usize) -> Option<Share> {
        let size = *self.inner.size.borrow();
        self.try_take_many(asked(amount, size))
    }

    /// Waits for so much; who asks for more than there is in all takes all of it.
    ///
    /// Whoever waits while it is resized may be overtaken by others who do. Safe to cancel.
    pub async fn take(&self, amount: usize) -> Share {
        if let Some(share) = self.try_take(amount) {
            return share;
        }
        let mut size = self.inner.size.subscribe();
        loop {
            let amount = asked(amount, *size.borrow_and_update());
            tokio::select! {
                biased;
                permit = self.inner.free.acquire_many(amount) => {
                    permit.expect("nobody closes it").forget();
                    return self.share(amount);
                }
                // It may be smaller now than what was asked for. The sender is this one's own.
                _ = size.changed() => {}
            }
        }
    }

    fn try_take_many(&self, amount: u32) -> Option<Share> {
        self.inner.free.try_acquire_many(amount).ok()?.forget();
        Some(self.share(amount))
    }

    fn share(&self, amount: u32) -> Share {
        Share {
            of: self.clone(),
            amount,
        }
    }

    fn give_back(&self, amount: usize) {
        let inner = &*self.inner;
        if inner.owed.load(Ordering::Relaxed) > 0 {
            return self.pay(amount, &self.lock());
        }
        inner.free.add_permits(amount);
        // Either this sees that something is owed since, or whoever shrinks it sees what is free.
        fence(Ordering::SeqCst);
        if inner.owed.load(Ordering::Relaxed) > 0 {
            self.settle(&self.lock());
        }
    }

    /// Pays what is owed, and frees the rest.
    fn pay(&self, amount: usize, _changing: &MutexGuard<'_, ()>) {
        let owed = self.inner.owed.load(Ordering::Relaxed);
        let paid = owed.min(amount);
        self.inner.owed.store(owed - paid, Ordering::Relaxed);
        self.inner.free.add_permits(amount - paid);
    }

    /// Pays what is owed from what is free.
    fn settle(&self, _changing: &MutexGuard<'_, ()>) {
        fence(Ordering::SeqCst);
        let owed = self.inner.owed.load(Ordering::Relaxed);
        let paid = self.inner.free.forget_permits(owed);
        self.inner.owed.store(owed - paid, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.inner
            .changing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much is taken for an amount, of a size.
fn asked(amount: usize, size: usize) -> u32 {
    u32::try_from(amount.clamp(1, size.max(1))).unwrap_or(u32::MAX)
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.give_back(self.amount as usize);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    fn places(capacity: &Capacity) -> Vec<Share> {
        std::iter::from_fn(|| capacity.try_take(1)).collect()
    }

    #[test]
    fn there_is_as_much_as_its_size_says() {
        let capacity = Capacity::new(3);
        let mut taken = places(&capacity);
        assert_eq!(taken.len(), 3);
        taken.pop();
        assert_eq!(places(&capacity).len(), 1);
    }

    #[test]
    fn a_larger_one_has_more_at_once() {
        let capacity = Capacity::new(1);
        let taken = places(&capacity);
        capacity.resize(3);
        assert_eq!(places(&capacity).len(), 2);
        drop(taken);
        assert_eq!(places(&capacity).len(), 3);
    }

    #[test]
    fn a_smaller_one_has_less_as_soon_as_it_comes_back() {
        let capacity = Capacity::new(4);
        let mut taken = places(&capacity);
        capacity.resize(2);
        taken.pop();
        taken.pop();
        assert!(capacity.try_take(1).is_none(), "two are still in use");
        taken.pop();
        assert_eq!(places(&capacity).len(), 1);
        drop(taken);
        assert_eq!(places(&capacity).len(), 2);
    }

    #[test]
    fn what_it_has_shrunk_by_comes_back_as_it_grows() {
        let capacity = Capacity::new(4);
        let taken = places(&capacity);
        capacity.resize(1);
        capacity.resize(5);
        assert_eq!(places(&capacity).len(), 1);
        drop(taken);
        assert_eq!(places(&capacity).len(), 5);
    }

    #[tokio::test]
    async fn one_who_asks_for_more_than_there_is_takes_all() {
        let capacity = Capacity::new(10);
        let all = capacity.take(100).await;
        assert!(capacity.try_take(1).is_none());
        drop(all);
        assert_eq!(places(&capacity).len(), 10);
    }

    #[tokio::test]
    async fn one_who_waits_for_more_than_is_left_after_it_has_shrunk_gets_all_of_that() {
        let capacity = Capacity::new(10);
        let first = capacity.take(5).await;
        let mut waiting = pin!(capacity.take(8));
        assert!((&mut waiting).now_or_never().is_none());
        capacity.resize(6);
        assert!((&mut waiting).now_or_never().is_none());
        drop(first);
        let second = waiting.await;
        assert!(capacity.try_take(1).is_none());
        drop(second);
        assert_eq!(places(&capacity).len(), 6);
    }

    #[test]
    fn whoever_takes_while_it_is_resized_the_size_is_right_in_the_end() {
        let capacity = Capacity::new(8);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let (first, _second) = (capacity.try_take(1), capacity.try_take(1));
                        drop(first);
                    }
                });
            }
            scope.spawn(|| {
                for round in 0..20_000 {
                    capacity.resize(1 + round % 8);
                }
                capacity.resize(5);
            });
        });
        assert_eq!(places(&capacity).len(), 5);
    }
}
