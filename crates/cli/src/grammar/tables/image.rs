//! The flags and texts of `image` and `builder`. Texts are Docker's own, byte for byte: scripts and people compare them.

use crate::grammar::{Args, Child, Command, long, short};

pub static BUILDER: Command = Command {
    path: "builder",
    usage: "{} COMMAND",
    short: "Manage builds",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "build",
            aliases: &[],
            section: "",
            command: &IMAGE_BUILD,
        },
        Child {
            name: "prune",
            aliases: &[],
            section: "",
            command: &BUILDER_PRUNE,
        },
    ],
};

pub static BUILDER_PRUNE: Command = Command {
    path: "builder prune",
    usage: "{}",
    short: "Remove build cache",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[
        short(
            'a',
            "all",
            "",
            "Remove all unused build cache, not just dangling ones",
        ),
        long(
            "filter",
            "filter",
            "Provide filter values (e.g. \"until=24h\")",
        ),
        short('f', "force", "", "Do not prompt for confirmation"),
        long(
            "keep-storage",
            "bytes",
            "Amount of disk space to keep for cache",
        ),
    ],
    children: &[],
};

pub static IMAGE: Command = Command {
    path: "image",
    usage: "{} COMMAND",
    short: "Manage images",
    long: "",
    aliases: "",
    args: Args::Any,
    flags: &[],
    children: &[
        Child {
            name: "build",
            aliases: &[],
            section: "",
            command: &IMAGE_BUILD,
        },
        Child {
            name: "history",
            aliases: &[],
            section: "",
            command: &IMAGE_HISTORY,
        },
        Child {
            name: "import",
            aliases: &[],
            section: "",
            command: &IMAGE_IMPORT,
        },
        Child {
            name: "inspect",
            aliases: &[],
            section: "",
            command: &IMAGE_INSPECT,
        },
        Child {
            name: "load",
            aliases: &[],
            section: "",
            command: &IMAGE_LOAD,
        },
        Child {
            name: "ls",
            aliases: &["list"],
            section: "",
            command: &IMAGE_LS,
        },
        Child {
            name: "prune",
            aliases: &[],
            section: "",
            command: &IMAGE_PRUNE,
        },
        Child {
            name: "pull",
            aliases: &[],
            section: "",
            command: &IMAGE_PULL,
        },
        Child {
            name: "push",
            aliases: &[],
            section: "",
            command: &IMAGE_PUSH,
        },
        Child {
            name: "rm",
            aliases: &["remove"],
            section: "",
            command: &IMAGE_RM,
        },
        Child {
            name: "save",
            aliases: &[],
            section: "",
            command: &IMAGE_SAVE,
        },
        Child {
            name: "tag",
            aliases: &[],
            section: "",
            command: &IMAGE_TAG,
        },
    ],
};

