//! The flags and texts of `container` and its short forms: `run`, `exec`, `ps` .... Texts are Docker's own, byte for byte: scripts and people compare them.

use crate::grammar::{Args, Child, Command, deprecated, hidden, long, short};

pub static CONTAINER: Command = Command {
    path: "container",
    usage: "{} COMMAND",
    short: "Manage containers",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "attach",
            aliases: &[],
            section: "",
            command: &CONTAINER_ATTACH,
        },
        Child {
            name: "commit",
            aliases: &[],
            section: "",
            command: &CONTAINER_COMMIT,
        },
        Child {
            name: "cp",
            aliases: &[],
            section: "",
            command: &CONTAINER_CP,
        },
        Child {
            name: "create",
            aliases: &[],
            section: "",
            command: &CONTAINER_CREATE,
        },
        Child {
            name: "diff",
            aliases: &[],
            section: "",
            command: &CONTAINER_DIFF,
        },
        Child {
            name: "exec",
            aliases: &[],
            section: "",
            command: &CONTAINER_EXEC,
        },
        Child {
            name: "export",
            aliases: &[],
            section: "",
            command: &CONTAINER_EXPORT,
        },
        Child {
            name: "inspect",
            aliases: &[],
            section: "",
            command: &CONTAINER_INSPECT,
        },
        Child {
            name: "kill",
            aliases: &[],
            section: "",
            command: &CONTAINER_KILL,
        },
        Child {
            name: "logs",
            aliases: &[],
            section: "",
            command: &CONTAINER_LOGS,
        },
        Child {
            name: "ls",
            aliases: &["list", "ps"],
            section: "",
            command: &CONTAINER_LS,
        },
        Child {
            name: "pause",
            aliases: &[],
            section: "",
            command: &CONTAINER_PAUSE,
        },
        Child {
            name: "port",
            aliases: &[],
            section: "",
            command: &CONTAINER_PORT,
        },
        Child {
            name: "prune",
            aliases: &[],
            section: "",
            command: &CONTAINER_PRUNE,
        },
        Child {
            name: "rename",
            aliases: &[],
            section: "",
            command: &CONTAINER_RENAME,
        },
        Child {
            name: "restart",
            aliases: &[],
            section: "",
            command: &CONTAINER_RESTART,
        },
        Child {
            name: "rm",
            aliases: &["remove"],
            section: "",
            command: &CONTAINER_RM,
        },
        Child {
            name: "run",
            aliases: &[],
            section: "",
            command: &CONTAINER_RUN,
        },
        Child {
            name: "start",
            aliases: &[],
            section: "",
            command: &CONTAINER_START,
        },
        Child {
            name: "stats",
            aliases: &[],
            section: "",
            command: &CONTAINER_STATS,
        },
        Child {
            name: "stop",
            aliases: &[],
            section: "",
            command: &CONTAINER_STOP,
        },
        Child {
            name: "top",
            aliases: &[],
            section: "",
            command: &CONTAINER_TOP,
        },
        Child {
            name: "unpause",
            aliases: &[],
            section: "",
            command: &CONTAINER_UNPAUSE,
        },
        Child {
            name: "update",
            aliases: &[],
            section: "",
            command: &CONTAINER_UPDATE,
        },
        Child {
            name: "wait",
            aliases: &[],
            section: "",
            command: &CONTAINER_WAIT,
        },
    ],
};

pub static CONTAINER_ATTACH: Command = Command {
    path: "container attach",
    usage: "{} [OPTIONS] CONTAINER",
    short: "Attach local standard input, output, and error streams to a running container",
    long: "",
    aliases: "docker container attach, docker attach",
    args: Args::Exactly(1),
    flags: &[
        long(
            "detach-keys",
            "string",
            "Override the key sequence for detaching a container",
        ),
        long("no-stdin", "", "Do not attach STDIN"),
        long(
            "sig-proxy",
            "",
            "Proxy all received signals to the process (default true)",
        ),
    ],
    children: &[],
};

pub static CONTAINER_COMMIT: Command = Command {
    path: "container commit",
    usage: "{} [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    short: "Create a new image from a container's changes",
    long: "",
    aliases: "docker container commit, docker commit",
    args: Args::Range(1, 2),
    flags: &[
        short(
            'a',
            "author",
            "string",
            "Author (e.g., \"John Hannibal Smith <hannibal@a-team.com>\")",
        ),
        short(
            'c',
            "change",
            "list",
            "Apply Dockerfile instruction to the created image",
        ),
        short('m', "message", "string", "Commit message"),
        short(
            'p',
            "pause",
            "",
            "Pause container during commit (default true)",
        ),
    ],
    children: &[],
};

