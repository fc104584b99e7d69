//! The flags and texts of the swarm objects; parsed so that help and refusals are right. Texts are Docker's own, byte for byte: scripts and people compare them.

use crate::grammar::{Args, Child, Command, long, short};

pub static CONFIG: Command = Command {
    path: "config",
    usage: "{} COMMAND",
    short: "Manage Swarm configs",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "create",
            aliases: &[],
            section: "",
            command: &CONFIG_CREATE,
        },
        Child {
            name: "inspect",
            aliases: &[],
            section: "",
            command: &CONFIG_INSPECT,
        },
        Child {
            name: "ls",
            aliases: &["list"],
            section: "",
            command: &CONFIG_LS,
        },
        Child {
            name: "rm",
            aliases: &["remove"],
            section: "",
            command: &CONFIG_RM,
        },
    ],
};

pub static CONFIG_CREATE: Command = Command {
    path: "config create",
    usage: "{} [OPTIONS] CONFIG file|-",
    short: "Create a config from a file or STDIN",
    long: "",
    aliases: "",
    args: Args::Exactly(2),
    flags: &[
        short('l', "label", "list", "Config labels"),
        long("template-driver", "string", "Template driver"),
    ],
    children: &[],
};

pub static CONFIG_INSPECT: Command = Command {
    path: "config inspect",
    usage: "{} [OPTIONS] CONFIG [CONFIG...]",
    short: "Display detailed information on one or more configs",
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
        long(
            "pretty",
            "",
            "Print the information in a human friendly format",
        ),
    ],
    children: &[],
};

pub static CONFIG_LS: Command = Command {
    path: "config ls",
    usage: "{} [OPTIONS]",
    short: "List configs",
    long: "",
    aliases: "docker config ls, docker config list",
    args: Args::None,
    flags: &[
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
        short('q', "quiet", "", "Only display IDs"),
    ],
    children: &[],
};

pub static CONFIG_RM: Command = Command {
    path: "config rm",
    usage: "{} CONFIG [CONFIG...]",
    short: "Remove one or more configs",
    long: "",
    aliases: "docker config rm, docker config remove",
    args: Args::AtLeast(1),
    flags: &[],
    children: &[],
};

pub static NODE: Command = Command {
    path: "node",
    usage: "{} COMMAND",
    short: "Manage Swarm nodes",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "demote",
            aliases: &[],
            section: "",
            command: &NODE_DEMOTE,
        },
        Child {
            name: "inspect",
            aliases: &[],
            section: "",
            command: &NODE_INSPECT,
        },
        Child {
            name: "ls",
            aliases: &["list"],
            section: "",
            command: &NODE_LS,
        },
        Child {
            name: "promote",
            aliases: &[],
            section: "",
            command: &NODE_PROMOTE,
        },
        Child {
            name: "ps",
            aliases: &[],
            section: "",
            command: &NODE_PS,
        },
        Child {
            name: "rm",
            aliases: &["remove"],
            section: "",
            command: &NODE_RM,
        },
        Child {
            name: "update",
            aliases: &[],
            section: "",
            command: &NODE_UPDATE,
        },
    ],
};

pub static NODE_DEMOTE: Command = Command {
    path: "node demote",
    usage: "{} NODE [NODE...]",
    short: "Demote one or more nodes from manager in the swarm",
    long: "",
    aliases: "",
    args: Args::AtLeast(1),
    flags: &[],
    children: &[],
};

pub static NODE_INSPECT: Command = Command {
    path: "node inspect",
    usage: "{} [OPTIONS] self|NODE [NODE...]",
    short: "Display detailed information on one or more nodes",
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
        long(
            "pretty",
            "",
            "Print the information in a human friendly format",
        ),
    ],
    children: &[],
};

pub static NODE_LS: Command = Command {
    path: "node ls",
    usage: "{} [OPTIONS]",
    short: "List nodes in the swarm",
    long: "",
    aliases: "docker node ls, docker node list",
    args: Args::None,
    flags: &[
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
        short('q', "quiet", "", "Only display IDs"),
    ],
    children: &[],
};

pub static NODE_PROMOTE: Command = Command {
    path: "node promote",
    usage: "{} NODE [NODE...]",
    short: "Promote one or more nodes to manager in the swarm",
    long: "",
    aliases: "",
    args: Args::AtLeast(1),
    flags: &[],
    children: &[],
};

pub static NODE_PS: Command = Command {
    path: "node ps",
    usage: "{} [OPTIONS] [NODE...]",
    short: "List tasks running on one or more nodes, defaults to current node",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[
        short(
            'f',
            "filter",
            "filter",
            "Filter output based on conditions provided",
        ),
        long("format", "string", "Pretty-print tasks using a Go template"),
        long("no-resolve", "", "Do not map IDs to Names"),
        long("no-trunc", "", "Do not truncate output"),
        short('q', "quiet", "", "Only display task IDs"),
    ],
    children: &[],
};

