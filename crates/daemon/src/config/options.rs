//! The table of the daemon's options: dockerd's names on the command line and in `daemon.json`.
//!
//! An option is either known here with its kind, or known as one of dockerd's that this daemon refuses by name, or
//! unknown. Nothing is accepted and ignored.

/// What an option's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `--debug`, `--debug=false`; `true` in the file.
    Bool,
    Text,
    Integer,
    /// Repeatable; a list in the file.
    List,
    /// Repeatable `key=value`; an object in the file.
    Map,
    /// Repeatable `key=value`; an object of texts, numbers and truth values in the file.
    Settings,
    /// A size such as `64M`; a number of bytes or a text in the file.
    Size,
    /// `name=soft:hard`; an object of objects in the file.
    Ulimits,
    /// Repeatable; in the file a list, or one alone.
    Addresses,
    /// Repeatable `base=…,size=…`; a list of such objects in the file.
    Pools,
    /// Repeatable `driver=key=value`; an object of objects in the file.
    NetworkOptions,
    /// `name=path`; an object of objects with `path` and `runtimeArgs` in the file.
    Runtimes,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The long flag without dashes.
    pub flag: &'static str,
    pub short: Option<char>,
    /// The key in `daemon.json`, `outer/inner` for one within an object; empty for options of the command line alone.
    pub key: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

const fn spec(
    flag: &'static str,
    short: Option<char>,
    key: &'static str,
    kind: Kind,
    help: &'static str,
) -> Spec {
    Spec {
        flag,
        short,
        key,
        kind,
        help,
    }
}

