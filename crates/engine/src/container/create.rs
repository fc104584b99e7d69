//! `create`: image → record → snapshot → volumes. Nothing runs yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::platform::Platform;

use super::config::{Config, HostConfig, MountKind, RestartPolicyName};
use super::mounts::{self, Planned};
use super::record::{MountPoint, Record};
use super::{Container, Owner, Status, limits, merge, oci};
use crate::failpoint::around;
use crate::network::EndpointSettings;
use crate::reservation::{Held, Kind};
use crate::volume::{self, ANONYMOUS_LABEL};
use crate::{Engine, Error, Result, names, signal};

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// `None` for a made-up name.
    pub name: Option<String>,
    /// The user's wishes; the image's are merged in here.
    pub config: Config,
    pub host: HostConfig,
    /// Networks by name or id, with what is wished for there; that of the mode is one of them in any case. `None` is
    /// refused, in its turn.
    pub networks: BTreeMap<String, Option<EndpointSettings>>,
    pub platform: Option<Platform>,
}

/// A container that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub id: String,
    pub warnings: Vec<String>,
}

impl Engine {
    /// Creates a container.
    ///
    /// # Errors
    /// Docker's texts: a name in use (conflict), an image that is not there (not found), options that contradict each
    /// other or the machine (invalid).
    pub async fn create(&self, options: CreateOptions) -> Result<Created> {
        let engine = self.clone();
        // Not cancelled by a client that goes away: half a container would remain until the next start.
        let task = tokio::spawn(async move {
            crate::blocking::run(move || engine.create_blocking(options)).await?
        });
        task.await
            .map_err(|error| Error::system("an engine task died").caused_by(error))?
    }

    fn create_blocking(&self, options: CreateOptions) -> Result<Created> {
        let CreateOptions {
            name,
            mut config,
            mut host,
            networks,
            platform,
        } = options;
        let name = name
            .map(|name| name.strip_prefix('/').unwrap_or(&name).to_owned())
            .filter(|name| !name.is_empty());
        if let Some(name) = &name {
            super::check_name(name)?;
        }
        let id = crate::random_id();
        let mut held = self.inner.reservations.begin(&id);
        let image = self.image_for(&config.image, platform.as_ref())?;
        self.hold_image(&mut held, &image)?;
        // The image's own directory is one; the user's may be a file of the image.
        let chosen_directory = config.working_dir.clone();
        // Neither is what an image exposes, nor what is wished for on a network, a wish about the container.
        let exposes = !config.exposed_ports.is_empty();
        let mac_of_endpoint = {
            let mut wishes = networks.values().flatten();
            wishes.any(|one| one.mac == config.mac_address)
        };
        merge::merge(&mut config, &image.config);
        let Some((path, args)) = merge::command(&config) else {
            return Err(Error::invalid("no command specified"));
        };
        let mut warnings = Vec::new();
        self.fill_host(&mut host, &mut warnings)?;
        let support = self.inner.cgroups.support();
        limits::discard(&mut host.resources, &support, &mut warnings);
        if host.network_mode.starts_with("container:") && mac_of_endpoint {
            config.mac_address.clear();
        }
        self.check(&config, &host, exposes)?;
        let networks = self.networks_of_new(&config, &host, networks)?;
        let links = self.resolve_links(&host)?;
        let inherited = self.inherited_mounts(&host.volumes_from)?;
        let planned = mounts::plan(&config, &host, &inherited)?;

        let name = self.take_name(name, &id)?;
        if config.hostname.is_empty() {
            config.hostname = match host.network_mode.as_str() {
                "host" => rustix::system::uname()
                    .nodename()
                    .to_string_lossy()
                    .into_owned(),
                mode if mode.starts_with("container:") => String::new(),
                _ => id[..12].to_owned(),
            };
        }
        let mut record = Record {
            format: super::record::FORMAT,
            id: id.clone(),
            name,
            created_ns: crate::now_ns(),
            image_id: image.id,
            path,
            args,
            config,
            host,
            networks,
            links,
            platform_os: "linux".into(),
            incomplete: true,
            ..Record::default()
        };
        if let Some(driver) = super::logs::file_name(&record) {
            record.log_path = self
                .directory(&id)
                .join(driver)
                .to_string_lossy()
                .into_owned();
        }
        let container = Container::new(record);
        let made = self.make(&container, &mut held, planned, &chosen_directory);
        if let Err(error) = made {
            self.unmake(&container);
            return Err(error);
        }
        self.inner.containers.insert(container.clone());
        drop(held);
        let record = container.record();
        self.container_event("create", &record, &[], None);
        Ok(Created { id, warnings })
    }

