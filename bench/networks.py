"""The measurements of networks: making them, joining them, and what goes over them.

Loads come from Debian's iperf3, wrk and dnsperf, and from ask.c. The other host is a network namespace with a link of its own to this one.
"""
import json, os, re, shutil, socket, statistics, subprocess, time

from engines import BUSYBOX, HERE as HERE_FILES, Failed
from suites import DETACHED, clean, suite

NET = 'localhost/bench/net:1'
NETWORK = 'bench-net'
SECONDS = '4'
# The other host: TEST-NET-2 (RFC 5737) is nobody's.
LAN, HERE, THERE = 'gantry-bench-lan', '198.51.100.1', '198.51.100.2'


def shell(*words):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
    if done.returncode:
        raise Failed(f"{' '.join(words)[:200]}: exit code {done.returncode}: {(done.stderr + done.stdout)[-300:]}")
    return done.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(('', 0))
        return probe.getsockname()[1]


def forget(engine):
    """Removes containers and networks of the benchmarks."""
    engine.clean()
    for name in engine.run('network', 'ls', '--format', '{{.Name}}').split():
        if name.startswith('bench-'):
            engine.run('network', 'rm', name)


def joiner(engine):
    forget(engine)
    engine.run(*DETACHED, '--name', 'bench-joiner', BUSYBOX, 'sleep', '1000000')
    engine.run('network', 'create', f'{NETWORK}-standing')


@suite(20, before=joiner, after=forget)
def network(engine):
    "`network create` and `rm`; `connect` of a running container and `disconnect`"
    result = {'create': engine.time('network', 'create', NETWORK)}
    result['connect'] = engine.time('network', 'connect', f'{NETWORK}-standing', 'bench-joiner')
    result['disconnect'] = engine.time('network', 'disconnect', f'{NETWORK}-standing', 'bench-joiner')
    result['rm'] = engine.time('network', 'rm', NETWORK)
    return result


# ---- throughput ---------------------------------------------------------------------------------------------------------

def lan(up):
    """Makes the other host, or takes it away."""
    subprocess.run(['ip', 'netns', 'del', LAN], stderr=subprocess.DEVNULL)
    subprocess.run(['ip', 'link', 'del', 'gbenchlan0'], stderr=subprocess.DEVNULL)
    if not up:
        return
    shell('ip', 'netns', 'add', LAN)
    shell('ip', 'link', 'add', 'gbenchlan0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', LAN)
    shell('ip', 'addr', 'add', f'{HERE}/24', 'dev', 'gbenchlan0')
    shell('ip', 'link', 'set', 'gbenchlan0', 'up')
    for words in (f'addr add {THERE}/24 dev eth0', 'link set eth0 up', 'link set lo up'):
        shell('ip', '-n', LAN, *words.split())


def gbits(text):
    try:
        return json.loads(text)['end']['sum_received']['bits_per_second'] / 1e9
    except (KeyError, ValueError):
        raise Failed(f'iperf3: {text[-300:]}')


def servers(engine):
    forget(engine)
    lan(True)
    option = 'mtu' if engine.name == 'podman' else 'com.docker.network.driver.mtu'
    engine.run('network', 'create', '-o', f'{option}={mtu()}', NETWORK)
    engine.port = free_port()
    engine.run(*DETACHED, '--name', 'bench-server', '--network', NETWORK, '-p', f'{engine.port}:5201', NET, 'iperf3', '-s')
    engine.run(*DETACHED, '--name', 'bench-client', '--network', NETWORK, NET, 'sleep', '1000000')
    time.sleep(1)


def no_servers(engine):
    forget(engine)
    lan(False)


# Left to itself the scheduler moves both ends about, which makes more of a difference than any engine.
STREAM = ('-t', SECONDS, '-J', '-A', '0,1')


