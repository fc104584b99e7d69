//! Command lines and files as dockerd takes them.

use super::*;

fn flags(line: &str) -> Result<CommandLine, String> {
    let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
    command_line(&args).map_err(|error| error.0)
}

fn run(line: &str) -> Values {
    match flags(line) {
        Ok(CommandLine::Run(values)) => values,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn flags_are_read_in_all_their_forms() {
    let values = run(
        "-D -H unix:///a -H=tcp://1.2.3.4:5 --host fd:// --icc=false -lwarn --log-opt max-size=1m",
    );
    assert_eq!(values["debug"], Value::Bool(true));
    assert_eq!(
        values["host"],
        Value::List(vec![
            "unix:///a".into(),
            "tcp://1.2.3.4:5".into(),
            "fd://".into()
        ])
    );
    assert_eq!(values["icc"], Value::Bool(false));
    assert_eq!(values["log-level"], Value::Text("warn".into()));
    assert_eq!(
        values["log-opt"],
        Value::Map([("max-size".into(), "1m".into())].into())
    );
    assert_eq!(
        run("--default-ulimit nofile=64:128")["default-ulimit"],
        Value::Ulimits([("nofile".into(), (64, 128))].into())
    );
    assert_eq!(flags("--help"), Ok(CommandLine::Help));
    assert_eq!(flags("-v"), Ok(CommandLine::Version));
}

#[test]
fn wrong_flags_are_named() {
    for (line, want) in [
        ("--nope", "unknown flag: --nope"),
        ("--tlsverify", "flag --tlsverify is not supported"),
        ("-s overlay2", "flag -s, --storage-driver is not supported"),
        ("-x", "unknown shorthand flag: 'x' in -x"),
        ("--mtu", "flag needs an argument: --mtu"),
        ("run", "\"gantry daemon\" accepts no arguments."),
        (
            "--mtu big",
            "invalid argument \"big\" for \"--mtu\" flag: strconv.ParseInt: parsing \"big\": invalid syntax",
        ),
        (
            "--debug=maybe",
            "invalid argument \"maybe\" for \"-D, --debug\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
        (
            "--default-ulimit nofile=9:1",
            "invalid argument \"nofile=9:1\" for \"--default-ulimit\" flag: invalid ulimit argument: nofile=9:1",
        ),
    ] {
        assert_eq!(flags(line).unwrap_err(), want, "{line}");
    }
}

#[test]
fn the_file_has_its_own_names_and_refuses_others() {
    let values = file(
        r#"{"hosts":["unix:///a"],"dns-opts":["ndots:2"],"labels":["a=b"],"default-shm-size":"128M",
            "default-ulimits":{"nofile":{"Name":"nofile","Hard":64,"Soft":32}},
            "runtimes":{"crun":{"path":"/bin/crun","runtimeArgs":["--debug"]}}}"#,
    )
    .unwrap();
    assert_eq!(values["host"], Value::List(vec!["unix:///a".into()]));
    assert_eq!(values["default-shm-size"], Value::Integer(128 << 20));
    assert_eq!(
        values["default-ulimit"],
        Value::Ulimits([("nofile".into(), (32, 64))].into())
    );
    assert_eq!(
        values["add-runtime"],
        Value::Runtimes([("crun".into(), ("/bin/crun".into(), vec!["--debug".into()]))].into())
    );
    for (text, want) in [
        (
            r#"{"nope":1,"other":2}"#,
            "the following directives don't match any configuration option: nope, other",
        ),
        (
            r#"{"storage-driver":"overlay2"}"#,
            "the directive \"storage-driver\" is not supported",
        ),
        (
            r#"{"proxies":{"http-proxy":"http://a","foo":"x"}}"#,
            "the following directives don't match any configuration option: foo",
        ),
        (
            r#"{"http-proxy":"http://a"}"#,
            "the following directives don't match any configuration option: http-proxy",
        ),
        (
            r#"{"proxies":"x"}"#,
            "the following directives don't match any configuration option: proxies",
        ),
        (
            r#"{"debug":"yes"}"#,
            "the directive \"debug\" has a value of the wrong kind: \"yes\"",
        ),
        (
            r#"{"validate":true}"#,
            "the following directives don't match any configuration option: validate",
        ),
    ] {
        assert_eq!(file(text).unwrap_err().0, want);
    }
    let values = file(
        r#"{"proxies":{"http-proxy":"http://a","no-proxy":"b"},"image-gc":{"enabled":true,"interval":"1h","high-watermark":85}}"#,
    )
    .unwrap();
    assert_eq!(values["http-proxy"], Value::Text("http://a".into()));
    assert_eq!(
        values["image-gc"],
        Value::Map(
            [
                ("enabled", "true"),
                ("interval", "1h"),
                ("high-watermark", "85")
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
        )
    );
    assert!(file("").unwrap().is_empty());
    assert!(file("{").unwrap_err().0.starts_with("invalid JSON: "));
}

#[test]
fn an_option_in_both_places_is_refused() {
    let error = merge(
        run("--log-level debug --label a=b"),
        file(r#"{"log-level":"info","labels":["c=d"]}"#).unwrap(),
    );
    assert_eq!(
        error.unwrap_err().0,
        "the following directives are specified both as a flag and in the configuration file: labels: (from flag: [a=b], from file: [c=d]), log-level: (from flag: debug, from file: info)"
    );
    assert_eq!(
        merge(run("-D"), file(r#"{"icc":false}"#).unwrap())
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn sizes() {
    for (text, want) in [
        ("64M", Some(64 << 20)),
        ("64mb", Some(64 << 20)),
        ("1.5k", Some(1536)),
        ("2GiB", Some(2 << 30)),
        ("10", Some(10)),
        ("x", None),
        ("1q", None),
    ] {
        assert_eq!(parse_size(text), want, "{text}");
    }
}
