//! Words of memory in a file without a name, which another process can read when the writer is dead.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// A mapped memory file (memfd_create(2)) of 64-bit words, all zero at first. Pages cost memory once they are written.
#[derive(Debug)]
pub struct SharedWords {
    fd: OwnedFd,
    words: NonNull<AtomicU64>,
    count: usize,
}

impl SharedWords {
    /// Makes the file. Its size is sealed, so that the mapping never lacks a page.
    pub fn new(name: &CStr, count: usize) -> io::Result<Self> {
        let bytes = count
            .checked_mul(size_of::<AtomicU64>())
            .filter(|&bytes| bytes > 0)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, bytes as u64)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW)?;
        // SAFETY: a new mapping at a place of the kernel's choice replaces no memory of this process.
        let address = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &fd,
                0,
            )
        }?;
        let words = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { fd, words, count })
    }

    /// The file, to be read by [`read_words`].
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.count, "word {index} of {}", self.count);
        // SAFETY: the mapping is page-aligned, holds `count` words (checked), cannot shrink (sealed), and lives as long
        // as `self`. Others that map the file see atomic words as well, and zero bytes are valid ones.
        unsafe { self.words.add(index).as_ref() }
    }

    /// Reads a word.
    pub fn load(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Acquire)
    }

    /// Writes a word. Whoever reads after this process has been killed sees all writes up to one, and none after it.
    pub fn store(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::SeqCst);
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and no reference into it outlives it.
        let _ = unsafe { rustix::mm::munmap(self.words.as_ptr().cast(), self.count * 8) };
    }
}

/// Reads the words of such a file, at most `count_max`; without mapping it, because reading a mapping would make pages.
pub fn read_words(file: &File, count_max: usize) -> io::Result<Vec<u64>> {
    let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut buffer = vec![0; (bytes / 8).min(count_max) * 8];
    file.read_exact_at(&mut buffer, 0)?;
    Ok(buffer
        .chunks_exact(8)
        .map(|word| u64::from_ne_bytes(word.try_into().expect("chunks of 8")))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_from_the_file() {
        let words = SharedWords::new(c"test", 1000).unwrap();
        words.store(0, 7);
        words.store(999, u64::MAX);
        assert_eq!(words.load(999), u64::MAX);
        let file = File::from(words.fd().try_clone().unwrap());
        drop(words);
        let read = read_words(&file, 2000).unwrap();
        assert_eq!((read.len(), read[0], read[999]), (1000, 7, u64::MAX));
        assert_eq!(read_words(&file, 1).unwrap(), [7]);
        assert!(file.set_len(8).is_err(), "the size is sealed");
    }

    #[test]
    #[should_panic(expected = "word 8 of 8")]
    fn a_word_beyond_the_end_is_refused() {
        SharedWords::new(c"test", 8).unwrap().store(8, 1);
    }
}