pub static CONTAINER_CP: Command = Command {
    path: "container cp",
    usage: "{} [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tdocker cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    short: "Copy files/folders between a container and the local filesystem",
    long: "Copy files/folders between a container and the local filesystem\n\nUse '-' as the source to read a tar archive from stdin\nand extract it to a directory destination in a container.\nUse '-' as the destination to stream a tar archive of a\ncontainer source to stdout.",
    aliases: "docker container cp, docker cp",
    args: Args::Exactly(2),
    flags: &[
        short(
            'a',
            "archive",
            "",
            "Archive mode (copy all uid/gid information)",
        ),
        short(
            'L',
            "follow-link",
            "",
            "Always follow symbol link in SRC_PATH",
        ),
        short(
            'q',
            "quiet",
            "",
            "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached",
        ),
    ],
    children: &[],
};

pub static CONTAINER_CREATE: Command = Command {
    path: "container create",
    usage: "{} [OPTIONS] IMAGE [COMMAND] [ARG...]",
    short: "Create a new container",
    long: "",
    aliases: "docker container create, docker create",
    args: Args::AtLeast(1),
    flags: &[
        long(
            "add-host",
            "list",
            "Add a custom host-to-IP mapping (host:ip)",
        ),
        long(
            "annotation",
            "map",
            "Add an annotation to the container (passed through to the OCI runtime) (default map[])",
        ),
        short('a', "attach", "list", "Attach to STDIN, STDOUT or STDERR"),
        long(
            "blkio-weight",
            "uint16",
            "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)",
        ),
        long(
            "blkio-weight-device",
            "list",
            "Block IO weight (relative device weight) (default [])",
        ),
        long("cap-add", "list", "Add Linux capabilities"),
        long("cap-drop", "list", "Drop Linux capabilities"),
        long(
            "cgroup-parent",
            "string",
            "Optional parent cgroup for the container",
        ),
        long(
            "cgroupns",
            "string",
            "Cgroup namespace to use (host|private)\n'host':    Run the container in the Docker host's cgroup namespace\n'private': Run the container in its own private cgroup namespace\n'':        Use the cgroup namespace as configured by the\n           default-cgroupns-mode option on the daemon (default)",
        ),
        long("cidfile", "string", "Write the container ID to the file"),
        long("cpu-count", "int", "CPU count (Windows only)"),
        long("cpu-percent", "int", "CPU percent (Windows only)"),
        long(
            "cpu-period",
            "int",
            "Limit CPU CFS (Completely Fair Scheduler) period",
        ),
        long(
            "cpu-quota",
            "int",
            "Limit CPU CFS (Completely Fair Scheduler) quota",
        ),
        long(
            "cpu-rt-period",
            "int",
            "Limit CPU real-time period in microseconds",
        ),
        long(
            "cpu-rt-runtime",
            "int",
            "Limit CPU real-time runtime in microseconds",
        ),
        short('c', "cpu-shares", "int", "CPU shares (relative weight)"),
        long("cpus", "decimal", "Number of CPUs"),
        long(
            "cpuset-cpus",
            "string",
            "CPUs in which to allow execution (0-3, 0,1)",
        ),
        long(
            "cpuset-mems",
            "string",
            "MEMs in which to allow execution (0-3, 0,1)",
        ),
        long("device", "list", "Add a host device to the container"),
        long(
            "device-cgroup-rule",
            "list",
            "Add a rule to the cgroup allowed devices list",
        ),
        long(
            "device-read-bps",
            "list",
            "Limit read rate (bytes per second) from a device (default [])",
        ),
        long(
            "device-read-iops",
            "list",
            "Limit read rate (IO per second) from a device (default [])",
        ),
        long(
            "device-write-bps",
            "list",
            "Limit write rate (bytes per second) to a device (default [])",
        ),
        long(
            "device-write-iops",
            "list",
            "Limit write rate (IO per second) to a device (default [])",
        ),
        long(
            "disable-content-trust",
            "",
            "Skip image verification (default true)",
        ),
        long("dns", "list", "Set custom DNS servers"),
        hidden("dns-opt", "list", "Set DNS options"),
        long("dns-option", "list", "Set DNS options"),
        long("dns-search", "list", "Set custom DNS search domains"),
        long("domainname", "string", "Container NIS domain name"),
        long(
            "entrypoint",
            "string",
            "Overwrite the default ENTRYPOINT of the image",
        ),
        short('e', "env", "list", "Set environment variables"),
        long(
            "env-file",
            "list",
            "Read in a file of environment variables",
        ),
        long("expose", "list", "Expose a port or a range of ports"),
        long(
            "gpus",
            "gpu-request",
            "GPU devices to add to the container ('all' to pass all GPUs)",
        ),
        long("group-add", "list", "Add additional groups to join"),
        long("health-cmd", "string", "Command to run to check health"),
        long(
            "health-interval",
            "duration",
            "Time between running the check (ms|s|m|h) (default 0s)",
        ),
        long(
            "health-retries",
            "int",
            "Consecutive failures needed to report unhealthy",
        ),
        long(
            "health-start-interval",
            "duration",
            "Time between running the check during the start period (ms|s|m|h) (default 0s)",
        ),
        long(
            "health-start-period",
            "duration",
            "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)",
        ),
        long(
            "health-timeout",
            "duration",
            "Maximum time to allow one check to run (ms|s|m|h) (default 0s)",
        ),
        long("help", "", "Print usage"),
        short('h', "hostname", "string", "Container host name"),
        long(
            "init",
            "",
            "Run an init inside the container that forwards signals and reaps processes",
        ),
        short(
            'i',
            "interactive",
            "",
            "Keep STDIN open even if not attached",
        ),
        long(
            "io-maxbandwidth",
            "bytes",
            "Maximum IO bandwidth limit for the system drive (Windows only)",
        ),
        long(
            "io-maxiops",
            "uint",
            "Maximum IOps limit for the system drive (Windows only)",
        ),
        long("ip", "string", "IPv4 address (e.g., 172.30.100.104)"),
        long("ip6", "string", "IPv6 address (e.g., 2001:db8::33)"),
        long("ipc", "string", "IPC mode to use"),
        long("isolation", "string", "Container isolation technology"),
        long("kernel-memory", "bytes", "Kernel memory limit"),
        short('l', "label", "list", "Set meta data on a container"),
        long(
            "label-file",
            "list",
            "Read in a line delimited file of labels",
        ),
        long("link", "list", "Add link to another container"),
        long(
            "link-local-ip",
            "list",
            "Container IPv4/IPv6 link-local addresses",
        ),
        long("log-driver", "string", "Logging driver for the container"),
        long("log-opt", "list", "Log driver options"),
        long(
            "mac-address",
            "string",
            "Container MAC address (e.g., 92:d0:c6:0a:29:33)",
        ),
        short('m', "memory", "bytes", "Memory limit"),
        long("memory-reservation", "bytes", "Memory soft limit"),
        long(
            "memory-swap",
            "bytes",
            "Swap limit equal to memory plus swap: '-1' to enable unlimited swap",
        ),
        long(
            "memory-swappiness",
            "int",
            "Tune container memory swappiness (0 to 100) (default -1)",
        ),
        long(
            "mount",
            "mount",
            "Attach a filesystem mount to the container",
        ),
        long("name", "string", "Assign a name to the container"),
        hidden("net", "network", "Connect a container to a network"),
        hidden(
            "net-alias",
            "list",
            "Add network-scoped alias for the container",
        ),
        long("network", "network", "Connect a container to a network"),
        long(
            "network-alias",
            "list",
            "Add network-scoped alias for the container",
        ),
        long(
            "no-healthcheck",
            "",
            "Disable any container-specified HEALTHCHECK",
        ),
        long("oom-kill-disable", "", "Disable OOM Killer"),
        long(
            "oom-score-adj",
            "int",
            "Tune host's OOM preferences (-1000 to 1000)",
        ),
        long("pid", "string", "PID namespace to use"),
        long(
            "pids-limit",
            "int",
            "Tune container pids limit (set -1 for unlimited)",
        ),
        long(
            "platform",
            "string",
            "Set platform if server is multi-platform capable",
        ),
        long(
            "privileged",
            "",
            "Give extended privileges to this container",
        ),
        short(
            'p',
            "publish",
            "list",
            "Publish a container's port(s) to the host",
        ),
        short(
            'P',
            "publish-all",
            "",
            "Publish all exposed ports to random ports",
        ),
        long(
            "pull",
            "string",
            "Pull image before creating (\"always\", \"|missing\", \"never\") (default \"missing\")",
        ),
        short('q', "quiet", "", "Suppress the pull output"),
        long(
            "read-only",
            "",
            "Mount the container's root filesystem as read only",
        ),
        long(
            "restart",
            "string",
            "Restart policy to apply when a container exits (default \"no\")",
        ),
        long(
            "rm",
            "",
            "Automatically remove the container and its associated anonymous volumes when it exits",
        ),
        long("runtime", "string", "Runtime to use for this container"),
        long("security-opt", "list", "Security Options"),
        long("shm-size", "bytes", "Size of /dev/shm"),
        long("stop-signal", "string", "Signal to stop the container"),
        long(
            "stop-timeout",
            "int",
            "Timeout (in seconds) to stop a container",
        ),
        long(
            "storage-opt",
            "list",
            "Storage driver options for the container",
        ),
        long("sysctl", "map", "Sysctl options (default map[])"),
        long("tmpfs", "list", "Mount a tmpfs directory"),
        short('t', "tty", "", "Allocate a pseudo-TTY"),
        long("ulimit", "ulimit", "Ulimit options (default [])"),
        long(
            "use-api-socket",
            "",
            "Bind mount Docker API socket and required auth",
        ),
        short(
            'u',
            "user",
            "string",
            "Username or UID (format: <name|uid>[:<group|gid>])",
        ),
        long("userns", "string", "User namespace to use"),
        long("uts", "string", "UTS namespace to use"),
        short('v', "volume", "list", "Bind mount a volume"),
        long(
            "volume-driver",
            "string",
            "Optional volume driver for the container",
        ),
        long(
            "volumes-from",
            "list",
            "Mount volumes from the specified container(s)",
        ),
        short(
            'w',
            "workdir",
            "string",
            "Working directory inside the container",
        ),
    ],
    children: &[],
};

