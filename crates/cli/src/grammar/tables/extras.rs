//! The flags and texts of `plugin`, `checkpoint`, `trust`, `manifest`. Texts are Docker's own, byte for byte: scripts and people compare them.

use crate::grammar::{Args, Child, Command, long, short};

pub static CHECKPOINT: Command = Command {
    path: "checkpoint",
    usage: "{} COMMAND",
    short: "Manage checkpoints",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "create",
            aliases: &[],
            section: "",
            command: &CHECKPOINT_CREATE,
        },
        Child {
            name: "ls",
            aliases: &["list"],
            section: "",
            command: &CHECKPOINT_LS,
        },
        Child {
            name: "rm",
            aliases: &["remove"],
            section: "",
            command: &CHECKPOINT_RM,
        },
    ],
};

pub static CHECKPOINT_CREATE: Command = Command {
    path: "checkpoint create",
    usage: "{} [OPTIONS] CONTAINER CHECKPOINT",
    short: "Create a checkpoint from a running container",
    long: "",
    aliases: "",
    args: Args::Exactly(2),
    flags: &[
        long(
            "checkpoint-dir",
            "string",
            "Use a custom checkpoint storage directory",
        ),
        long(
            "leave-running",
            "",
            "Leave the container running after checkpoint",
        ),
    ],
    children: &[],
};

pub static CHECKPOINT_LS: Command = Command {
    path: "checkpoint ls",
    usage: "{} [OPTIONS] CONTAINER",
    short: "List checkpoints for a container",
    long: "",
    aliases: "docker checkpoint ls, docker checkpoint list",
    args: Args::Exactly(1),
    flags: &[long(
        "checkpoint-dir",
        "string",
        "Use a custom checkpoint storage directory",
    )],
    children: &[],
};

pub static CHECKPOINT_RM: Command = Command {
    path: "checkpoint rm",
    usage: "{} [OPTIONS] CONTAINER CHECKPOINT",
    short: "Remove a checkpoint",
    long: "",
    aliases: "docker checkpoint rm, docker checkpoint remove",
    args: Args::Exactly(2),
    flags: &[long(
        "checkpoint-dir",
        "string",
        "Use a custom checkpoint storage directory",
    )],
    children: &[],
};

pub static MANIFEST: Command = Command {
    path: "manifest",
    usage: "{} COMMAND",
    short: "Manage Docker image manifests and manifest lists",
    long: "The **docker manifest** command has subcommands for managing image manifests and\nmanifest lists. A manifest list allows you to use one name to refer to the same image\nbuilt for multiple architectures.\n\nTo see help for a subcommand, use:\n\n    docker manifest CMD --help\n\nFor full details on using docker manifest lists, see the registry v2 specification.\n\nEXPERIMENTAL:\n  docker manifest is an experimental feature.\n  Experimental features provide early access to product functionality. These\n  features may change between releases without warning, or can be removed from a\n  future release. Learn more about experimental features in our documentation:\n  https://docs.docker.com/go/experimental/",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "annotate",
            aliases: &[],
            section: "",
            command: &MANIFEST_ANNOTATE,
        },
        Child {
            name: "create",
            aliases: &[],
            section: "",
            command: &MANIFEST_CREATE,
        },
        Child {
            name: "inspect",
            aliases: &[],
            section: "",
            command: &MANIFEST_INSPECT,
        },
        Child {
            name: "push",
            aliases: &[],
            section: "",
            command: &MANIFEST_PUSH,
        },
        Child {
            name: "rm",
            aliases: &[],
            section: "",
            command: &MANIFEST_RM,
        },
    ],
};

pub static MANIFEST_ANNOTATE: Command = Command {
    path: "manifest annotate",
    usage: "{} [OPTIONS] MANIFEST_LIST MANIFEST",
    short: "Add additional information to a local image manifest",
    long: "Add additional information to a local image manifest\n\nEXPERIMENTAL:\n  docker manifest annotate is an experimental feature.\n  Experimental features provide early access to product functionality. These\n  features may change between releases without warning, or can be removed from a\n  future release. Learn more about experimental features in our documentation:\n  https://docs.docker.com/go/experimental/",
    aliases: "",
    args: Args::Exactly(2),
    flags: &[
        long("arch", "string", "Set architecture"),
        long("os", "string", "Set operating system"),
        long("os-features", "strings", "Set operating system feature"),
        long("os-version", "string", "Set operating system version"),
        long("variant", "string", "Set architecture variant"),
    ],
    children: &[],
};

