//! Names inside user-defined networks: the resolver at 127.0.0.11.

use gantry_testkit::session::Session;

use super::{endpoint, fetches, parse_address};

gantry_testkit::scenarios![
    every_name_of_a_container_resolves,
    addresses_resolve_to_names,
    an_alias_of_several_gives_all,
    names_end_with_their_container,
    a_name_without_such_an_address_is_empty,
    unknown_names_are_told,
    names_of_another_network_are_unknown,
    the_resolver_file_names_the_resolver,
    answers_come_by_tcp_too,
    the_default_bridge_has_no_names,
    upstream_servers_answer_the_rest,
    hosts_file_has_the_own_name,
];

/// What Python's resolver finds in a container for a name: its IPv4 addresses, sorted.
fn look_up(s: &Session, container: &str, name: &str) -> String {
    let outcome = s.d(&format!("exec {container} getent ahostsv4 {name}"));
    let mut found: Vec<&str> = outcome
        .stdout
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    found.sort_unstable();
    found.dedup();
    found.join(" ")
}

fn every_name_of_a_container_resolves(s: &Session) {
    s.d("network create @n").ok();
    let id = s
        .d("run -d --name @one --hostname host1 --network @n --network-alias alias1 --network-alias Alias2 @bb sleep 1000")
        .ok()
        .text();
    s.d("run -d --name @two --network @n @deb sleep 1000").ok();
    let address = s.address("@one", "@n");
    for name in [
        "@one",
        "alias1",
        "alias2",
        &id[..12],
        "@one.@n",
        "alias1.@n",
        "host1",
    ] {
        assert_eq!(look_up(s, "@two", name), address, "{name}");
    }
    let own = s.address("@two", "@n");
    assert_eq!(look_up(s, "@two", "@two"), own);
}

fn addresses_resolve_to_names(s: &Session) {
    s.d("network create @n").ok();
    s.d("run -d --name @one --network @n --network-alias x @bb sleep 1000")
        .ok();
    let address = s.address("@one", "@n");
    let mut parts: Vec<&str> = address.split('.').collect();
    parts.reverse();
    s.d(&format!("run --rm --network @n @bb nslookup {address}"))
        .ok()
        .shows(&format!(
            "{}.in-addr.arpa\tname = @one.@n\n",
            parts.join(".")
        ));
}

fn an_alias_of_several_gives_all(s: &Session) {
    s.d("network create @n").ok();
    for name in ["@a", "@b", "@c"] {
        s.d(&format!(
            "run -d --name {name} --network @n --network-alias all @bb sleep 1000"
        ))
        .ok();
    }
    s.d("run -d --name @ask --network @n @deb sleep 1000").ok();
    let mut all: Vec<String> = ["@a", "@b", "@c"].map(|name| s.address(name, "@n")).into();
    all.sort_unstable();
    assert_eq!(look_up(s, "@ask", "all"), all.join(" "));
    s.d("network disconnect @n @b").ok();
    let gone = all.remove(1);
    assert!(
        look_up(s, "@ask", "all").split(' ').count() == 2,
        "{gone} is still told"
    );
}

fn names_end_with_their_container(s: &Session) {
    s.d("network create @n").ok();
    s.d("run -d --name @ask --network @n @deb sleep 1000").ok();
    assert_eq!(look_up(s, "@ask", "@one"), "");
    s.d("run -d --name @one --network @n @bb sleep 1000").ok();
    assert_eq!(look_up(s, "@ask", "@one"), s.address("@one", "@n"));
    s.d("stop -t 0 @one").ok();
    assert_eq!(look_up(s, "@ask", "@one"), "");
    s.d("start @one").ok();
    assert_eq!(look_up(s, "@ask", "@one"), s.address("@one", "@n"));
    s.d("rm -f @one").ok();
    assert_eq!(look_up(s, "@ask", "@one"), "");
}

fn a_name_without_such_an_address_is_empty(s: &Session) {
    s.d("network create @n").ok();
    s.d("run -d --name @one --network @n @bb sleep 1000").ok();
    s.d("run --rm --network @n @bb nslookup -type=aaaa @one")
        .ok()
        .hides("Address: ")
        .hides("NXDOMAIN");
}

fn unknown_names_are_told(s: &Session) {
    s.d("network create --internal @n").ok();
    s.d("run --rm --network @n @bb nslookup nosuch.test")
        .exits(1);
}

