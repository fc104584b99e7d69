//! `info`.

use crate::cli::Cli;
use crate::command::text;
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::template::Template;
use crate::{DOCKER_VERSION, GANTRY_VERSION, format, output, units};
use gantry_client::{Request, Version};
use serde_json::{Value, json};

/// Runs `info`.
pub async fn info(cli: &Cli, matches: &Matches) -> Outcome {
    let template = match matches.get("format").unwrap_or_default() {
        "" => None,
        "json" => Some(Template::parse("{{json .}}").map_err(Failure::new)?),
        text => Some(Template::parse(text).map_err(|error| Failure {
            text: format!("template parsing error: {error}"),
            code: 64,
        })?),
    };
    let context = cli.target()?.context;
    let debug = cli.global.on("debug");
    let answer: Result<Value, _> = match cli.client()?.send(Request::get("/info")).await {
        Ok(response) => response.json().await,
        Err(error) => Err(error),
    };
    match (&template, answer) {
        (None, answer) => {
            let mut out = format!(
                "Client: Gantry {GANTRY_VERSION}\n Version:    {DOCKER_VERSION}\n Context:    {context}\n Debug Mode: {debug}\n\nServer:\n"
            );
            match answer {
                Ok(server) => {
                    out.push_str(&server_text(&server));
                    out.push('\n');
                    output::out(&out);
                    for warning in server["Warnings"].as_array().into_iter().flatten() {
                        output::error_line(warning.as_str().unwrap_or_default());
                    }
                    Ok(())
                }
                Err(error) => {
                    output::out(&out);
                    Err(Failure::new(error.to_string()))
                }
            }
        }
        (Some(template), answer) => {
            let (mut whole, error) = match answer {
                Ok(server) => (server, None),
                Err(error) => (json!({}), Some(error.to_string())),
            };
            if let Some(error) = &error {
                whole["ServerErrors"] = json!([error]);
            }
            whole["ClientInfo"] = json!({
                "Debug": debug,
                "Platform": {"Name": format!("Gantry {GANTRY_VERSION}")},
                "Version": DOCKER_VERSION,
                "DefaultAPIVersion": Version::NEWEST.to_string(),
                "GitCommit": format!("gantry-{GANTRY_VERSION}"),
                "Os": std::env::consts::OS,
                "Arch": crate::command::version::architecture(),
                "Context": context,
                "Plugins": [],
                "Warnings": null,
            });
            match format::typed(template, &whole, "system.dockerInfo") {
                Ok(text) => output::line(&text),
                Err(failure) => {
                    output::out("\n");
                    return Err(failure);
                }
            }
            match error {
                // The answer itself tells of a daemon that is not there.
                Some(error) => Err(Failure::new(error)),
                None => Ok(()),
            }
        }
    }
}