pub static MANIFEST_CREATE: Command = Command {
    path: "manifest create",
    usage: "{} MANIFEST_LIST MANIFEST [MANIFEST...]",
    short: "Create a local manifest list for annotating and pushing to a registry",
    long: "Create a local manifest list for annotating and pushing to a registry\n\nEXPERIMENTAL:\n  docker manifest create is an experimental feature.\n  Experimental features provide early access to product functionality. These\n  features may change between releases without warning, or can be removed from a\n  future release. Learn more about experimental features in our documentation:\n  https://docs.docker.com/go/experimental/",
    aliases: "",
    args: Args::AtLeast(2),
    flags: &[
        short('a', "amend", "", "Amend an existing manifest list"),
        long(
            "insecure",
            "",
            "Allow communication with an insecure registry",
        ),
    ],
    children: &[],
};

pub static MANIFEST_INSPECT: Command = Command {
    path: "manifest inspect",
    usage: "{} [OPTIONS] [MANIFEST_LIST] MANIFEST",
    short: "Display an image manifest, or manifest list",
    long: "Display an image manifest, or manifest list\n\nEXPERIMENTAL:\n  docker manifest inspect is an experimental feature.\n  Experimental features provide early access to product functionality. These\n  features may change between releases without warning, or can be removed from a\n  future release. Learn more about experimental features in our documentation:\n  https://docs.docker.com/go/experimental/",
    aliases: "",
    args: Args::Range(1, 2),
    flags: &[
        long(
            "insecure",
            "",
            "Allow communication with an insecure registry",
        ),
        short(
            'v',
            "verbose",
            "",
            "Output additional info including layers and platform",
        ),
    ],
    children: &[],
};

pub static MANIFEST_PUSH: Command = Command {
    path: "manifest push",
    usage: "{} [OPTIONS] MANIFEST_LIST",
    short: "Push a manifest list to a repository",
    long: "Push a manifest list to a repository\n\nEXPERIMENTAL:\n  docker manifest push is an experimental feature.\n  Experimental features provide early access to product functionality. These\n  features may change between releases without warning, or can be removed from a\n  future release. Learn more about experimental features in our documentation:\n  https://docs.docker.com/go/experimental/",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[
        long("insecure", "", "Allow push to an insecure registry"),
        short(
            'p',
            "purge",
            "",
            "Remove the local manifest list after push",
        ),
    ],
    children: &[],
};

pub static MANIFEST_RM: Command = Command {
    path: "manifest rm",
    usage: "{} MANIFEST_LIST [MANIFEST_LIST...]",
    short: "Delete one or more manifest lists from local storage",
    long: "Delete one or more manifest lists from local storage\n\nEXPERIMENTAL:\n  docker manifest rm is an experimental feature.\n  Experimental features provide early access to product functionality. These\n  features may change between releases without warning, or can be removed from a\n  future release. Learn more about experimental features in our documentation:\n  https://docs.docker.com/go/experimental/",
    aliases: "",
    args: Args::AtLeast(1),
    flags: &[],
    children: &[],
};

pub static PLUGIN: Command = Command {
    path: "plugin",
    usage: "{} COMMAND",
    short: "Manage plugins",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "create",
            aliases: &[],
            section: "",
            command: &PLUGIN_CREATE,
        },
        Child {
            name: "disable",
            aliases: &[],
            section: "",
            command: &PLUGIN_DISABLE,
        },
        Child {
            name: "enable",
            aliases: &[],
            section: "",
            command: &PLUGIN_ENABLE,
        },
        Child {
            name: "inspect",
            aliases: &[],
            section: "",
            command: &PLUGIN_INSPECT,
        },
        Child {
            name: "install",
            aliases: &[],
            section: "",
            command: &PLUGIN_INSTALL,
        },
        Child {
            name: "ls",
            aliases: &["list"],
            section: "",
            command: &PLUGIN_LS,
        },
        Child {
            name: "push",
            aliases: &[],
            section: "",
            command: &PLUGIN_PUSH,
        },
        Child {
            name: "rm",
            aliases: &["remove"],
            section: "",
            command: &PLUGIN_RM,
        },
        Child {
            name: "set",
            aliases: &[],
            section: "",
            command: &PLUGIN_SET,
        },
        Child {
            name: "upgrade",
            aliases: &[],
            section: "",
            command: &PLUGIN_UPGRADE,
        },
    ],
};

