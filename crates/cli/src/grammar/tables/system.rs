//! The flags and texts of `system`, `context`, `inspect`, `version`, `login` and the root. Texts are Docker's own, byte for byte: scripts and people compare them.

use crate::grammar::{Args, Child, Command, long, short};

pub static ROOT: Command = Command {
    path: "",
    usage: "{} [OPTIONS] COMMAND",
    short: "A self-sufficient runtime for containers",
    long: "A self-sufficient runtime for containers",
    aliases: "",
    args: Args::Any,
    flags: &[
        long(
            "config",
            "string",
            "Location of client config files (default \"/root/.docker\")",
        ),
        short(
            'c',
            "context",
            "string",
            "Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set with \"docker context use\")",
        ),
        short('D', "debug", "", "Enable debug mode"),
        short('H', "host", "list", "Daemon socket to connect to"),
        short(
            'l',
            "log-level",
            "string",
            "Set the logging level (\"debug\", \"info\", \"warn\", \"error\", \"fatal\") (default \"info\")",
        ),
        long("tls", "", "Use TLS; implied by --tlsverify"),
        long(
            "tlscacert",
            "string",
            "Trust certs signed only by this CA (default \"/root/.docker/ca.pem\")",
        ),
        long(
            "tlscert",
            "string",
            "Path to TLS certificate file (default \"/root/.docker/cert.pem\")",
        ),
        long(
            "tlskey",
            "string",
            "Path to TLS key file (default \"/root/.docker/key.pem\")",
        ),
        long("tlsverify", "", "Use TLS and verify the remote"),
        short('v', "version", "", "Print version information and quit"),
    ],
    children: &[
        Child {
            name: "run",
            aliases: &[],
            section: "Common",
            command: &super::container::CONTAINER_RUN,
        },
        Child {
            name: "exec",
            aliases: &[],
            section: "Common",
            command: &super::container::CONTAINER_EXEC,
        },
        Child {
            name: "ps",
            aliases: &[],
            section: "Common",
            command: &super::container::CONTAINER_LS,
        },
        Child {
            name: "build",
            aliases: &[],
            section: "Common",
            command: &super::image::IMAGE_BUILD,
        },
        Child {
            name: "pull",
            aliases: &[],
            section: "Common",
            command: &super::image::IMAGE_PULL,
        },
        Child {
            name: "push",
            aliases: &[],
            section: "Common",
            command: &super::image::IMAGE_PUSH,
        },
        Child {
            name: "images",
            aliases: &[],
            section: "Common",
            command: &super::image::IMAGE_LS,
        },
        Child {
            name: "login",
            aliases: &[],
            section: "Common",
            command: &LOGIN,
        },
        Child {
            name: "logout",
            aliases: &[],
            section: "Common",
            command: &LOGOUT,
        },
        Child {
            name: "search",
            aliases: &[],
            section: "Common",
            command: &SEARCH,
        },
        Child {
            name: "version",
            aliases: &[],
            section: "Common",
            command: &VERSION,
        },
        Child {
            name: "info",
            aliases: &[],
            section: "Common",
            command: &SYSTEM_INFO,
        },
        Child {
            name: "builder",
            aliases: &[],
            section: "Management",
            command: &super::image::BUILDER,
        },
        Child {
            name: "checkpoint",
            aliases: &[],
            section: "Management",
            command: &super::extras::CHECKPOINT,
        },
        Child {
            name: "container",
            aliases: &[],
            section: "Management",
            command: &super::container::CONTAINER,
        },
        Child {
            name: "context",
            aliases: &[],
            section: "Management",
            command: &CONTEXT,
        },
        Child {
            name: "image",
            aliases: &[],
            section: "Management",
            command: &super::image::IMAGE,
        },
        Child {
            name: "manifest",
            aliases: &[],
            section: "Management",
            command: &super::extras::MANIFEST,
        },
        Child {
            name: "network",
            aliases: &[],
            section: "Management",
            command: &super::network::NETWORK,
        },
        Child {
            name: "plugin",
            aliases: &[],
            section: "Management",
            command: &super::extras::PLUGIN,
        },
        Child {
            name: "system",
            aliases: &[],
            section: "Management",
            command: &SYSTEM,
        },
        Child {
            name: "trust",
            aliases: &[],
            section: "Management",
            command: &super::extras::TRUST,
        },
        Child {
            name: "volume",
            aliases: &[],
            section: "Management",
            command: &super::volume::VOLUME,
        },
        Child {
            name: "config",
            aliases: &[],
            section: "Swarm",
            command: &super::swarm::CONFIG,
        },
        Child {
            name: "node",
            aliases: &[],
            section: "Swarm",
            command: &super::swarm::NODE,
        },
        Child {
            name: "secret",
            aliases: &[],
            section: "Swarm",
            command: &super::swarm::SECRET,
        },
        Child {
            name: "service",
            aliases: &[],
            section: "Swarm",
            command: &super::swarm::SERVICE,
        },
        Child {
            name: "stack",
            aliases: &[],
            section: "Swarm",
            command: &super::swarm::STACK,
        },
        Child {
            name: "swarm",
            aliases: &[],
            section: "Swarm",
            command: &super::swarm::SWARM,
        },
        Child {
            name: "attach",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_ATTACH,
        },
        Child {
            name: "commit",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_COMMIT,
        },
        Child {
            name: "cp",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_CP,
        },
        Child {
            name: "create",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_CREATE,
        },
        Child {
            name: "diff",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_DIFF,
        },
        Child {
            name: "events",
            aliases: &[],
            section: "",
            command: &SYSTEM_EVENTS,
        },
        Child {
            name: "export",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_EXPORT,
        },
        Child {
            name: "history",
            aliases: &[],
            section: "",
            command: &super::image::IMAGE_HISTORY,
        },
        Child {
            name: "import",
            aliases: &[],
            section: "",
            command: &super::image::IMAGE_IMPORT,
        },
        Child {
            name: "inspect",
            aliases: &[],
            section: "",
            command: &INSPECT,
        },
        Child {
            name: "kill",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_KILL,
        },
        Child {
            name: "load",
            aliases: &[],
            section: "",
            command: &super::image::IMAGE_LOAD,
        },
        Child {
            name: "logs",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_LOGS,
        },
        Child {
            name: "pause",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_PAUSE,
        },
        Child {
            name: "port",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_PORT,
        },
        Child {
            name: "rename",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_RENAME,
        },
        Child {
            name: "restart",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_RESTART,
        },
        Child {
            name: "rm",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_RM,
        },
        Child {
            name: "rmi",
            aliases: &[],
            section: "",
            command: &super::image::IMAGE_RM,
        },
        Child {
            name: "save",
            aliases: &[],
            section: "",
            command: &super::image::IMAGE_SAVE,
        },
        Child {
            name: "start",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_START,
        },
        Child {
            name: "stats",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_STATS,
        },
        Child {
            name: "stop",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_STOP,
        },
        Child {
            name: "tag",
            aliases: &[],
            section: "",
            command: &super::image::IMAGE_TAG,
        },
        Child {
            name: "top",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_TOP,
        },
        Child {
            name: "unpause",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_UNPAUSE,
        },
        Child {
            name: "update",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_UPDATE,
        },
        Child {
            name: "wait",
            aliases: &[],
            section: "",
            command: &super::container::CONTAINER_WAIT,
        },
    ],
};

