//! What a person asks of registries, whoever made them. The registry of Gantry's own is served by another crate.

mod mirror;

use crate::cli::Cli;
use crate::command::manifest::remote::Remote;
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::output;
use gantry_api::reference::Reference;
use serde_json::Value;

/// Where a registry of Gantry's collects its garbage, below `/v2/`.
const COLLECT: &str = "_gantry/garbage/collect";

/// Runs one of the verbs.
pub async fn dispatch(cli: &Cli, path: &str, matches: &Matches) -> Outcome {
    match path {
        "registry ls" => ls(cli, matches).await,
        "registry tags" => tags(cli, matches).await,
        "registry inspect" => inspect(cli, matches).await,
        "registry delete" => delete(cli, matches).await,
        "registry collect" => collect(cli, matches).await,
        _ => mirror::mirror(cli, matches).await,
    }
}

fn failure(error: gantry_distribution::Error) -> Failure {
    Failure::new(error.to_string())
}

fn reference(text: &str) -> Outcome<Reference> {
    text.parse::<Reference>()
        .map_err(|error| Failure::new(error.to_string()))
}

/// Reads a registry's address as the first part of a reference, which is where it stands everywhere else.
fn host(text: &str) -> Outcome<Reference> {
    let text = text.trim_end_matches('/');
    let name = reference(&format!("{text}/any"))?;
    if name.domain() == text || (text == "index.docker.io" && name.domain() == "docker.io") {
        return Ok(name);
    }
    Err(Failure::new(format!(
        "invalid registry `{text}`: must be HOST or HOST:PORT"
    )))
}

async fn ls(cli: &Cli, matches: &Matches) -> Outcome {
    let host = host(&matches.arguments[0])?;
    let remote = Remote::new(&[&host], matches.on("insecure"))?;
    let credentials = Remote::credentials(cli, host.domain());
    let names = remote
        .registries()
        .catalog(host.domain(), &credentials)
        .await
        .map_err(failure)?;
    names.iter().for_each(|name| output::line(name));
    Ok(())
}

async fn tags(cli: &Cli, matches: &Matches) -> Outcome {
    let name = reference(&matches.arguments[0])?;
    let remote = Remote::new(&[&name], matches.on("insecure"))?;
    let tags = remote
        .repository(cli, &name)
        .tags()
        .await
        .map_err(failure)?;
    tags.iter().for_each(|tag| output::line(tag));
    Ok(())
}

async fn inspect(cli: &Cli, matches: &Matches) -> Outcome {
    let name = reference(&matches.arguments[0])?.or_latest();
    let remote = Remote::new(&[&name], matches.on("insecure"))?;
    let fetched = remote
        .repository(cli, &name)
        .manifest(&asked(&name))
        .await
        .map_err(failure)?;
    if matches.on("raw") {
        output::out_bytes(&fetched.bytes);
        return Ok(());
    }
    let manifest: Value = serde_json::from_slice(&fetched.bytes)
        .map_err(|error| Failure::new(format!("read the manifest of {name}: {error}")))?;
    let shown = serde_json::json!({
        "Reference": name.canonical(),
        "MediaType": fetched.descriptor.media_type,
        "Digest": fetched.descriptor.digest,
        "Size": fetched.descriptor.size,
        "Manifest": manifest,
    });
    output::line(&serde_json::to_string_pretty(&shown).unwrap_or_default());
    Ok(())
}

/// Gives what a registry is asked by: the digest, where there is one.
fn asked(name: &Reference) -> String {
    match (name.digest(), name.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or(gantry_api::reference::DEFAULT_TAG).to_owned(),
    }
}

async fn delete(cli: &Cli, matches: &Matches) -> Outcome {
    crate::command::each(&matches.arguments, |text| async move {
        let name = reference(text)?;
        if name.is_name_only() {
            return Err(Failure::new(format!(
                "{text}: a tag or a digest must be said"
            )));
        }
        let remote = Remote::new(&[&name], matches.on("insecure"))?;
        remote
            .repository(cli, &name)
            .delete_manifest(&asked(&name))
            .await
            .map_err(|error| Failure::new(format!("{text}: {error}")))?;
        Ok(Some(format!("Deleted: {}", name.canonical())))
    })
    .await
}

async fn collect(cli: &Cli, matches: &Matches) -> Outcome {
    let host = host(&matches.arguments[0])?;
    for flag in ["grace", "untagged-after", "upload-expiry"] {
        if matches.given(flag) {
            return Err(Failure::new(format!(
                "--{flag} is for --root: a running registry has its own"
            )));
        }
    }
    let remote = Remote::new(&[&host], matches.on("insecure"))?;
    let credentials = Remote::credentials(cli, host.domain());
    let path = match matches.on("dry-run") {
        true => format!("{COLLECT}?dry-run=true"),
        false => COLLECT.to_owned(),
    };
    let answer = remote
        .registries()
        .extension(host.domain(), &path, &credentials)
        .await
        .map_err(failure)?;
    let collected: Value = serde_json::from_slice(&answer)
        .map_err(|error| Failure::new(format!("read the answer of {}: {error}", host.domain())))?;
    output::line(&collected_text(&collected, matches.on("dry-run")));
    Ok(())
}

/// Writes what a collection took or, with `is_dry_run`, would take: `{manifests, blobs, bytes, uploads}`.
pub fn collected_text(collected: &Value, is_dry_run: bool) -> String {
    let count = |name: &str| collected[name].as_u64().unwrap_or(0);
    format!(
        "{} {} manifests, {} blobs ({} bytes), {} uploads",
        if is_dry_run {
            "Would remove"
        } else {
            "Removed"
        },
        count("manifests"),
        count("blobs"),
        count("bytes"),
        count("uploads")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_from_paths() {
        for good in [
            "localhost:5000",
            "quay.io",
            "127.0.0.1:5000",
            "localhost",
            "[::1]:5000",
        ] {
            assert_eq!(host(good).unwrap().domain(), good);
        }
        assert_eq!(host("docker.io").unwrap().domain(), "docker.io");
        for bad in ["registry", "quay.io/x", "", "http://quay.io"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_digest_is_asked_for_before_a_tag() {
        let hex = "a".repeat(64);
        let both = reference(&format!("q.io/x:t@sha256:{hex}")).unwrap();
        assert_eq!(asked(&both), format!("sha256:{hex}"));
        assert_eq!(asked(&reference("q.io/x:t").unwrap()), "t");
    }
}