    /// Takes the machine's side: the record first, then the snapshot, then volumes and their content.
    fn make(
        &self,
        container: &Arc<Container>,
        held: &mut Held,
        planned: Vec<Planned>,
        chosen_directory: &str,
    ) -> Result<()> {
        let mut owner = Owner::default();
        let snapshot = self.allocate_snapshot()?;
        let mut planned = planned;
        for one in &mut planned {
            // Named in the record before it is made: a daemon that dies in between leaves no volume without an owner.
            if one.point.anonymous
                && one.point.kind == MountKind::Volume
                && one.point.name.is_empty()
            {
                one.point.name = crate::random_id();
            }
            if one.point.kind == MountKind::Volume {
                held.hold(Kind::Volume, &one.point.name);
            }
        }
        self.check_inherited(&container.record().host.volumes_from)?;
        around("create.record", || {
            self.save_blocking(container, &mut owner, |record| {
                record.snapshot = Some(snapshot);
                record.mounts = planned.iter().map(|one| one.point.clone()).collect();
            })
        })?;
        let record = container.record();
        let directory = self.directory(&record.id);
        std::fs::create_dir_all(&directory)
            .map_err(|error| Error::io(format_args!("make `{}`", directory.display()), error))?;
        around("create.snapshot", || {
            self.prepare_snapshot(snapshot, &record)
        })?;
        if !chosen_directory.is_empty() && self.image_has_file(&record, chosen_directory)? {
            return Err(Error::system(format!(
                "Cannot mkdir: {chosen_directory} is not a directory"
            )));
        }
        let mut points = Vec::with_capacity(planned.len());
        for planned in planned {
            points.push(self.resolve_mount(&record.id, planned)?);
        }
        around("create.copy-up", || -> Result<()> {
            for point in points
                .iter()
                .filter(|point| point.kind == MountKind::Volume && !point.no_copy)
            {
                self.copy_up(&container.record(), point)?;
            }
            Ok(())
        })?;
        around("create.commit", || {
            self.keep_blocking(container, &mut owner, |record| {
                record.mounts = points;
                record.incomplete = false;
            })
        })?;
        Ok(())
    }

    /// Takes back what a failed create left.
    pub(crate) fn unmake(&self, container: &Container) {
        let record = container.record();
        self.inner.containers.release_name(&record.name, &record.id);
        let freed = self
            .release_snapshot(&record)
            .and_then(|()| self.trash_directory(&record.id));
        if let Err(error) = freed {
            tracing::error!(container = record.id, %error, "clean up after a failed create");
            return;
        }
        for point in record.mounts.iter().filter(|point| point.anonymous) {
            if let Some(volume) = self.inner.volumes.get(&point.name)
                && let Err(error) = self.destroy_volume(&volume, &record.id)
            {
                tracing::error!(volume = point.name, %error, "remove the volume of a failed create");
            }
        }
        if let Err(error) = self.inner.records.delete(&record.id) {
            tracing::error!(container = record.id, %error, "delete the record of a failed create");
        }
    }

    fn take_name(&self, name: Option<String>, id: &str) -> Result<String> {
        if let Some(name) = name {
            return match self.inner.containers.reserve_name(&name, id) {
                Ok(()) => Ok(name),
                Err(holder) => Err(super::name_in_use(&name, &holder)),
            };
        }
        for attempt in 0..64 {
            let name = names::generate(u64::from_le_bytes(crate::random_bytes()), attempt);
            if self.inner.containers.reserve_name(&name, id).is_ok() {
                return Ok(name);
            }
        }
        let name = id[..12].to_owned();
        match self.inner.containers.reserve_name(&name, id) {
            Ok(()) => Ok(name),
            Err(holder) => Err(super::name_in_use(&name, &holder)),
        }
    }