pub static IMAGE_BUILD: Command = Command {
    path: "image build",
    usage: "{} [OPTIONS] PATH | URL | -",
    short: "Build an image from a Dockerfile",
    long: "",
    aliases: "docker image build, docker build, docker builder build",
    args: Args::Any,
    flags: &[
        long(
            "add-host",
            "list",
            "Add a custom host-to-IP mapping (\"host:ip\")",
        ),
        long("build-arg", "list", "Set build-time variables"),
        long(
            "cache-from",
            "strings",
            "Images to consider as cache sources",
        ),
        long(
            "cgroup-parent",
            "string",
            "Set the parent cgroup for the \"RUN\" instructions during build",
        ),
        long("compress", "", "Compress the build context using gzip"),
        long(
            "cpu-period",
            "int",
            "Limit the CPU CFS (Completely Fair Scheduler) period",
        ),
        long(
            "cpu-quota",
            "int",
            "Limit the CPU CFS (Completely Fair Scheduler) quota",
        ),
        short('c', "cpu-shares", "int", "CPU shares (relative weight)"),
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
        long(
            "disable-content-trust",
            "",
            "Skip image verification (default true)",
        ),
        short(
            'f',
            "file",
            "string",
            "Name of the Dockerfile (Default is \"PATH/Dockerfile\")",
        ),
        long("force-rm", "", "Always remove intermediate containers"),
        long("iidfile", "string", "Write the image ID to the file"),
        long("isolation", "string", "Container isolation technology"),
        long("label", "list", "Set metadata for an image"),
        short('m', "memory", "bytes", "Memory limit"),
        long(
            "memory-swap",
            "bytes",
            "Swap limit equal to memory plus swap: -1 to enable unlimited swap",
        ),
        long(
            "network",
            "string",
            "Set the networking mode for the RUN instructions during build (default \"default\")",
        ),
        long("no-cache", "", "Do not use cache when building the image"),
        long(
            "platform",
            "string",
            "Set platform if server is multi-platform capable",
        ),
        long(
            "pull",
            "",
            "Always attempt to pull a newer version of the image",
        ),
        short(
            'q',
            "quiet",
            "",
            "Suppress the build output and print image ID on success",
        ),
        long(
            "rm",
            "",
            "Remove intermediate containers after a successful build (default true)",
        ),
        long("security-opt", "strings", "Security options"),
        long("shm-size", "bytes", "Size of \"/dev/shm\""),
        long(
            "squash",
            "",
            "Squash newly built layers into a single new layer",
        ),
        short(
            't',
            "tag",
            "list",
            "Name and optionally a tag in the \"name:tag\" format",
        ),
        long("target", "string", "Set the target build stage to build."),
        long("ulimit", "ulimit", "Ulimit options (default [])"),
    ],
    children: &[],
};

pub static IMAGE_HISTORY: Command = Command {
    path: "image history",
    usage: "{} [OPTIONS] IMAGE",
    short: "Show the history of an image",
    long: "",
    aliases: "docker image history, docker history",
    args: Args::Exactly(1),
    flags: &[
        long(
            "format",
            "string",
            "Format output using a custom template:\n'table':            Print output in table format with column headers (default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates",
        ),
        short(
            'H',
            "human",
            "",
            "Print sizes and dates in human readable format (default true)",
        ),
        long("no-trunc", "", "Don't truncate output"),
        long(
            "platform",
            "string",
            "Show history for the given platform. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
        ),
        short('q', "quiet", "", "Only show image IDs"),
    ],
    children: &[],
};

pub static IMAGE_IMPORT: Command = Command {
    path: "image import",
    usage: "{} [OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    short: "Import the contents from a tarball to create a filesystem image",
    long: "",
    aliases: "docker image import, docker import",
    args: Args::AtLeast(1),
    flags: &[
        short(
            'c',
            "change",
            "list",
            "Apply Dockerfile instruction to the created image",
        ),
        short(
            'm',
            "message",
            "string",
            "Set commit message for imported image",
        ),
        long(
            "platform",
            "string",
            "Set platform if server is multi-platform capable",
        ),
    ],
    children: &[],
};

pub static IMAGE_INSPECT: Command = Command {
    path: "image inspect",
    usage: "{} [OPTIONS] IMAGE [IMAGE...]",
    short: "Display detailed information on one or more images",
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
            "platform",
            "string",
            "Inspect a specific platform of the multi-platform image.\nIf the image or the server is not multi-platform capable, the command will error out if the platform does not match.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
        ),
    ],
    children: &[],
};

pub static IMAGE_LOAD: Command = Command {
    path: "image load",
    usage: "{} [OPTIONS]",
    short: "Load an image from a tar archive or STDIN",
    long: "",
    aliases: "docker image load, docker load",
    args: Args::None,
    flags: &[
        short(
            'i',
            "input",
            "string",
            "Read from tar archive file, instead of STDIN",
        ),
        long(
            "platform",
            "string",
            "Load only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
        ),
        short('q', "quiet", "", "Suppress the load output"),
    ],
    children: &[],
};