pub static CONTAINER_DIFF: Command = Command {
    path: "container diff",
    usage: "{} CONTAINER",
    short: "Inspect changes to files or directories on a container's filesystem",
    long: "",
    aliases: "docker container diff, docker diff",
    args: Args::Exactly(1),
    flags: &[],
    children: &[],
};

pub static CONTAINER_EXEC: Command = Command {
    path: "container exec",
    usage: "{} [OPTIONS] CONTAINER COMMAND [ARG...]",
    short: "Execute a command in a running container",
    long: "",
    aliases: "docker container exec, docker exec",
    args: Args::AtLeast(2),
    flags: &[
        short(
            'd',
            "detach",
            "",
            "Detached mode: run command in the background",
        ),
        long(
            "detach-keys",
            "string",
            "Override the key sequence for detaching a container",
        ),
        short('e', "env", "list", "Set environment variables"),
        long(
            "env-file",
            "list",
            "Read in a file of environment variables",
        ),
        short(
            'i',
            "interactive",
            "",
            "Keep STDIN open even if not attached",
        ),
        long("privileged", "", "Give extended privileges to the command"),
        short('t', "tty", "", "Allocate a pseudo-TTY"),
        short(
            'u',
            "user",
            "string",
            "Username or UID (format: \"<name|uid>[:<group|gid>]\")",
        ),
        short(
            'w',
            "workdir",
            "string",
            "Working directory inside the container",
        ),
    ],
    children: &[],
};

