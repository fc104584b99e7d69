//! What Docker's client has not: `image gc` and `system check`.

use crate::cli::Cli;
use crate::command::get;
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::{output, table, units};
use gantry_api::upkeep::{CheckReport, ImageGcPolicy, ImageGcReport};
use gantry_client::{Query, Request};
use std::time::Duration;

/// Runs `image gc`: shows the policy, or removes by it.
pub async fn collect(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    if matches.on("policy") {
        let policy = get(client, "/images/gc", Query::new()).await?;
        let policy: ImageGcPolicy = serde_json::from_value(policy)
            .map_err(|error| Failure::new(format!("read the policy: {error}")))?;
        output::out(&policy_text(&policy));
        return Ok(());
    }
    let query = Query::new().when(matches.on("dry-run"), "dry-run", "1");
    let request = Request::post("/images/gc").query(query);
    let report: ImageGcReport = client.send(request).await?.json().await?;
    output::out(&report_text(&report));
    Ok(())
}

/// Runs `system check`.
pub async fn check(cli: &Cli, matches: &Matches) -> Outcome {
    let query = Query::new().when(matches.on("repair"), "repair", "1");
    let request = Request::post("/system/check").query(query);
    let report: CheckReport = cli.client()?.send(request).await?.json().await?;
    for problem in &report.problems {
        output::line(&format!("problem: {problem}"));
    }
    for repair in &report.repaired {
        output::line(&format!("repaired: {repair}"));
    }
    let found = match report.problems.len() {
        0 => "no problem".to_owned(),
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    };
    output::line(&format!(
        "Checked {} images, {} layers and {} blobs ({}): {found}",
        report.images,
        report.layers,
        report.blobs,
        units::size(report.bytes as f64, 4),
    ));
    match report.problems.is_empty() || !report.repaired.is_empty() {
        true => Ok(()),
        false => Err(Failure::code(1)),
    }
}

fn policy_text(policy: &ImageGcPolicy) -> String {
    let duration = |seconds: u64| units::duration(Duration::from_secs(seconds));
    let percent = |percent: u8| match percent {
        0 => "none".to_owned(),
        percent => format!("{percent} %"),
    };
    let size = |bytes: u64| match bytes {
        0 => "none".to_owned(),
        bytes => units::size(bytes as f64, 4),
    };
    let rows = [
        ("enabled", policy.enabled.to_string()),
        ("tagged", policy.tagged.to_string()),
        ("unused-for", duration(policy.unused_for_seconds)),
        ("high-watermark", percent(policy.high_watermark_percent)),
        ("low-watermark", percent(policy.low_watermark_percent)),
        ("interval", duration(policy.interval_seconds)),
        ("keep-blobs", size(policy.keep_blobs_bytes)),
        ("partials-for", duration(policy.partials_for_seconds)),
    ];
    let lines: String = rows
        .iter()
        .map(|(name, value)| format!("{name}\t{value}\n"))
        .collect();
    table::layout(&lines)
}

fn report_text(report: &ImageGcReport) -> String {
    let mut out = String::new();
    if !report.items.is_empty() {
        let mut lines = String::from("KIND\tNAME\tSIZE\tREASON\n");
        for item in &report.items {
            let size = units::size(item.bytes as f64, 4);
            lines.push_str(&format!(
                "{}\t{}\t{size}\t{}\n",
                item.kind, item.name, item.reason
            ));
        }
        out.push_str(&table::layout(&lines));
    }
    let words = match report.dry_run {
        true => "Total space that would be reclaimed",
        false => "Total reclaimed space",
    };
    let size = units::size(report.reclaimed_bytes as f64, 4);
    out.push_str(&format!("{words}: {size}\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::upkeep::ImageGcItem;

    #[test]
    fn a_report_is_a_table_and_a_sum() {
        let report = ImageGcReport {
            items: vec![ImageGcItem {
                kind: "image".to_owned(),
                name: "sha256:ab".to_owned(),
                reason: "no name".to_owned(),
                bytes: 1_500,
            }],
            reclaimed_bytes: 1_500,
            dry_run: true,
        };
        assert_eq!(
            report_text(&report),
            "KIND      NAME        SIZE      REASON\nimage     sha256:ab   1.5kB     no name\nTotal space that would be reclaimed: 1.5kB\n"
        );
    }
}