    /// Fills in the daemon's defaults and resolves names of other containers.
    fn fill_host(&self, host: &mut HostConfig, warnings: &mut Vec<String>) -> Result<()> {
        let config = &self.inner.config;
        if host.log_driver.is_empty() {
            host.log_driver.clone_from(&config.default_log_driver);
            for (key, value) in &config.default_log_options {
                host.log_options
                    .entry(key.clone())
                    .or_insert_with(|| value.clone());
            }
        }
        if matches!(host.network_mode.as_str(), "" | "default") {
            host.network_mode = "bridge".into();
        }
        if host.shm_size_bytes == 0 {
            host.shm_size_bytes = config.default_shm_size_bytes;
        }
        let resources = &mut host.resources;
        if resources.memory_bytes > 0 && resources.memory_swap_bytes == 0 {
            resources.memory_swap_bytes = resources.memory_bytes.saturating_mul(2);
        }
        if host.ipc_mode.is_empty() {
            host.ipc_mode = "private".into();
        }
        if host.cgroupns_mode.is_empty() {
            // Docker gives the host's on version 1; a container has no business with the host's groups there either.
            host.cgroupns_mode = if host.privileged
                && self.inner.cgroups.version() == gantry_sys::cgroup::Version::V1
            {
                "host".into()
            } else {
                "private".into()
            };
        }
        if host.runtime.is_empty() {
            host.runtime.clone_from(&config.default_runtime);
        }
        if host.init.is_none() && config.default_init {
            host.init = Some(true);
        }
        if let Some(name) = host.network_mode.strip_prefix("container:") {
            if name.is_empty() {
                return Err(Error::invalid(
                    "invalid network mode: invalid container format container:<name|id>",
                ));
            }
            // One that is not there yet is looked for at the start again, as Docker does.
            if let Ok(other) = self.container(name) {
                host.network_mode = format!("container:{}", other.id);
            }
        }
        for mode in [&mut host.ipc_mode, &mut host.pid_mode] {
            if let Some(name) = mode.strip_prefix("container:") {
                *mode = format!("container:{}", self.other_container(name)?.id);
            }
        }
        if host.network_mode == "host" || host.network_mode.starts_with("container:") {
            if !host.port_bindings.is_empty() && host.network_mode == "host" {
                warnings.push("Published ports are discarded when using host network mode".into());
            }
            if host.network_mode == "host" {
                host.port_bindings.clear();
            }
        }
        Ok(())
    }