pub static PLUGIN_CREATE: Command = Command {
    path: "plugin create",
    usage: "{} [OPTIONS] PLUGIN PLUGIN-DATA-DIR",
    short: "Create a plugin from a rootfs and configuration. Plugin data directory must contain config.json and rootfs directory.",
    long: "",
    aliases: "",
    args: Args::AtLeast(2),
    flags: &[long("compress", "", "Compress the context using gzip")],
    children: &[],
};

pub static PLUGIN_DISABLE: Command = Command {
    path: "plugin disable",
    usage: "{} [OPTIONS] PLUGIN",
    short: "Disable a plugin",
    long: "",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[short(
        'f',
        "force",
        "",
        "Force the disable of an active plugin",
    )],
    children: &[],
};

pub static PLUGIN_ENABLE: Command = Command {
    path: "plugin enable",
    usage: "{} [OPTIONS] PLUGIN",
    short: "Enable a plugin",
    long: "",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[long(
        "timeout",
        "int",
        "HTTP client timeout (in seconds) (default 30)",
    )],
    children: &[],
};

pub static PLUGIN_INSPECT: Command = Command {
    path: "plugin inspect",
    usage: "{} [OPTIONS] PLUGIN [PLUGIN...]",
    short: "Display detailed information on one or more plugins",
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

pub static PLUGIN_INSTALL: Command = Command {
    path: "plugin install",
    usage: "{} [OPTIONS] PLUGIN [KEY=VALUE...]",
    short: "Install a plugin",
    long: "",
    aliases: "",
    args: Args::AtLeast(1),
    flags: &[
        long("alias", "string", "Local name for plugin"),
        long("disable", "", "Do not enable the plugin on install"),
        long(
            "disable-content-trust",
            "",
            "Skip image verification (default true)",
        ),
        long(
            "grant-all-permissions",
            "",
            "Grant all permissions necessary to run the plugin",
        ),
    ],
    children: &[],
};

pub static PLUGIN_LS: Command = Command {
    path: "plugin ls",
    usage: "{} [OPTIONS]",
    short: "List plugins",
    long: "",
    aliases: "docker plugin ls, docker plugin list",
    args: Args::None,
    flags: &[
        short(
            'f',
            "filter",
            "filter",
            "Provide filter values (e.g. \"enabled=true\")",
        ),
        long(
            "format",
            "string",
            "Format output using a custom template:\n'table':            Print output in table format with column headers (default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates",
        ),
        long("no-trunc", "", "Don't truncate output"),
        short('q', "quiet", "", "Only display plugin IDs"),
    ],
    children: &[],
};

pub static PLUGIN_PUSH: Command = Command {
    path: "plugin push",
    usage: "{} [OPTIONS] PLUGIN[:TAG]",
    short: "Push a plugin to a registry",
    long: "",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[long(
        "disable-content-trust",
        "",
        "Skip image signing (default true)",
    )],
    children: &[],
};

pub static PLUGIN_RM: Command = Command {
    path: "plugin rm",
    usage: "{} [OPTIONS] PLUGIN [PLUGIN...]",
    short: "Remove one or more plugins",
    long: "",
    aliases: "docker plugin rm, docker plugin remove",
    args: Args::AtLeast(1),
    flags: &[short(
        'f',
        "force",
        "",
        "Force the removal of an active plugin",
    )],
    children: &[],
};

pub static PLUGIN_SET: Command = Command {
    path: "plugin set",
    usage: "{} PLUGIN KEY=VALUE [KEY=VALUE...]",
    short: "Change settings for a plugin",
    long: "",
    aliases: "",
    args: Args::AtLeast(2),
    flags: &[],
    children: &[],
};

pub static PLUGIN_UPGRADE: Command = Command {
    path: "plugin upgrade",
    usage: "{} [OPTIONS] PLUGIN [REMOTE]",
    short: "Upgrade an existing plugin",
    long: "",
    aliases: "",
    args: Args::Range(1, 2),
    flags: &[
        long(
            "disable-content-trust",
            "",
            "Skip image verification (default true)",
        ),
        long(
            "grant-all-permissions",
            "",
            "Grant all permissions necessary to run the plugin",
        ),
        long(
            "skip-remote-check",
            "",
            "Do not check if specified remote plugin matches existing plugin image",
        ),
    ],
    children: &[],
};

pub static TRUST: Command = Command {
    path: "trust",
    usage: "{} COMMAND",
    short: "Manage trust on Docker images",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "key",
            aliases: &[],
            section: "Management",
            command: &TRUST_KEY,
        },
        Child {
            name: "signer",
            aliases: &[],
            section: "Management",
            command: &TRUST_SIGNER,
        },
        Child {
            name: "inspect",
            aliases: &[],
            section: "",
            command: &TRUST_INSPECT,
        },
        Child {
            name: "revoke",
            aliases: &[],
            section: "",
            command: &TRUST_REVOKE,
        },
        Child {
            name: "sign",
            aliases: &[],
            section: "",
            command: &TRUST_SIGN,
        },
    ],
};

