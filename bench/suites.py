"""The measurements: each is a function of an engine that gives {metric: value}, called round by round, engines alternating.

A value is in seconds unless the metric's name ends with its unit in brackets. The same image, flags and log driver serve
every engine.
"""
import concurrent.futures, http.client, json, os, shutil, signal, socket, statistics, subprocess, tempfile, time, urllib.request

import engines
from engines import BUSYBOX, IMAGES, LAYERS40, MANY, Failed

LOG = ['--log-driver', 'json-file']
RUN = ['run', '--rm', *LOG]
DETACHED = ['run', '-d', *LOG]
SUITES = {}


def suite(rounds, before=None, after=None, floor=None):
    """Registers a measurement: `floor` maps metrics to the names that the floor program knows."""
    def register(function):
        SUITES[function.__name__] = {'measure': function, 'rounds': rounds, 'before': before, 'after': after, 'floor': floor or {},
                                     'text': function.__doc__}
        return function
    return register


def timed(function, *words):
    start = time.perf_counter()
    function(*words)
    return time.perf_counter() - start


def clean(engine):
    engine.clean()


def settle(engine, before, limit_s=300):
    """Waits until the engine owns no more kernel objects and files than `before`."""
    deadline = time.monotonic() + limit_s
    while True:
        now = engine.residue()
        left = {kind: count for kind, count in now.items() if count > before.get(kind, 0)}
        if not left:
            return
        if time.monotonic() > deadline:
            raise Failed(f'{engine.name}: still there after {limit_s} s: {left}, before: {before}')
        time.sleep(0.002)


# ---- one container -----------------------------------------------------------------------------------------------------

@suite(40, floor={'bridge': 'bridge', 'none': 'none'})
def start(engine):
    "`run --rm busybox true` on the default bridge and with `--network none`"
    return {'bridge': engine.time(*RUN, BUSYBOX, 'true'), 'none': engine.time(*RUN, '--network', 'none', BUSYBOX, 'true')}


def sleeper(engine):
    engine.clean()
    engine.run(*DETACHED, '--name', 'bench-sleeper', BUSYBOX, 'sleep', '1000000')


@suite(40, before=sleeper, after=clean, floor={'exec': 'exec'})
def execute(engine):
    "`exec true` in a running container"
    return {'exec': engine.time('exec', 'bench-sleeper', 'true')}


@suite(30, before=clean, after=clean)
def publish(engine):
    "`run -d -p` until the command returns and until the first HTTP answer; `rm -f` of it"
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    start = time.perf_counter()
    engine.run(*DETACHED, '--name', 'bench-web', '-p', f'127.0.0.1:{port}:80', BUSYBOX, 'httpd', '-f', '-p', '80', '-h', '/etc')
    returned = time.perf_counter()
    while True:
        try:
            urllib.request.urlopen(f'http://127.0.0.1:{port}/passwd', timeout=2).read()
            break
        except OSError:
            if time.perf_counter() - returned > 30:
                raise
            time.sleep(0.001)
    answered = time.perf_counter()
    return {'run -d -p': returned - start, 'first answer': answered - start, 'rm -f': engine.time(*engine.remove, 'bench-web')}


# ---- many ---------------------------------------------------------------------------------------------------------------

def at_once(engine, count, width):
    with concurrent.futures.ThreadPoolExecutor(width) as pool:
        list(pool.map(lambda _: engine.run(*RUN, BUSYBOX, 'true'), range(count)))


@suite(5, before=clean, after=clean)
def parallel(engine):
    "60 `run --rm` on the bridge, 20 at a time"
    return {'containers a second [1/s]': 60 / timed(at_once, engine, 60, 20)}


@suite(1, before=clean, after=clean)
def churn(engine):
    "`run --rm` on the bridge until mounts, netns, links, cgroups and trash are as many as before"
    before = engine.residue()
    def sequential():
        for _ in range(200):
            engine.run(*RUN, BUSYBOX, 'true')
        settle(engine, before)
    def concurrent_starts():
        at_once(engine, 200, 20)
        settle(engine, before)
    return {'200 sequential': timed(sequential), '20 x 10 concurrent': timed(concurrent_starts)}


@suite(1, before=clean, after=clean)
def density(engine):
    "memory of the engine's processes, idle and per running container: 100 that each logged 1 MB and served an exec and an attach"
    time.sleep(2)
    idle_count, idle = engine.memory()
    names = [f'bench-dense{number}' for number in range(100)]
    script = f"yes {'x' * 99} | head -n 10000; exec sleep 1000000"
    def start_all():
        for name in names:
            engine.run(*DETACHED, '--name', name, BUSYBOX, 'sh', '-c', script)
    took = timed(start_all)
    for name in names:
        engine.run('exec', name, 'true')
        attached = subprocess.Popen([*engine.cli, 'attach', '--no-stdin', '--sig-proxy=false', name], stdin=subprocess.DEVNULL,
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.15)
        attached.kill()
        attached.wait()
    time.sleep(3)
    count, total = engine.memory()
    result = {'idle: processes [n]': idle_count, 'idle: PSS [MiB]': idle, 'per container: processes [n]': (count - idle_count) / 100,
              'per container: PSS [MiB]': (total - idle) / 100, 'start 100': took,
              'ps with 100': statistics.median(engine.time('ps') for _ in range(5))}
    result['rm -f of 100'] = engine.time(*engine.remove, *names)
    return result


