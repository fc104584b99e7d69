//! The flags and texts of `volume`. Texts are Docker's own, byte for byte: scripts and people compare them.

use crate::grammar::{Args, Child, Command, long, short};

pub static VOLUME: Command = Command {
    path: "volume",
    usage: "{} COMMAND",
    short: "Manage volumes",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "create",
            aliases: &[],
            section: "",
            command: &VOLUME_CREATE,
        },
        Child {
            name: "inspect",
            aliases: &[],
            section: "",
            command: &VOLUME_INSPECT,
        },
        Child {
            name: "ls",
            aliases: &["list"],
            section: "",
            command: &VOLUME_LS,
        },
        Child {
            name: "prune",
            aliases: &[],
            section: "",
            command: &VOLUME_PRUNE,
        },
        Child {
            name: "rm",
            aliases: &["remove"],
            section: "",
            command: &VOLUME_RM,
        },
        Child {
            name: "update",
            aliases: &[],
            section: "",
            command: &VOLUME_UPDATE,
        },
    ],
};

pub static VOLUME_CREATE: Command = Command {
    path: "volume create",
    usage: "{} [OPTIONS] [VOLUME]",
    short: "Create a volume",
    long: "",
    aliases: "",
    args: Args::AtMost(1),
    flags: &[
        long(
            "availability",
            "string",
            "Cluster Volume availability (\"active\", \"pause\", \"drain\") (default \"active\")",
        ),
        short(
            'd',
            "driver",
            "string",
            "Specify volume driver name (default \"local\")",
        ),
        long("group", "string", "Cluster Volume group (cluster volumes)"),
        long("label", "list", "Set metadata for a volume"),
        long(
            "limit-bytes",
            "bytes",
            "Minimum size of the Cluster Volume in bytes",
        ),
        short(
            'o',
            "opt",
            "map",
            "Set driver specific options (default map[])",
        ),
        long(
            "required-bytes",
            "bytes",
            "Maximum size of the Cluster Volume in bytes",
        ),
        long(
            "scope",
            "string",
            "Cluster Volume access scope (\"single\", \"multi\") (default \"single\")",
        ),
        long("secret", "map", "Cluster Volume secrets (default map[])"),
        long(
            "sharing",
            "string",
            "Cluster Volume access sharing (\"none\", \"readonly\", \"onewriter\", \"all\") (default \"none\")",
        ),
        long(
            "topology-preferred",
            "list",
            "A topology that the Cluster Volume would be preferred in",
        ),
        long(
            "topology-required",
            "list",
            "A topology that the Cluster Volume must be accessible from",
        ),
        long(
            "type",
            "string",
            "Cluster Volume access type (\"mount\", \"block\") (default \"block\")",
        ),
    ],
    children: &[],
};

pub static VOLUME_INSPECT: Command = Command {
    path: "volume inspect",
    usage: "{} [OPTIONS] VOLUME [VOLUME...]",
    short: "Display detailed information on one or more volumes",
    long: "",
    aliases: "",
    args: Args::AtLeast(1),
    flags: &[short(
        'f',
        "format",
        "string",
        "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates",
    )],
    children: &[],
};

pub static VOLUME_LS: Command = Command {
    path: "volume ls",
    usage: "{} [OPTIONS]",
    short: "List volumes",
    long: "",
    aliases: "docker volume ls, docker volume list",
    args: Args::None,
    flags: &[
        long(
            "cluster",
            "",
            "Display only cluster volumes, and use cluster volume list formatting",
        ),
        short(
            'f',
            "filter",
            "filter",
            "Provide filter values (e.g. \"dangling=true\")",
        ),
        long(
            "format",
            "string",
            "Format output using a custom template:\n'table':            Print output in table format with column headers (default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates",
        ),
        short('q', "quiet", "", "Only display volume names"),
    ],
    children: &[],
};

pub static VOLUME_PRUNE: Command = Command {
    path: "volume prune",
    usage: "{} [OPTIONS]",
    short: "Remove unused local volumes",
    long: "",
    aliases: "",
    args: Args::None,
    flags: &[
        short(
            'a',
            "all",
            "",
            "Remove all unused volumes, not just anonymous ones",
        ),
        long(
            "filter",
            "filter",
            "Provide filter values (e.g. \"label=<label>\")",
        ),
        short('f', "force", "", "Do not prompt for confirmation"),
    ],
    children: &[],
};

pub static VOLUME_RM: Command = Command {
    path: "volume rm",
    usage: "{} [OPTIONS] VOLUME [VOLUME...]",
    short: "Remove one or more volumes",
    long: "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
    aliases: "docker volume rm, docker volume remove",
    args: Args::AtLeast(1),
    flags: &[short(
        'f',
        "force",
        "",
        "Force the removal of one or more volumes",
    )],
    children: &[],
};

pub static VOLUME_UPDATE: Command = Command {
    path: "volume update",
    usage: "{} [OPTIONS] [VOLUME]",
    short: "Update a volume (cluster volumes only)",
    long: "",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[long(
        "availability",
        "string",
        "Cluster Volume availability (\"active\", \"pause\", \"drain\") (default \"active\")",
    )],
    children: &[],
};
