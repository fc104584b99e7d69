//! What epoll's numbers stand for: slots with generations, so that an event for something closed a moment ago in the
//! same round finds nothing instead of its successor.

/// A slot's number and generation, with one free bit for the side of a pair: fits epoll's 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// Gives the number for epoll; `side` is 0 or 1.
    pub fn token(self, side: u8) -> u64 {
        u64::from(self.generation) << 33 | u64::from(self.index) << 1 | u64::from(side & 1)
    }

    /// Reads a number of epoll's.
    pub fn from_token(token: u64) -> (Self, u8) {
        let key = Self {
            index: (token >> 1) as u32,
            generation: (token >> 33) as u32,
        };
        (key, (token & 1) as u8)
    }
}

/// Generations wrap at 31 bits, which is what a token has room for.
const GENERATION_MASK: u32 = 0x7fff_ffff;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    thing: Option<T>,
}

#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// Reserves a slot; `put` fills it, `remove` gives it back.
    pub fn reserve(&mut self) -> Key {
        if let Some(index) = self.free.pop() {
            return Key {
                index,
                generation: self.slots[index as usize].generation,
            };
        }
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 descriptors");
        self.slots.push(Slot {
            generation: 0,
            thing: None,
        });
        Key {
            index,
            generation: 0,
        }
    }

    fn slot(&mut self, key: Key) -> Option<&mut Slot<T>> {
        self.slots
            .get_mut(key.index as usize)
            .filter(|slot| slot.generation == key.generation)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slot(key)?.thing.as_mut()
    }

    /// Takes a thing out while it is worked on; its slot stays reserved.
    pub fn take(&mut self, key: Key) -> Option<T> {
        self.slot(key)?.thing.take()
    }

    /// Fills a slot that was reserved or taken from.
    pub fn put(&mut self, key: Key, thing: T) {
        if let Some(slot) = self.slot(key) {
            slot.thing = Some(thing);
        }
    }

    /// Empties a slot for good.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slot(key)?;
        slot.generation = slot.generation.wrapping_add(1) & GENERATION_MASK;
        let thing = slot.thing.take();
        self.free.push(key.index);
        thing
    }

    /// Lists the keys of the things that `wanted` picks.
    pub fn keys(&self, wanted: impl Fn(&T) -> bool) -> Vec<Key> {
        (0u32..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.thing.as_ref().is_some_and(&wanted))
            .map(|(index, slot)| Key {
                index,
                generation: slot.generation,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_event_does_not_find_the_successor() {
        let mut slab = Slab::default();
        let first = slab.reserve();
        slab.put(first, "first");
        let token = first.token(1);
        assert_eq!(Key::from_token(token), (first, 1));
        slab.remove(first);
        let second = slab.reserve();
        slab.put(second, "second");
        assert_ne!(second, first);
        assert_eq!(slab.take(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.take(second), Some("second"));
        slab.put(second, "again");
        assert_eq!(slab.keys(|_| true), [second]);
    }
}