pub static NODE_RM: Command = Command {
    path: "node rm",
    usage: "{} [OPTIONS] NODE [NODE...]",
    short: "Remove one or more nodes from the swarm",
    long: "",
    aliases: "docker node rm, docker node remove",
    args: Args::AtLeast(1),
    flags: &[short(
        'f',
        "force",
        "",
        "Force remove a node from the swarm",
    )],
    children: &[],
};

pub static NODE_UPDATE: Command = Command {
    path: "node update",
    usage: "{} [OPTIONS] NODE",
    short: "Update a node",
    long: "",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[
        long(
            "availability",
            "string",
            "Availability of the node (\"active\", \"pause\", \"drain\")",
        ),
        long(
            "label-add",
            "list",
            "Add or update a node label (\"key=value\")",
        ),
        long("label-rm", "list", "Remove a node label if exists"),
        long(
            "role",
            "string",
            "Role of the node (\"worker\", \"manager\")",
        ),
    ],
    children: &[],
};

pub static SECRET: Command = Command {
    path: "secret",
    usage: "{} COMMAND",
    short: "Manage Swarm secrets",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "create",
            aliases: &[],
            section: "",
            command: &SECRET_CREATE,
        },
        Child {
            name: "inspect",
            aliases: &[],
            section: "",
            command: &SECRET_INSPECT,
        },
        Child {
            name: "ls",
            aliases: &["list"],
            section: "",
            command: &SECRET_LS,
        },
        Child {
            name: "rm",
            aliases: &["remove"],
            section: "",
            command: &SECRET_RM,
        },
    ],
};

pub static SECRET_CREATE: Command = Command {
    path: "secret create",
    usage: "{} [OPTIONS] SECRET [file|-]",
    short: "Create a secret from a file or STDIN as content",
    long: "",
    aliases: "",
    args: Args::Range(1, 2),
    flags: &[
        short('d', "driver", "string", "Secret driver"),
        short('l', "label", "list", "Secret labels"),
        long("template-driver", "string", "Template driver"),
    ],
    children: &[],
};

pub static SECRET_INSPECT: Command = Command {
    path: "secret inspect",
    usage: "{} [OPTIONS] SECRET [SECRET...]",
    short: "Display detailed information on one or more secrets",
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
        long(
            "pretty",
            "",
            "Print the information in a human friendly format",
        ),
    ],
    children: &[],
};

pub static SECRET_LS: Command = Command {
    path: "secret ls",
    usage: "{} [OPTIONS]",
    short: "List secrets",
    long: "",
    aliases: "docker secret ls, docker secret list",
    args: Args::None,
    flags: &[
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
        short('q', "quiet", "", "Only display IDs"),
    ],
    children: &[],
};

pub static SECRET_RM: Command = Command {
    path: "secret rm",
    usage: "{} SECRET [SECRET...]",
    short: "Remove one or more secrets",
    long: "",
    aliases: "docker secret rm, docker secret remove",
    args: Args::AtLeast(1),
    flags: &[],
    children: &[],
};

pub static SERVICE: Command = Command {
    path: "service",
    usage: "{} COMMAND",
    short: "Manage Swarm services",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "create",
            aliases: &[],
            section: "",
            command: &SERVICE_CREATE,
        },
        Child {
            name: "inspect",
            aliases: &[],
            section: "",
            command: &SERVICE_INSPECT,
        },
        Child {
            name: "logs",
            aliases: &[],
            section: "",
            command: &SERVICE_LOGS,
        },
        Child {
            name: "ls",
            aliases: &["list"],
            section: "",
            command: &SERVICE_LS,
        },
        Child {
            name: "ps",
            aliases: &[],
            section: "",
            command: &SERVICE_PS,
        },
        Child {
            name: "rm",
            aliases: &["remove"],
            section: "",
            command: &SERVICE_RM,
        },
        Child {
            name: "rollback",
            aliases: &[],
            section: "",
            command: &SERVICE_ROLLBACK,
        },
        Child {
            name: "scale",
            aliases: &[],
            section: "",
            command: &SERVICE_SCALE,
        },
        Child {
            name: "update",
            aliases: &[],
            section: "",
            command: &SERVICE_UPDATE,
        },
    ],
};