pub static CONTAINER_EXPORT: Command = Command {
    path: "container export",
    usage: "{} [OPTIONS] CONTAINER",
    short: "Export a container's filesystem as a tar archive",
    long: "",
    aliases: "docker container export, docker export",
    args: Args::Exactly(1),
    flags: &[short(
        'o',
        "output",
        "string",
        "Write to a file, instead of STDOUT",
    )],
    children: &[],
};

pub static CONTAINER_INSPECT: Command = Command {
    path: "container inspect",
    usage: "{} [OPTIONS] CONTAINER [CONTAINER...]",
    short: "Display detailed information on one or more containers",
    long: "",
    aliases: "",
    args: Args::AtLeast(1),
    flags: &[
        short(
            'f',
            "format",
            "string",
            "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates",
        ),
        short('s', "size", "", "Display total file sizes"),
    ],
    children: &[],
};

pub static CONTAINER_KILL: Command = Command {
    path: "container kill",
    usage: "{} [OPTIONS] CONTAINER [CONTAINER...]",
    short: "Kill one or more running containers",
    long: "",
    aliases: "docker container kill, docker kill",
    args: Args::AtLeast(1),
    flags: &[short(
        's',
        "signal",
        "string",
        "Signal to send to the container",
    )],
    children: &[],
};

pub static CONTAINER_LOGS: Command = Command {
    path: "container logs",
    usage: "{} [OPTIONS] CONTAINER",
    short: "Fetch the logs of a container",
    long: "",
    aliases: "docker container logs, docker logs",
    args: Args::Exactly(1),
    flags: &[
        long("details", "", "Show extra details provided to logs"),
        short('f', "follow", "", "Follow log output"),
        long(
            "since",
            "string",
            "Show logs since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)",
        ),
        short(
            'n',
            "tail",
            "string",
            "Number of lines to show from the end of the logs (default \"all\")",
        ),
        short('t', "timestamps", "", "Show timestamps"),
        long(
            "until",
            "string",
            "Show logs before a timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)",
        ),
    ],
    children: &[],
};

