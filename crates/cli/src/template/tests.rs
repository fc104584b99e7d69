//! Tables over templates; the expectations are Go's.

use super::*;
use serde_json::json;

fn check(source: &str, expected: &str) {
    let data = json!({
        "Name": "/web", "Count": 3, "On": true, "Half": 0.5,
        "Config": {"Labels": {"b": "2", "a": "1"}, "Env": ["A=1", "B=2"], "Cmd": null, "Volumes": null},
        "State": {"Status": "running", "Running": true},
        "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": null}},
        "HostConfig": {"Binds": null, "PidsLimit": null}
    });
    let got = Template::parse(source).and_then(|template| template.execute(&typed(&data)));
    assert_eq!(got.unwrap_or_else(|error| error), expected, "{source}");
}

#[test]
fn values_are_printed_as_go_prints_them() {
    check("{{.Name}} {{.Count}} {{.On}} {{.Half}}", "/web 3 true 0.5");
    check(
        "{{.Config.Labels}} {{.Config.Env}}",
        "map[a:1 b:2] [A=1 B=2]",
    );
    check(
        "{{.HostConfig.Binds}} {{.HostConfig.PidsLimit}} {{.Config.Volumes}}",
        "[] <nil> map[]",
    );
    check(
        "{{.Config.Labels.none}}|{{index .Config.Labels \"none\"}}|",
        "<no value>||",
    );
    check("{{.State}}", "{running true <nil>}");
    check(
        "{{json .Config.Labels}} {{json .Name}} {{json .State}}",
        r#"{"a":"1","b":"2"} "/web" {"Status":"running","Running":true}"#,
    );
}

#[test]
fn control_structures() {
    check(
        "{{if .On}}y{{else}}n{{end}}{{if .State.Health}}h{{else}}-{{end}}",
        "y-",
    );
    check(
        "{{if eq .Count 1}}a{{else if eq .Count 3}}b{{else}}c{{end}}",
        "b",
    );
    check("{{range .Config.Env}}<{{.}}>{{end}}", "<A=1><B=2>");
    check(
        "{{range $i, $e := .Config.Env}}{{if $i}},{{end}}{{$e}}{{end}}",
        "A=1,B=2",
    );
    check(
        "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}",
        "a=1 b=2 ",
    );
    check("{{range .Config.Cmd}}x{{else}}none{{end}}", "none");
    check("{{with .State}}{{.Status}}{{$.Name}}{{end}}", "running/web");
    check("{{$x := .Name}}{{$x}}{{$x = \"y\"}}{{$x}}", "/weby");
    check(
        "{{range .Config.Env}}{{break}}{{end}}{{range $n := 3}}{{if eq $n 1}}{{continue}}{{end}}{{$n}}{{end}}",
        "02",
    );
    check("a {{- .Name -}} b {{/* c */}}d", "a/webb d");
}

#[test]
fn functions() {
    check("{{upper .Name | printf \"%d-%s\" 3 | len}}", "6");
    check(
        "{{join .Config.Env \",\"}} {{split \"a:b\" \":\"}} {{title \"ab cd\"}}",
        "A=1,B=2 [a b] Ab Cd",
    );
    check(
        "{{truncate .Name 2}} {{pad .Name 1 2}}| {{lower \"AB\"}}",
        "/w  /web  | ab",
    );
    check(
        "{{printf \"%-6s|%05d|%q|%.2f|%v\" .Name .Count .Name .Half .On}}",
        "/web  |00003|\"/web\"|0.50|true",
    );
    check(
        "{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}",
        "8080",
    );
    check(
        "{{len .Config.Env}} {{slice .Name 1 3}} {{index .Config.Env 1}}",
        "2 we B=2",
    );
    check(
        "{{and .On .Name}} {{or \"\" .Count}} {{not .On}} {{ne 1 2}} {{lt 1 2}} {{ge \"b\" \"a\"}}",
        "/web 3 false true true true",
    );
    check(
        "{{println .Name .Count}}{{print 1 2 \"x\" 3}}",
        "/web 3\n1 2x3",
    );
    check(
        "{{html \"<a>\"}} {{urlquery \"a b&\"}} {{js \"'\"}}",
        "&lt;a&gt; a+b%26 \\'",
    );
}

#[test]
fn errors_name_the_place() {
    check(
        "{{.Foo}}",
        "template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type struct",
    );
    check(
        "{{.State.Foo}}",
        "template: :1:8: executing \"\" at <.State.Foo>: can't evaluate field Foo in type struct",
    );
    check(
        "a\n {{index .Config.Env 9}}",
        "template: :2:3: executing \"\" at <index .Config.Env 9>: error calling index: index out of range: 9",
    );
    check("{{.Name", "template: :1: unclosed action");
    check("{{foo}}", "template: :1: function \"foo\" not defined");
    check("{{$x}}", "template: :1: undefined variable \"$x\"");
    check("{{if .On}}", "template: :1: unexpected EOF");
    check("{{end}}", "template: :1: unexpected {{end}}");
    check("{{}}", "template: :1: missing value for command");
}

#[test]
fn untyped_data_refuses_missing_keys() {
    let data = untyped(&json!({"A": {"B": 1}}));
    let run = |source: &str| Template::parse(source).and_then(|template| template.execute(&data));
    assert_eq!(run("{{.A.B}}"), Ok("1".to_owned()));
    assert_eq!(
        run("{{.A.C}}"),
        Err("template: :1:4: executing \"\" at <.A.C>: map has no entry for key \"C\"".to_owned())
    );
}
