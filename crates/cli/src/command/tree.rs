//! `images --tree`: images with their platforms below them, laid out and coloured as docker does.
//!
//! Columns that leave the names no room are left out, the last first. Docker measures names and platforms in bytes, so
//! that the branches before a platform count thrice; and it colours the headings whatever they are written to.

use crate::command::text;
use crate::terminal::{self, output_is_terminal};
use crate::units;
use serde_json::Value;

const WARNING: &str =
    "WARNING: This is an experimental feature. The output may change and shouldn't be depended on.";
/// What the names get at least before a column is left out.
const NAME_COLUMNS_MIN: usize = 12;
/// A narrower terminal is taken for one of so many columns.
const COLUMNS_MIN: usize = 20;
/// The columns where there is no terminal.
const COLUMNS_DEFAULT: usize = 80;
const SPACE: &str = "   ";
/// The columns behind the names: heading and width.
const COLUMNS: [(&str, usize); 4] = [
    ("ID", 12),
    ("DISK USAGE", 10),
    ("CONTENT SIZE", 12),
    ("EXTRA", 5),
];

const PLAIN: &str = "\x1b[39m";
const FAINT: &str = "\x1b[39m\x1b[2m";
const NAME: &str = "\x1b[34m\x1b[1m";
const HEADING: &str = "\x1b[39m\x1b[1m";
const CHIP: &str = "\x1b[38;5;0m\x1b[48;5;14m";
const RESET: &str = "\x1b[0m";

/// A line of an image or of one of its platforms, behind its name.
struct Details {
    cells: [String; 3],
    is_used: bool,
}

/// A platform of an image.
struct Platform {
    name: String,
    details: Details,
    is_here: bool,
}

struct Image {
    names: Vec<String>,
    details: Details,
    platforms: Vec<Platform>,
}

/// How the lines are written.
struct Paper {
    columns: usize,
    is_terminal: bool,
}

/// Draws the images of an answer to standard output's terminal, or for a pipe. Those that have no name are left out
/// unless all are wanted.
pub fn draw(images: &[Value], all: bool) -> String {
    let paper = Paper {
        columns: match terminal::size().1 {
            0 => COLUMNS_DEFAULT,
            columns => usize::from(columns),
        },
        is_terminal: output_is_terminal(),
    };
    let mut shown: Vec<&Value> = images
        .iter()
        .filter(|image| all || is_named(image))
        .collect();
    shown.sort_by_key(|image| std::cmp::Reverse(image["Created"].as_i64()));
    let shown: Vec<Image> = shown.into_iter().map(read).collect();
    paper.tree(&shown)
}

fn is_named(image: &Value) -> bool {
    let named = |field: &str| {
        let names = image[field].as_array().into_iter().flatten();
        names
            .filter_map(Value::as_str)
            .any(|name| !name.starts_with("<none>"))
    };
    named("RepoTags") || named("RepoDigests")
}

fn read(image: &Value) -> Image {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let bytes = |value: f64| units::size(value, 3);
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let id = |value: &str| units::short_id(value).to_owned();
    let manifests = list(&image["Manifests"]);
    let platforms: Vec<Platform> = manifests
        .iter()
        .filter(|manifest| text(manifest, "Kind") == "image")
        .map(|manifest| {
            let platform = &manifest["ImageData"]["Platform"];
            let parts = ["os", "architecture", "variant"].map(|part| text(platform, part));
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            Platform {
                name: parts.join("/"),
                details: Details {
                    cells: [
                        id(text(manifest, "ID")),
                        bytes(number(&manifest["Size"]["Total"])),
                        bytes(number(&manifest["Size"]["Content"])),
                    ],
                    is_used: !list(&manifest["ImageData"]["Containers"]).is_empty(),
                },
                is_here: manifest["Available"].as_bool().unwrap_or(false),
            }
        })
        .collect();
    let content = manifests
        .iter()
        .map(|manifest| number(&manifest["Size"]["Content"]))
        .sum();
    let names = list(&image["RepoTags"]);
    let mut names: Vec<String> = names
        .iter()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    // The longest first; what stands behind the names is beside the shortest.
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let has_containers = image["Containers"].as_i64().unwrap_or(0) > 0;
    Image {
        names,
        details: Details {
            cells: [
                id(text(image, "Id")),
                bytes(number(&image["Size"])),
                bytes(content),
            ],
            is_used: has_containers && !manifests.is_empty()
                || platforms.iter().any(|platform| platform.details.is_used),
        },
        platforms,
    }
}

