//! `images`.

use crate::cli::Cli;
use crate::command::{get, text};
use crate::failure::Outcome;
use crate::format::{Format, Row};
use crate::grammar::Matches;
use crate::{filter, output, stamp, units};
use gantry_api::reference::{self, AnyReference};
use gantry_client::Query;
use serde_json::Value;

const HEADINGS: [(&str, &str); 12] = [
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Platform", "PLATFORM"),
];

/// Runs `images`.
pub async fn images(cli: &Cli, matches: &Matches) -> Outcome {
    let quiet = matches.on("quiet");
    let truncate = !matches.on("no-trunc");
    let digests = matches.on("digests");
    let mut filters = filter::collect(&matches.all("filter"));
    if let Some(reference) = matches.arguments.first() {
        filters.add("reference", reference.as_str());
    }
    let tree = matches.on("tree");
    if tree {
        for (flag, on) in [
            ("quiet", quiet),
            ("no-trunc", !truncate),
            ("show-digest", digests),
            ("format", matches.given("format")),
        ] {
            if on {
                return Err(crate::failure::Failure::new(format!(
                    "--{flag} is not yet supported with --tree"
                )));
            }
        }
    }
    let query = Query::new()
        .when(matches.on("all"), "all", "1")
        .when(!filters.is_empty(), "filters", filters.to_json())
        .when(tree, "manifests", "1");
    let given = match matches.get("format") {
        Some(format) => format.to_owned(),
        None if !quiet => cli.config().images_format.clone(),
        None => String::new(),
    };
    let digest_column = if digests { "\\t{{.Digest}}" } else { "" };
    let default = match quiet {
        true => "{{.ID}}".to_owned(),
        false => format!(
            "table {{{{.Repository}}}}\\t{{{{.Tag}}}}{digest_column}\\t{{{{.ID}}}}\\t{{{{if .CreatedSince }}}}{{{{.CreatedSince}}}}{{{{else}}}}N/A{{{{end}}}}\\t{{{{.Size}}}}"
        ),
    };
    let chosen = match given.as_str() {
        "raw" if quiet => "image_id: {{.ID}}",
        "raw" => {
            "repository: {{ .Repository }}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n"
        }
        other => other,
    };
    let format = Format::new(chosen, &default, &HEADINGS)?;
    let wants_digest = digests || given.contains(".Digest");
    let images = get(cli.client()?, "/images/json", query).await?;
    let images = images.as_array().cloned().unwrap_or_default();
    if tree {
        output::out(&super::tree::draw(&images, matches.on("all")));
        return Ok(());
    }
    let mut rows = Vec::new();
    for image in &images {
        for (repository, tag, digest) in names(image, wants_digest, digests) {
            rows.push(row(image, &repository, &tag, &digest, truncate));
        }
    }
    output::out(&format.render(rows)?);
    Ok(())
}

/// Returns the (repository, tag, digest) triples under which an image is listed.
fn names(image: &Value, wants_digest: bool, digest_rows: bool) -> Vec<(String, String, String)> {
    const NONE: &str = "<none>";
    let list = |field: &str| -> Vec<String> {
        image[field]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let (tags, digests) = (list("RepoTags"), list("RepoDigests"));
    let real = |names: &[String]| names.iter().any(|name| !name.starts_with("<none>"));
    if !real(&tags) && !real(&digests) {
        return vec![(NONE.to_owned(), NONE.to_owned(), NONE.to_owned())];
    }
    let parsed = |names: &[String]| -> Vec<(String, Option<String>, Option<String>)> {
        names
            .iter()
            .filter_map(|name| match reference::parse_any(name) {
                Ok(AnyReference::Named(reference)) => Some((
                    reference.familiar_name(),
                    reference.tag().map(str::to_owned),
                    reference.digest().map(|digest| digest.as_str().to_owned()),
                )),
                _ => None,
            })
            .collect()
    };
    let (tags, mut digests) = (parsed(&tags), parsed(&digests));
    let mut rows = Vec::new();
    for (repository, tag, _) in &tags {
        let Some(tag) = tag else { continue };
        let own: Vec<String> = digests
            .iter()
            .filter(|(name, _, _)| wants_digest && name == repository)
            .filter_map(|(_, _, digest)| digest.clone())
            .collect();
        if own.is_empty() {
            rows.push((repository.clone(), tag.clone(), NONE.to_owned()));
        }
        rows.extend(
            own.into_iter()
                .map(|digest| (repository.clone(), tag.clone(), digest)),
        );
    }
    digests.retain(|(name, _, _)| !tags.iter().any(|(repository, _, _)| repository == name));
    let mut seen: Vec<String> = Vec::new();
    for (repository, _, digest) in digests {
        if digest_rows {
            rows.push((repository, NONE.to_owned(), digest.unwrap_or_default()));
        } else if !seen.contains(&repository) {
            seen.push(repository.clone());
            rows.push((repository, NONE.to_owned(), String::new()));
        }
    }
    rows
}

/// Makes a row of one name of an image.
pub fn row(image: &Value, repository: &str, tag: &str, digest: &str, truncate: bool) -> Row {
    let id = text(image, "Id");
    let created = image["Created"].as_i64().unwrap_or(0);
    let count = |field: &str| match image[field].as_i64() {
        Some(number) if number >= 0 => Some(number),
        _ => None,
    };
    let size = |number: Option<i64>| {
        number.map_or("N/A".to_owned(), |number| units::size(number as f64, 4))
    };
    let unique = match (count("Size"), count("SharedSize")) {
        (Some(size), Some(shared)) => Some(size - shared),
        _ => None,
    };
    let since = match created {
        0 => "N/A".to_owned(),
        created => format!("{} ago", units::duration(stamp::age(created))),
    };
    let bytes = image["Size"].as_f64().unwrap_or(0.0);
    Row::new("*formatter.imageContext")
        .text("ID", if truncate { units::short_id(id) } else { id })
        .text("Repository", repository)
        .text("Tag", tag)
        .text("Digest", digest)
        .text("CreatedSince", since)
        .text("CreatedAt", stamp::local(created))
        .text("Size", units::size(bytes, 3))
        .text("VirtualSize", units::size(bytes, 4))
        .text(
            "Containers",
            count("Containers").map_or("N/A".to_owned(), |number| number.to_string()),
        )
        .text("SharedSize", size(count("SharedSize")))
        .text("UniqueSize", size(unique))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn images_are_listed_by_tag() {
        let digest = format!("busybox@sha256:{}", "a".repeat(64));
        let image = json!({"RepoTags": ["busybox:1", "busybox:2"], "RepoDigests": [digest]});
        assert_eq!(names(&image, false, false).len(), 2);
        let with = names(&image, true, true);
        assert_eq!(with[0].2, format!("sha256:{}", "a".repeat(64)));
        let untagged = json!({"RepoTags": [], "RepoDigests": []});
        assert_eq!(names(&untagged, false, false)[0].0, "<none>");
        let only_digest = json!({"RepoTags": [], "RepoDigests": [digest]});
        assert_eq!(
            names(&only_digest, false, false),
            [("busybox".to_owned(), "<none>".to_owned(), String::new())]
        );
    }
}