pub static CONTAINER_LS: Command = Command {
    path: "container ls",
    usage: "{} [OPTIONS]",
    short: "List containers",
    long: "",
    aliases: "docker container ls, docker container list, docker container ps, docker ps",
    args: Args::None,
    flags: &[
        short(
            'a',
            "all",
            "",
            "Show all containers (default shows just running)",
        ),
        short(
            'f',
            "filter",
            "filter",
            "Filter output based on conditions provided",
        ),
        long(
            "format",
            "string",
            "Format output using a custom template:\n'table':            Print output in table format with column headers (default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates",
        ),
        short(
            'n',
            "last",
            "int",
            "Show n last created containers (includes all states) (default -1)",
        ),
        short(
            'l',
            "latest",
            "",
            "Show the latest created container (includes all states)",
        ),
        long("no-trunc", "", "Don't truncate output"),
        short('q', "quiet", "", "Only display container IDs"),
        short('s', "size", "", "Display total file sizes"),
    ],
    children: &[],
};

pub static CONTAINER_PAUSE: Command = Command {
    path: "container pause",
    usage: "{} CONTAINER [CONTAINER...]",
    short: "Pause all processes within one or more containers",
    long: "",
    aliases: "docker container pause, docker pause",
    args: Args::AtLeast(1),
    flags: &[],
    children: &[],
};

pub static CONTAINER_PORT: Command = Command {
    path: "container port",
    usage: "{} CONTAINER [PRIVATE_PORT[/PROTO]]",
    short: "List port mappings or a specific mapping for the container",
    long: "",
    aliases: "docker container port, docker port",
    args: Args::Range(1, 2),
    flags: &[],
    children: &[],
};

pub static CONTAINER_PRUNE: Command = Command {
    path: "container prune",
    usage: "{} [OPTIONS]",
    short: "Remove all stopped containers",
    long: "",
    aliases: "",
    args: Args::None,
    flags: &[
        long(
            "filter",
            "filter",
            "Provide filter values (e.g. \"until=<timestamp>\")",
        ),
        short('f', "force", "", "Do not prompt for confirmation"),
    ],
    children: &[],
};

pub static CONTAINER_RENAME: Command = Command {
    path: "container rename",
    usage: "{} CONTAINER NEW_NAME",
    short: "Rename a container",
    long: "",
    aliases: "docker container rename, docker rename",
    args: Args::Exactly(2),
    flags: &[],
    children: &[],
};

pub static CONTAINER_RESTART: Command = Command {
    path: "container restart",
    usage: "{} [OPTIONS] CONTAINER [CONTAINER...]",
    short: "Restart one or more containers",
    long: "",
    aliases: "docker container restart, docker restart",
    args: Args::AtLeast(1),
    flags: &[
        short('s', "signal", "string", "Signal to send to the container"),
        deprecated(
            "time",
            "int",
            "Seconds to wait before killing the container",
            "use --timeout instead",
        ),
        short(
            't',
            "timeout",
            "int",
            "Seconds to wait before killing the container",
        ),
    ],
    children: &[],
};

pub static CONTAINER_RM: Command = Command {
    path: "container rm",
    usage: "{} [OPTIONS] CONTAINER [CONTAINER...]",
    short: "Remove one or more containers",
    long: "",
    aliases: "docker container rm, docker container remove, docker rm",
    args: Args::AtLeast(1),
    flags: &[
        short(
            'f',
            "force",
            "",
            "Force the removal of a running container (uses SIGKILL)",
        ),
        short('l', "link", "", "Remove the specified link"),
        short(
            'v',
            "volumes",
            "",
            "Remove anonymous volumes associated with the container",
        ),
    ],
    children: &[],
};

