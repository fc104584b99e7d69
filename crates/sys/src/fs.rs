//! Files and directories beneath directory descriptors: openat2, extended attributes, sparse ranges, whole trees.
//!
//! Everything takes a directory descriptor and a name beneath it, so that no path of a user's tree is ever resolved
//! as text. Calls that `rustix` offers in this form already (`mkdirat`, `linkat`, `mknodat`, `utimensat`, `syncfs`)
//! are used from there; here is what they lack. No policy: what a whiteout or a layer is, is not known here.

use rustix::fs::{
    AtFlags, Dir, FallocateFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, SeekFrom,
};
use std::collections::HashSet;
use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

/// Opens `path` with `root` as its `/`: absolute links and `..` stay beneath it (openat2(2), RESOLVE_IN_ROOT).
///
/// # Errors
/// EAGAIN, by which the kernel asks for another try after a concurrent rename, is retried here.
pub fn openat2_in_root(
    root: impl AsFd,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    openat2_retry(
        root,
        path,
        flags,
        mode,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Opens `path` beneath `root`; what would lead out of it, a link or `..`, is refused (openat2(2), RESOLVE_BENEATH).
///
/// # Errors
/// EXDEV where the path leaves `root`, at its end or in between.
pub fn openat2_beneath(
    root: impl AsFd,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    openat2_retry(
        root,
        path,
        flags,
        mode,
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Opens `path` beneath `root` and follows no symbolic link at all, the last component included (openat2(2)).
///
/// # Errors
/// ELOOP where a component is a link, EXDEV where `..` would leave `root`.
pub fn openat2_no_symlinks(
    root: impl AsFd,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    openat2_retry(
        root,
        path,
        flags,
        mode,
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS,
    )
}

fn openat2_retry(
    root: impl AsFd,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    // openat2 refuses mode bits without a creating flag, unlike openat.
    let mode = if flags.intersects(OFlags::CREATE | OFlags::TMPFILE) {
        mode
    } else {
        Mode::empty()
    };
    for _ in 0..128 {
        match rustix::fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(rustix::io::Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
    Err(io::Error::from(rustix::io::Errno::AGAIN))
}

/// Opens a directory for reading, by name beneath `directory`, without following a link.
pub fn open_directory(directory: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
}

/// Renames and fails with EEXIST where the target exists (renameat2(2), RENAME_NOREPLACE).
pub fn rename_no_replace(
    old_directory: impl AsFd,
    old: impl rustix::path::Arg,
    new_directory: impl AsFd,
    new: impl rustix::path::Arg,
) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(
        old_directory,
        old,
        new_directory,
        new,
        RenameFlags::NOREPLACE,
    )?)
}

/// Swaps two names in one step (renameat2(2), RENAME_EXCHANGE).
pub fn rename_exchange(
    old_directory: impl AsFd,
    old: impl rustix::path::Arg,
    new_directory: impl AsFd,
    new: impl rustix::path::Arg,
) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(
        old_directory,
        old,
        new_directory,
        new,
        RenameFlags::EXCHANGE,
    )?)
}

/// Deallocates a range of a file and keeps the file's size (fallocate(2), FALLOC_FL_PUNCH_HOLE).
pub fn punch_hole(file: impl AsFd, offset: u64, length: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(
        file,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        offset,
        length,
    )?)
}

/// Lists the ranges `(offset, length)` of a file that hold data, by SEEK_DATA and SEEK_HOLE (lseek(2)).
///
/// A file system without holes reports one range, the whole file. The descriptor's position changes.
pub fn data_ranges(file: impl AsFd, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut ranges = Vec::new();
    let mut position = 0;
    while position < size {
        let start = match rustix::fs::seek(file.as_fd(), SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(file.as_fd(), SeekFrom::Hole(start))?.min(size);
        if end <= start {
            break;
        }
        ranges.push((start, end - start));
        position = end;
    }
    Ok(ranges)
}

/// Reads an extended attribute of an open file; `None` where it is not set or the file system has none.
pub fn fgetxattr(file: impl AsFd, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    sized(|buffer| match buffer {
        None => rustix::fs::fgetxattr_query(file.as_fd(), name),
        Some(buffer) => rustix::fs::fgetxattr(file.as_fd(), name, buffer),
    })
}

/// Lists the names of the extended attributes of an open file.
pub fn flistxattr(file: impl AsFd) -> io::Result<Vec<CString>> {
    let list = sized(|buffer| match buffer {
        None => rustix::fs::flistxattr_query(file.as_fd()),
        Some(buffer) => rustix::fs::flistxattr(file.as_fd(), buffer),
    })?;
    Ok(split_names(&list.unwrap_or_default()))
}

/// Reads an extended attribute of `name` beneath `directory`, of a link itself; needs /proc.
pub fn getxattrat(
    directory: impl AsFd,
    name: &[u8],
    attribute: &CStr,
) -> io::Result<Option<Vec<u8>>> {
    let path = proc_path(directory.as_fd(), name)?;
    sized(|buffer| match buffer {
        None => rustix::fs::lgetxattr_query(path.as_c_str(), attribute),
        Some(buffer) => rustix::fs::lgetxattr(path.as_c_str(), attribute, buffer),
    })
}

/// Lists the extended attributes of `name` beneath `directory`, of a link itself; needs /proc.
pub fn listxattrat(directory: impl AsFd, name: &[u8]) -> io::Result<Vec<CString>> {
    let path = proc_path(directory.as_fd(), name)?;
    let list = sized(|buffer| match buffer {
        None => rustix::fs::llistxattr_query(path.as_c_str()),
        Some(buffer) => rustix::fs::llistxattr(path.as_c_str(), buffer),
    })?;
    Ok(split_names(&list.unwrap_or_default()))
}

/// Sets an extended attribute of an open file.
pub fn fsetxattr(file: impl AsFd, attribute: &CStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(
        file,
        attribute,
        value,
        rustix::fs::XattrFlags::empty(),
    )?)
}

/// Sets an extended attribute of `name` beneath `directory`, of a link or device itself; needs /proc.
pub fn setxattrat(
    directory: impl AsFd,
    name: &[u8],
    attribute: &CStr,
    value: &[u8],
) -> io::Result<()> {
    let path = proc_path(directory.as_fd(), name)?;
    Ok(rustix::fs::lsetxattr(
        path.as_c_str(),
        attribute,
        value,
        rustix::fs::XattrFlags::empty(),
    )?)
}

/// Removes an extended attribute of an open file; one that is not set is no error.
pub fn fremovexattr(file: impl AsFd, attribute: &CStr) -> io::Result<()> {
    match rustix::fs::fremovexattr(file, attribute) {
        Err(rustix::io::Errno::NODATA) => Ok(()),
        other => Ok(other?),
    }
}

/// Names an entry of an open directory through /proc, for calls that take no directory descriptor.
///
/// `name` must be one component, so that only the kernel's own link to the open directory is followed.
fn proc_path(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<CString> {
    if name.is_empty() || name.contains(&b'/') || name == b"." || name == b".." {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    Ok(CString::new(path)?)
}

/// Calls once for the size and once for the value, again where it grew in between.
fn sized(
    mut call: impl FnMut(Option<&mut Vec<u8>>) -> rustix::io::Result<usize>,
) -> io::Result<Option<Vec<u8>>> {
    use rustix::io::Errno;
    loop {
        let size = match call(None) {
            Ok(size) => size,
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if size == 0 {
            return Ok(Some(Vec::new()));
        }
        let mut value = vec![0; size];
        match call(Some(&mut value)) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) => {}
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

fn split_names(list: &[u8]) -> Vec<CString> {
    list.split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect()
}

/// Is one entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: CString,
    pub file_type: FileType,
}

/// Lists an open directory without `.` and `..`, in the file system's order (getdents64(2)).
pub fn entries(directory: impl AsFd) -> io::Result<Vec<Entry>> {
    let mut list = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes() != b"." && name.to_bytes() != b".." {
            list.push(Entry {
                name: name.to_owned(),
                file_type: entry.file_type(),
            });
        }
    }
    Ok(list)
}

/// Counts what a tree occupies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Allocated bytes, each hard-linked file once.
    pub bytes: u64,
    /// The sum of the sizes of regular files, each hard-linked file once.
    pub apparent_bytes: u64,
    pub inodes: u64,
}

/// Counts the tree beneath an open directory, the directory itself included.
pub fn usage(directory: impl AsFd) -> io::Result<Usage> {
    let mut usage = Usage::default();
    let mut linked = HashSet::new();
    let own = rustix::fs::fstat(directory.as_fd())?;
    usage.bytes += own.st_blocks as u64 * 512;
    usage.inodes += 1;
    // Names, not descriptors, are kept for what is still to visit: a wide tree must not eat the descriptor table.
    let mut pending: Vec<Vec<u8>> = vec![b".".to_vec()];
    while let Some(path) = pending.pop() {
        let open = openat2_no_symlinks(
            directory.as_fd(),
            path.as_slice(),
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        );
        let open = match open {
            // A running container removes files while it is counted.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries(&open)? {
            let stat =
                match rustix::fs::statat(&open, entry.name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
                    Err(rustix::io::Errno::NOENT) => continue,
                    other => other?,
                };
            let file_type = FileType::from_raw_mode(stat.st_mode);
            if file_type != FileType::Directory
                && stat.st_nlink > 1
                && !linked.insert((stat.st_dev, stat.st_ino))
            {
                continue;
            }
            usage.bytes += stat.st_blocks as u64 * 512;
            usage.inodes += 1;
            match file_type {
                FileType::RegularFile => usage.apparent_bytes += stat.st_size as u64,
                FileType::Directory => {
                    let mut below = path.clone();
                    below.push(b'/');
                    below.extend_from_slice(entry.name.to_bytes());
                    pending.push(below);
                }
                _ => {}
            }
        }
    }
    Ok(usage)
}

/// Removes `name` beneath `directory` with all that is in it; a missing one is no error.
///
/// `pause` is called after each removed entry, so that a background job can throttle itself or stop by an error. Trees
/// of any depth are removed with few descriptors: what lies deep is first moved up beside `name`, as `NAME.deepN`.
///
/// # Errors
/// Stops at the first entry that cannot be removed.
pub fn remove_tree(
    directory: impl AsFd,
    name: impl rustix::path::Arg,
    pause: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<()> {
    let name = name.into_c_str()?.into_owned();
    let mut moved = 0_u64;
    remove_level(
        directory.as_fd(),
        directory.as_fd(),
        &name,
        &name,
        0,
        &mut moved,
        pause,
    )?;
    let mut next = 0;
    while next < moved {
        let lifted = lifted_name(&name, next);
        remove_level(
            directory.as_fd(),
            directory.as_fd(),
            &name,
            &lifted,
            0,
            &mut moved,
            pause,
        )?;
        next += 1;
    }
    Ok(())
}

const DEPTH_MAX: u32 = 32;

fn lifted_name(name: &CStr, number: u64) -> CString {
    let mut text = OsString::from_vec(name.to_bytes().to_vec()).into_vec();
    text.extend_from_slice(format!(".deep{number}").as_bytes());
    CString::new(text).unwrap_or_default()
}

fn remove_level(
    top: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    base: &CStr,
    name: &CStr,
    depth: u32,
    moved: &mut u64,
    pause: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<()> {
    use rustix::io::Errno;
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) => {
            return pause();
        }
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    if depth >= DEPTH_MAX {
        rustix::fs::renameat(directory, name, top, lifted_name(base, *moved).as_c_str())?;
        *moved += 1;
        return Ok(());
    }
    let open = match open_directory(directory, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries(&open)? {
        if entry.file_type == FileType::Directory {
            remove_level(
                top,
                open.as_fd(),
                base,
                &entry.name,
                depth + 1,
                moved,
                pause,
            )?;
        } else {
            match rustix::fs::unlinkat(&open, entry.name.as_c_str(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => pause()?,
                Err(_) => remove_level(
                    top,
                    open.as_fd(),
                    base,
                    &entry.name,
                    depth + 1,
                    moved,
                    pause,
                )?,
            }
        }
    }
    drop(open);
    match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => pause(),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path =
                std::env::temp_dir().join(format!("gantry-sys-fs-{}-{number}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
        fn open(&self) -> OwnedFd {
            open_directory(rustix::fs::CWD, self.0.as_path()).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn links_cannot_leave_the_root() {
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.0.join("etc")).unwrap();
        std::fs::write(scratch.0.join("etc/inside"), b"x").unwrap();
        std::os::unix::fs::symlink("/etc", scratch.0.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../etc", scratch.0.join("dots")).unwrap();
        let root = scratch.open();
        for path in ["absolute/inside", "dots/inside", "../../etc/inside"] {
            openat2_in_root(&root, path, OFlags::RDONLY, Mode::empty())
                .unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(
                openat2_no_symlinks(&root, path, OFlags::RDONLY, Mode::empty()).is_err(),
                "{path}"
            );
        }
    }

    #[test]
    fn a_very_deep_tree_is_removed_with_few_descriptors() {
        let scratch = Scratch::new();
        let root = scratch.open();
        rustix::fs::mkdirat(&root, "deep", Mode::from_raw_mode(0o755)).unwrap();
        let mut at = open_directory(&root, "deep").unwrap();
        for _ in 0..300 {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o755)).unwrap();
            rustix::fs::openat(
                &at,
                "f",
                OFlags::CREATE | OFlags::WRONLY,
                Mode::from_raw_mode(0o600),
            )
            .unwrap();
            at = open_directory(&at, "d").unwrap();
        }
        let mut removed = 0;
        remove_tree(&root, "deep", &mut || {
            removed += 1;
            Ok(())
        })
        .unwrap();
        assert!(entries(&root).unwrap().is_empty());
        assert_eq!(removed, 601);
        remove_tree(&root, "deep", &mut || Ok(())).unwrap();
    }

    #[test]
    fn usage_counts_linked_files_once() {
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.0.join("a")).unwrap();
        std::fs::write(scratch.0.join("a/f"), vec![1; 5000]).unwrap();
        std::fs::hard_link(scratch.0.join("a/f"), scratch.0.join("g")).unwrap();
        let usage = usage(scratch.open()).unwrap();
        assert_eq!((usage.apparent_bytes, usage.inodes), (5000, 3));
    }

    #[test]
    fn attributes_and_ranges_read_back() {
        let scratch = Scratch::new();
        let root = scratch.open();
        let file = rustix::fs::openat(
            &root,
            "f",
            OFlags::CREATE | OFlags::RDWR,
            Mode::from_raw_mode(0o600),
        )
        .unwrap();
        fsetxattr(&file, c"trusted.test", b"one").unwrap();
        assert_eq!(fgetxattr(&file, c"trusted.test").unwrap().unwrap(), b"one");
        assert_eq!(
            getxattrat(&root, b"f", c"trusted.test").unwrap().unwrap(),
            b"one"
        );
        assert_eq!(flistxattr(&file).unwrap(), [c"trusted.test".to_owned()]);
        fremovexattr(&file, c"trusted.test").unwrap();
        assert_eq!(fgetxattr(&file, c"trusted.test").unwrap(), None);
        assert!(setxattrat(&root, b"../f", c"trusted.test", b"").is_err());
        rustix::fs::ftruncate(&file, 1 << 20).unwrap();
        rustix::io::pwrite(&file, &[7; 4096], 512 * 1024).unwrap();
        assert_eq!(data_ranges(&file, 1 << 20).unwrap(), [(512 * 1024, 4096)]);
        punch_hole(&file, 512 * 1024, 4096).unwrap();
        assert_eq!(data_ranges(&file, 1 << 20).unwrap(), []);
    }

    #[test]
    fn names_are_swapped_or_kept() {
        let scratch = Scratch::new();
        let root = scratch.open();
        std::fs::write(scratch.0.join("a"), "a").unwrap();
        std::fs::write(scratch.0.join("b"), "b").unwrap();
        rename_exchange(&root, "a", &root, "b").unwrap();
        assert_eq!(std::fs::read_to_string(scratch.0.join("a")).unwrap(), "b");
        assert_eq!(
            rename_no_replace(&root, "a", &root, "b")
                .unwrap_err()
                .kind(),
            io::ErrorKind::AlreadyExists
        );
    }
}