# ---- logs, images, the daemon ---------------------------------------------------------------------------------------------

LINES = 1_000_000
# The lines come out of a file: a program that makes them takes longer than an engine that takes them.
LINES_FILE = '/var/tmp/gantry-bench-lines'


def write_lines(engine):
    engine.clean()
    if not os.path.exists(LINES_FILE):
        with open(f'{LINES_FILE}.partial', 'w') as file:
            file.write(('x' * 199 + '\n') * LINES)
        os.rename(f'{LINES_FILE}.partial', LINES_FILE)


def forget_lines(engine):
    engine.clean()
    for path in (LINES_FILE, f'{LINES_FILE}.partial'):
        if os.path.exists(path):
            os.unlink(path)


@suite(5, before=write_lines, after=forget_lines, floor={'write 200 MB': 'log'})
def logs(engine):
    "1,000,000 lines, 200 MB, by `cat`: from start until the container has ended and all is logged; reading it all back"
    engine.clean()
    start = time.perf_counter()
    engine.run(*DETACHED, '--log-opt', 'max-size=2g', '--name', 'bench-log', '--network', 'none', '-v', f'{LINES_FILE}:/lines:ro', BUSYBOX,
               'cat', '/lines')
    engine.run('wait', 'bench-log')
    written = time.perf_counter() - start
    def read_all():
        reader = subprocess.Popen([*engine.cli, 'logs', 'bench-log'], stdout=subprocess.PIPE)
        count = 0
        while block := reader.stdout.read(1 << 20):
            count += block.count(b'\n')
        reader.wait()
        if count != LINES:
            raise Failed(f'{engine.name}: {count} lines of {LINES} came back')
    result = {'write 200 MB': written, 'read 200 MB': timed(read_all), 'tail 100': engine.time('logs', '--tail', '100', 'bench-log')}
    engine.clean()
    return result


def forget(engine):
    """Removes every image of the benchmarks but busybox and what a build may have cached of them, so that no layer is present."""
    engine.run('builder', 'prune', '-af', check=False)
    for name in engine.run('images', '--format', '{{.Repository}}:{{.Tag}}').split():
        if name.startswith('localhost/bench/') and name != BUSYBOX:
            engine.run('rmi', '-f', name, check=False)


def load_all(engine):
    for archive in sorted(os.listdir(IMAGES)):
        if archive.endswith('.tar'):
            engine.run('load', '-q', '-i', f'{IMAGES}/{archive}')


# The disk of a virtual machine is slower after a burst of writes: everyone begins after a rest.
REST_S = 20


@suite(3, before=clean, after=load_all, floor={'load many': 'tar many', 'load layers40': 'tar layers40'})
def load(engine):
    "`load` of the 510 MB image of many files and of the 40-layer image, no layer present, ending with `sync -f`"
    result = {}
    for name in ('many', 'layers40'):
        forget(engine)
        settle(engine, engine.residue() | {'trash': 0})
        os.sync()
        time.sleep(REST_S)
        def load_and_sync():
            engine.run('load', '-q', '-i', f'{IMAGES}/{name}.tar')
            subprocess.run(['sync', '-f', engine.data_root], check=True)
        result[f'load {name}'] = timed(load_and_sync)
        result[f'rmi {name}'] = engine.time('rmi', f'localhost/bench/{name}:1')
    return result


@suite(1, before=clean, after=clean)
def restart(engine):
    "start of the daemon with 200 stopped containers until the list with all of them is answered"
    if engine.name == 'podman':
        return {}
    if engine.name == 'docker':
        return restart_docker()
    for number in range(200):
        engine.run(*DETACHED, '--network', 'none', '--name', f'bench-stopped{number}', BUSYBOX, 'true')
    taken = []
    for _ in range(10):
        engine.end_daemon()
        start = time.perf_counter()
        engine.start()
        if len(engine.get('/containers/json?all=1')) < 200:
            raise Failed('containers are missing after the restart')
        taken.append(time.perf_counter() - start)
    return {'start with 200 stopped': statistics.median(taken)}