    fn check(&self, config: &Config, host: &HostConfig, exposes: bool) -> Result<()> {
        limits::check(&host.resources)?;
        oci::check_sysctls(host)?;
        if !(-1000..=1000).contains(&host.oom_score_adj) {
            return Err(Error::invalid(format!(
                "Invalid value {}, range for oom score adj is [-1000, 1000]",
                host.oom_score_adj
            )));
        }
        oci::security_options(&host.security_opt, false)?;
        crate::container::effective_capabilities(&host.cap_add, &host.cap_drop, host.privileged)?;
        if let Some(text) = config
            .stop_signal
            .as_deref()
            .filter(|text| !text.is_empty())
            && signal::parse(text).is_none()
        {
            return Err(Error::invalid(format!("invalid signal: {text}")));
        }
        if !config.mac_address.is_empty()
            && crate::network::parse_mac(&config.mac_address).is_none()
        {
            return Err(Error::invalid(format!(
                "invalid config for network {}: invalid MAC address {}",
                host.network_mode, config.mac_address
            )));
        }
        match host.network_mode.as_str() {
            "bridge" if self.inner.network.bridge().is_none() => {
                return Err(Error::not_found("network bridge not found"));
            }
            mode if mode.starts_with("container:") => {
                let conflict =
                    |what: &str| Err(Error::invalid(format!("conflicting options: {what}")));
                if !config.hostname.is_empty() {
                    return conflict("hostname and the network mode");
                }
                if !config.mac_address.is_empty() {
                    return Err(Error::invalid(
                        "conflicting options: mac-address and the network mode",
                    ));
                }
                if !host.port_bindings.is_empty() || host.publish_all_ports {
                    return conflict("port publishing and the container type network mode");
                }
                if exposes {
                    return conflict("port exposing and the container type network mode");
                }
                if !host.dns.is_empty() {
                    return conflict("dns and the network mode");
                }
                if !host.extra_hosts.is_empty() {
                    return conflict("custom host-to-IP mapping and the network mode");
                }
            }
            // Docker looks for the network at the start.
            _ => {}
        }
        for (what, mode, allowed) in [
            (
                "IPC mode",
                host.ipc_mode.as_str(),
                &["private", "shareable", "none", "host"][..],
            ),
            ("PID mode", host.pid_mode.as_str(), &["", "host"][..]),
            ("UTS mode", host.uts_mode.as_str(), &["", "host"][..]),
            (
                "cgroup namespace mode",
                host.cgroupns_mode.as_str(),
                &["private", "host"][..],
            ),
        ] {
            let other = mode.starts_with("container:")
                && !what.starts_with("UTS")
                && !what.starts_with("cgroup");
            if !other && !allowed.contains(&mode) {
                return Err(Error::invalid(format!("invalid {what}: {mode}")));
            }
        }
        if host.uts_mode == "host" && !config.hostname.is_empty() {
            return Err(Error::invalid(
                "conflicting options: hostname and the UTS mode",
            ));
        }
        let policy = &host.restart_policy;
        if host.auto_remove && policy.name != RestartPolicyName::No {
            return Err(Error::invalid(
                "can't create 'AutoRemove' container with restart policy",
            ));
        }
        if policy.maximum_retry_count != 0 && policy.name != RestartPolicyName::OnFailure {
            return Err(Error::invalid(format!(
                "invalid restart policy: maximum retry count can only be used with 'on-failure': {}",
                policy.name.as_str()
            )));
        }
        if policy.maximum_retry_count < 0 {
            return Err(Error::invalid(
                "invalid restart policy: maximum retry count cannot be negative",
            ));
        }
        if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
            return Err(Error::invalid(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                config.working_dir
            )));
        }
        for entry in &config.env {
            if entry.is_empty() || entry.starts_with('=') {
                return Err(Error::invalid(format!(
                    "invalid environment variable: {entry}"
                )));
            }
        }
        super::logs::check(host)?;
        super::ports::plan(config, host)?;
        self.runtime_for(&host.runtime)?;
        super::files::extra_hosts(self, &host.extra_hosts)?;
        Ok(())
    }

    /// Finds a container that the options of a new one name. That it is missing is no 404: clients would pull the image.
    fn other_container(&self, name: &str) -> Result<Arc<Container>> {
        self.container(name)
            .map_err(|error| Error::invalid(error.to_string()).caused_by(error))
    }

    /// Collects the mounts of the containers named by `--volumes-from`.
    fn inherited_mounts(&self, names: &[String]) -> Result<Vec<(MountPoint, bool)>> {
        let mut all = Vec::new();
        for text in names {
            if text.is_empty() {
                return Err(Error::invalid(
                    "volumes-from specification cannot be an empty string",
                ));
            }
            let (name, mode) = text.split_once(':').unwrap_or((text, "rw"));
            if !matches!(
                mode,
                "rw" | "ro" | "z" | "Z" | "rw,z" | "ro,z" | "rw,Z" | "ro,Z"
            ) {
                return Err(Error::invalid(format!("invalid mode: {mode}")));
            }
            let writable = !mode.starts_with("ro");
            let other = self.other_container(name)?;
            let record = other.record();
            all.extend(
                record
                    .mounts
                    .iter()
                    .filter(|point| point.kind != MountKind::Tmpfs)
                    .map(|point| (point.clone(), writable)),
            );
        }
        Ok(all)
    }

    /// Looks once more whether the containers of `--volumes-from` are there, now that their volumes are held: a removal
    /// that began before took the volumes along, and new ones of the same names would be empty.
    fn check_inherited(&self, names: &[String]) -> Result<()> {
        for text in names {
            let name = text.split_once(':').map_or(text.as_str(), |(name, _)| name);
            if self.other_container(name)?.record().state.status == Status::Removing {
                return Err(Error::invalid(format!("No such container: {name}")));
            }
        }
        Ok(())
    }

    /// Makes or finds what a mount needs on the host.
    fn resolve_mount(&self, id: &str, planned: Planned) -> Result<MountPoint> {
        let Planned {
            mut point,
            create_source,
            volume_labels,
            volume_options,
        } = planned;
        if point.kind == MountKind::Bind {
            mounts::settle_propagation(&mut point, &self.inner.config.data_root)?;
        }
        match point.kind {
            MountKind::Tmpfs => {}
            MountKind::Bind => match std::fs::symlink_metadata(&point.source) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && create_source => {
                    std::fs::create_dir_all(&point.source).map_err(|error| {
                        Error::invalid(format!(
                            "error while creating mount source path '{}': mkdir {0}: {error}",
                            point.source
                        ))
                        .caused_by(error)
                    })?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(Error::invalid(format!(
                        "invalid mount config for type \"bind\": bind source path does not exist: {}",
                        point.source
                    )));
                }
                Err(error) => return Err(Error::io(format_args!("stat {}", point.source), error)),
            },
            MountKind::Volume => {
                let mut labels: BTreeMap<String, String> = volume_labels;
                if point.anonymous {
                    labels.insert(ANONYMOUS_LABEL.into(), String::new());
                }
                let (volume, new) = self.inner.volumes.create(volume::CreateOptions {
                    name: point.name.clone(),
                    driver: point.driver.clone(),
                    driver_options: volume_options,
                    labels,
                })?;
                point.name.clone_from(&volume.name);
                point.driver.clone_from(&volume.driver);
                point.source = volume.mountpoint.to_string_lossy().into_owned();
                if new {
                    self.volume_event("create", &volume, &[("container", id)]);
                }
            }
        }
        Ok(point)
    }

    /// Tells the status a record must have for a container to be made complete; used by recovery.
    pub(crate) fn is_half_made(record: &Record) -> bool {
        record.incomplete && record.state.status == Status::Created
    }
}
