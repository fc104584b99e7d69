//! The flags and texts of `network`. Texts are Docker's own, byte for byte: scripts and people compare them.

use crate::grammar::{Args, Child, Command, long, short};

pub static NETWORK: Command = Command {
    path: "network",
    usage: "{} COMMAND",
    short: "Manage networks",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "connect",
            aliases: &[],
            section: "",
            command: &NETWORK_CONNECT,
        },
        Child {
            name: "create",
            aliases: &[],
            section: "",
            command: &NETWORK_CREATE,
        },
        Child {
            name: "disconnect",
            aliases: &[],
            section: "",
            command: &NETWORK_DISCONNECT,
        },
        Child {
            name: "inspect",
            aliases: &[],
            section: "",
            command: &NETWORK_INSPECT,
        },
        Child {
            name: "ls",
            aliases: &["list"],
            section: "",
            command: &NETWORK_LS,
        },
        Child {
            name: "prune",
            aliases: &[],
            section: "",
            command: &NETWORK_PRUNE,
        },
        Child {
            name: "rm",
            aliases: &["remove"],
            section: "",
            command: &NETWORK_RM,
        },
    ],
};

pub static NETWORK_CONNECT: Command = Command {
    path: "network connect",
    usage: "{} [OPTIONS] NETWORK CONTAINER",
    short: "Connect a container to a network",
    long: "",
    aliases: "",
    args: Args::Exactly(2),
    flags: &[
        long(
            "alias",
            "strings",
            "Add network-scoped alias for the container",
        ),
        long("driver-opt", "strings", "driver options for the network"),
        long(
            "gw-priority",
            "int",
            "Highest gw-priority provides the default gateway. Accepts positive and negative values.",
        ),
        long("ip", "string", "IPv4 address (e.g., \"172.30.100.104\")"),
        long("ip6", "string", "IPv6 address (e.g., \"2001:db8::33\")"),
        long("link", "list", "Add link to another container"),
        long(
            "link-local-ip",
            "strings",
            "Add a link-local address for the container",
        ),
    ],
    children: &[],
};

pub static NETWORK_CREATE: Command = Command {
    path: "network create",
    usage: "{} [OPTIONS] NETWORK",
    short: "Create a network",
    long: "",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[
        long("attachable", "", "Enable manual container attachment"),
        long(
            "aux-address",
            "map",
            "Auxiliary IPv4 or IPv6 addresses used by Network driver (default map[])",
        ),
        long(
            "config-from",
            "string",
            "The network from which to copy the configuration",
        ),
        long("config-only", "", "Create a configuration only network"),
        short(
            'd',
            "driver",
            "string",
            "Driver to manage the Network (default \"bridge\")",
        ),
        long(
            "gateway",
            "strings",
            "IPv4 or IPv6 Gateway for the master subnet",
        ),
        long("ingress", "", "Create swarm routing-mesh network"),
        long("internal", "", "Restrict external access to the network"),
        long(
            "ip-range",
            "strings",
            "Allocate container ip from a sub-range",
        ),
        long(
            "ipam-driver",
            "string",
            "IP Address Management Driver (default \"default\")",
        ),
        long(
            "ipam-opt",
            "map",
            "Set IPAM driver specific options (default map[])",
        ),
        long(
            "ipv4",
            "",
            "Enable or disable IPv4 address assignment (default true)",
        ),
        long("ipv6", "", "Enable or disable IPv6 address assignment"),
        long("label", "list", "Set metadata on a network"),
        short(
            'o',
            "opt",
            "map",
            "Set driver specific options (default map[])",
        ),
        long("scope", "string", "Control the network's scope"),
        long(
            "subnet",
            "strings",
            "Subnet in CIDR format that represents a network segment",
        ),
    ],
    children: &[],
};

pub static NETWORK_DISCONNECT: Command = Command {
    path: "network disconnect",
    usage: "{} [OPTIONS] NETWORK CONTAINER",
    short: "Disconnect a container from a network",
    long: "",
    aliases: "",
    args: Args::Exactly(2),
    flags: &[short(
        'f',
        "force",
        "",
        "Force the container to disconnect from a network",
    )],
    children: &[],
};

pub static NETWORK_INSPECT: Command = Command {
    path: "network inspect",
    usage: "{} [OPTIONS] NETWORK [NETWORK...]",
    short: "Display detailed information on one or more networks",
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
        short('v', "verbose", "", "Verbose output for diagnostics"),
    ],
    children: &[],
};

pub static NETWORK_LS: Command = Command {
    path: "network ls",
    usage: "{} [OPTIONS]",
    short: "List networks",
    long: "",
    aliases: "docker network ls, docker network list",
    args: Args::None,
    flags: &[
        short(
            'f',
            "filter",
            "filter",
            "Provide filter values (e.g. \"driver=bridge\")",
        ),
        long(
            "format",
            "string",
            "Format output using a custom template:\n'table':            Print output in table format with column headers (default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates",
        ),
        long("no-trunc", "", "Do not truncate the output"),
        short('q', "quiet", "", "Only display network IDs"),
    ],
    children: &[],
};

pub static NETWORK_PRUNE: Command = Command {
    path: "network prune",
    usage: "{} [OPTIONS]",
    short: "Remove all unused networks",
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

pub static NETWORK_RM: Command = Command {
    path: "network rm",
    usage: "{} NETWORK [NETWORK...]",
    short: "Remove one or more networks",
    long: "",
    aliases: "docker network rm, docker network remove",
    args: Args::AtLeast(1),
    flags: &[short(
        'f',
        "force",
        "",
        "Do not error if the network does not exist",
    )],
    children: &[],
};