fn branches(image: &Image) -> impl Iterator<Item = (String, &Platform)> {
    let last = image.platforms.len().saturating_sub(1);
    let platforms = image.platforms.iter().enumerate();
    platforms.map(move |(at, platform)| {
        let branch = if at == last { "└─" } else { "├─" };
        (format!("{branch} {}", platform.name), platform)
    })
}

impl Paper {
    fn tree(&self, images: &[Image]) -> String {
        let (shown, width) = self.layout(images);
        let mut out = format!(
            "{}\n{}\n\n",
            self.coloured("\x1b[93m", WARNING),
            self.legend()
        );
        let headings = std::iter::once(("IMAGE", width)).chain(COLUMNS[..shown].iter().copied());
        for (at, (heading, width)) in headings.enumerate() {
            if at > 0 {
                out.push_str(SPACE);
            }
            let missing = " ".repeat(width.saturating_sub(heading.len()));
            out.push_str(&format!("{HEADING}{heading}{RESET}{missing}"));
        }
        out.push('\n');
        let is_spaced = images.iter().any(|image| !image.platforms.is_empty());
        for image in images {
            match image.names.split_last() {
                None => self.line(&mut out, FAINT, "<untagged>", width),
                Some((last, others)) => {
                    let columns = self.columns.max(COLUMNS_MIN);
                    for name in others {
                        let name = units::ellipsis(name, columns);
                        out.push_str(&self.coloured(NAME, &name));
                        out.push('\n');
                    }
                    self.line(&mut out, NAME, last, width);
                }
            }
            self.details(&mut out, PLAIN, &image.details, shown);
            for (name, platform) in branches(image) {
                let colour = if platform.is_here { PLAIN } else { FAINT };
                self.line(&mut out, colour, &name, width);
                self.details(&mut out, colour, &platform.details, shown);
            }
            if is_spaced {
                out.push('\n');
            }
        }
        out
    }

    /// Tells how many columns there are behind the names, and how wide the names are.
    fn layout(&self, images: &[Image]) -> (usize, usize) {
        let columns = self.columns.max(COLUMNS_MIN);
        let left = |shown: usize| {
            let others = COLUMNS[..shown]
                .iter()
                .map(|(_, width)| width + SPACE.len());
            columns.saturating_sub(others.sum())
        };
        let fits = |shown: &usize| left(*shown) >= NAME_COLUMNS_MIN;
        let shown = (0..=COLUMNS.len()).rev().find(fits).unwrap_or(0);
        let names = images.iter().flat_map(|image| {
            let names = image.names.iter().map(String::len);
            names.chain(branches(image).map(|(name, _)| name.len()))
        });
        let longest = names.max().unwrap_or(0).max("IMAGE".len());
        (shown, longest.min(left(shown)))
    }

    fn legend(&self) -> String {
        let (text, columns) = if self.is_terminal {
            let information =
                format!("\x1b[1m\x1b[106m\x1b[30mi{RESET}{RESET} \x1b[96mInfo → {RESET}{RESET}");
            (format!("{information} {CHIP} U {RESET} In Use "), 21)
        } else {
            ("Info ->  U In Use ".to_owned(), 18)
        };
        " ".repeat(self.columns.max(COLUMNS_MIN).saturating_sub(columns)) + &text
    }

    /// Writes a name and what fills its column.
    fn line(&self, out: &mut String, colour: &str, name: &str, width: usize) {
        let name = units::ellipsis(name, width);
        let missing = width.saturating_sub(name.chars().count());
        out.push_str(&self.coloured(colour, &name));
        out.push_str(&" ".repeat(missing));
    }

    fn details(&self, out: &mut String, colour: &str, details: &Details, shown: usize) {
        for (at, (_, width)) in COLUMNS[..shown].iter().enumerate() {
            out.push_str(SPACE);
            match details.cells.get(at) {
                Some(cell) => {
                    let missing = " ".repeat(width.saturating_sub(cell.chars().count()));
                    let cell = self.coloured(colour, cell);
                    // Sizes are at the right.
                    out.push_str(&if at == 0 {
                        cell + &missing
                    } else {
                        missing + &cell
                    });
                }
                None if details.is_used => {
                    // Where there is no colour docker takes the spaces of the mark away.
                    let mark = if self.is_terminal { " U " } else { "U" };
                    out.push_str(&self.coloured(CHIP, mark));
                    out.push_str(&" ".repeat(width.saturating_sub(mark.len())));
                }
                None => out.push_str(&" ".repeat(*width)),
            }
        }
        out.push('\n');
    }