fn server_text(info: &Value) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    let number = |field: &str| info[field].as_i64().unwrap_or(0);
    let list = |value: &Value| -> String {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let flag = |field: &str| info[field].as_bool().unwrap_or(false);
    line(format!(" Containers: {}", number("Containers")));
    line(format!("  Running: {}", number("ContainersRunning")));
    line(format!("  Paused: {}", number("ContainersPaused")));
    line(format!("  Stopped: {}", number("ContainersStopped")));
    line(format!(" Images: {}", number("Images")));
    let mut optional = |label: &str, value: &str| {
        if !value.is_empty() {
            line(format!(" {label}: {value}"));
        }
    };
    optional("Server Version", text(info, "ServerVersion"));
    optional("Storage Driver", text(info, "Driver"));
    for pair in info["DriverStatus"].as_array().into_iter().flatten() {
        line(format!(
            "  {}: {}",
            pair[0].as_str().unwrap_or_default(),
            pair[1].as_str().unwrap_or_default()
        ));
    }
    for pair in info["SystemStatus"].as_array().into_iter().flatten() {
        line(format!(
            " {}: {}",
            pair[0].as_str().unwrap_or_default(),
            pair[1].as_str().unwrap_or_default()
        ));
    }
    let mut optional = |label: &str, value: &str| {
        if !value.is_empty() {
            line(format!(" {label}: {value}"));
        }
    };
    optional("Logging Driver", text(info, "LoggingDriver"));
    optional("Cgroup Driver", text(info, "CgroupDriver"));
    optional("Cgroup Version", text(info, "CgroupVersion"));
    line(" Plugins:".to_owned());
    line(format!("  Volume: {}", list(&info["Plugins"]["Volume"])));
    line(format!("  Network: {}", list(&info["Plugins"]["Network"])));
    if info["Plugins"]["Authorization"]
        .as_array()
        .is_some_and(|plugins| !plugins.is_empty())
    {
        line(format!(
            "  Authorization: {}",
            list(&info["Plugins"]["Authorization"])
        ));
    }
    line(format!("  Log: {}", list(&info["Plugins"]["Log"])));
    if info["CDISpecDirs"]
        .as_array()
        .is_some_and(|directories| !directories.is_empty())
    {
        line(" CDI spec directories:".to_owned());
        for directory in info["CDISpecDirs"].as_array().into_iter().flatten() {
            line(format!("  {}", directory.as_str().unwrap_or_default()));
        }
    }
    let swarm = text(&info["Swarm"], "LocalNodeState");
    line(format!(
        " Swarm: {}",
        if swarm.is_empty() { "inactive" } else { swarm }
    ));
    if let Some(runtimes) = info["Runtimes"]
        .as_object()
        .filter(|runtimes| !runtimes.is_empty())
    {
        let mut names: Vec<_> = runtimes.keys().map(String::as_str).collect();
        names.sort_unstable();
        line(format!(" Runtimes: {}", names.join(" ")));
        line(format!(
            " Default Runtime: {}",
            text(info, "DefaultRuntime")
        ));
    }
    if text(info, "OSType") == "linux" {
        line(format!(" Init Binary: {}", text(info, "InitBinary")));
        for (label, field) in [
            ("containerd", "ContainerdCommit"),
            ("runc", "RuncCommit"),
            ("init", "InitCommit"),
        ] {
            line(format!(" {label} version: {}", text(&info[field], "ID")));
        }
        let options = info["SecurityOptions"]
            .as_array()
            .filter(|options| !options.is_empty());
        if let Some(options) = options {
            line(" Security Options:".to_owned());
            for option in options.iter().filter_map(Value::as_str) {
                let mut pairs = option.split(',').filter_map(|pair| pair.split_once('='));
                let name = pairs
                    .clone()
                    .find(|(key, _)| *key == "name")
                    .map_or(option, |(_, value)| value);
                line(format!("  {name}"));
                if let Some((_, profile)) = pairs.find(|(key, _)| *key == "profile") {
                    line(format!("   Profile: {profile}"));
                }
            }
        }
    }
    let mut optional = |label: &str, value: &str| {
        if !value.is_empty() {
            line(format!(" {label}: {value}"));
        }
    };
    optional("Kernel Version", text(info, "KernelVersion"));
    optional("Operating System", text(info, "OperatingSystem"));
    optional("OSType", text(info, "OSType"));
    optional("Architecture", text(info, "Architecture"));
    line(format!(" CPUs: {}", number("NCPU")));
    line(format!(
        " Total Memory: {}",
        units::binary_size(info["MemTotal"].as_f64().unwrap_or(0.0))
    ));
    let mut optional = |label: &str, value: &str| {
        if !value.is_empty() {
            line(format!(" {label}: {value}"));
        }
    };
    optional("Name", text(info, "Name"));
    optional("ID", text(info, "ID"));
    line(format!(" Docker Root Dir: {}", text(info, "DockerRootDir")));
    line(format!(" Debug Mode: {}", flag("Debug")));
    if flag("Debug") {
        line(format!("  File Descriptors: {}", number("NFd")));
        line(format!("  Goroutines: {}", number("NGoroutines")));
        line(format!("  System Time: {}", text(info, "SystemTime")));
        line(format!("  EventsListeners: {}", number("NEventsListener")));
    }
    for (label, field) in [
        ("HTTP Proxy", "HttpProxy"),
        ("HTTPS Proxy", "HttpsProxy"),
        ("No Proxy", "NoProxy"),
    ] {
        if !text(info, field).is_empty() {
            line(format!(" {label}: {}", text(info, field)));
        }
    }
    if info["Labels"]
        .as_array()
        .is_some_and(|labels| !labels.is_empty())
    {
        line(" Labels:".to_owned());
        for label in info["Labels"].as_array().into_iter().flatten() {
            line(format!("  {}", label.as_str().unwrap_or_default()));
        }
    }
    line(format!(" Experimental: {}", flag("ExperimentalBuild")));
    let registries = &info["RegistryConfig"];
    let mut insecure: Vec<&str> = registries["IndexConfigs"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, index)| !index["Secure"].as_bool().unwrap_or(true))
        .map(|(name, _)| name.as_str())
        .collect();
    insecure.extend(
        registries["InsecureRegistryCIDRs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str),
    );
    if !insecure.is_empty() {
        line(" Insecure Registries:".to_owned());
        insecure
            .into_iter()
            .for_each(|registry| line(format!("  {registry}")));
    }
    if let Some(mirrors) = registries["Mirrors"]
        .as_array()
        .filter(|mirrors| !mirrors.is_empty())
    {
        line(" Registry Mirrors:".to_owned());
        mirrors
            .iter()
            .for_each(|mirror| line(format!("  {}", mirror.as_str().unwrap_or_default())));
    }
    line(format!(
        " Live Restore Enabled: {}",
        flag("LiveRestoreEnabled")
    ));
    if !text(info, "ProductLicense").is_empty() {
        line(format!(
            " Product License: {}",
            text(info, "ProductLicense")
        ));
    }
    if let Some(pools) = info["DefaultAddressPools"]
        .as_array()
        .filter(|pools| !pools.is_empty())
    {
        line(" Default Address Pools:".to_owned());
        for pool in pools {
            line(format!(
                "   Base: {}, Size: {}",
                text(pool, "Base"),
                pool["Size"].as_i64().unwrap_or(0)
            ));
        }
    }
    if !text(&info["FirewallBackend"], "Driver").is_empty() {
        line(format!(
            " Firewall Backend: {}",
            text(&info["FirewallBackend"], "Driver")
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_options_are_taken_apart() {
        let info = json!({"OSType": "linux", "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"]});
        let text = server_text(&info);
        assert!(
            text.contains(" Security Options:\n  seccomp\n   Profile: builtin\n  cgroupns\n"),
            "{text}"
        );
        assert!(text.contains(" Swarm: inactive\n"), "{text}");
    }
}
