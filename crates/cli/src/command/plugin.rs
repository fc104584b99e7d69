//! `plugin ls`. Gantry's own daemon has no plugins; Docker's may have some.

use crate::cli::Cli;
use crate::command::{get, text};
use crate::failure::Outcome;
use crate::format::{Format, Row};
use crate::grammar::Matches;
use crate::order::natural;
use crate::{filter, output, units};
use gantry_client::Query;
use serde_json::Value;

const HEADINGS: [(&str, &str); 5] = [
    ("ID", "ID"),
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("Enabled", "ENABLED"),
    ("PluginReference", "IMAGE"),
];

/// How much of a description is shown.
const DESCRIPTION_COLUMNS: usize = 45;

/// Runs `plugin ls`.
pub async fn list(cli: &Cli, matches: &Matches) -> Outcome {
    let quiet = matches.on("quiet");
    let truncate = !matches.on("no-trunc");
    let filters = filter::collect(&matches.all("filter"));
    let query = Query::new().when(!filters.is_empty(), "filters", filters.to_json());
    let given = match matches.get("format") {
        Some(format) => format.to_owned(),
        None if !quiet => cli.config().plugins_format.clone(),
        None => String::new(),
    };
    let default = if quiet {
        "{{.ID}}"
    } else {
        "table {{.ID}}\\t{{.Name}}\\t{{.Description}}\\t{{.Enabled}}"
    };
    let chosen = match given.as_str() {
        "raw" if quiet => "plugin_id: {{.ID}}",
        "raw" => {
            "plugin_id: {{.ID}}\nname: {{.Name}}\ndescription: {{.Description}}\nenabled: {{.Enabled}}\n"
        }
        other => other,
    };
    let format = Format::new(chosen, default, &HEADINGS)?;
    let answer = get(cli.client()?, "/plugins", query).await?;
    let mut plugins: Vec<&Value> = answer.as_array().into_iter().flatten().collect();
    plugins.sort_by(|left, right| natural(text(left, "Name"), text(right, "Name")));
    let rows = plugins.into_iter().map(|plugin| row(plugin, truncate));
    output::out(&format.render(rows.collect())?);
    Ok(())
}

fn row(plugin: &Value, truncate: bool) -> Row {
    let id = text(plugin, "Id");
    let described = text(&plugin["Config"], "Description");
    let mut description = described.replace('\n', "").replace('\r', " ");
    if truncate {
        description = units::ellipsis(&description, DESCRIPTION_COLUMNS);
    }
    Row::new("*plugin.pluginContext")
        .text("ID", if truncate { units::short_id(id) } else { id })
        .text("Name", text(plugin, "Name"))
        .text("Description", description)
        .text(
            "Enabled",
            plugin["Enabled"].as_bool().unwrap_or(false).to_string(),
        )
        .text("PluginReference", text(plugin, "PluginReference"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_plugin_is_a_row() {
        let plugin = json!({"Id": "0123456789abcdef", "Name": "a/b:1", "Enabled": true,
            "PluginReference": "docker.io/a/b:1", "Config": {"Description": "x".repeat(50) + "\nend"}});
        let shown = |truncate| {
            let format = "{{.ID}} {{.Name}} {{.Description}} {{.Enabled}} {{.PluginReference}}";
            let format = Format::new(format, "", &HEADINGS).unwrap();
            format.render(vec![row(&plugin, truncate)]).unwrap()
        };
        let cut = "x".repeat(44) + "…";
        assert_eq!(
            shown(true),
            format!("0123456789ab a/b:1 {cut} true docker.io/a/b:1\n")
        );
        let whole = "x".repeat(50) + "end";
        assert_eq!(
            shown(false),
            format!("0123456789abcdef a/b:1 {whole} true docker.io/a/b:1\n")
        );
    }
}