fn names_of_another_network_are_unknown(s: &Session) {
    s.d("network create @a").ok();
    s.d("network create @b").ok();
    s.d("run -d --name @one --network @a @bb sleep 1000").ok();
    s.d("run -d --name @ask --network @b @deb sleep 1000").ok();
    assert_eq!(look_up(s, "@ask", "@one"), "");
    s.d("network connect --alias later @b @one").ok();
    let address = parse_address(&endpoint(s, "@one", "@b")["IPAddress"]);
    assert_eq!(look_up(s, "@ask", "@one"), address.to_string());
    assert_eq!(look_up(s, "@ask", "later"), address.to_string());
    assert_eq!(look_up(s, "@ask", "@one.@a"), "");
}

fn the_resolver_file_names_the_resolver(s: &Session) {
    s.d("network create @n").ok();
    s.d("run --rm --network @n --dns 9.9.9.9 --dns-search example.test --dns-option timeout:3 @bb grep -v -E '^(#|$)' /etc/resolv.conf")
        .prints("nameserver 127.0.0.11\nsearch example.test\noptions timeout:3 ndots:0\n");
    s.d("run --rm --network @n --dns-option ndots:2 @bb grep -E '^(nameserver|options)' /etc/resolv.conf")
        .prints("nameserver 127.0.0.11\noptions ndots:2\n");
}

/// A query of one name, sent by TCP with its length before it.
const BY_TCP: &str = "import socket, struct, sys
name = b''.join(bytes([len(part)]) + part.encode() for part in sys.argv[1].split('.')) + b'\\0'
query = struct.pack('>HHHHHH', 7, 0x100, 1, 0, 0, 0) + name + struct.pack('>HH', 1, 1)
stream = socket.create_connection(('127.0.0.11', 53), 5)
stream.sendall(struct.pack('>H', len(query)) + query)
answer = stream.makefile('rb')
length, = struct.unpack('>H', answer.read(2))
answer = answer.read(length)
print(answer[:2] == query[:2], answer[3] & 15, socket.inet_ntoa(answer[-4:]))
";

fn answers_come_by_tcp_too(s: &Session) {
    s.file("ask.py", BY_TCP);
    s.d("network create @n").ok();
    s.d("run -d --name @one --network @n @bb sleep 1000").ok();
    let address = s.address("@one", "@n");
    s.d("run --rm --network @n -v @dir:/m @deb python3 /m/ask.py @one")
        .prints(&format!("True 0 {address}\n"));
}

fn the_default_bridge_has_no_names(s: &Session) {
    s.d("run -d --name @one @web").ok();
    s.d("run -d --name @two @bb sleep 1000").ok();
    assert!(!fetches(s, "@two", "@one"));
    s.d("exec @two grep -c 127.0.0.11 /etc/resolv.conf")
        .exits(1);
}

/// A name server that has one answer for all names.
const SERVER: &str = "import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(('0.0.0.0', 53))
while True:
    query, client = server.recvfrom(512)
    end = query.index(0, 12) + 5
    answer = b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\7\\0\\4\\12\\1\\2\\3'
    if query[end - 3] != 1:
        answer = b''
    count = b'\\0\\1' if answer else b'\\0\\0'
    server.sendto(query[:2] + b'\\x85\\x80\\0\\1' + count + b'\\0\\0\\0\\0' + query[12:end] + answer, client)
";

fn upstream_servers_answer_the_rest(s: &Session) {
    let net = s.subnet();
    s.file("server.py", SERVER);
    s.d(&format!("network create --subnet {net}.0/24 @n")).ok();
    s.d(&format!(
        "run -d --name @server --network @n --ip {net}.53 -v @dir:/m @deb python3 /m/server.py"
    ))
    .ok();
    s.d(&format!(
        "run -d --name @ask --network @n --dns {net}.53 @deb sleep 1000"
    ))
    .ok();
    gantry_testkit::wait::eventually("the server answers", || {
        look_up(s, "@ask", "www.example.test") == "10.1.2.3"
    });
    assert_eq!(look_up(s, "@ask", "@server"), format!("{net}.53"));
}

fn hosts_file_has_the_own_name(s: &Session) {
    let net = s.subnet();
    s.d(&format!("network create --subnet {net}.0/24 @n")).ok();
    s.d("network create @m").ok();
    s.d(&format!("run --rm --hostname me --network name=@n,ip={net}.8 --network @m --add-host db:10.1.2.3 @bb cat /etc/hosts"))
        .ok()
        .shows("127.0.0.1\tlocalhost\n")
        .shows("10.1.2.3\tdb\n")
        .shows(&format!("{net}.8\tme\n"));
}