/// All options that work.
pub const OPTIONS: &[Spec] = &[
    spec(
        "add-runtime",
        None,
        "runtimes",
        Kind::Runtimes,
        "Register an OCI runtime as name=path",
    ),
    spec(
        "allow-direct-routing",
        None,
        "allow-direct-routing",
        Kind::Bool,
        "Let other hosts reach published ports at the containers' own addresses",
    ),
    spec(
        "bip",
        None,
        "bip",
        Kind::Text,
        "Address and prefix length of the default bridge",
    ),
    spec(
        "bip6",
        None,
        "bip6",
        Kind::Text,
        "IPv6 address and prefix length of the default bridge",
    ),
    spec(
        "bridge",
        Some('b'),
        "bridge",
        Kind::Text,
        "Interface of the default bridge network",
    ),
    spec(
        "cgroup-parent",
        None,
        "cgroup-parent",
        Kind::Text,
        "Parent cgroup of all containers",
    ),
    spec(
        "config-file",
        None,
        "",
        Kind::Text,
        "Configuration file (default /etc/gantry/daemon.json)",
    ),
    spec(
        "data-root",
        None,
        "data-root",
        Kind::Text,
        "Directory of persistent state (default /var/lib/gantry)",
    ),
    spec(
        "debug",
        Some('D'),
        "debug",
        Kind::Bool,
        "Log debug messages",
    ),
    spec(
        "default-address-pool",
        None,
        "default-address-pools",
        Kind::Pools,
        "Where networks without a subnet take theirs, base=CIDR,size=BITS",
    ),
    spec(
        "default-gateway",
        None,
        "default-gateway",
        Kind::Text,
        "IPv4 gateway of the default bridge's containers: the bridge's own address",
    ),
    spec(
        "default-gateway-v6",
        None,
        "default-gateway-v6",
        Kind::Text,
        "IPv6 gateway of the default bridge's containers: the bridge's own address",
    ),
    spec(
        "default-network-opt",
        None,
        "default-network-opts",
        Kind::NetworkOptions,
        "Option of new networks of a driver, driver=key=value",
    ),
    spec(
        "default-runtime",
        None,
        "default-runtime",
        Kind::Text,
        "OCI runtime of containers that name none",
    ),
    spec(
        "default-shm-size",
        None,
        "default-shm-size",
        Kind::Size,
        "Size of /dev/shm (default 64M)",
    ),
    spec(
        "default-ulimit",
        None,
        "default-ulimits",
        Kind::Ulimits,
        "Resource limit of all containers, name=soft[:hard]",
    ),
    spec("dns", None, "dns", Kind::List, "DNS server"),
    spec("dns-opt", None, "dns-opts", Kind::List, "DNS option"),
    spec(
        "dns-search",
        None,
        "dns-search",
        Kind::List,
        "DNS search domain",
    ),
    spec(
        "exec-root",
        None,
        "exec-root",
        Kind::Text,
        "Directory of the running state (default /run/gantry)",
    ),
    spec(
        "fixed-cidr",
        None,
        "fixed-cidr",
        Kind::Text,
        "Range of the default bridge that containers get addresses from",
    ),
    spec(
        "fixed-cidr-v6",
        None,
        "fixed-cidr-v6",
        Kind::Text,
        "Range of the default bridge that containers get IPv6 addresses from",
    ),
    spec(
        "group",
        Some('G'),
        "group",
        Kind::Text,
        "Group of the unix socket (default docker)",
    ),
    spec(
        "host",
        Some('H'),
        "hosts",
        Kind::List,
        "Socket to listen on: unix://PATH, tcp://ADDRESS:PORT or fd://",
    ),
    spec(
        "host-gateway-ip",
        None,
        "host-gateway-ips",
        Kind::Addresses,
        "What host-gateway in --add-host stands for (default: the default bridge)",
    ),
    spec(
        "http-proxy",
        None,
        "proxies/http-proxy",
        Kind::Text,
        "Proxy of plain HTTP to registries (default $HTTP_PROXY)",
    ),
    spec(
        "https-proxy",
        None,
        "proxies/https-proxy",
        Kind::Text,
        "Proxy of HTTPS to registries (default $HTTPS_PROXY)",
    ),
    spec(
        "icc",
        None,
        "icc",
        Kind::Bool,
        "Let containers of the default bridge talk to each other (default true)",
    ),
    spec(
        "image-gc",
        None,
        "image-gc",
        Kind::Settings,
        "Removal of images that nobody uses, key=value: enabled, tagged, unused-for, high-watermark, low-watermark, interval, keep-blobs, partials-for",
    ),
    spec(
        "init",
        None,
        "init",
        Kind::Bool,
        "Run an init in all containers",
    ),
    spec(
        "insecure-registry",
        None,
        "insecure-registries",
        Kind::List,
        "Registry, or network of registries, that may be without TLS",
    ),
    spec(
        "ip",
        None,
        "ip",
        Kind::Text,
        "Host address of published ports that name none (default 0.0.0.0)",
    ),
    spec(
        "ip-forward",
        None,
        "ip-forward",
        Kind::Bool,
        "Switch IP forwarding on where it is off (default true)",
    ),
    spec(
        "ip-forward-no-drop",
        None,
        "ip-forward-no-drop",
        Kind::Bool,
        "Leave the forward policy alone when switching forwarding on",
    ),
    spec(
        "ip-masq",
        None,
        "ip-masq",
        Kind::Bool,
        "Masquerade the default bridge (default true)",
    ),
    spec(
        "ip6tables",
        None,
        "ip6tables",
        Kind::Bool,
        "As --iptables: one table has the rules of both families",
    ),
    spec(
        "iptables",
        None,
        "iptables",
        Kind::Bool,
        "Make firewall rules (default true)",
    ),
    spec(
        "ipv6",
        None,
        "ipv6",
        Kind::Bool,
        "Give the containers of the default bridge IPv6 addresses",
    ),
    spec(
        "label",
        None,
        "labels",
        Kind::List,
        "Label of the daemon, key=value",
    ),
    spec(
        "live-restore",
        None,
        "live-restore",
        Kind::Bool,
        "Accepted as true: containers always run on without the daemon",
    ),
    spec(
        "log-driver",
        None,
        "log-driver",
        Kind::Text,
        "Log driver of containers that name none (default json-file)",
    ),
    spec(
        "log-format",
        None,
        "log-format",
        Kind::Text,
        "Format of the daemon's own log: text or json",
    ),
    spec(
        "log-level",
        Some('l'),
        "log-level",
        Kind::Text,
        "Level of the daemon's own log: debug, info, warn, error or fatal",
    ),
    spec(
        "log-opt",
        None,
        "log-opts",
        Kind::Map,
        "Log driver option, key=value",
    ),
    spec(
        "max-concurrent-downloads",
        None,
        "max-concurrent-downloads",
        Kind::Integer,
        "Blobs that are pulled at once (default 3)",
    ),
    spec(
        "max-concurrent-uploads",
        None,
        "max-concurrent-uploads",
        Kind::Integer,
        "Blobs that are pushed at once (default 5)",
    ),
    spec(
        "max-download-attempts",
        None,
        "max-download-attempts",
        Kind::Integer,
        "Tries of a request to a registry (default 5)",
    ),
    spec(
        "mtu",
        None,
        "mtu",
        Kind::Integer,
        "MTU of the default bridge (default: the default route's)",
    ),
    spec(
        "no-new-privileges",
        None,
        "no-new-privileges",
        Kind::Bool,
        "Set no-new-privileges in all containers",
    ),
    spec(
        "no-proxy",
        None,
        "proxies/no-proxy",
        Kind::Text,
        "Hosts that are reached without the proxy (default $NO_PROXY)",
    ),
    spec(
        "obey-host-firewall",
        None,
        "obey-host-firewall",
        Kind::Bool,
        "Let published ports pass the host's own input rules first",
    ),
    spec(
        "pidfile",
        Some('p'),
        "pidfile",
        Kind::Text,
        "File of the daemon's process id (default EXEC_ROOT/gantry.pid)",
    ),
    spec(
        "raw-logs",
        None,
        "raw-logs",
        Kind::Bool,
        "Log timestamps in full and no colours; the log is so in any case",
    ),
    spec(
        "registry-mirror",
        None,
        "registry-mirrors",
        Kind::List,
        "Mirror of Docker Hub",
    ),
    spec(
        "seccomp-profile",
        None,
        "seccomp-profile",
        Kind::Text,
        "Seccomp profile: builtin, unconfined or a file",
    ),
    spec(
        "shutdown-timeout",
        None,
        "shutdown-timeout",
        Kind::Integer,
        "Seconds that requests may take at shutdown (default 15)",
    ),
    spec(
        "signature-policy",
        None,
        "signature-policy",
        Kind::Text,
        "File that says which signatures the images of a repository need",
    ),
    spec(
        "userland-proxy",
        None,
        "userland-proxy",
        Kind::Bool,
        "Accepted: published ports need no proxy process",
    ),
    spec(
        "validate",
        None,
        "",
        Kind::Bool,
        "Check the configuration and exit",
    ),
];

