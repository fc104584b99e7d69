//! `search`: filters, limit, formats and errors. The service is a small one of the old index protocol.

use gantry_testkit::peer::SearchService;
use gantry_testkit::session::Session;

gantry_testkit::scenarios![
    hits_are_listed,
    filters_of_a_search,
    formats_of_a_search,
    what_a_search_refuses,
];

const HITS: &str = r#"[{"name":"library/a","description":"An official image with a rather long description\nof two lines, longer than the forty-five characters","star_count":120,"is_official":true,"is_automated":false},{"name":"u/b","description":"","star_count":3,"is_official":false,"is_automated":true},{"name":"u/c","description":"third","star_count":0,"is_official":false,"is_automated":false}]"#;

fn hits_are_listed(s: &Session) {
    let host = SearchService::start(s.engine, HITS).host();
    s.d(&format!("search {host}/x")).prints(
        "NAME        DESCRIPTION                                     STARS     OFFICIAL\nlibrary/a   An official image with a rather long descrip…   120       [OK]\nu/b                                                         3         \nu/c         third                                           0         \n",
    );
    s.d(&format!("search --no-trunc {host}/x"))
        .shows("An official image with a rather long description of two lines, longer than the forty-five characters   120       [OK]\n");
}

fn filters_of_a_search(s: &Session) {
    let host = SearchService::start(s.engine, HITS).host();
    let names = |filters: &str| {
        s.d(&format!(
            "search {filters} --format '{{{{.Name}}}}' {host}/x"
        ))
        .ok()
        .stdout
    };
    assert_eq!(names("-f is-official=true"), "library/a\n");
    assert_eq!(names("-f is-official=false"), "u/b\nu/c\n");
    assert_eq!(names("-f stars=3 --limit 5"), "library/a\nu/b\n");
    assert_eq!(names("-f stars=3 -f stars=4"), "library/a\n");
    s.d(&format!("search -f is-automated=true {host}/x"))
        .prints("NAME      DESCRIPTION   STARS     OFFICIAL\n")
        .warns("WARNING: the \"is-automated\" filter is deprecated, and searching for \"is-automated=true\" will not yield any results in future.\n");
}

fn formats_of_a_search(s: &Session) {
    let host = SearchService::start(s.engine, HITS).host();
    s.d(&format!("search -f stars=100 --format json {host}/x")).prints(
        "{\"Description\":\"An official image with a rather long descrip…\",\"IsOfficial\":\"true\",\"Name\":\"library/a\",\"StarCount\":\"120\"}\n",
    );
    s.d(&format!(
        "search --format '{{{{.IsOfficial}}}}|{{{{.StarCount}}}}' {host}/x"
    ))
    .prints("[OK]|120\n|3\n|0\n");
    s.d(&format!(
        "search --format 'table {{{{.Name}}}}\\t{{{{.IsOfficial}}}}' {host}/x"
    ))
    .prints("NAME        OFFICIAL\nlibrary/a   [OK]\nu/b         \nu/c         \n");
    s.d(&format!("search --format '{{{{.Foo}}}}' {host}/x"))
        .exits(1)
        .warns("can't evaluate field Foo in type *registry.searchContext");
}

fn what_a_search_refuses(s: &Session) {
    let host = SearchService::start(s.engine, HITS).host();
    let fails = |words: &str, message: &str| {
        s.d(&format!("search {words}"))
            .fails(1, &format!("Error response from daemon: {message}\n"));
    };
    fails(
        &format!("--limit 101 {host}/x"),
        "limit 101 is outside the range of [1, 100]",
    );
    fails(&format!("-f foo=x {host}/x"), "invalid filter 'foo'");
    fails(
        &format!("-f stars=x {host}/x"),
        "invalid filter 'stars=x': strconv.Atoi: parsing \"x\": invalid syntax",
    );
    fails(
        &format!("-f is-official=x {host}/x"),
        "invalid filter 'is-official=[x]'",
    );
    fails(&format!("{host}/broken"), "Unexpected status code 500");
    fails(
        "http://x",
        "invalid repository name: repository name (http://x) should not have a scheme",
    );
    let answer = s.engine.api(
        "GET",
        &format!("/v1.51/images/search?term={host}/x&limit=y"),
        None,
    );
    assert_eq!(
        (answer.status, answer.text()),
        (
            400,
            "{\"message\":\"invalid limit specified: strconv.Atoi: parsing \\\"y\\\": invalid syntax\"}\n"
                .to_owned()
        )
    );
}