pub static CONTAINER_RUN: Command = Command {
    path: "container run",
    usage: "{} [OPTIONS] IMAGE [COMMAND] [ARG...]",
    short: "Create and run a new container from an image",
    long: "",
    aliases: "docker container run, docker run",
    args: Args::AtLeast(1),
    flags: &[
        long(
            "add-host",
            "list",
            "Add a custom host-to-IP mapping (host:ip)",
        ),
        long(
            "annotation",
            "map",
            "Add an annotation to the container (passed through to the OCI runtime) (default map[])",
        ),
        short('a', "attach", "list", "Attach to STDIN, STDOUT or STDERR"),
        long(
            "blkio-weight",
            "uint16",
            "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)",
        ),
        long(
            "blkio-weight-device",
            "list",
            "Block IO weight (relative device weight) (default [])",
        ),
        long("cap-add", "list", "Add Linux capabilities"),
        long("cap-drop", "list", "Drop Linux capabilities"),
        long(
            "cgroup-parent",
            "string",
            "Optional parent cgroup for the container",
        ),
        long(
            "cgroupns",
            "string",
            "Cgroup namespace to use (host|private)\n'host':    Run the container in the Docker host's cgroup namespace\n'private': Run the container in its own private cgroup namespace\n'':        Use the cgroup namespace as configured by the\n           default-cgroupns-mode option on the daemon (default)",
        ),
        long("cidfile", "string", "Write the container ID to the file"),
        long("cpu-count", "int", "CPU count (Windows only)"),
        long("cpu-percent", "int", "CPU percent (Windows only)"),
        long(
            "cpu-period",
            "int",
            "Limit CPU CFS (Completely Fair Scheduler) period",
        ),
        long(
            "cpu-quota",
            "int",
            "Limit CPU CFS (Completely Fair Scheduler) quota",
        ),
        long(
            "cpu-rt-period",
            "int",
            "Limit CPU real-time period in microseconds",
        ),
        long(
            "cpu-rt-runtime",
            "int",
            "Limit CPU real-time runtime in microseconds",
        ),
        short('c', "cpu-shares", "int", "CPU shares (relative weight)"),
        long("cpus", "decimal", "Number of CPUs"),
        long(
            "cpuset-cpus",
            "string",
            "CPUs in which to allow execution (0-3, 0,1)",
        ),
        long(
            "cpuset-mems",
            "string",
            "MEMs in which to allow execution (0-3, 0,1)",
        ),
        short(
            'd',
            "detach",
            "",
            "Run container in background and print container ID",
        ),
        long(
            "detach-keys",
            "string",
            "Override the key sequence for detaching a container",
        ),
        long("device", "list", "Add a host device to the container"),
        long(
            "device-cgroup-rule",
            "list",
            "Add a rule to the cgroup allowed devices list",
        ),
        long(
            "device-read-bps",
            "list",
            "Limit read rate (bytes per second) from a device (default [])",
        ),
        long(
            "device-read-iops",
            "list",
            "Limit read rate (IO per second) from a device (default [])",
        ),
        long(
            "device-write-bps",
            "list",
            "Limit write rate (bytes per second) to a device (default [])",
        ),
        long(
            "device-write-iops",
            "list",
            "Limit write rate (IO per second) to a device (default [])",
        ),
        long(
            "disable-content-trust",
            "",
            "Skip image verification (default true)",
        ),
        long("dns", "list", "Set custom DNS servers"),
        hidden("dns-opt", "list", "Set DNS options"),
        long("dns-option", "list", "Set DNS options"),
        long("dns-search", "list", "Set custom DNS search domains"),
        long("domainname", "string", "Container NIS domain name"),
        long(
            "entrypoint",
            "string",
            "Overwrite the default ENTRYPOINT of the image",
        ),
        short('e', "env", "list", "Set environment variables"),
        long(
            "env-file",
            "list",
            "Read in a file of environment variables",
        ),
        long("expose", "list", "Expose a port or a range of ports"),
        long(
            "gpus",
            "gpu-request",
            "GPU devices to add to the container ('all' to pass all GPUs)",
        ),
        long("group-add", "list", "Add additional groups to join"),
        long("health-cmd", "string", "Command to run to check health"),
        long(
            "health-interval",
            "duration",
            "Time between running the check (ms|s|m|h) (default 0s)",
        ),
        long(
            "health-retries",
            "int",
            "Consecutive failures needed to report unhealthy",
        ),
        long(
            "health-start-interval",
            "duration",
            "Time between running the check during the start period (ms|s|m|h) (default 0s)",
        ),
        long(
            "health-start-period",
            "duration",
            "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)",
        ),
        long(
            "health-timeout",
            "duration",
            "Maximum time to allow one check to run (ms|s|m|h) (default 0s)",
        ),
        long("help", "", "Print usage"),
        short('h', "hostname", "string", "Container host name"),
        long(
            "init",
            "",
            "Run an init inside the container that forwards signals and reaps processes",
        ),
        short(
            'i',
            "interactive",
            "",
            "Keep STDIN open even if not attached",
        ),
        long(
            "io-maxbandwidth",
            "bytes",
            "Maximum IO bandwidth limit for the system drive (Windows only)",
        ),
        long(
            "io-maxiops",
            "uint",
            "Maximum IOps limit for the system drive (Windows only)",
        ),
        long("ip", "string", "IPv4 address (e.g., 172.30.100.104)"),
        long("ip6", "string", "IPv6 address (e.g., 2001:db8::33)"),
        long("ipc", "string", "IPC mode to use"),
        long("isolation", "string", "Container isolation technology"),
        long("kernel-memory", "bytes", "Kernel memory limit"),
        short('l', "label", "list", "Set meta data on a container"),
        long(
            "label-file",
            "list",
            "Read in a line delimited file of labels",
        ),
        long("link", "list", "Add link to another container"),
        long(
            "link-local-ip",
            "list",
            "Container IPv4/IPv6 link-local addresses",
        ),
        long("log-driver", "string", "Logging driver for the container"),
        long("log-opt", "list", "Log driver options"),
        long(
            "mac-address",
            "string",
            "Container MAC address (e.g., 92:d0:c6:0a:29:33)",
        ),
        short('m', "memory", "bytes", "Memory limit"),
        long("memory-reservation", "bytes", "Memory soft limit"),
        long(
            "memory-swap",
            "bytes",
            "Swap limit equal to memory plus swap: '-1' to enable unlimited swap",
        ),
        long(
            "memory-swappiness",
            "int",
            "Tune container memory swappiness (0 to 100) (default -1)",
        ),
        long(
            "mount",
            "mount",
            "Attach a filesystem mount to the container",
        ),
        long("name", "string", "Assign a name to the container"),
        hidden("net", "network", "Connect a container to a network"),
        hidden(
            "net-alias",
            "list",
            "Add network-scoped alias for the container",
        ),
        long("network", "network", "Connect a container to a network"),
        long(
            "network-alias",
            "list",
            "Add network-scoped alias for the container",
        ),
        long(
            "no-healthcheck",
            "",
            "Disable any container-specified HEALTHCHECK",
        ),
        long("oom-kill-disable", "", "Disable OOM Killer"),
        long(
            "oom-score-adj",
            "int",
            "Tune host's OOM preferences (-1000 to 1000)",
        ),
        long("pid", "string", "PID namespace to use"),
        long(
            "pids-limit",
            "int",
            "Tune container pids limit (set -1 for unlimited)",
        ),
        long(
            "platform",
            "string",
            "Set platform if server is multi-platform capable",
        ),
        long(
            "privileged",
            "",
            "Give extended privileges to this container",
        ),
        short(
            'p',
            "publish",
            "list",
            "Publish a container's port(s) to the host",
        ),
        short(
            'P',
            "publish-all",
            "",
            "Publish all exposed ports to random ports",
        ),
        long(
            "pull",
            "string",
            "Pull image before running (\"always\", \"missing\", \"never\") (default \"missing\")",
        ),
        short('q', "quiet", "", "Suppress the pull output"),
        long(
            "read-only",
            "",
            "Mount the container's root filesystem as read only",
        ),
        long(
            "restart",
            "string",
            "Restart policy to apply when a container exits (default \"no\")",
        ),
        long(
            "rm",
            "",
            "Automatically remove the container and its associated anonymous volumes when it exits",
        ),
        long("runtime", "string", "Runtime to use for this container"),
        long("security-opt", "list", "Security Options"),
        long("shm-size", "bytes", "Size of /dev/shm"),
        long(
            "sig-proxy",
            "",
            "Proxy received signals to the process (default true)",
        ),
        long("stop-signal", "string", "Signal to stop the container"),
        long(
            "stop-timeout",
            "int",
            "Timeout (in seconds) to stop a container",
        ),
        long(
            "storage-opt",
            "list",
            "Storage driver options for the container",
        ),
        long("sysctl", "map", "Sysctl options (default map[])"),
        long("tmpfs", "list", "Mount a tmpfs directory"),
        short('t', "tty", "", "Allocate a pseudo-TTY"),
        long("ulimit", "ulimit", "Ulimit options (default [])"),
        long(
            "use-api-socket",
            "",
            "Bind mount Docker API socket and required auth",
        ),
        short(
            'u',
            "user",
            "string",
            "Username or UID (format: <name|uid>[:<group|gid>])",
        ),
        long("userns", "string", "User namespace to use"),
        long("uts", "string", "UTS namespace to use"),
        short('v', "volume", "list", "Bind mount a volume"),
        long(
            "volume-driver",
            "string",
            "Optional volume driver for the container",
        ),
        long(
            "volumes-from",
            "list",
            "Mount volumes from the specified container(s)",
        ),
        short(
            'w',
            "workdir",
            "string",
            "Working directory inside the container",
        ),
    ],
    children: &[],
};

