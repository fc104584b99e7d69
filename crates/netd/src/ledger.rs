//! What is carried, written down where a successor reads it: which descriptors belong together, and how far they are.
//!
//! ```text
//! word    0        1         2        3         4…7       8…15   16…23  …
//!         magic    version   size     slots     –         slot   slot
//!
//! slot    0        sockets: the client's, the server's; 0: the slot is free
//!         1, 2     the pipes of bytes for the client and for the server: reader, writer; 0: there is none
//!         3, 4     the target's address, as IPv6
//!         5        its port, family and scope
//!         6        flags
//!         7        how many netds in a row have died at it
//! ```
//! Every step is one store of one word, and netd may be killed between any two. So a slot's first word is written last,
//! and erased first: a slot that is not free is whole. Two descriptors share a word, each as its number and one more.
//! The numbers are those of the process that writes; they mean nothing once another has taken the descriptors over.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use gantry_sys::shared::{SharedWords, read_words};

const MAGIC: u64 = u64::from_le_bytes(*b"gtyledgr");
/// Grows when a word changes its meaning. What another version wrote is not taken up.
const VERSION: u64 = 1;
const HEAD_WORDS: usize = 8;
const SLOT_WORDS: usize = 8;

const SOCKETS: usize = 0;
const PIPES: usize = 1;
const ADDRESS: usize = 3;
const PORT: usize = 5;
const FLAGS: usize = 6;
/// A writer that knew nothing of it has left 0.
const TRIES: usize = 7;

/// Something went wrong with one side: both are to be reset.
pub const FAILED: u64 = 1;
/// Some bytes are in netd's memory and are lost with it.
pub const COPIES: u64 = 2;
/// Nothing more goes to the client; the next bit is the server's.
pub const SHUT: u64 = 4;

/// The place of one carried connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(usize);

impl Slot {
    fn word(self, field: usize) -> usize {
        HEAD_WORDS + self.0 * SLOT_WORDS + field
    }
}

/// What one netd writes.
#[derive(Debug)]
pub struct Ledger {
    words: SharedWords,
    free: Vec<usize>,
    /// Slots from here on were never used.
    fresh: usize,
    slots: usize,
    #[cfg(test)]
    stores: std::cell::RefCell<Vec<(usize, u64)>>,
}

/// What a predecessor wrote of one connection, with the numbers of its descriptors there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub client: i32,
    pub server: i32,
    /// Bytes for the client and for the server: reader and writer.
    pub pipes: [Option<(i32, i32)>; 2],
    pub target: SocketAddr,
    pub flags: u64,
    /// How many netds in a row have died at it.
    pub tries: u64,
}

fn pack(first: i32, second: i32) -> u64 {
    let half = |number: i32| u64::from(number.cast_unsigned()) + 1;
    half(first) | half(second) << 32
}

fn unpack(word: u64) -> Option<(i32, i32)> {
    let half = |half: u32| i32::try_from(half.checked_sub(1)?).ok();
    Some((half(word as u32)?, half((word >> 32) as u32)?))
}

impl Ledger {
    /// Makes an empty one.
    pub fn new(slots: usize) -> io::Result<Self> {
        let words = SharedWords::new(c"gantry-ledger", HEAD_WORDS + slots * SLOT_WORDS)?;
        words.store(1, VERSION);
        words.store(2, SLOT_WORDS as u64);
        words.store(3, slots as u64);
        words.store(0, MAGIC);
        Ok(Self {
            words,
            free: Vec::new(),
            fresh: 0,
            slots,
            #[cfg(test)]
            stores: std::cell::RefCell::default(),
        })
    }

    /// The file that a successor reads.
    pub fn fd(&self) -> &OwnedFd {
        self.words.fd()
    }

    fn store(&self, index: usize, value: u64) {
        #[cfg(test)]
        self.stores.borrow_mut().push((index, value));
        self.words.store(index, value);
    }

