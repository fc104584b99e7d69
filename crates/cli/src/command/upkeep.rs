//! What Docker's client has not: `image gc` and `system check`.

use crate::cli::Cli;
use crate::command::get;
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::{output, table, units};
use gantry_api::upkeep::{CheckReport, ImageGcPolicy, ImageGcReport};
use gantry_client::{Query, Request};

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
    let repair = matches.on("repair");
    let query = Query::new().when(repair, "repair", "1");
    let request = Request::post("/system/check").query(query);
    let report: CheckReport = cli.client()?.send(request).await?.json().await?;
    output::out(&check_text(&report, repair));
    match left(&report, repair).is_empty() {
        true => Ok(()),
        false => Err(Failure::code(1)),
    }
}

/// Returns what is wrong with the store now.
fn left(report: &CheckReport, repair: bool) -> &[String] {
    match repair {
        true => &report.remaining,
        false => &report.problems,
    }
}

fn check_text(report: &CheckReport, repair: bool) -> String {
    let mut out = String::new();
    for (title, lines) in [
        ("problem", &report.problems),
        ("repair", &report.repaired),
        ("left", &report.remaining),
    ] {
        for line in lines {
            out.push_str(&format!("{title}: {line}\n"));
        }
    }
    let count = |problems: &[String]| match problems.len() {
        0 => "no problem".to_owned(),
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    };
    let mut found = count(&report.problems);
    if repair && !report.problems.is_empty() {
        found.push_str(&format!(", {} left", count(&report.remaining)));
    }
    out.push_str(&format!(
        "Checked {} images, {} layers and {} blobs ({}): {found}\n",
        report.images,
        report.layers,
        report.blobs,
        units::size(report.bytes as f64, 4),
    ));
    out
}

/// Writes a duration as the setting has it, exactly.
fn duration(seconds: u64) -> String {
    let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm')];
    let unit = units
        .iter()
        .find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
    let (unit, letter) = unit.copied().unwrap_or((1, 's'));
    format!("{}{letter}", seconds / unit)
}

fn policy_text(policy: &ImageGcPolicy) -> String {
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
    fn a_repair_is_whole_only_if_nothing_is_left() {
        let text = |text: &str| vec![text.to_owned()];
        let mut report = CheckReport {
            problems: text("a"),
            repaired: text("image b is left as it is: remove its containers first"),
            remaining: text("a"),
            ..CheckReport::default()
        };
        assert_eq!(left(&report, true), ["a"]);
        assert_eq!(
            check_text(&report, true),
            "problem: a\nrepair: image b is left as it is: remove its containers first\nleft: a\nChecked 0 images, 0 layers and 0 blobs (0B): 1 problem, 1 problem left\n"
        );
        report.remaining.clear();
        assert!(left(&report, true).is_empty());
        // Without a repair what was found is what is left.
        assert_eq!(left(&report, false), ["a"]);
    }

    #[test]
    fn durations_are_those_of_the_settings() {
        for (seconds, want) in [
            (1_209_600, "14d"),
            (5_400, "90m"),
            (3_600, "1h"),
            (7, "7s"),
            (0, "0s"),
        ] {
            assert_eq!(duration(seconds), want);
        }
    }

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