pub static LOGIN: Command = Command {
    path: "login",
    usage: "{} [OPTIONS] [SERVER]",
    short: "Authenticate to a registry",
    long: "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
    aliases: "",
    args: Args::AtMost(1),
    flags: &[
        short(
            'p',
            "password",
            "string",
            "Password or Personal Access Token (PAT)",
        ),
        long(
            "password-stdin",
            "",
            "Take the Password or Personal Access Token (PAT) from stdin",
        ),
        short('u', "username", "string", "Username"),
    ],
    children: &[],
};

pub static LOGOUT: Command = Command {
    path: "logout",
    usage: "{} [SERVER]",
    short: "Log out from a registry",
    long: "Log out from a registry.\nIf no server is specified, the default is defined by the daemon.",
    aliases: "",
    args: Args::AtMost(1),
    flags: &[],
    children: &[],
};

pub static SEARCH: Command = Command {
    path: "search",
    usage: "{} [OPTIONS] TERM",
    short: "Search Docker Hub for images",
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
            "Pretty-print search using a Go template",
        ),
        long("limit", "int", "Max number of search results"),
        long("no-trunc", "", "Don't truncate output"),
    ],
    children: &[],
};

pub static VERSION: Command = Command {
    path: "version",
    usage: "{} [OPTIONS]",
    short: "Show the Docker version information",
    long: "",
    aliases: "",
    args: Args::None,
    flags: &[short(
        'f',
        "format",
        "string",
        "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates",
    )],
    children: &[],
};