pub static SERVICE_CREATE: Command = Command {
    path: "service create",
    usage: "{} [OPTIONS] IMAGE [COMMAND] [ARG...]",
    short: "Create a new service",
    long: "",
    aliases: "",
    args: Args::AtLeast(1),
    flags: &[
        long("cap-add", "list", "Add Linux capabilities"),
        long("cap-drop", "list", "Drop Linux capabilities"),
        long(
            "config",
            "config",
            "Specify configurations to expose to the service",
        ),
        long("constraint", "list", "Placement constraints"),
        long("container-label", "list", "Container labels"),
        long(
            "credential-spec",
            "credential-spec",
            "Credential spec for managed service account (Windows only)",
        ),
        short(
            'd',
            "detach",
            "",
            "Exit immediately instead of waiting for the service to converge",
        ),
        long("dns", "list", "Set custom DNS servers"),
        long("dns-option", "list", "Set DNS options"),
        long("dns-search", "list", "Set custom DNS search domains"),
        long(
            "endpoint-mode",
            "string",
            "Endpoint mode (vip or dnsrr) (default \"vip\")",
        ),
        long(
            "entrypoint",
            "command",
            "Overwrite the default ENTRYPOINT of the image",
        ),
        short('e', "env", "list", "Set environment variables"),
        long(
            "env-file",
            "list",
            "Read in a file of environment variables",
        ),
        long("generic-resource", "list", "User defined resources"),
        long(
            "group",
            "list",
            "Set one or more supplementary user groups for the container",
        ),
        long("health-cmd", "string", "Command to run to check health"),
        long(
            "health-interval",
            "duration",
            "Time between running the check (ms|s|m|h)",
        ),
        long(
            "health-retries",
            "int",
            "Consecutive failures needed to report unhealthy",
        ),
        long(
            "health-start-interval",
            "duration",
            "Time between running the check during the start period (ms|s|m|h)",
        ),
        long(
            "health-start-period",
            "duration",
            "Start period for the container to initialize before counting retries towards unstable (ms|s|m|h)",
        ),
        long(
            "health-timeout",
            "duration",
            "Maximum time to allow one check to run (ms|s|m|h)",
        ),
        long(
            "host",
            "list",
            "Set one or more custom host-to-IP mappings (host:ip)",
        ),
        long("hostname", "string", "Container hostname"),
        long(
            "init",
            "",
            "Use an init inside each service container to forward signals and reap processes",
        ),
        long("isolation", "string", "Service container isolation mode"),
        short('l', "label", "list", "Service labels"),
        long("limit-cpu", "decimal", "Limit CPUs"),
        long("limit-memory", "bytes", "Limit Memory"),
        long(
            "limit-pids",
            "int",
            "Limit maximum number of processes (default 0 = unlimited)",
        ),
        long("log-driver", "string", "Logging driver for service"),
        long("log-opt", "list", "Logging driver options"),
        long(
            "max-concurrent",
            "uint",
            "Number of job tasks to run concurrently (default equal to --replicas)",
        ),
        long(
            "mode",
            "string",
            "Service mode (\"replicated\", \"global\", \"replicated-job\", \"global-job\") (default \"replicated\")",
        ),
        long("mount", "mount", "Attach a filesystem mount to the service"),
        long("name", "string", "Service name"),
        long("network", "network", "Network attachments"),
        long(
            "no-healthcheck",
            "",
            "Disable any container-specified HEALTHCHECK",
        ),
        long(
            "no-resolve-image",
            "",
            "Do not query the registry to resolve image digest and supported platforms",
        ),
        long(
            "oom-score-adj",
            "int",
            "Tune host's OOM preferences (-1000 to 1000) ",
        ),
        long("placement-pref", "pref", "Add a placement preference"),
        short('p', "publish", "port", "Publish a port as a node port"),
        short('q', "quiet", "", "Suppress progress output"),
        long(
            "read-only",
            "",
            "Mount the container's root filesystem as read only",
        ),
        long("replicas", "uint", "Number of tasks"),
        long(
            "replicas-max-per-node",
            "uint",
            "Maximum number of tasks per node (default 0 = unlimited)",
        ),
        long("reserve-cpu", "decimal", "Reserve CPUs"),
        long("reserve-memory", "bytes", "Reserve Memory"),
        long(
            "restart-condition",
            "string",
            "Restart when condition is met (\"none\", \"on-failure\", \"any\") (default \"any\")",
        ),
        long(
            "restart-delay",
            "duration",
            "Delay between restart attempts (ns|us|ms|s|m|h) (default 5s)",
        ),
        long(
            "restart-max-attempts",
            "uint",
            "Maximum number of restarts before giving up",
        ),
        long(
            "restart-window",
            "duration",
            "Window used to evaluate the restart policy (ns|us|ms|s|m|h)",
        ),
        long(
            "rollback-delay",
            "duration",
            "Delay between task rollbacks (ns|us|ms|s|m|h) (default 0s)",
        ),
        long(
            "rollback-failure-action",
            "string",
            "Action on rollback failure (\"pause\", \"continue\") (default \"pause\")",
        ),
        long(
            "rollback-max-failure-ratio",
            "float",
            "Failure rate to tolerate during a rollback (default 0)",
        ),
        long(
            "rollback-monitor",
            "duration",
            "Duration after each task rollback to monitor for failure (ns|us|ms|s|m|h) (default 5s)",
        ),
        long(
            "rollback-order",
            "string",
            "Rollback order (\"start-first\", \"stop-first\") (default \"stop-first\")",
        ),
        long(
            "rollback-parallelism",
            "uint",
            "Maximum number of tasks rolled back simultaneously (0 to roll back all at once) (default 1)",
        ),
        long(
            "secret",
            "secret",
            "Specify secrets to expose to the service",
        ),
        long(
            "stop-grace-period",
            "duration",
            "Time to wait before force killing a container (ns|us|ms|s|m|h) (default 10s)",
        ),
        long("stop-signal", "string", "Signal to stop the container"),
        long("sysctl", "list", "Sysctl options"),
        short('t', "tty", "", "Allocate a pseudo-TTY"),
        long("ulimit", "ulimit", "Ulimit options (default [])"),
        long(
            "update-delay",
            "duration",
            "Delay between updates (ns|us|ms|s|m|h) (default 0s)",
        ),
        long(
            "update-failure-action",
            "string",
            "Action on update failure (\"pause\", \"continue\", \"rollback\") (default \"pause\")",
        ),
        long(
            "update-max-failure-ratio",
            "float",
            "Failure rate to tolerate during an update (default 0)",
        ),
        long(
            "update-monitor",
            "duration",
            "Duration after each task update to monitor for failure (ns|us|ms|s|m|h) (default 5s)",
        ),
        long(
            "update-order",
            "string",
            "Update order (\"start-first\", \"stop-first\") (default \"stop-first\")",
        ),
        long(
            "update-parallelism",
            "uint",
            "Maximum number of tasks updated simultaneously (0 to update all at once) (default 1)",
        ),
        short(
            'u',
            "user",
            "string",
            "Username or UID (format: <name|uid>[:<group|gid>])",
        ),
        long(
            "with-registry-auth",
            "",
            "Send registry authentication details to swarm agents",
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

pub static SERVICE_INSPECT: Command = Command {
    path: "service inspect",
    usage: "{} [OPTIONS] SERVICE [SERVICE...]",
    short: "Display detailed information on one or more services",
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
        long(
            "pretty",
            "",
            "Print the information in a human friendly format",
        ),
    ],
    children: &[],
};

pub static SERVICE_LOGS: Command = Command {
    path: "service logs",
    usage: "{} [OPTIONS] SERVICE|TASK",
    short: "Fetch the logs of a service or task",
    long: "",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[
        long("details", "", "Show extra details provided to logs"),
        short('f', "follow", "", "Follow log output"),
        long("no-resolve", "", "Do not map IDs to Names in output"),
        long("no-task-ids", "", "Do not include task IDs in output"),
        long("no-trunc", "", "Do not truncate output"),
        long("raw", "", "Do not neatly format logs"),
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
    ],
    children: &[],
};

pub static SERVICE_LS: Command = Command {
    path: "service ls",
    usage: "{} [OPTIONS]",
    short: "List services",
    long: "",
    aliases: "docker service ls, docker service list",
    args: Args::None,
    flags: &[
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
        short('q', "quiet", "", "Only display IDs"),
    ],
    children: &[],
};

pub static SERVICE_PS: Command = Command {
    path: "service ps",
    usage: "{} [OPTIONS] SERVICE [SERVICE...]",
    short: "List the tasks of one or more services",
    long: "",
    aliases: "",
    args: Args::AtLeast(1),
    flags: &[
        short(
            'f',
            "filter",
            "filter",
            "Filter output based on conditions provided",
        ),
        long("format", "string", "Pretty-print tasks using a Go template"),
        long("no-resolve", "", "Do not map IDs to Names"),
        long("no-trunc", "", "Do not truncate output"),
        short('q', "quiet", "", "Only display task IDs"),
    ],
    children: &[],
};

pub static SERVICE_RM: Command = Command {
    path: "service rm",
    usage: "{} SERVICE [SERVICE...]",
    short: "Remove one or more services",
    long: "",
    aliases: "docker service rm, docker service remove",
    args: Args::AtLeast(1),
    flags: &[],
    children: &[],
};

pub static SERVICE_ROLLBACK: Command = Command {
    path: "service rollback",
    usage: "{} [OPTIONS] SERVICE",
    short: "Revert changes to a service's configuration",
    long: "",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[
        short(
            'd',
            "detach",
            "",
            "Exit immediately instead of waiting for the service to converge",
        ),
        short('q', "quiet", "", "Suppress progress output"),
    ],
    children: &[],
};

pub static SERVICE_SCALE: Command = Command {
    path: "service scale",
    usage: "{} SERVICE=REPLICAS [SERVICE=REPLICAS...]",
    short: "Scale one or multiple replicated services",
    long: "",
    aliases: "",
    args: Args::AtLeast(1),
    flags: &[short(
        'd',
        "detach",
        "",
        "Exit immediately instead of waiting for the service to converge",
    )],
    children: &[],
};

pub static SERVICE_UPDATE: Command = Command {
    path: "service update",
    usage: "{} [OPTIONS] SERVICE",
    short: "Update a service",
    long: "",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[
        long("args", "command", "Service command args"),
        long("cap-add", "list", "Add Linux capabilities"),
        long("cap-drop", "list", "Drop Linux capabilities"),
        long(
            "config-add",
            "config",
            "Add or update a config file on a service",
        ),
        long("config-rm", "list", "Remove a configuration file"),
        long(
            "constraint-add",
            "list",
            "Add or update a placement constraint",
        ),
        long("constraint-rm", "list", "Remove a constraint"),
        long(
            "container-label-add",
            "list",
            "Add or update a container label",
        ),
        long(
            "container-label-rm",
            "list",
            "Remove a container label by its key",
        ),
        long(
            "credential-spec",
            "credential-spec",
            "Credential spec for managed service account (Windows only)",
        ),
        short(
            'd',
            "detach",
            "",
            "Exit immediately instead of waiting for the service to converge",
        ),
        long("dns-add", "list", "Add or update a custom DNS server"),
        long("dns-option-add", "list", "Add or update a DNS option"),
        long("dns-option-rm", "list", "Remove a DNS option"),
        long("dns-rm", "list", "Remove a custom DNS server"),
        long(
            "dns-search-add",
            "list",
            "Add or update a custom DNS search domain",
        ),
        long("dns-search-rm", "list", "Remove a DNS search domain"),
        long("endpoint-mode", "string", "Endpoint mode (vip or dnsrr)"),
        long(
            "entrypoint",
            "command",
            "Overwrite the default ENTRYPOINT of the image",
        ),
        long("env-add", "list", "Add or update an environment variable"),
        long("env-rm", "list", "Remove an environment variable"),
        long("force", "", "Force update even if no changes require it"),
        long("generic-resource-add", "list", "Add a Generic resource"),
        long("generic-resource-rm", "list", "Remove a Generic resource"),
        long(
            "group-add",
            "list",
            "Add an additional supplementary user group to the container",
        ),
        long(
            "group-rm",
            "list",
            "Remove a previously added supplementary user group from the container",
        ),
        long("health-cmd", "string", "Command to run to check health"),
        long(
            "health-interval",
            "duration",
            "Time between running the check (ms|s|m|h)",
        ),
        long(
            "health-retries",
            "int",
            "Consecutive failures needed to report unhealthy",
        ),
        long(
            "health-start-interval",
            "duration",
            "Time between running the check during the start period (ms|s|m|h)",
        ),
        long(
            "health-start-period",
            "duration",
            "Start period for the container to initialize before counting retries towards unstable (ms|s|m|h)",
        ),
        long(
            "health-timeout",
            "duration",
            "Maximum time to allow one check to run (ms|s|m|h)",
        ),
        long(
            "host-add",
            "list",
            "Add a custom host-to-IP mapping (\"host:ip\")",
        ),
        long(
            "host-rm",
            "list",
            "Remove a custom host-to-IP mapping (\"host:ip\")",
        ),
        long("hostname", "string", "Container hostname"),
        long("image", "string", "Service image tag"),
        long(
            "init",
            "",
            "Use an init inside each service container to forward signals and reap processes",
        ),
        long("isolation", "string", "Service container isolation mode"),
        long("label-add", "list", "Add or update a service label"),
        long("label-rm", "list", "Remove a label by its key"),
        long("limit-cpu", "decimal", "Limit CPUs"),
        long("limit-memory", "bytes", "Limit Memory"),
        long(
            "limit-pids",
            "int",
            "Limit maximum number of processes (default 0 = unlimited)",
        ),
        long("log-driver", "string", "Logging driver for service"),
        long("log-opt", "list", "Logging driver options"),
        long(
            "max-concurrent",
            "uint",
            "Number of job tasks to run concurrently (default equal to --replicas)",
        ),
        long("mount-add", "mount", "Add or update a mount on a service"),
        long("mount-rm", "list", "Remove a mount by its target path"),
        long("network-add", "network", "Add a network"),
        long("network-rm", "list", "Remove a network"),
        long(
            "no-healthcheck",
            "",
            "Disable any container-specified HEALTHCHECK",
        ),
        long(
            "no-resolve-image",
            "",
            "Do not query the registry to resolve image digest and supported platforms",
        ),
        long(
            "oom-score-adj",
            "int",
            "Tune host's OOM preferences (-1000 to 1000) ",
        ),
        long("placement-pref-add", "pref", "Add a placement preference"),
        long("placement-pref-rm", "pref", "Remove a placement preference"),
        long("publish-add", "port", "Add or update a published port"),
        long(
            "publish-rm",
            "port",
            "Remove a published port by its target port",
        ),
        short('q', "quiet", "", "Suppress progress output"),
        long(
            "read-only",
            "",
            "Mount the container's root filesystem as read only",
        ),
        long("replicas", "uint", "Number of tasks"),
        long(
            "replicas-max-per-node",
            "uint",
            "Maximum number of tasks per node (default 0 = unlimited)",
        ),
        long("reserve-cpu", "decimal", "Reserve CPUs"),
        long("reserve-memory", "bytes", "Reserve Memory"),
        long(
            "restart-condition",
            "string",
            "Restart when condition is met (\"none\", \"on-failure\", \"any\")",
        ),
        long(
            "restart-delay",
            "duration",
            "Delay between restart attempts (ns|us|ms|s|m|h)",
        ),
        long(
            "restart-max-attempts",
            "uint",
            "Maximum number of restarts before giving up",
        ),
        long(
            "restart-window",
            "duration",
            "Window used to evaluate the restart policy (ns|us|ms|s|m|h)",
        ),
        long("rollback", "", "Rollback to previous specification"),
        long(
            "rollback-delay",
            "duration",
            "Delay between task rollbacks (ns|us|ms|s|m|h)",
        ),
        long(
            "rollback-failure-action",
            "string",
            "Action on rollback failure (\"pause\", \"continue\")",
        ),
        long(
            "rollback-max-failure-ratio",
            "float",
            "Failure rate to tolerate during a rollback",
        ),
        long(
            "rollback-monitor",
            "duration",
            "Duration after each task rollback to monitor for failure (ns|us|ms|s|m|h)",
        ),
        long(
            "rollback-order",
            "string",
            "Rollback order (\"start-first\", \"stop-first\")",
        ),
        long(
            "rollback-parallelism",
            "uint",
            "Maximum number of tasks rolled back simultaneously (0 to roll back all at once)",
        ),
        long(
            "secret-add",
            "secret",
            "Add or update a secret on a service",
        ),
        long("secret-rm", "list", "Remove a secret"),
        long(
            "stop-grace-period",
            "duration",
            "Time to wait before force killing a container (ns|us|ms|s|m|h)",
        ),
        long("stop-signal", "string", "Signal to stop the container"),
        long("sysctl-add", "list", "Add or update a Sysctl option"),
        long("sysctl-rm", "list", "Remove a Sysctl option"),
        short('t', "tty", "", "Allocate a pseudo-TTY"),
        long(
            "ulimit-add",
            "ulimit",
            "Add or update a ulimit option (default [])",
        ),
        long("ulimit-rm", "list", "Remove a ulimit option"),
        long(
            "update-delay",
            "duration",
            "Delay between updates (ns|us|ms|s|m|h)",
        ),
        long(
            "update-failure-action",
            "string",
            "Action on update failure (\"pause\", \"continue\", \"rollback\")",
        ),
        long(
            "update-max-failure-ratio",
            "float",
            "Failure rate to tolerate during an update",
        ),
        long(
            "update-monitor",
            "duration",
            "Duration after each task update to monitor for failure (ns|us|ms|s|m|h)",
        ),
        long(
            "update-order",
            "string",
            "Update order (\"start-first\", \"stop-first\")",
        ),
        long(
            "update-parallelism",
            "uint",
            "Maximum number of tasks updated simultaneously (0 to update all at once)",
        ),
        short(
            'u',
            "user",
            "string",
            "Username or UID (format: <name|uid>[:<group|gid>])",
        ),
        long(
            "with-registry-auth",
            "",
            "Send registry authentication details to swarm agents",
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

pub static STACK: Command = Command {
    path: "stack",
    usage: "{} COMMAND",
    short: "Manage Swarm stacks",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "config",
            aliases: &[],
            section: "",
            command: &STACK_CONFIG,
        },
        Child {
            name: "deploy",
            aliases: &["up"],
            section: "",
            command: &STACK_DEPLOY,
        },
        Child {
            name: "ls",
            aliases: &["list"],
            section: "",
            command: &STACK_LS,
        },
        Child {
            name: "ps",
            aliases: &[],
            section: "",
            command: &STACK_PS,
        },
        Child {
            name: "rm",
            aliases: &["down", "remove"],
            section: "",
            command: &STACK_RM,
        },
        Child {
            name: "services",
            aliases: &[],
            section: "",
            command: &STACK_SERVICES,
        },
    ],
};

pub static STACK_CONFIG: Command = Command {
    path: "stack config",
    usage: "{} [OPTIONS]",
    short: "Outputs the final config file, after doing merges and interpolations",
    long: "",
    aliases: "",
    args: Args::None,
    flags: &[
        short(
            'c',
            "compose-file",
            "strings",
            "Path to a Compose file, or \"-\" to read from stdin",
        ),
        long(
            "skip-interpolation",
            "",
            "Skip interpolation and output only merged config",
        ),
    ],
    children: &[],
};

pub static STACK_DEPLOY: Command = Command {
    path: "stack deploy",
    usage: "{} [OPTIONS] STACK",
    short: "Deploy a new stack or update an existing stack",
    long: "",
    aliases: "docker stack deploy, docker stack up",
    args: Args::Exactly(1),
    flags: &[
        short(
            'c',
            "compose-file",
            "strings",
            "Path to a Compose file, or \"-\" to read from stdin",
        ),
        short(
            'd',
            "detach",
            "",
            "Exit immediately instead of waiting for the stack services to converge (default true)",
        ),
        long("prune", "", "Prune services that are no longer referenced"),
        short('q', "quiet", "", "Suppress progress output"),
        long(
            "resolve-image",
            "string",
            "Query the registry to resolve image digest and supported platforms (\"always\", \"changed\", \"never\") (default \"always\")",
        ),
        long(
            "with-registry-auth",
            "",
            "Send registry authentication details to Swarm agents",
        ),
    ],
    children: &[],
};

pub static STACK_LS: Command = Command {
    path: "stack ls",
    usage: "{} [OPTIONS]",
    short: "List stacks",
    long: "",
    aliases: "docker stack ls, docker stack list",
    args: Args::None,
    flags: &[long(
        "format",
        "string",
        "Format output using a custom template:\n'table':            Print output in table format with column headers (default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates",
    )],
    children: &[],
};

pub static STACK_PS: Command = Command {
    path: "stack ps",
    usage: "{} [OPTIONS] STACK",
    short: "List the tasks in the stack",
    long: "",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[
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
        long("no-resolve", "", "Do not map IDs to Names"),
        long("no-trunc", "", "Do not truncate output"),
        short('q', "quiet", "", "Only display task IDs"),
    ],
    children: &[],
};

pub static STACK_RM: Command = Command {
    path: "stack rm",
    usage: "{} [OPTIONS] STACK [STACK...]",
    short: "Remove one or more stacks",
    long: "",
    aliases: "docker stack rm, docker stack remove, docker stack down",
    args: Args::AtLeast(1),
    flags: &[short(
        'd',
        "detach",
        "",
        "Do not wait for stack removal (default true)",
    )],
    children: &[],
};

pub static STACK_SERVICES: Command = Command {
    path: "stack services",
    usage: "{} [OPTIONS] STACK",
    short: "List the services in the stack",
    long: "",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[
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
        short('q', "quiet", "", "Only display IDs"),
    ],
    children: &[],
};

pub static SWARM: Command = Command {
    path: "swarm",
    usage: "{} COMMAND",
    short: "Manage Swarm",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "ca",
            aliases: &[],
            section: "",
            command: &SWARM_CA,
        },
        Child {
            name: "init",
            aliases: &[],
            section: "",
            command: &SWARM_INIT,
        },
        Child {
            name: "join",
            aliases: &[],
            section: "",
            command: &SWARM_JOIN,
        },
        Child {
            name: "join-token",
            aliases: &[],
            section: "",
            command: &SWARM_JOIN_TOKEN,
        },
        Child {
            name: "leave",
            aliases: &[],
            section: "",
            command: &SWARM_LEAVE,
        },
        Child {
            name: "unlock",
            aliases: &[],
            section: "",
            command: &SWARM_UNLOCK,
        },
        Child {
            name: "unlock-key",
            aliases: &[],
            section: "",
            command: &SWARM_UNLOCK_KEY,
        },
        Child {
            name: "update",
            aliases: &[],
            section: "",
            command: &SWARM_UPDATE,
        },
    ],
};

pub static SWARM_CA: Command = Command {
    path: "swarm ca",
    usage: "{} [OPTIONS]",
    short: "Display and rotate the root CA",
    long: "",
    aliases: "",
    args: Args::None,
    flags: &[
        long(
            "ca-cert",
            "pem-file",
            "Path to the PEM-formatted root CA certificate to use for the new cluster",
        ),
        long(
            "ca-key",
            "pem-file",
            "Path to the PEM-formatted root CA key to use for the new cluster",
        ),
        long(
            "cert-expiry",
            "duration",
            "Validity period for node certificates (ns|us|ms|s|m|h) (default 2160h0m0s)",
        ),
        short(
            'd',
            "detach",
            "",
            "Exit immediately instead of waiting for the root rotation to converge",
        ),
        long(
            "external-ca",
            "external-ca",
            "Specifications of one or more certificate signing endpoints",
        ),
        short('q', "quiet", "", "Suppress progress output"),
        long(
            "rotate",
            "",
            "Rotate the swarm CA - if no certificate or key are provided, new ones will be generated",
        ),
    ],
    children: &[],
};

pub static SWARM_INIT: Command = Command {
    path: "swarm init",
    usage: "{} [OPTIONS]",
    short: "Initialize a swarm",
    long: "",
    aliases: "",
    args: Args::None,
    flags: &[
        long(
            "advertise-addr",
            "string",
            "Advertised address (format: \"<ip|interface>[:port]\")",
        ),
        long(
            "autolock",
            "",
            "Enable manager autolocking (requiring an unlock key to start a stopped manager)",
        ),
        long(
            "availability",
            "string",
            "Availability of the node (\"active\", \"pause\", \"drain\") (default \"active\")",
        ),
        long(
            "cert-expiry",
            "duration",
            "Validity period for node certificates (ns|us|ms|s|m|h) (default 2160h0m0s)",
        ),
        long(
            "data-path-addr",
            "string",
            "Address or interface to use for data path traffic (format: \"<ip|interface>\")",
        ),
        long(
            "data-path-port",
            "uint32",
            "Port number to use for data path traffic (1024 - 49151). If no value is set or is set to 0, the default port (4789) is used.",
        ),
        long(
            "default-addr-pool",
            "ipNetSlice",
            "default address pool in CIDR format (default [])",
        ),
        long(
            "default-addr-pool-mask-length",
            "uint32",
            "default address pool subnet mask length (default 24)",
        ),
        long(
            "dispatcher-heartbeat",
            "duration",
            "Dispatcher heartbeat period (ns|us|ms|s|m|h) (default 5s)",
        ),
        long(
            "external-ca",
            "external-ca",
            "Specifications of one or more certificate signing endpoints",
        ),
        long(
            "force-new-cluster",
            "",
            "Force create a new cluster from current state",
        ),
        long(
            "listen-addr",
            "node-addr",
            "Listen address (format: \"<ip|interface>[:port]\") (default 0.0.0.0:2377)",
        ),
        long(
            "max-snapshots",
            "uint",
            "Number of additional Raft snapshots to retain",
        ),
        long(
            "snapshot-interval",
            "uint",
            "Number of log entries between Raft snapshots (default 10000)",
        ),
        long(
            "task-history-limit",
            "int",
            "Task history retention limit (default 5)",
        ),
    ],
    children: &[],
};

pub static SWARM_JOIN: Command = Command {
    path: "swarm join",
    usage: "{} [OPTIONS] HOST:PORT",
    short: "Join a swarm as a node and/or manager",
    long: "",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[
        long(
            "advertise-addr",
            "string",
            "Advertised address (format: \"<ip|interface>[:port]\")",
        ),
        long(
            "availability",
            "string",
            "Availability of the node (\"active\", \"pause\", \"drain\") (default \"active\")",
        ),
        long(
            "data-path-addr",
            "string",
            "Address or interface to use for data path traffic (format: \"<ip|interface>\")",
        ),
        long(
            "listen-addr",
            "node-addr",
            "Listen address (format: \"<ip|interface>[:port]\") (default 0.0.0.0:2377)",
        ),
        long("token", "string", "Token for entry into the swarm"),
    ],
    children: &[],
};

pub static SWARM_JOIN_TOKEN: Command = Command {
    path: "swarm join-token",
    usage: "{} [OPTIONS] (worker|manager)",
    short: "Manage join tokens",
    long: "",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[
        short('q', "quiet", "", "Only display token"),
        long("rotate", "", "Rotate join token"),
    ],
    children: &[],
};

pub static SWARM_LEAVE: Command = Command {
    path: "swarm leave",
    usage: "{} [OPTIONS]",
    short: "Leave the swarm",
    long: "",
    aliases: "",
    args: Args::None,
    flags: &[short(
        'f',
        "force",
        "",
        "Force this node to leave the swarm, ignoring warnings",
    )],
    children: &[],
};

pub static SWARM_UNLOCK: Command = Command {
    path: "swarm unlock",
    usage: "{}",
    short: "Unlock swarm",
    long: "",
    aliases: "",
    args: Args::None,
    flags: &[],
    children: &[],
};

pub static SWARM_UNLOCK_KEY: Command = Command {
    path: "swarm unlock-key",
    usage: "{} [OPTIONS]",
    short: "Manage the unlock key",
    long: "",
    aliases: "",
    args: Args::None,
    flags: &[
        short('q', "quiet", "", "Only display token"),
        long("rotate", "", "Rotate unlock key"),
    ],
    children: &[],
};

pub static SWARM_UPDATE: Command = Command {
    path: "swarm update",
    usage: "{} [OPTIONS]",
    short: "Update the swarm",
    long: "",
    aliases: "",
    args: Args::None,
    flags: &[
        long(
            "autolock",
            "",
            "Change manager autolocking setting (true|false)",
        ),
        long(
            "cert-expiry",
            "duration",
            "Validity period for node certificates (ns|us|ms|s|m|h) (default 2160h0m0s)",
        ),
        long(
            "dispatcher-heartbeat",
            "duration",
            "Dispatcher heartbeat period (ns|us|ms|s|m|h) (default 5s)",
        ),
        long(
            "external-ca",
            "external-ca",
            "Specifications of one or more certificate signing endpoints",
        ),
        long(
            "max-snapshots",
            "uint",
            "Number of additional Raft snapshots to retain",
        ),
        long(
            "snapshot-interval",
            "uint",
            "Number of log entries between Raft snapshots (default 10000)",
        ),
        long(
            "task-history-limit",
            "int",
            "Task history retention limit (default 5)",
        ),
    ],
    children: &[],
};