pub static CONTAINER_START: Command = Command {
    path: "container start",
    usage: "{} [OPTIONS] CONTAINER [CONTAINER...]",
    short: "Start one or more stopped containers",
    long: "",
    aliases: "docker container start, docker start",
    args: Args::AtLeast(1),
    flags: &[
        short(
            'a',
            "attach",
            "",
            "Attach STDOUT/STDERR and forward signals",
        ),
        long("checkpoint", "string", "Restore from this checkpoint"),
        long(
            "checkpoint-dir",
            "string",
            "Use a custom checkpoint storage directory",
        ),
        long(
            "detach-keys",
            "string",
            "Override the key sequence for detaching a container",
        ),
        short('i', "interactive", "", "Attach container's STDIN"),
    ],
    children: &[],
};

pub static CONTAINER_STATS: Command = Command {
    path: "container stats",
    usage: "{} [OPTIONS] [CONTAINER...]",
    short: "Display a live stream of container(s) resource usage statistics",
    long: "",
    aliases: "docker container stats, docker stats",
    args: Args::Any,
    flags: &[
        short(
            'a',
            "all",
            "",
            "Show all containers (default shows just running)",
        ),
        long(
            "format",
            "string",
            "Format output using a custom template:\n'table':            Print output in table format with column headers (default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates",
        ),
        long(
            "no-stream",
            "",
            "Disable streaming stats and only pull the first result",
        ),
        long("no-trunc", "", "Do not truncate output"),
    ],
    children: &[],
};

