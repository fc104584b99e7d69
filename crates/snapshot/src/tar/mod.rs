//! The tar format: reading entries with every extension that layers bear, and writing new archives.
//!
//! The reader is exact: each byte of the stream that is not a file's content can be recorded by a [`Tee`], which is
//! how recipes rebuild archives. Sources: POSIX pax(1); GNU tar manual, "Basic Tar Format" and "Storing Sparse
//! Files". What an entry means for a file system is `apply`'s matter.

mod header;
mod reader;
mod writer;

pub use header::{BLOCK, is_header};
pub use reader::{Entry, Kind, Reader, Tee};
pub use writer::{NewEntry, Writer};