def restart_docker():
    """A second dockerd, without networks, so that the one that others use runs on."""
    docker = engines.Docker()
    docker.socket = '/run/gantry-bench-docker.sock'
    docker.cli = [*engines.INSIDE, 'docker', '-H', f'unix://{docker.socket}']
    words = [*engines.INSIDE, 'dockerd', '--containerd', '/run/peer-containerd/containerd.sock', '--containerd-namespace', 'gantry-bench',
             '--data-root', '/var/lib/gantry-bench-docker', '--exec-root', '/run/gantry-bench-docker', '--pidfile', '/run/gantry-bench-docker.pid',
             '-H', f'unix://{docker.socket}', '--bridge', 'none', '--iptables=false', '--ip6tables=false', '--storage-driver', 'overlay2']
    def start():
        daemon = subprocess.Popen(words, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                return daemon, docker.get('/v1.41/containers/json?all=1')
            except (OSError, http.client.HTTPException):
                if daemon.poll() is not None:
                    raise Failed('the second dockerd ended')
                time.sleep(0.001)
    daemon, _ = start()
    try:
        docker.run('load', '-q', '-i', f'{IMAGES}/busybox.tar')
        for number in range(200):
            docker.run(*DETACHED, '--network', 'none', '--name', f'bench-stopped{number}', BUSYBOX, 'true')
        taken = []
        for _ in range(5):
            daemon.terminate()
            daemon.wait(60)
            begin = time.perf_counter()
            daemon, listed = start()
            taken.append(time.perf_counter() - begin)
            if len(listed) < 200:
                raise Failed('containers are missing after the restart')
        docker.clean()
    finally:
        daemon.terminate()
        daemon.wait(60)
        for directory in (f'{engines.TREE}/var/lib/gantry-bench-docker', '/run/gantry-bench-docker'):
            shutil.rmtree(directory, ignore_errors=True)
    return {'start with 200 stopped': statistics.median(taken)}


# ---- the runtime alone ----------------------------------------------------------------------------------------------------

def runtimes(rounds):
    "an OCI runtime alone: create, start, delete of a busybox bundle with Docker's namespaces and mounts"
    directory = tempfile.mkdtemp(prefix='gantry-bench-oci.', dir='/var/tmp')
    os.mkdir(f'{directory}/rootfs')
    subprocess.run(['sh', '-ec', f'tar -xOf {IMAGES}/busybox.tar --wildcards "*/layer.tar" | tar -C {directory}/rootfs -xf -'], check=True)
    subprocess.run([*engines.INSIDE, 'runc', 'spec', '-b', directory], check=True)
    spec = json.load(open(f'{directory}/config.json'))
    spec['process'].update(terminal=False, args=['true'])
    spec['process'].pop('rlimits', None)
    spec['linux']['cgroupsPath'] = '/bench-oci'
    spec['mounts'] = [mount for mount in spec['mounts'] if mount['type'] != 'cgroup']
    json.dump(spec, open(f'{directory}/config.json', 'w'))
    commands = {name: [*engines.INSIDE, name] for name in ('crun', 'runc')}
    if os.path.exists(engines.BINARY):
        commands = {'gantry': [engines.BINARY, 'runtime'], **commands}
    null = open('/dev/null', 'r+')
    def step(name, *words):
        # stderr goes to a file: the container would hold a pipe open
        with open(f'{directory}/errors', 'w') as errors:
            code = subprocess.Popen([*commands[name], '--root', f'/run/gantry-bench-{name}', *words], stdin=null, stdout=null, stderr=errors).wait()
        if code:
            raise Failed(f"{name} {' '.join(words)}: exit code {code}: {open(f'{directory}/errors').read()[-300:]}")
    results = {name: [] for name in commands}
    try:
        for number in range(rounds):
            for name in rotated(list(commands), number):
                identity = f'bench-{name}-{number}'
                create = timed(step, name, 'create', '--bundle', directory, identity)
                begin = timed(step, name, 'start', identity)
                time.sleep(0.05)            # `true` has ended by now
                delete = timed(step, name, 'delete', identity)
                results[name].append({'create': create, 'start': begin, 'delete': delete, 'create + start + delete': create + begin + delete})
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        for name in commands:
            shutil.rmtree(f'/run/gantry-bench-{name}', ignore_errors=True)
    return results


def rotated(items, by):
    by %= max(len(items), 1)
    return items[by:] + items[:by]


# ---- the sandbox of what is measured ---------------------------------------------------------------------------------------

def probe(engine):
    """What of Docker's sandbox is missing in a container started as the measured ones are: lines of probe.sh that failed."""
    failures = []
    script = '/var/tmp/gantry-bench-probe.sh'          # the peers see /var/tmp and not this directory
    shutil.copy(f'{engines.HERE}/probe.sh', script)
    for network in ('bridge', 'none'):
        text = engine.run(*RUN, '--network', network, '--memory', '64m', '--pids-limit', '100', '-v', f'{script}:/probe.sh:ro',
                          BUSYBOX, 'sh', '/probe.sh', str(64 << 20), network)
        lines = text.splitlines()
        if len(lines) < 10:
            failures.append(f'{network}: the probe was cut short: {text!r}')
        failures += [f'{network}: {line}' for line in lines if not line.startswith('ok ')]
    os.unlink(script)
    return failures