pub static CONTAINER_STOP: Command = Command {
    path: "container stop",
    usage: "{} [OPTIONS] CONTAINER [CONTAINER...]",
    short: "Stop one or more running containers",
    long: "",
    aliases: "docker container stop, docker stop",
    args: Args::AtLeast(1),
    flags: &[
        short('s', "signal", "string", "Signal to send to the container"),
        deprecated(
            "time",
            "int",
            "Seconds to wait before killing the container",
            "use --timeout instead",
        ),
        short(
            't',
            "timeout",
            "int",
            "Seconds to wait before killing the container",
        ),
    ],
    children: &[],
};

pub static CONTAINER_TOP: Command = Command {
    path: "container top",
    usage: "{} CONTAINER [ps OPTIONS]",
    short: "Display the running processes of a container",
    long: "",
    aliases: "docker container top, docker top",
    args: Args::AtLeast(1),
    flags: &[],
    children: &[],
};

pub static CONTAINER_UNPAUSE: Command = Command {
    path: "container unpause",
    usage: "{} CONTAINER [CONTAINER...]",
    short: "Unpause all processes within one or more containers",
    long: "",
    aliases: "docker container unpause, docker unpause",
    args: Args::AtLeast(1),
    flags: &[],
    children: &[],
};

pub static CONTAINER_UPDATE: Command = Command {
    path: "container update",
    usage: "{} [OPTIONS] CONTAINER [CONTAINER...]",
    short: "Update configuration of one or more containers",
    long: "",
    aliases: "docker container update, docker update",
    args: Args::AtLeast(1),
    flags: &[
        long(
            "blkio-weight",
            "uint16",
            "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)",
        ),
        long(
            "cpu-period",
            "int",
            "Limit CPU CFS (Completely Fair Scheduler) period",
        ),
        long(
            "cpu-quota",
            "int",
            "Limit CPU CFS (Completely Fair Scheduler) quota",
        ),
        long(
            "cpu-rt-period",
            "int",
            "Limit the CPU real-time period in microseconds",
        ),
        long(
            "cpu-rt-runtime",
            "int",
            "Limit the CPU real-time runtime in microseconds",
        ),
        short('c', "cpu-shares", "int", "CPU shares (relative weight)"),
        long("cpus", "decimal", "Number of CPUs"),
        long(
            "cpuset-cpus",
            "string",
            "CPUs in which to allow execution (0-3, 0,1)",
        ),
        long(
            "cpuset-mems",
            "string",
            "MEMs in which to allow execution (0-3, 0,1)",
        ),
        short('m', "memory", "bytes", "Memory limit"),
        long("memory-reservation", "bytes", "Memory soft limit"),
        long(
            "memory-swap",
            "bytes",
            "Swap limit equal to memory plus swap: -1 to enable unlimited swap",
        ),
        long(
            "pids-limit",
            "int",
            "Tune container pids limit (set -1 for unlimited)",
        ),
        long(
            "restart",
            "string",
            "Restart policy to apply when a container exits",
        ),
    ],
    children: &[],
};

pub static CONTAINER_WAIT: Command = Command {
    path: "container wait",
    usage: "{} CONTAINER [CONTAINER...]",
    short: "Block until one or more containers stop, then print their exit codes",
    long: "",
    aliases: "docker container wait, docker wait",
    args: Args::AtLeast(1),
    flags: &[],
    children: &[],
};
