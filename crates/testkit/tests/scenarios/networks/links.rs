//! `--link`: on the default bridge by the hosts file and the environment, on other networks by the resolver.

use gantry_testkit::session::Session;

use super::fetches;

gantry_testkit::scenarios![
    a_link_on_a_network_is_an_alias,
    a_link_of_the_default_bridge_is_in_the_hosts_file,
    a_link_to_what_is_not_there,
    a_link_is_seen_by_its_container_alone,
];

fn a_link_on_a_network_is_an_alias(s: &Session) {
    s.d("network create @n").ok();
    s.d("run -d --name @one --network @n @web").ok();
    s.d("run -d --name @two --network @n --link @one:other --link @one @bb sleep 1000")
        .ok();
    assert!(fetches(s, "@two", "other"));
    assert!(fetches(s, "@two", "@one"));
    s.d("inspect -f '{{range .NetworkSettings.Networks}}{{.Links}}{{end}} {{.HostConfig.Links}}' @two")
        .prints("[@one:other @one] []\n");
    s.d("exec @two grep other /etc/hosts").exits(1);
}

fn a_link_of_the_default_bridge_is_in_the_hosts_file(s: &Session) {
    let id = s.d("run -d --name @one @web").ok().text();
    s.d("run -d --name @two --link @one:other @bb sleep 1000")
        .ok();
    let address = s.address("@one", "bridge");
    s.d("exec @two grep other /etc/hosts")
        .prints(&format!("{address}\tother {} @one\n", &id[..12]));
    assert!(fetches(s, "@two", "other"));
    // The address is kept up to date.
    s.d("stop -t 0 @one").ok();
    s.d("run -d --name @three @bb sleep 1000").ok();
    s.d("start @one").ok();
    let address = s.address("@one", "bridge");
    gantry_testkit::wait::eventually("the new address is there", || {
        s.d("exec @two grep other /etc/hosts")
            .stdout
            .starts_with(&format!("{address}\t"))
    });
}

fn a_link_to_what_is_not_there(s: &Session) {
    s.d("network create @n").ok();
    s.d("run --rm --link @none:x @bb true")
        .exits(125)
        .warns("could not get container for @none");
    // On a network of the user the name may come later.
    s.d("run -d --name @c --network @n --link @later:x @bb sleep 1000")
        .ok();
    assert!(!fetches(s, "@c", "x"));
    s.d("run -d --name @later --network @n @web").ok();
    assert!(fetches(s, "@c", "x"));
}

fn a_link_is_seen_by_its_container_alone(s: &Session) {
    s.d("network create @n").ok();
    s.d("run -d --name @one --network @n @web").ok();
    s.d("run -d --name @two --network @n --link @one:secret @bb sleep 1000")
        .ok();
    s.d("run -d --name @three --network @n @bb sleep 1000").ok();
    assert!(fetches(s, "@two", "secret"));
    assert!(!fetches(s, "@three", "secret"));
}
