//! The guide's commands that have to do with networks.

use std::net::Ipv4Addr;

use gantry_testkit::session::Session;

gantry_testkit::scenarios![
    a_frontend_reaches_a_backend_by_its_name,
    a_client_finds_its_database_by_name,
    ping_and_nslookup_from_inside,
    the_default_bridge_is_inspected,
    networks_are_listed_and_made,
    three_forms_of_ports_on_a_network_of_its_own,
    backend_and_redis_are_linked,
    unused_networks_are_pruned,
];

fn a_frontend_reaches_a_backend_by_its_name(s: &Session) {
    s.d("network create @net").ok();
    s.d("run -d --network @net --name @backend @web 8000").ok();
    s.d("run -d --network @net --name @frontend @deb sleep 1000")
        .ok();
    s.d("exec @frontend curl -s --retry 9 --retry-connrefused --max-time 30 http://@backend:8000/group")
        .ok()
        .shows("root:x:0:\n");
}

/// A server that greets, checks a password and answers one question, and a client of it: a database in little.
const DATABASE: &str = "import os, socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        if self.rfile.readline().strip().decode() == os.environ['POSTGRES_PASSWORD']:
            self.rfile.readline()
            self.wfile.write(b'1 row\\n')
socketserver.ThreadingTCPServer(('0.0.0.0', 5432), Handler).serve_forever()
";
const CLIENT: &str = "import os, socket, sys, time
for attempt in range(100):
    try:
        stream = socket.create_connection((os.environ['DB_HOST'], 5432), 5)
        break
    except ConnectionRefusedError:
        time.sleep(.1)
stream.sendall(b'secret\\nselect 1\\n')
sys.stdout.write(stream.makefile().readline())
";

fn a_client_finds_its_database_by_name(s: &Session) {
    s.file("database.py", DATABASE);
    s.file("client.py", CLIENT);
    s.d("network create @tier").ok();
    s.d("run -d --name @db --network @tier -e POSTGRES_PASSWORD=secret -v @dir:/m @deb python3 /m/database.py")
        .ok();
    s.d("run --rm --name @client --network @tier -e DB_HOST=@db -v @dir:/m @deb python3 /m/client.py")
        .prints("1 row\n");
}

fn ping_and_nslookup_from_inside(s: &Session) {
    s.d("network create @net").ok();
    s.d("run -d --network @net --name @one @bb sleep 1000").ok();
    s.d("run -d --network @net --name @two @bb sleep 1000").ok();
    s.d("exec @two ping -c 1 -w 5 @one")
        .ok()
        .shows("1 packets transmitted, 1 packets received");
    let address = s.address("@one", "@net");
    s.d("exec @two nslookup @one")
        .ok()
        .shows("Server:\t\t127.0.0.11\nAddress:\t127.0.0.11:53\n")
        .shows(&format!("Name:\t@one\nAddress: {address}\n"));
}

fn the_default_bridge_is_inspected(s: &Session) {
    s.d("run -d --name @c @bb sleep 1000").ok();
    let shown = s.d("network inspect bridge").ok().json();
    let bridge = &shown[0];
    assert_eq!(bridge["Name"], "bridge");
    assert_eq!(bridge["Driver"], "bridge");
    assert_eq!(
        bridge["Options"]["com.docker.network.bridge.default_bridge"],
        "true"
    );
    let container = s.inspect("@c");
    let id = container["Id"].as_str().expect("an id");
    let endpoint = &container["NetworkSettings"]["Networks"]["bridge"];
    let member = &bridge["Containers"][id];
    assert_eq!(member["Name"], s.x("@c"));
    assert_eq!(member["EndpointID"], endpoint["EndpointID"]);
    assert_eq!(member["MacAddress"], endpoint["MacAddress"]);
    let address = format!(
        "{}/{}",
        endpoint["IPAddress"].as_str().expect("an address"),
        endpoint["IPPrefixLen"]
    );
    assert_eq!(member["IPv4Address"], address);
    assert_eq!(bridge["Id"], endpoint["NetworkID"]);
}

fn networks_are_listed_and_made(s: &Session) {
    s.d("network ls")
        .ok()
        .such_that("a table with the three that are always there", |text| {
            text.starts_with("NETWORK ID     NAME")
                && ["bridge", "host", "none"].iter().all(|name| {
                    text.lines()
                        .any(|line| line.split_whitespace().nth(1) == Some(name))
                })
        });
    let id = s.d("network create @net").ok().text();
    assert_eq!(id.len(), 64, "{id}");
    s.d("network ls --filter name=@net --format '{{.ID}} {{.Name}} {{.Driver}} {{.Scope}}'")
        .prints(&format!("{} @net bridge local\n", &id[..12]));
}

fn three_forms_of_ports_on_a_network_of_its_own(s: &Session) {
    s.d("network create @net").ok();
    let first = s.ports(3);
    let (plain, bound, chosen) = (first, first + 1, first + 2);
    s.d(&format!(
        "run -d --network @net --name @c -p {plain}:80 -p 127.0.0.1:{bound}:80 -p {chosen}:80/tcp @web"
    ))
    .ok();
    for port in [plain, bound, chosen] {
        assert!(
            s.get(Ipv4Addr::LOCALHOST, port, "/group")
                .starts_with("root:"),
            "{port}"
        );
    }
    assert!(s.get_from_outside(plain, "/group").starts_with("root:"));
    let refused = s
        .engine
        .outside
        .within(|| std::net::TcpStream::connect((s.engine.address, bound)).is_err());
    assert!(refused, "a port of loopback answered another machine");
    s.d("port @c").prints(&format!(
        "80/tcp -> 0.0.0.0:{plain}\n80/tcp -> 0.0.0.0:{chosen}\n80/tcp -> 127.0.0.1:{bound}\n80/tcp -> [::]:{plain}\n80/tcp -> [::]:{chosen}\n"
    ));
}

fn backend_and_redis_are_linked(s: &Session) {
    let port = s.port();
    s.d("run -d --name @redis @web 6379").ok();
    s.d(&format!(
        "run -d --name @backend --link @redis:redis -p {port}:8000 @web 8000"
    ))
    .ok();
    s.d("exec @backend timeout 5 wget -q -O - http://redis:6379/group")
        .ok()
        .shows("root:");
    assert!(
        s.get(Ipv4Addr::LOCALHOST, port, "/group")
            .starts_with("root:")
    );
}

fn unused_networks_are_pruned(s: &Session) {
    s.d("network create --label @p @used").ok();
    s.d("network create --label @p @unused").ok();
    s.d("run -d --network @used --name @c @bb sleep 1000").ok();
    s.d("network prune -f --filter label=@p")
        .prints("Deleted Networks:\n@unused\n\n");
    s.d("network inspect -f '{{.Name}}' @used")
        .prints("@used\n");
}