@suite(10, before=servers, after=no_servers, floor={'container to container [Gbit/s]': 'veth'})
def throughput(engine):
    "iperf3, one stream of 4 s, each end on a core of its own, all with the default route's MTU, beside a bare veth that tracks connections: between two containers of a network, by name; from another host to a published port"
    inside = engine.run('exec', 'bench-client', 'iperf3', '-c', 'bench-server', *STREAM)
    outside = shell('ip', 'netns', 'exec', LAN, 'iperf3', '-c', HERE, '-p', str(engine.port), *STREAM)
    return {'container to container [Gbit/s]': gbits(inside), 'outside to published port [Gbit/s]': gbits(outside)}


def veth():
    """Gbit/s over one veth between two namespaces that track connections."""
    names = ('gantry-bench-a', 'gantry-bench-b')
    server = None
    try:
        for name in names:
            subprocess.run(['ip', 'netns', 'del', name], stderr=subprocess.DEVNULL)
            shell('ip', 'netns', 'add', name)
        shell('ip', '-n', names[0], 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', names[1])
        for number, name in enumerate(names, 1):
            shell('ip', '-n', name, 'addr', 'add', f'192.0.2.{number}/24', 'dev', 'eth0')
            shell('ip', '-n', name, 'link', 'set', 'eth0', 'mtu', str(mtu()), 'up')
            shell('ip', 'netns', 'exec', name, 'nft', 'add table ip t; add chain ip t c { type filter hook input priority 0; }; add rule ip t c ct state established accept')
        server = subprocess.Popen(['ip', 'netns', 'exec', names[1], 'iperf3', '-s', '-1'], stdout=subprocess.DEVNULL)
        time.sleep(0.5)
        return gbits(shell('ip', 'netns', 'exec', names[0], 'iperf3', '-c', '192.0.2.2', *STREAM))
    finally:
        if server:
            server.kill()
            server.wait()
        for name in names:
            subprocess.run(['ip', 'netns', 'del', name], stderr=subprocess.DEVNULL)


def mtu():
    """The MTU of the default route's device. Gantry's and podman's bridges take it by themselves, Docker's have 1500."""
    routes = json.loads(shell('ip', '-j', 'route', 'show', 'default'))
    return json.loads(shell('ip', '-j', 'link', 'show', routes[0]['dev']))[0]['mtu'] if routes else 1500


# ---- a web server, names ------------------------------------------------------------------------------------------------

NGINX = 'printf "events{worker_connections 1024;}worker_processes 1;daemon off;error_log /dev/null;http{access_log off;keepalive_requests 1000000000;server{listen 80;location / {return 200 hello;}}}" >/n; exec nginx -c /n'


def web_server(engine):
    forget(engine)
    engine.port = free_port()
    engine.run(*DETACHED, '--name', 'bench-web', '-p', f'127.0.0.1:{engine.port}:80', NET, 'sh', '-c', NGINX)
    time.sleep(1)


@suite(10, before=web_server, after=forget)
def web(engine):
    "requests to nginx in a container by a port published on 127.0.0.1 (wrk, one thread, 16 connections, 4 s)"
    text = shell('wrk', '-t', '1', '-c', '16', '-d', f'{SECONDS}s', f'http://127.0.0.1:{engine.port}/')
    return {'requests [1/s]': float(re.search(r'Requests/sec:\s*([\d.]+)', text)[1])}


ASK = '/var/tmp/gantry-bench-ask'            # the peers see /var/tmp and not this directory


def named(engine):
    shell('gcc', '-O2', '-static', '-o', ASK, f'{HERE_FILES}/ask.c')
    forget(engine)
    engine.run('network', 'create', NETWORK)
    engine.run(*DETACHED, '--name', 'bench-named', '--network', NETWORK, BUSYBOX, 'sleep', '1000000')
    engine.run(*DETACHED, '--name', 'bench-asker', '--network', NETWORK, '-v', f'{ASK}:/ask:ro', NET, 'sh', '-c',
               'echo bench-named A >/q; exec sleep 1000000')
    time.sleep(0.5)


BY_DNSPERF = 'look-ups by dnsperf [1/s]'


@suite(10, before=named, after=forget, floor={BY_DNSPERF: 'answer'})
def names(engine):
    "look-ups of a container's name from inside another one, 4 s, at most 100 open: by ask.c, and by dnsperf, which takes more than a core itself; the floor is dnsperf beside a bare C program that reads no name (answer.c)"
    asked = engine.run('exec', 'bench-asker', '/ask', SECONDS, 'bench-named')
    server = "$(awk '/^nameserver/ { print $2; exit }' /etc/resolv.conf)"
    text = engine.run('exec', 'bench-asker', 'sh', '-c', f'dnsperf -s {server} -d /q -l {SECONDS} -q 100 2>&1')
    return {'look-ups [1/s]': float(asked.split()[0]), BY_DNSPERF: rate(text)}


def rate(text):
    """Answers a second, by dnsperf's own words, if all were right."""
    found = re.search(r'Queries per second:\s*([\d.]+)', text)
    codes = re.search(r'Response codes:\s*(.*)', text)
    if not found or not codes or not codes[1].startswith('NOERROR'):
        raise Failed(f'dnsperf: {text[-400:]}')
    return float(found[1])


def answer():
    """Answers a second that dnsperf gets where answering costs next to nothing: on the loopback interface of a namespace."""
    name, directory = 'gantry-bench-a', '/var/tmp/gantry-bench-answer'
    server = None
    try:
        subprocess.run(['ip', 'netns', 'del', name], stderr=subprocess.DEVNULL)
        shell('ip', 'netns', 'add', name)
        shell('ip', '-n', name, 'link', 'set', 'lo', 'up')
        os.makedirs(directory, exist_ok=True)
        shell('gcc', '-O2', '-static', '-o', f'{directory}/answer', f'{HERE_FILES}/answer.c')
        with open(f'{directory}/q', 'w') as file:
            file.write('bench-named A\n')
        server = subprocess.Popen(['ip', 'netns', 'exec', name, f'{directory}/answer'])
        time.sleep(0.3)
        return rate(shell('ip', 'netns', 'exec', name, 'dnsperf', '-s', '127.0.0.1', '-d', f'{directory}/q', '-l', SECONDS, '-q', '100'))
    finally:
        if server:
            server.kill()
            server.wait()
        subprocess.run(['ip', 'netns', 'del', name], stderr=subprocess.DEVNULL)
        shutil.rmtree(directory, ignore_errors=True)


# ---- many ports ---------------------------------------------------------------------------------------------------------

@suite(5, before=clean, after=clean)
def ports(engine):
    "a container with a published port, start and `rm -f`, first with none and then with 5,000 ports published beside it; 10,000 ports published"
    if engine.name != 'gantry':
        return {}          # a process for each port, or a rule for each that all packets pass
    def one():
        port = free_port()
        start = engine.time(*DETACHED, '--name', 'bench-one', '-p', f'127.0.0.1:{port}:80', BUSYBOX, 'sleep', '1000000')
        return start, engine.time(*engine.remove, 'bench-one')
    def median(count=15):
        return [statistics.median(column) for column in zip(*(one() for _ in range(count)))]
    def many(name, first, count):
        engine.run(*DETACHED, '--name', name, '-p', f'{first}-{first + count - 1}:{first}-{first + count - 1}', BUSYBOX, 'sleep', '1000000')
    first = median()
    many('bench-many1', 10000, 5000)
    later = median()
    many('bench-many2', 15000, 5000)
    listed = sum(bool(bindings) for name in ('bench-many1', 'bench-many2')
                 for bindings in json.loads(engine.run('inspect', '-f', '{{json .NetworkSettings.Ports}}', name)).values())
    engine.clean()
    return {'start, first': first[0], 'start with 5,000': later[0], 'start: ratio [x]': later[0] / first[0], 'rm -f, first': first[1],
            'rm -f with 5,000': later[1], 'rm -f: ratio [x]': later[1] / first[1], 'published [n]': listed}