pub static CONTEXT: Command = Command {
    path: "context",
    usage: "{} COMMAND",
    short: "Manage contexts",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "create",
            aliases: &[],
            section: "",
            command: &CONTEXT_CREATE,
        },
        Child {
            name: "export",
            aliases: &[],
            section: "",
            command: &CONTEXT_EXPORT,
        },
        Child {
            name: "import",
            aliases: &[],
            section: "",
            command: &CONTEXT_IMPORT,
        },
        Child {
            name: "inspect",
            aliases: &[],
            section: "",
            command: &CONTEXT_INSPECT,
        },
        Child {
            name: "ls",
            aliases: &["list"],
            section: "",
            command: &CONTEXT_LS,
        },
        Child {
            name: "rm",
            aliases: &["remove"],
            section: "",
            command: &CONTEXT_RM,
        },
        Child {
            name: "show",
            aliases: &[],
            section: "",
            command: &CONTEXT_SHOW,
        },
        Child {
            name: "update",
            aliases: &[],
            section: "",
            command: &CONTEXT_UPDATE,
        },
        Child {
            name: "use",
            aliases: &[],
            section: "",
            command: &CONTEXT_USE,
        },
    ],
};

pub static CONTEXT_CREATE: Command = Command {
    path: "context create",
    usage: "{} [OPTIONS] CONTEXT",
    short: "Create a context",
    long: "Create a context\n\nDocker endpoint config:\n\nNAME                DESCRIPTION\nfrom                Copy named context's Docker endpoint configuration\nhost                Docker endpoint on which to connect\nca                  Trust certs signed only by this CA\ncert                Path to TLS certificate file\nkey                 Path to TLS key file\nskip-tls-verify     Skip TLS certificate validation\n\nExample:\n\n$ docker context create my-context --description \"some description\" --docker \"host=tcp://myserver:2376,ca=~/ca-file,cert=~/cert-file,key=~/key-file\"",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[
        long("description", "string", "Description of the context"),
        long(
            "docker",
            "stringToString",
            "set the docker endpoint (default [])",
        ),
        long("from", "string", "create context from a named context"),
    ],
    children: &[],
};

pub static CONTEXT_EXPORT: Command = Command {
    path: "context export",
    usage: "{} [OPTIONS] CONTEXT [FILE|-]",
    short: "Export a context to a tar archive FILE or a tar stream on STDOUT.",
    long: "",
    aliases: "",
    args: Args::Range(1, 2),
    flags: &[],
    children: &[],
};

pub static CONTEXT_IMPORT: Command = Command {
    path: "context import",
    usage: "{} CONTEXT FILE|-",
    short: "Import a context from a tar or zip file",
    long: "",
    aliases: "",
    args: Args::Exactly(2),
    flags: &[],
    children: &[],
};

pub static CONTEXT_INSPECT: Command = Command {
    path: "context inspect",
    usage: "{} [OPTIONS] [CONTEXT] [CONTEXT...]",
    short: "Display detailed information on one or more contexts",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[short(
        'f',
        "format",
        "string",
        "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates",
    )],
    children: &[],
};

pub static CONTEXT_LS: Command = Command {
    path: "context ls",
    usage: "{} [OPTIONS]",
    short: "List contexts",
    long: "",
    aliases: "docker context ls, docker context list",
    args: Args::None,
    flags: &[
        long(
            "format",
            "string",
            "Format output using a custom template:\n'table':            Print output in table format with column headers (default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates",
        ),
        short('q', "quiet", "", "Only show context names"),
    ],
    children: &[],
};

pub static CONTEXT_RM: Command = Command {
    path: "context rm",
    usage: "{} CONTEXT [CONTEXT...]",
    short: "Remove one or more contexts",
    long: "",
    aliases: "docker context rm, docker context remove",
    args: Args::AtLeast(1),
    flags: &[short(
        'f',
        "force",
        "",
        "Force the removal of a context in use",
    )],
    children: &[],
};

pub static CONTEXT_SHOW: Command = Command {
    path: "context show",
    usage: "{}",
    short: "Print the name of the current context",
    long: "",
    aliases: "",
    args: Args::None,
    flags: &[],
    children: &[],
};