pub static TRUST_KEY: Command = Command {
    path: "trust key",
    usage: "{} COMMAND",
    short: "Manage keys for signing Docker images",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "generate",
            aliases: &[],
            section: "",
            command: &TRUST_KEY_GENERATE,
        },
        Child {
            name: "load",
            aliases: &[],
            section: "",
            command: &TRUST_KEY_LOAD,
        },
    ],
};

pub static TRUST_KEY_GENERATE: Command = Command {
    path: "trust key generate",
    usage: "{} NAME",
    short: "Generate and load a signing key-pair",
    long: "",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[long(
        "dir",
        "string",
        "Directory to generate key in, defaults to current directory",
    )],
    children: &[],
};

pub static TRUST_KEY_LOAD: Command = Command {
    path: "trust key load",
    usage: "{} [OPTIONS] KEYFILE",
    short: "Load a private key file for signing",
    long: "",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[long(
        "name",
        "string",
        "Name for the loaded key (default \"signer\")",
    )],
    children: &[],
};

pub static TRUST_SIGNER: Command = Command {
    path: "trust signer",
    usage: "{} COMMAND",
    short: "Manage entities who can sign Docker images",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "add",
            aliases: &[],
            section: "",
            command: &TRUST_SIGNER_ADD,
        },
        Child {
            name: "remove",
            aliases: &[],
            section: "",
            command: &TRUST_SIGNER_REMOVE,
        },
    ],
};

pub static TRUST_SIGNER_ADD: Command = Command {
    path: "trust signer add",
    usage: "{} OPTIONS NAME REPOSITORY [REPOSITORY...] ",
    short: "Add a signer",
    long: "",
    aliases: "",
    args: Args::AtLeast(2),
    flags: &[long("key", "list", "Path to the signer's public key file")],
    children: &[],
};

pub static TRUST_SIGNER_REMOVE: Command = Command {
    path: "trust signer remove",
    usage: "{} [OPTIONS] NAME REPOSITORY [REPOSITORY...]",
    short: "Remove a signer",
    long: "",
    aliases: "",
    args: Args::AtLeast(2),
    flags: &[short(
        'f',
        "force",
        "",
        "Do not prompt for confirmation before removing the most recent signer",
    )],
    children: &[],
};

pub static TRUST_INSPECT: Command = Command {
    path: "trust inspect",
    usage: "{} IMAGE[:TAG] [IMAGE[:TAG]...]",
    short: "Return low-level information about keys and signatures",
    long: "",
    aliases: "",
    args: Args::AtLeast(1),
    flags: &[long(
        "pretty",
        "",
        "Print the information in a human friendly format",
    )],
    children: &[],
};

pub static TRUST_REVOKE: Command = Command {
    path: "trust revoke",
    usage: "{} [OPTIONS] IMAGE[:TAG]",
    short: "Remove trust for an image",
    long: "",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[short('y', "yes", "", "Do not prompt for confirmation")],
    children: &[],
};

pub static TRUST_SIGN: Command = Command {
    path: "trust sign",
    usage: "{} IMAGE:TAG",
    short: "Sign an image",
    long: "",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[long("local", "", "Sign a locally tagged image")],
    children: &[],
};
