//! Paths beneath a root's descriptor: looking up and making, without ever leaving it (openat2, `RESOLVE_IN_ROOT`).

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Most links followed while a path is made.
const LINKS_MAX: usize = 40;

/// Opens a path as if `root` were `/`; links are followed, `/proc`'s magic ones are not.
pub(crate) fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let relative = relative(path);
    loop {
        match rustix::fs::openat2(
            root,
            relative,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        ) {
            // A rename somewhere in the tree disturbed the walk; the kernel asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Opens a path as a place: nothing can be read or written through it.
pub(crate) fn place(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    open(root, path, OFlags::PATH)
}

/// Opens a path whose last component is not a link.
pub(crate) fn place_nofollow(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    open(root, path, OFlags::PATH | OFlags::NOFOLLOW)
}

fn relative(path: &Path) -> &Path {
    let path = path.strip_prefix("/").unwrap_or(path);
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}

/// Opens a directory and makes it, with its parents, where it is missing. A dangling link is made good at the place,
/// within the root, that it leads to.
///
/// # Errors
/// `ENOTDIR` when something else is in the way.
pub(crate) fn directory(root: BorrowedFd<'_>, path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        match open(root, &path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => return other,
        }
        match make(root, &path, mode)? {
            Made::Directory(directory) => return Ok(directory),
            Made::LeadsTo(target) => path = target,
        }
    }
    Err(Errno::LOOP.into())
}

enum Made {
    Directory(OwnedFd),
    /// A dangling link was in the way: this is the path with the link replaced by its text.
    LeadsTo(PathBuf),
}

fn make(root: BorrowedFd<'_>, path: &Path, mode: u32) -> io::Result<Made> {
    let mut parent = open(root, Path::new("."), OFlags::PATH | OFlags::DIRECTORY)?;
    let mut done = PathBuf::from("/");
    let components: Vec<Component<'_>> = relative(path).components().collect();
    for (index, component) in components.iter().enumerate() {
        match component {
            Component::Normal(_) | Component::ParentDir => {}
            Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
        }
        let next = done.join(component);
        // The whole prefix is resolved from the root again: `..` and links mean what they mean to the container.
        match open(root, &next, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(directory) => parent = directory,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                match rustix::fs::mkdirat(&parent, component.as_os_str(), Mode::from_raw_mode(mode))
                {
                    Ok(()) => {
                        parent = rustix::fs::openat2(
                            &parent,
                            component.as_os_str(),
                            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                            Mode::empty(),
                            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
                        )?;
                    }
                    Err(Errno::EXIST) => {
                        let target =
                            rustix::fs::readlinkat(&parent, component.as_os_str(), Vec::new())?;
                        let target =
                            Path::new(OsStr::new(target.to_str().map_err(|_| Errno::ILSEQ)?));
                        // An absolute text replaces what came before it, a relative one is of the link's directory.
                        let mut leads_to = done.join(target);
                        leads_to.extend(&components[index + 1..]);
                        return Ok(Made::LeadsTo(leads_to));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error),
        }
        done = next;
    }
    Ok(Made::Directory(parent))
}

/// Opens the place of a mount of a file, making an empty file and its parents where it is missing.
pub(crate) fn file(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    match place(root, path) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        other => return other,
    }
    let (parent, name) = parent(root, path)?;
    match rustix::fs::openat(
        &parent,
        name,
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o755),
    ) {
        Ok(file) => drop(file),
        // A dangling link: the mount hides it itself, wherever it leads.
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
            drop(rustix::fs::openat(
                &parent,
                name,
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::from_raw_mode(0o755),
            )?);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(rustix::fs::openat(
        &parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Opens the directory of a path, made where it is missing, and gives the last component's name.
pub(crate) fn parent<'a>(root: BorrowedFd<'_>, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let parent = directory(root, path.parent().unwrap_or(Path::new("/")), 0o755)?;
    Ok((parent, name))
}

/// Says whether a descriptor refers to a directory.
pub(crate) fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let stat = rustix::fs::fstat(fd.as_fd())?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> (PathBuf, OwnedFd) {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = std::env::temp_dir().join(format!(
            "gantry-beneath-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(path.join("root")).expect("mkdir");
        fs::create_dir(path.join("outside")).expect("mkdir");
        let root = rustix::fs::open(
            path.join("root"),
            OFlags::PATH | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .expect("open");
        (path, root)
    }

    #[test]
    fn links_lead_only_into_the_root() {
        let (path, root) = tree();
        symlink("/outside", path.join("root/absolute")).expect("link");
        symlink("../outside", path.join("root/relative")).expect("link");
        symlink("../../../../outside/deep", path.join("root/up")).expect("link");
        symlink("loop", path.join("root/loop")).expect("link");
        for name in ["absolute/a", "relative/b", "up/c", "../outside/d"] {
            directory(root.as_fd(), Path::new(name), 0o755).expect(name);
            file(root.as_fd(), &Path::new(name).join("f")).expect(name);
        }
        assert_eq!(fs::read_dir(path.join("outside")).expect("read").count(), 0);
        for made in [
            "outside/a/f",
            "outside/b/f",
            "outside/deep/c/f",
            "outside/d/f",
        ] {
            assert!(path.join("root").join(made).exists(), "{made}");
        }
        directory(root.as_fd(), Path::new("/loop/x"), 0o755).expect_err("a loop");
        fs::remove_dir_all(path).expect("clean");
    }

    #[test]
    fn a_dangling_link_is_no_way_out_for_a_file() {
        let (path, root) = tree();
        symlink("/nowhere", path.join("root/f")).expect("link");
        file(root.as_fd(), Path::new("/f")).expect("file");
        assert!(
            fs::symlink_metadata(path.join("root/f"))
                .expect("stat")
                .is_file()
        );
        fs::write(path.join("root/plain"), "").expect("write");
        let error =
            directory(root.as_fd(), Path::new("/plain/x"), 0o755).expect_err("a file in the way");
        assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
        fs::remove_dir_all(path).expect("clean");
    }
}
