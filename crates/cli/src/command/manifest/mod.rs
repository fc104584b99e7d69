//! `manifest`: lists of manifests that are put together here and pushed to a registry. The daemon has no part in it.
//!
//! | module | what it owns |
//! |---|---|
//! | `store` | the lists that are being put together, in `manifests/` of the configuration directory, as Docker lays them out |
//! | `remote` | what a registry has, and what it is given |
//! | `document` | the JSON of lists and manifests, in Docker's order of members |

mod document;
pub mod remote;
mod store;

use crate::cli::Cli;
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::output;
use gantry_api::platform::Platform;
use gantry_api::reference::Reference;
use remote::{Found, Remote};
use store::Store;

/// Systems and architectures that an entry may name, as Docker has them.
const PLATFORMS: [(&str, &[&str]); 9] = [
    ("darwin", &["386", "amd64", "arm", "arm64"]),
    ("dragonfly", &["amd64"]),
    ("freebsd", &["386", "amd64", "arm"]),
    (
        "linux",
        &[
            "386", "amd64", "arm", "arm64", "mips64", "mips64le", "ppc64le", "riscv64", "s390x",
        ],
    ),
    ("netbsd", &["386", "amd64", "arm"]),
    ("openbsd", &["386", "amd64", "arm"]),
    ("plan9", &["386", "amd64"]),
    ("solaris", &["amd64"]),
    ("windows", &["386", "amd64"]),
];

/// Runs one of the verbs.
pub async fn dispatch(cli: &Cli, path: &str, matches: &Matches) -> Outcome {
    match path {
        "manifest create" => create(cli, matches).await,
        "manifest annotate" => annotate(cli, matches),
        "manifest inspect" => inspect(cli, matches).await,
        "manifest push" => push(cli, matches).await,
        _ => remove(cli, matches),
    }
}

/// Reads a name; without tag and digest it means `latest`.
fn named(name: &str) -> Outcome<Reference> {
    let parsed: Result<Reference, _> = name.parse();
    parsed
        .map(Reference::or_latest)
        .map_err(|error| Failure::new(error.to_string()))
}

async fn create(cli: &Cli, matches: &Matches) -> Outcome {
    let (list, images) = matches.arguments.split_at(1);
    let target = named(&list[0]).map_err(|failure| {
        Failure::new(format!(
            "error parsing name for manifest list {}: {}",
            list[0], failure.text
        ))
    })?;
    let store = Store::of(cli);
    if store.list(&target)?.is_some() && !matches.on("amend") {
        return Err(Failure::new(
            "refusing to amend an existing manifest list with no --amend flag",
        ));
    }
    for image in images {
        let reference = named(image)?;
        let known = store.get(&target, &reference)?;
        let manifest = match known.filter(|known| known.descriptor.platform.is_some()) {
            Some(known) => known,
            None => match Remote::new(&[&reference], matches.on("insecure"))?
                .get(cli, &reference)
                .await?
            {
                Found::Image(manifest) => *manifest,
                Found::List(_) => {
                    return Err(Failure::new(format!(
                        "{} is a manifest list",
                        reference.canonical()
                    )));
                }
            },
        };
        store.save(&target, &reference, &manifest)?;
    }
    output::line(&format!("Created manifest list {}", target.canonical()));
    Ok(())
}

fn annotate(cli: &Cli, matches: &Matches) -> Outcome {
    let target = named(&matches.arguments[0]).map_err(|failure| {
        Failure::new(format!(
            "annotate: error parsing name for manifest list {}: {}",
            matches.arguments[0], failure.text
        ))
    })?;
    let image = named(&matches.arguments[1]).map_err(|failure| {
        Failure::new(format!(
            "annotate: error parsing name for manifest {}: {}",
            matches.arguments[1], failure.text
        ))
    })?;
    let store = Store::of(cli);
    let Some(mut manifest) = store.get(&target, &image)? else {
        return Err(Failure::new(format!(
            "manifest for image {} does not exist in {}",
            matches.arguments[1], matches.arguments[0]
        )));
    };
    let platform = manifest
        .descriptor
        .platform
        .get_or_insert_with(Platform::default);
    for (flag, part) in [
        ("os", &mut platform.os),
        ("arch", &mut platform.architecture),
        ("variant", &mut platform.variant),
        ("os-version", &mut platform.os_version),
    ] {
        match matches.text(flag) {
            value if value.is_empty() => {}
            value => *part = value,
        }
    }
    for feature in matches.all_split("os-features") {
        if !platform.os_features.contains(&feature) {
            platform.os_features.push(feature);
        }
    }
    if !is_known(platform) {
        return Err(Failure::new(format!(
            "manifest entry for image has unsupported os/arch combination: {}/{}",
            matches.text("os"),
            matches.text("arch")
        )));
    }
    store.save(&target, &image, &manifest)
}

fn is_known(platform: &Platform) -> bool {
    PLATFORMS.iter().any(|(os, architectures)| {
        *os == platform.os && architectures.contains(&platform.architecture.as_str())
    })
}

async fn inspect(cli: &Cli, matches: &Matches) -> Outcome {
    let verbose = matches.on("verbose");
    let store = Store::of(cli);
    let (list, name) = match matches.arguments.as_slice() {
        [list, image] => (Some(named(list)?), named(image)?),
        [image, ..] => (None, named(image)?),
        [] => return Ok(()),
    };
    if let Some(list) = list {
        let Some(manifest) = store.get(&list, &name)? else {
            return Err(no_such_manifest(&name));
        };
        output::line(&document::shown(&manifest, verbose)?);
        return Ok(());
    }
    let found = match store.list(&name)? {
        Some(manifests) => Found::List(manifests),
        None => {
            Remote::new(&[&name], matches.on("insecure"))?
                .get(cli, &name)
                .await?
        }
    };
    let text = match found {
        Found::Image(manifest) => document::shown(&manifest, verbose)?,
        Found::List(manifests) if verbose => document::indented(&manifests, b"\t")?,
        Found::List(manifests) => document::list(&name, &manifests)?.1,
    };
    output::line(&text);
    Ok(())
}

async fn push(cli: &Cli, matches: &Matches) -> Outcome {
    let target = named(&matches.arguments[0])?;
    let store = Store::of(cli);
    let Some(manifests) = store.list(&target)? else {
        return Err(no_such_manifest(&target));
    };
    let (media_type, text) = document::list(&target, &manifests)?;
    let remote = Remote::new(&[&target], matches.on("insecure"))?;
    for manifest in &manifests {
        let source: Reference = named(&manifest.reference)?;
        if source.path() != target.path() {
            let (reference, digest) = remote.copy(cli, &source, &target, manifest).await?;
            output::line(&format!(
                "Pushed ref {} with digest: {digest}",
                reference.canonical()
            ));
        }
    }
    let digest = remote
        .put(cli, &target, media_type, text.into_bytes())
        .await?;
    output::line(digest.as_str());
    if matches.on("purge") {
        store.remove(&target)?;
    }
    Ok(())
}

fn remove(cli: &Cli, matches: &Matches) -> Outcome {
    let store = Store::of(cli);
    let mut failures = Vec::new();
    for name in &matches.arguments {
        let target = named(name)?;
        let removed = match store.list(&target)? {
            Some(_) => store.remove(&target),
            None => Err(no_such_manifest(&target)),
        };
        if let Err(failure) = removed {
            failures.push(failure.text);
        }
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(failures.join("\n"))),
    }
}

/// The words for a list that is not here.
fn no_such_manifest(reference: &Reference) -> Failure {
    Failure::new(format!("No such manifest: {}", reference.canonical()))
}