    /// Writes down a pair of sockets before anything happens to either; `None` where there is no room.
    pub fn record(
        &mut self,
        client: BorrowedFd<'_>,
        server: BorrowedFd<'_>,
        target: SocketAddr,
    ) -> Option<Slot> {
        let slot = match self.free.pop() {
            Some(index) => Slot(index),
            None if self.fresh < self.slots => {
                self.fresh += 1;
                Slot(self.fresh - 1)
            }
            None => return None,
        };
        let (address, scope) = match target {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
            SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
        };
        let bits = address.to_bits();
        self.store(slot.word(PIPES), 0);
        self.store(slot.word(PIPES + 1), 0);
        self.store(slot.word(ADDRESS), (bits >> 64) as u64);
        self.store(slot.word(ADDRESS + 1), bits as u64);
        let family = u64::from(target.is_ipv6());
        self.store(
            slot.word(PORT),
            u64::from(target.port()) | family << 16 | u64::from(scope) << 32,
        );
        self.store(slot.word(FLAGS), 0);
        self.store(slot.word(TRIES), 0);
        let sockets = pack(client.as_raw_fd(), server.as_raw_fd());
        self.store(slot.word(SOCKETS), sockets);
        Some(slot)
    }

    /// Writes down the pipe of one direction: 0 for the client, 1 for the server. To be called before bytes go into it.
    pub fn set_pipe(&self, slot: Slot, to: usize, pipe: Option<(BorrowedFd<'_>, BorrowedFd<'_>)>) {
        let word = pipe.map_or(0, |(reader, writer)| {
            pack(reader.as_raw_fd(), writer.as_raw_fd())
        });
        self.store(slot.word(PIPES + to), word);
    }

    /// Sets or erases a flag.
    pub fn set_flag(&self, slot: Slot, flag: u64, is_set: bool) {
        let before = self.words.load(slot.word(FLAGS));
        let after = if is_set {
            before | flag
        } else {
            before & !flag
        };
        if after != before {
            self.store(slot.word(FLAGS), after);
        }
    }

    /// Says how many netds in a row will have died at a pair, should this one be the next.
    pub fn set_tries(&self, slot: Slot, tries: u64) {
        self.store(slot.word(TRIES), tries);
    }

    /// Erases a pair whose sockets are closed.
    pub fn erase(&mut self, slot: Slot) {
        self.store(slot.word(SOCKETS), 0);
        self.free.push(slot.0);
    }
}

/// Reads what a predecessor wrote.
///
/// # Errors
/// `InvalidData` if it is another version's.
pub fn read(file: &File) -> io::Result<Vec<Entry>> {
    // A ledger of another size is one of another version.
    const WORDS_MAX: usize = 16 << 20;
    parse(&read_words(file, WORDS_MAX)?)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a ledger of another version"))
}

fn parse(words: &[u64]) -> Option<Vec<Entry>> {
    let (head, slots) = words.split_at_checked(HEAD_WORDS)?;
    let count = slots.len() / SLOT_WORDS;
    if head[..4] != [MAGIC, VERSION, SLOT_WORDS as u64, count as u64] {
        return None;
    }
    Some(
        slots
            .chunks_exact(SLOT_WORDS)
            .filter_map(parse_slot)
            .collect(),
    )
}