pub static IMAGE_LS: Command = Command {
    path: "image ls",
    usage: "{} [OPTIONS] [REPOSITORY[:TAG]]",
    short: "List images",
    long: "",
    aliases: "docker image ls, docker image list, docker images",
    args: Args::AtMost(1),
    flags: &[
        short(
            'a',
            "all",
            "",
            "Show all images (default hides intermediate images)",
        ),
        long("digests", "", "Show digests"),
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
        long("no-trunc", "", "Don't truncate output"),
        short('q', "quiet", "", "Only show image IDs"),
        long(
            "tree",
            "",
            "List multi-platform images as a tree (EXPERIMENTAL)",
        ),
    ],
    children: &[],
};

pub static IMAGE_PRUNE: Command = Command {
    path: "image prune",
    usage: "{} [OPTIONS]",
    short: "Remove unused images",
    long: "",
    aliases: "",
    args: Args::None,
    flags: &[
        short(
            'a',
            "all",
            "",
            "Remove all unused images, not just dangling ones",
        ),
        long(
            "filter",
            "filter",
            "Provide filter values (e.g. \"until=<timestamp>\")",
        ),
        short('f', "force", "", "Do not prompt for confirmation"),
    ],
    children: &[],
};

pub static IMAGE_PULL: Command = Command {
    path: "image pull",
    usage: "{} [OPTIONS] NAME[:TAG|@DIGEST]",
    short: "Download an image from a registry",
    long: "",
    aliases: "docker image pull, docker pull",
    args: Args::Exactly(1),
    flags: &[
        short(
            'a',
            "all-tags",
            "",
            "Download all tagged images in the repository",
        ),
        long(
            "disable-content-trust",
            "",
            "Skip image verification (default true)",
        ),
        long(
            "platform",
            "string",
            "Set platform if server is multi-platform capable",
        ),
        short('q', "quiet", "", "Suppress verbose output"),
    ],
    children: &[],
};

pub static IMAGE_PUSH: Command = Command {
    path: "image push",
    usage: "{} [OPTIONS] NAME[:TAG]",
    short: "Upload an image to a registry",
    long: "",
    aliases: "docker image push, docker push",
    args: Args::Exactly(1),
    flags: &[
        short(
            'a',
            "all-tags",
            "",
            "Push all tags of an image to the repository",
        ),
        long(
            "disable-content-trust",
            "",
            "Skip image signing (default true)",
        ),
        long(
            "platform",
            "string",
            "Push a platform-specific manifest as a single-platform image to the registry.\nImage index won't be pushed, meaning that other manifests, including attestations won't be preserved.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
        ),
        short('q', "quiet", "", "Suppress verbose output"),
    ],
    children: &[],
};

pub static IMAGE_RM: Command = Command {
    path: "image rm",
    usage: "{} [OPTIONS] IMAGE [IMAGE...]",
    short: "Remove one or more images",
    long: "",
    aliases: "docker image rm, docker image remove, docker rmi",
    args: Args::AtLeast(1),
    flags: &[
        short('f', "force", "", "Force removal of the image"),
        long("no-prune", "", "Do not delete untagged parents"),
        long(
            "platform",
            "strings",
            "Remove only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
        ),
    ],
    children: &[],
};

pub static IMAGE_SAVE: Command = Command {
    path: "image save",
    usage: "{} [OPTIONS] IMAGE [IMAGE...]",
    short: "Save one or more images to a tar archive (streamed to STDOUT by default)",
    long: "",
    aliases: "docker image save, docker save",
    args: Args::AtLeast(1),
    flags: &[
        short(
            'o',
            "output",
            "string",
            "Write to a file, instead of STDOUT",
        ),
        long(
            "platform",
            "string",
            "Save only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
        ),
    ],
    children: &[],
};

pub static IMAGE_TAG: Command = Command {
    path: "image tag",
    usage: "{} SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    long: "",
    aliases: "docker image tag, docker tag",
    args: Args::Exactly(2),
    flags: &[],
    children: &[],
};