    fn coloured(&self, colour: &str, text: &str) -> String {
        if self.is_terminal {
            format!("{colour}{text}{RESET}")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn images() -> Vec<Image> {
        let id = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let manifest = |digit: &str, variant: &str, is_here: bool, containers: Value| {
            json!({"ID": id(digit), "Kind": "image", "Available": is_here, "Size": {"Total": 5_000_000, "Content": 2_000_000},
                "ImageData": {"Platform": {"os": "linux", "architecture": "arm64", "variant": variant}, "Containers": containers}})
        };
        let all = [
            json!({"Id": id("1"), "RepoTags": ["b:1", "long:latest"], "Size": 12_345_678_901_u64, "Containers": 0,
                "Manifests": [manifest("2", "", true, json!(["c"])), manifest("3", "v8", false, Value::Null)]}),
            json!({"Id": id("4"), "RepoTags": null, "Size": 99, "Containers": 1, "Manifests": null}),
        ];
        all.iter().map(read).collect()
    }

    #[test]
    fn a_tree_for_a_pipe_has_colours_in_its_headings_alone() {
        let paper = Paper {
            columns: 80,
            is_terminal: false,
        };
        let lines = [
            WARNING.to_owned(),
            format!("{}Info ->  U In Use ", " ".repeat(62)),
            String::new(),
            "\x1b[39m\x1b[1mIMAGE\x1b[0m                   \x1b[39m\x1b[1mID\x1b[0m             \x1b[39m\x1b[1mDISK USAGE\x1b[0m   \x1b[39m\x1b[1mCONTENT SIZE\x1b[0m   \x1b[39m\x1b[1mEXTRA\x1b[0m".to_owned(),
            "long:latest".to_owned(),
            "b:1                     111111111111       12.3GB            4MB   U    ".to_owned(),
            "├─ linux/arm64          222222222222          5MB            2MB   U    ".to_owned(),
            "└─ linux/arm64/v8       333333333333          5MB            2MB        ".to_owned(),
            String::new(),
            "<untagged>              444444444444          99B             0B        ".to_owned(),
            String::new(),
        ];
        assert_eq!(paper.tree(&images()), lines.join("\n") + "\n");
    }

    #[test]
    fn a_tree_on_a_terminal_has_docker_s_colours_and_the_columns_that_fit() {
        let paper = Paper {
            columns: 55,
            is_terminal: true,
        };
        let tree = paper.tree(&images());
        let lines: Vec<&str> = tree.lines().collect();
        assert_eq!(
            lines[1].trim_start(),
            "\x1b[1m\x1b[106m\x1b[30mi\x1b[0m\x1b[0m \x1b[96mInfo → \x1b[0m\x1b[0m \x1b[38;5;0m\x1b[48;5;14m U \x1b[0m In Use "
        );
        assert!(!tree.contains("EXTRA"), "{tree}");
        assert_eq!(
            lines[7],
            "\x1b[39m\x1b[2m└─ linux/ar…\x1b[0m   \x1b[39m\x1b[2m333333333333\x1b[0m          \x1b[39m\x1b[2m5MB\x1b[0m            \x1b[39m\x1b[2m2MB\x1b[0m"
        );
        let paper = Paper {
            columns: 63,
            ..paper
        };
        assert!(
            paper
                .tree(&images())
                .contains(" \x1b[38;5;0m\x1b[48;5;14m U \x1b[0m  \n")
        );
    }

    #[test]
    fn columns_go_when_the_names_have_no_room() {
        let shown = |columns| {
            let paper = Paper {
                columns,
                is_terminal: true,
            };
            paper.layout(&images())
        };
        let wanted = [
            (1, 0, 20),
            (26, 0, 21),
            (27, 1, 12),
            (40, 2, 12),
            (55, 3, 12),
            (63, 4, 12),
            (200, 4, 21),
        ];
        for (columns, count, width) in wanted {
            assert_eq!(shown(columns), (count, width), "{columns}");
        }
    }
}