pub static CONTEXT_UPDATE: Command = Command {
    path: "context update",
    usage: "{} [OPTIONS] CONTEXT",
    short: "Update a context",
    long: "Update a context\n\nDocker endpoint config:\n\nNAME                DESCRIPTION\nfrom                Copy named context's Docker endpoint configuration\nhost                Docker endpoint on which to connect\nca                  Trust certs signed only by this CA\ncert                Path to TLS certificate file\nkey                 Path to TLS key file\nskip-tls-verify     Skip TLS certificate validation\n\nExample:\n\n$ docker context update my-context --description \"some description\" --docker \"host=tcp://myserver:2376,ca=~/ca-file,cert=~/cert-file,key=~/key-file\"",
    aliases: "",
    args: Args::Exactly(1),
    flags: &[
        long("description", "string", "Description of the context"),
        long(
            "docker",
            "stringToString",
            "set the docker endpoint (default [])",
        ),
    ],
    children: &[],
};

pub static CONTEXT_USE: Command = Command {
    path: "context use",
    usage: "{} CONTEXT",
    short: "Set the current docker context",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[],
};

pub static SYSTEM: Command = Command {
    path: "system",
    usage: "{} COMMAND",
    short: "Manage Docker",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "df",
            aliases: &[],
            section: "",
            command: &SYSTEM_DF,
        },
        Child {
            name: "events",
            aliases: &[],
            section: "",
            command: &SYSTEM_EVENTS,
        },
        Child {
            name: "info",
            aliases: &[],
            section: "",
            command: &SYSTEM_INFO,
        },
        Child {
            name: "prune",
            aliases: &[],
            section: "",
            command: &SYSTEM_PRUNE,
        },
        Child {
            name: "dial-stdio",
            aliases: &[],
            section: "hidden",
            command: &SYSTEM_DIAL_STDIO,
        },
    ],
};

pub static SYSTEM_DF: Command = Command {
    path: "system df",
    usage: "{} [OPTIONS]",
    short: "Show docker disk usage",
    long: "",
    aliases: "",
    args: Args::None,
    flags: &[
        long(
            "format",
            "string",
            "Format output using a custom template:\n'table':            Print output in table format with column headers (default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates",
        ),
        short(
            'v',
            "verbose",
            "",
            "Show detailed information on space usage",
        ),
    ],
    children: &[],
};

pub static SYSTEM_EVENTS: Command = Command {
    path: "system events",
    usage: "{} [OPTIONS]",
    short: "Get real time events from the server",
    long: "",
    aliases: "docker system events, docker events",
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
            "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates",
        ),
        long("since", "string", "Show all events created since timestamp"),
        long("until", "string", "Stream events until this timestamp"),
    ],
    children: &[],
};

pub static SYSTEM_INFO: Command = Command {
    path: "system info",
    usage: "{} [OPTIONS]",
    short: "Display system-wide information",
    long: "",
    aliases: "docker system info, docker info",
    args: Args::None,
    flags: &[short(
        'f',
        "format",
        "string",
        "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates",
    )],
    children: &[],
};

pub static SYSTEM_PRUNE: Command = Command {
    path: "system prune",
    usage: "{} [OPTIONS]",
    short: "Remove unused data",
    long: "",
    aliases: "",
    args: Args::None,
    flags: &[
        short(
            'a',
            "all",
            "",
            "Remove all unused images not just dangling ones",
        ),
        long(
            "filter",
            "filter",
            "Provide filter values (e.g. \"label=<key>=<value>\")",
        ),
        short('f', "force", "", "Do not prompt for confirmation"),
        long("volumes", "", "Prune anonymous volumes"),
    ],
    children: &[],
};

pub static INSPECT: Command = Command {
    path: "inspect",
    usage: "{} [OPTIONS] NAME|ID [NAME|ID...]",
    short: "Return low-level information on Docker objects",
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
        short(
            's',
            "size",
            "",
            "Display total file sizes if the type is container",
        ),
        long("type", "string", "Only inspect objects of the given type"),
    ],
    children: &[],
};

pub static SYSTEM_DIAL_STDIO: Command = Command {
    path: "system dial-stdio",
    usage: "{}",
    short: "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
    long: "",
    aliases: "",
    args: Args::None,
    flags: &[],
    children: &[],
};