fn parse_slot(slot: &[u64]) -> Option<Entry> {
    let (client, server) = unpack(slot[SOCKETS])?;
    let bits = u128::from(slot[ADDRESS]) << 64 | u128::from(slot[ADDRESS + 1]);
    let address = Ipv6Addr::from_bits(bits);
    let port = slot[PORT] as u16;
    let target = if slot[PORT] >> 16 & 1 == 0 {
        SocketAddr::new(IpAddr::V4(address.to_ipv4_mapped()?), port)
    } else {
        SocketAddrV6::new(address, port, 0, (slot[PORT] >> 32) as u32).into()
    };
    Some(Entry {
        client,
        server,
        pipes: [unpack(slot[PIPES]), unpack(slot[PIPES + 1])],
        target,
        flags: slot[FLAGS],
        tries: slot[TRIES],
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    const V4: &str = "172.17.0.2:80";
    const V6: &str = "[fe80::1%3]:443";

    fn file(ledger: &Ledger) -> File {
        ledger.fd().try_clone().unwrap().into()
    }

    #[test]
    fn what_was_written_is_read() {
        let mut ledger = Ledger::new(4).unwrap();
        let (one, other) = rustix::pipe::pipe().unwrap();
        let (one, other) = (one.as_fd(), other.as_fd());
        let numbers = (one.as_raw_fd(), other.as_raw_fd());
        let first = ledger.record(one, other, V4.parse().unwrap()).unwrap();
        let second = ledger.record(other, one, V6.parse().unwrap()).unwrap();
        ledger.set_pipe(second, 1, Some((one, other)));
        ledger.set_flag(second, FAILED, true);
        ledger.set_flag(second, SHUT << 1, true);
        ledger.set_flag(second, FAILED, false);
        ledger.set_tries(second, 3);
        let expected = Entry {
            client: numbers.0,
            server: numbers.1,
            pipes: [None, None],
            target: V4.parse().unwrap(),
            flags: 0,
            tries: 0,
        };
        let other_entry = Entry {
            client: numbers.1,
            server: numbers.0,
            pipes: [None, Some(numbers)],
            target: V6.parse().unwrap(),
            flags: SHUT << 1,
            tries: 3,
        };
        assert_eq!(read(&file(&ledger)).unwrap(), [expected, other_entry]);
        ledger.erase(first);
        ledger.erase(second);
        assert_eq!(read(&file(&ledger)).unwrap(), []);
    }

    #[test]
    fn there_is_room_for_as_many_as_it_was_made_for() {
        let mut ledger = Ledger::new(2).unwrap();
        let (fd, _other) = rustix::pipe::pipe().unwrap();
        let record = |ledger: &mut Ledger| {
            let target = V4.parse().unwrap();
            ledger.record(fd.as_fd(), fd.as_fd(), target)
        };
        let slots = [record(&mut ledger), record(&mut ledger)].map(Option::unwrap);
        assert_eq!(record(&mut ledger), None);
        ledger.erase(slots[0]);
        assert_eq!(record(&mut ledger), Some(slots[0]));
    }

    #[test]
    fn another_version_is_not_taken_up() {
        let ledger = Ledger::new(1).unwrap();
        assert!(read(&file(&ledger)).is_ok());
        for word in 0..4 {
            let before = ledger.words.load(word);
            ledger.words.store(word, before + 1);
            assert!(read(&file(&ledger)).is_err(), "word {word}");
            ledger.words.store(word, before);
        }
        assert_eq!(parse(&[]), None);
    }

    /// The life of connections that use a slot again, seen after each store: netd may have been killed right there.
    #[test]
    fn a_kill_between_any_two_stores_leaves_whole_entries() {
        let mut ledger = Ledger::new(3).unwrap();
        let pipes: Vec<_> = (0..4).map(|_| rustix::pipe::pipe().unwrap()).collect();
        let ends: Vec<(BorrowedFd<'_>, BorrowedFd<'_>)> = pipes
            .iter()
            .map(|(reader, writer)| (reader.as_fd(), writer.as_fd()))
            .collect();
        let empty = read_words(&file(&ledger), 1000).unwrap();
        let targets: [SocketAddr; 2] = [V4.parse().unwrap(), V6.parse().unwrap()];
        for (sockets, target) in ends.iter().zip([targets[0], targets[1], targets[0]]) {
            let slot = ledger.record(sockets.0, sockets.1, target).unwrap();
            ledger.set_pipe(slot, 1, Some(ends[3]));
            ledger.set_pipe(slot, 1, None);
            ledger.set_pipe(slot, 0, Some(ends[3]));
            ledger.set_flag(slot, COPIES, true);
            ledger.set_flag(slot, COPIES, false);
            ledger.set_tries(slot, 2);
            ledger.set_flag(slot, SHUT, true);
            ledger.erase(slot);
        }
        let numbers = |ends: &(BorrowedFd<'_>, BorrowedFd<'_>)| {
            let (first, second) = ends;
            (first.as_raw_fd(), second.as_raw_fd())
        };
        let stores = ledger.stores.borrow().clone();
        assert!(stores.len() > 30);
        let mut seen = 0;
        for killed_after in 0..=stores.len() {
            let mut words = empty.clone();
            for &(index, value) in &stores[..killed_after] {
                words[index] = value;
            }
            let found = parse(&words).expect("the head stands");
            assert!(found.len() <= 1);
            for entry in &found {
                seen += 1;
                // The same slot served three connections: nothing of one is found in another's entry.
                let which = ends
                    .iter()
                    .position(|ends| numbers(ends) == (entry.client, entry.server));
                let which = which.expect("sockets that belong together");
                assert_eq!(entry.target, targets[which % 2]);
                assert!(entry.flags & !(COPIES | SHUT) == 0);
                assert!(entry.tries == 0 || entry.pipes == [Some(numbers(&ends[3])), None]);
                for pipe in entry.pipes.iter().flatten() {
                    assert_eq!(*pipe, numbers(&ends[3]));
                }
                assert!(entry.pipes.iter().flatten().count() <= 1);
            }
        }
        assert_eq!(seen, 3 * 8);
    }
}
