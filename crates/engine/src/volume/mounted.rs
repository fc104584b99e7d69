//! Who uses a volume that has a file system of its own. The first user's coming mounts it on the volume's directory, the
//! last one's going unmounts it.
//!
//! The users are the containers whose records name the volume among what they have acquired, so that the count is the
//! same after a restart of the daemon; a mount is trusted to no number in memory. One lock per volume makes mounting and
//! counting one step, and a server that does not answer keeps nobody waiting but its own volume's users.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::device::Device;
use super::{Volume, Volumes};
use crate::{Error, Result};

type Holders = Arc<Mutex<BTreeSet<String>>>;

/// The users of each volume with a device.
#[derive(Debug, Default)]
pub(super) struct Users {
    by_volume: Mutex<HashMap<String, Holders>>,
}

impl Users {
    fn of(&self, volume: &str) -> Holders {
        let mut all = self.by_volume.lock().expect("no holder panics");
        all.entry(volume.to_owned()).or_default().clone()
    }
}

impl Volumes {
    /// Makes `holder` a user of the volume, whose file system is mounted when it returns.
    ///
    /// # Errors
    /// Docker's text for a device that cannot be mounted; the holder is no user then.
    pub(crate) fn hold(&self, volume: &Volume, holder: &str) -> Result<()> {
        let failed = |error: Error| {
            Error::new(
                error.kind(),
                format!(
                    "error while mounting volume '{}': {error}",
                    volume.mountpoint.display()
                ),
            )
            .caused_by(error)
        };
        let Some(device) = Device::of(volume).map_err(failed)? else {
            return Ok(());
        };
        let holders = self.users.of(&volume.name);
        let mut holders = holders.lock().expect("no holder panics");
        let look = |error| failed(Error::io("look for its mount", error));
        if holders.is_empty() {
            // Somebody else's, or an earlier daemon's that was killed: what is used is what the options say now.
            unmount_all(&volume.mountpoint).map_err(look)?;
        }
        if mounts_on(&volume.mountpoint).map_err(look)? == 0 {
            device.mount(&volume.mountpoint).map_err(failed)?;
        }
        holders.insert(holder.to_owned());
        Ok(())
    }

    /// Ends a use, known or not; what nobody uses any more is unmounted.
    pub(crate) fn release(&self, name: &str, holder: &str) -> io::Result<()> {
        let Some(volume) = self.get(name).filter(|volume| volume.has_device()) else {
            return Ok(());
        };
        let holders = self.users.of(name);
        let mut holders = holders.lock().expect("no holder panics");
        holders.remove(holder);
        if holders.is_empty() {
            unmount_all(&volume.mountpoint)?;
        }
        Ok(())
    }

    /// Counts a user of whom the records tell, before anything is mounted or unmounted.
    pub(crate) fn adopt(&self, name: &str, holder: &str) {
        let holders = self.users.of(name);
        holders
            .lock()
            .expect("no holder panics")
            .insert(holder.to_owned());
    }

    /// Unmounts what a volume without users has mounted. A plain volume's directory is left alone: what is mounted there,
    /// the machine's administrator has mounted.
    pub(super) fn unmount_unused(&self, volume: &Volume) -> io::Result<()> {
        if !volume.has_device() {
            return Ok(());
        }
        let holders = self.users.of(&volume.name);
        let holders = holders.lock().expect("no holder panics");
        if holders.is_empty() {
            unmount_all(&volume.mountpoint)?;
        }
        Ok(())
    }
}

/// How many mounts are on top of each other on `place`. The kernel names a place without symbolic links; the last part is
/// not looked at, since a server that is gone would keep us waiting there.
fn mounts_on(place: &Path) -> io::Result<usize> {
    let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else {
        return Ok(0);
    };
    let real = match parent.canonicalize() {
        Ok(parent) => parent.join(name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let points = gantry_sys::mount::mount_points(&real)?;
    Ok(points.iter().filter(|point| **point == real).count())
}

fn unmount_all(place: &Path) -> io::Result<()> {
    for _ in 0..mounts_on(place)? {
        gantry_sys::mount::umount_detach(place)?;
    }
    Ok(())
}
