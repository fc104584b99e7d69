//! What a verb holds of objects that others may remove, for as long as no record says so.
//!
//! A create uses an image and volumes before its container can be seen. It *holds* each by name first and then looks
//! whether the object is there; a removal looks, under the lock of the object's own table, whether anybody holds it.
//! Whichever comes first wins whole: the removal is refused as for any user, or the create finds nothing and makes a new
//! volume, or says that there is no such image. Holds go with the guard, on success (the record says it now) and on
//! failure alike.
//!
//! **Order.** image → volume → network → container. Who holds a kind asks only for later ones; a debug build stops at a
//! verb that does otherwise. A hold never waits, so the order is for those who wait inside the tables' own locks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What can be held, in the order in which it may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Image,
    Volume,
}

/// The holders of each object, by its kind and name.
type Holders = HashMap<(Kind, String), Vec<String>>;

/// All holds of one engine.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    holders: Arc<Mutex<Holders>>,
}

/// What one verb holds; dropping it lets go.
#[derive(Debug)]
pub(crate) struct Held {
    holders: Arc<Mutex<Holders>>,
    /// The container that is being made.
    holder: String,
    held: Vec<(Kind, String)>,
}

/// A holder that panics leaves a whole table: each change is a single step.
fn lock(holders: &Mutex<Holders>) -> MutexGuard<'_, Holders> {
    holders.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reservations {
    /// Begins to hold things for the container `holder`.
    pub(crate) fn begin(&self, holder: &str) -> Held {
        Held {
            holders: self.holders.clone(),
            holder: holder.to_owned(),
            held: Vec::new(),
        }
    }

    /// Returns the ids of the containers in the making that hold the object.
    pub(crate) fn holders(&self, kind: Kind, name: &str) -> Vec<String> {
        lock(&self.holders)
            .get(&(kind, name.to_owned()))
            .cloned()
            .unwrap_or_default()
    }
}

impl Held {
    /// Holds one more object. Whether it exists is looked up afterwards: until then it may go.
    pub(crate) fn hold(&mut self, kind: Kind, name: &str) {
        debug_assert!(
            self.held.last().is_none_or(|(last, _)| *last <= kind),
            "{kind:?} `{name}` is asked for after {:?}",
            self.held.last()
        );
        let object = (kind, name.to_owned());
        if self.held.contains(&object) {
            return;
        }
        lock(&self.holders)
            .entry(object.clone())
            .or_default()
            .push(self.holder.clone());
        self.held.push(object);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut holders = lock(&self.holders);
        for object in self.held.drain(..) {
            if let Some(all) = holders.get_mut(&object) {
                all.retain(|holder| *holder != self.holder);
                if all.is_empty() {
                    holders.remove(&object);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_lasts_as_long_as_its_guard() {
        let all = Reservations::default();
        let (mut first, mut second) = (all.begin("one"), all.begin("two"));
        first.hold(Kind::Volume, "data");
        first.hold(Kind::Volume, "data");
        second.hold(Kind::Volume, "data");
        assert_eq!(all.holders(Kind::Volume, "data"), ["one", "two"]);
        assert!(all.holders(Kind::Image, "data").is_empty());
        drop(first);
        assert_eq!(all.holders(Kind::Volume, "data"), ["two"]);
        drop(second);
        assert!(lock(&all.holders).is_empty());
    }

    #[test]
    #[should_panic(expected = "is asked for after")]
    fn an_image_is_not_asked_for_after_a_volume() {
        let all = Reservations::default();
        let mut held = all.begin("one");
        held.hold(Kind::Volume, "data");
        held.hold(Kind::Image, "sha256:1");
    }
}