/// dockerd's options that this daemon does not have yet, by flag and key.
pub const REFUSED: &[(&str, &str)] = &[
    ("authorization-plugin", "authorization-plugins"),
    ("bridge-accept-fwmark", "bridge-accept-fwmark"),
    ("cdi-spec-dir", "cdi-spec-dirs"),
    ("containerd", "containerd"),
    ("containerd-namespace", "containerd-namespace"),
    (
        "containerd-plugins-namespace",
        "containerd-plugin-namespace",
    ),
    ("cpu-rt-period", "cpu-rt-period"),
    ("cpu-rt-runtime", "cpu-rt-runtime"),
    ("cri-containerd", "cri-containerd"),
    ("default-cgroupns-mode", "default-cgroupns-mode"),
    ("default-ipc-mode", "default-ipc-mode"),
    ("default-stop-timeout", "default-stop-timeout"),
    ("exec-opt", "exec-opts"),
    ("experimental", "experimental"),
    ("feature", "features"),
    ("firewall-backend", "firewall-backend"),
    ("init-path", "init-path"),
    ("metrics-addr", "metrics-addr"),
    ("min-api-version", "min-api-version"),
    ("network-control-plane-mtu", "network-control-plane-mtu"),
    ("network-diagnostic-port", "network-diagnostic-port"),
    ("node-generic-resource", "node-generic-resources"),
    ("oom-score-adjust", "oom-score-adjust"),
    ("nri-opt", "nri-opts"),
    ("rootless", "rootless"),
    ("selinux-enabled", "selinux-enabled"),
    ("storage-driver", "storage-driver"),
    ("storage-opt", "storage-opts"),
    (
        "swarm-default-advertise-addr",
        "swarm-default-advertise-addr",
    ),
    ("swarm-raft-election-tick", "swarm-raft-election-tick"),
    ("swarm-raft-heartbeat-tick", "swarm-raft-heartbeat-tick"),
    ("tls", "tls"),
    ("tlscacert", "tlscacert"),
    ("tlscert", "tlscert"),
    ("tlskey", "tlskey"),
    ("tlsverify", "tlsverify"),
    ("userland-proxy-path", "userland-proxy-path"),
    ("userns-remap", "userns-remap"),
    ("builder", "builder"),
    ("resolv-conf", "resolv-conf"),
];

/// Finds an option by its long flag.
pub fn by_flag(flag: &str) -> Option<&'static Spec> {
    OPTIONS.iter().find(|spec| spec.flag == flag)
}

/// Finds an option by its short flag.
pub fn by_short(short: char) -> Option<&'static Spec> {
    OPTIONS.iter().find(|spec| spec.short == Some(short))
}

/// Finds an option by its key in the file, also by one that dockerd had before.
pub fn by_key(key: &str) -> Option<&'static Spec> {
    let key = match key {
        "host-gateway-ip" => "host-gateway-ips",
        key => key,
    };
    OPTIONS
        .iter()
        .find(|spec| !spec.key.is_empty() && spec.key == key)
}

/// Tells whether dockerd has an option that this daemon refuses.
pub fn is_refused_flag(flag: &str) -> bool {
    REFUSED.iter().any(|(refused, _)| *refused == flag)
}

/// Tells whether dockerd has a key that this daemon refuses.
pub fn is_refused_key(key: &str) -> bool {
    REFUSED.iter().any(|(_, refused)| *refused == key)
}
