"""The engines of a benchmark: how each is called, which processes are its own, and what it has left behind.

Gantry runs as a daemon of its own here (own data root, exec root, socket, bridge and cgroup parent), beside whatever else
runs on the machine. The peers are those of `bench/peers up`.
"""
import contextlib, http.client, json, os, re, shutil, signal, socket, subprocess, time

HERE = os.path.dirname(os.path.realpath(__file__))
ENV = os.environ
PEERS = ENV.get('PEERS', '/opt/peers')
TREE = f"{PEERS}/{ENV.get('PEERS_SUITE', 'sid')}"
INSIDE = ['nsenter', '--mount=/run/peers/mnt.ns', '--']
IMAGES = ENV.get('IMAGES', '/var/tmp/bench-images')
TARGET = ENV.get('CARGO_TARGET_DIR', f'{HERE}/../target')
BINARY = os.path.realpath(ENV.get('GANTRY_BINARY', f'{TARGET}/x86_64-unknown-linux-gnu/release/gantry'))
BUSYBOX, MANY, LAYERS40 = (f'localhost/bench/{name}:1' for name in ('busybox', 'many', 'layers40'))
PREFIX = 'bench-'        # every container that is made here


class Failed(RuntimeError):
    pass


def directories(path):
    """The directories directly beneath, or none."""
    try:
        return [entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def processes():
    """(pid, words of the command line) of every process."""
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            yield int(pid), open(f'/proc/{pid}/cmdline').read().split('\0')
        except OSError:
            pass


def members(bridge):
    """The links of a bridge."""
    try:
        return len(os.listdir(f'/sys/class/net/{bridge}/brif'))
    except OSError:
        return 0


def cgroups(parent):
    return sum(len(directories(f'{hierarchy}/{parent}')) for hierarchy in ['/sys/fs/cgroup', *directories('/sys/fs/cgroup')])


def mounts(pid, words):
    try:
        return sum(any(word in line for word in words) for line in open(f'/proc/{pid}/mountinfo'))
    except OSError:
        return 0


class Engine:
    """What Docker, podman and Gantry have in common: Docker's command line."""
    remove = ['rm', '-f']

    def run(self, *words, check=True, timeout=900, out=subprocess.PIPE):
        done = subprocess.run([*self.cli, *words], stdout=out, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, timeout=timeout)
        if check and done.returncode:
            raise Failed(f"{self.name} {' '.join(words)[:200]}: exit code {done.returncode}: {done.stderr[-400:]}")
        return (done.stdout or '').strip()

    def time(self, *words, **keywords):
        """The seconds that a command takes."""
        start = time.perf_counter()
        self.run(*words, **keywords)
        return time.perf_counter() - start

    def clean(self):
        """Removes every container of the benchmarks."""
        names = [name for name in self.run('ps', '-a', '--format', '{{.Names}}', check=False).split() if name.startswith(PREFIX)]
        for start in range(0, len(names), 50):
            self.run(*self.remove, '-v', *names[start:start + 50], check=False)

    def processes(self):
        """The pids of the engine's own processes."""
        own = []
        for pid, _ in processes():
            try:
                if self.program.search(os.readlink(f'/proc/{pid}/exe')) and os.path.samefile(f'/proc/{pid}/root', TREE):
                    own.append(pid)
            except OSError:
                pass
        return own

    def memory(self):
        """(number of processes, their proportional set size in MiB)."""
        count = kib = 0
        for pid in self.processes():
            try:
                kib += int(re.search(r'^Pss:\s+(\d+)', open(f'/proc/{pid}/smaps_rollup').read(), re.M)[1])
                count += 1
            except (OSError, TypeError):
                pass
        return count, kib / 1024

    def get(self, path):
        connection = http.client.HTTPConnection('localhost')
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.socket)
        connection.request('GET', path, headers={'Host': 'd'})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status >= 400:
            raise Failed(f'{self.name} GET {path}: {answer.status} {body[:300]}')
        return json.loads(body) if body else None

    def load_images(self):
        subprocess.run([f'{HERE}/images', 'load', *self.cli], check=True, stdout=subprocess.DEVNULL)

    def stop(self):
        pass


class Docker(Engine):
    name, socket, program = 'docker', '/run/peer-docker.sock', re.compile('/(dockerd|containerd|containerd-shim-runc-v2|docker-proxy)$')
    cli = [*INSIDE, 'docker', '-H', 'unix:///run/peer-docker.sock']
    data_root = f'{TREE}/var/lib/peer-docker'

    def residue(self):
        pid = open('/run/peers/dockerd.pid').read().strip()
        return {'mounts': mounts(pid, ['peer-docker']), 'netns': len(os.listdir('/run/peer-docker/netns')), 'links': members('peer0'),
                'cgroups': cgroups('docker')}

    def version(self):
        return self.run('version', '-f', 'Docker {{.Server.Version}}')


class Podman(Engine):
    name, socket, program = 'podman', None, re.compile('/(conmon|netavark|aardvark-dns)$')
    cli = ['env', 'PODMAN_IGNORE_CGROUPSV1_WARNING=1', *INSIDE, 'podman']
    remove = ['rm', '-f', '-t', '0']      # podman's rm -f waits 10 s for SIGTERM, Docker's kills
    data_root = f'{TREE}/var/lib/containers'

    def residue(self):
        holder = open('/run/peers/dockerd.pid').read().strip()      # any process of that mount namespace
        names = os.listdir('/run/netns') if os.path.isdir('/run/netns') else []
        return {'mounts': mounts(holder, ['containers/storage/overlay']), 'netns': sum(name.startswith('netns-') for name in names),
                'links': members('podman0'), 'cgroups': cgroups('libpod_parent')}

    def version(self):
        return self.run('--version').replace(' version', '')


class Gantry(Engine):
    name = 'gantry'
    directory, exec_root, bridge, cgroup_parent = '/var/tmp/gantry-bench', '/run/gantry-bench', 'gbench0', 'gantry-bench'
    data_root = f'{directory}/data'
    socket = f'{exec_root}/gantry.sock'
    cli = [BINARY, '-H', f'unix://{socket}']

    def start(self):
        """Starts the daemon and waits until it answers."""
        os.makedirs(self.directory, exist_ok=True)
        os.makedirs(self.exec_root, exist_ok=True)
        if not os.path.exists(f'/sys/class/net/{self.bridge}'):
            for words in (f'link add {self.bridge} type bridge', f'addr add 172.28.0.1/16 dev {self.bridge}', f'link set {self.bridge} up'):
                subprocess.run(['ip', *words.split()], check=True)
        self.daemon = subprocess.Popen(
            [BINARY, 'daemon', '--data-root', self.data_root, '--exec-root', self.exec_root, '-H', f'unix://{self.socket}', '--pidfile',
             f'{self.exec_root}/gantry.pid', '--bridge', self.bridge, '--cgroup-parent', self.cgroup_parent],
            start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(f'{self.directory}/daemon.log', 'a'))
        limit = time.monotonic() + 60
        while True:
            try:
                return self.get('/version')
            except (OSError, http.client.HTTPException) as error:
                if self.daemon.poll() is not None or time.monotonic() > limit:
                    log = open(f'{self.directory}/daemon.log').read()
                    raise Failed(f'the daemon does not answer ({error}); its log ends:\n{log[-800:]}')
                time.sleep(0.001)

    def end_daemon(self):
        self.daemon.terminate()
        self.daemon.wait(30)

    def stop(self):
        """Ends the daemon and its processes, and removes what an engine keeps for its next start."""
        try:
            self.clean()
            self.end_daemon()
        except (OSError, Failed, subprocess.SubprocessError) as error:
            print(f'bench: {error}; what the daemon left is removed', flush=True)
            self.daemon.kill()
            self.daemon.wait()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # A daemon that ends in good order has taken its table back already.
        if os.path.exists(f'{self.data_root}/engine-id'):
            identity = open(f'{self.data_root}/engine-id').read()[:12]
            for table in (f'gantry-{identity}', f'gantry-{identity}-guard'):
                subprocess.run(['nft', 'delete', 'table', 'inet', table], stderr=subprocess.DEVNULL)
        subprocess.run(['ip', 'link', 'del', self.bridge])
        for hierarchy in ['/sys/fs/cgroup', *directories('/sys/fs/cgroup')]:
            if os.path.isdir(f'{hierarchy}/{self.cgroup_parent}'):
                os.rmdir(f'{hierarchy}/{self.cgroup_parent}')
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self.exec_root, ignore_errors=True)

    def processes(self):
        """The daemon, its netd (by the exec root) and the shims of its containers (by their ids)."""
        own = []
        for pid, words in processes():
            role = words[1] if len(words) > 1 else ''
            if role in ('daemon', 'netd') and self.exec_root in words:
                own.append(pid)
            elif role == 'shim' and len(words) > 2 and os.path.isdir(f'{self.data_root}/containers/{words[2]}'):
                own.append(pid)
        return own

    def residue(self):
        pid, namespaces = self.daemon.pid, set()
        host = os.readlink('/proc/self/ns/net')
        own = self.processes()
        for process in own:
            try:
                namespaces.add(os.readlink(f'/proc/{process}/ns/net'))
                for descriptor in os.scandir(f'/proc/{process}/fd'):
                    target = os.readlink(descriptor.path)
                    if target.startswith('net:['):
                        namespaces.add(target)
            except OSError:
                pass
        trash = f'{self.data_root}/snapshots/trash'
        return {'mounts': mounts(pid, [self.directory, self.exec_root]), 'netns': len(namespaces - {host}), 'links': members(self.bridge),
                'cgroups': cgroups(self.cgroup_parent), 'trash': len(os.listdir(trash)) if os.path.isdir(trash) else 0, 'shims': len(own)}

    def version(self):
        return self.run('version', '-f', 'Gantry {{.Server.Version}}')


class Floor:
    """The bare C program: one measurement per line, see floor.c."""

    def __init__(self):
        work = '/var/tmp/gantry-bench-floor'
        shutil.rmtree(work, ignore_errors=True)
        for name in ('root', 'work'):
            os.makedirs(f'{work}/{name}')
        subprocess.run(['sh', '-ec', f'tar -xOf {IMAGES}/busybox.tar --wildcards "*/layer.tar" | tar -C {work}/root -xf -'], check=True)
        subprocess.run(['gcc', '-O2', '-static', '-w', '-o', f'{work}/floor', f'{HERE}/floor.c'], check=True)
        self.process = subprocess.Popen([f'{work}/floor', f'{work}/root', f'{work}/work'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != 'ready\n':
            raise Failed('the floor program did not start')
        self.work = work

    def seconds(self, measurement):
        word, _, argument = measurement.partition(' ')
        if word == 'tar':
            return self.unpack(argument)
        if word == 'gunzip':
            return self.gunzip(argument)
        if word == 'log':
            return self.write_log()
        if word in ('veth', 'answer'):
            import networks          # which imports this module
            return getattr(networks, word)()
        self.process.stdin.write(measurement + '\n')
        self.process.stdin.flush()
        return float(self.process.stdout.readline()) / 1000

    def unpack(self, image):
        """`tar -x` of each layer of an image into a directory of its own, and `sync -f`."""
        target = f'{self.work}/unpacked'
        names = subprocess.run(['tar', '-tf', f'{IMAGES}/{image}.tar'], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        layers = [name for name in names if name.endswith('layer.tar')]
        os.sync()
        time.sleep(20)
        start = time.perf_counter()
        for number, layer in enumerate(layers):
            os.makedirs(f'{target}/{number}')
            subprocess.run(['sh', '-c', 'tar -xOf "$1" "$2" | tar -C "$3" --numeric-owner -xf -', '-', f'{IMAGES}/{image}.tar', layer,
                            f'{target}/{number}'], check=True)
        subprocess.run(['sync', '-f', target], check=True)
        took = time.perf_counter() - start
        shutil.rmtree(target)
        return took

    def gunzip(self, image):
        """`gunzip | tar -x` of each layer of an image, all processors at once, every layer into a directory of its own."""
        packed, target = f'{self.work}/packed/{image}', f'{self.work}/unpacked'
        if not os.path.isdir(packed):
            os.makedirs(packed)
            names = subprocess.run(['tar', '-tf', f'{IMAGES}/{image}.tar'], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
            for number, layer in enumerate(name for name in names if name.endswith('layer.tar')):
                subprocess.run(['sh', '-c', 'tar -xOf "$1" "$2" | gzip >"$3"', '-', f'{IMAGES}/{image}.tar', layer, f'{packed}/{number}'],
                               check=True)
        os.sync()
        time.sleep(20)
        start = time.perf_counter()
        script = f'mkdir -p {target}/$1 && gunzip -c {packed}/$1 | tar -C {target}/$1 --numeric-owner -xf -'
        subprocess.run(['xargs', '-P', str(os.cpu_count()), '-I', '{}', 'sh', '-c', script, '-', '{}'], check=True, text=True,
                       input='\n'.join(os.listdir(packed)))
        took = time.perf_counter() - start
        shutil.rmtree(target)
        return took

    def write_log(self):
        """The same bytes as the log of a million lines, written to a file by 256 KiB; not synced, as no engine syncs a log."""
        record = ('{"log":"' + 'x' * 199 + '\\n","stream":"stdout","time":"2026-01-01T00:00:00.123456789Z"}\n').encode()
        block = record * ((256 << 10) // len(record))
        path = f'{self.work}/log'
        start = time.perf_counter()
        with open(path, 'wb', buffering=0) as file:
            for _ in range(1_000_000 * len(record) // len(block)):
                file.write(block)
        took = time.perf_counter() - start
        os.unlink(path)
        return took

    def stop(self):
        self.process.stdin.close()
        self.process.wait(20)
        shutil.rmtree(self.work, ignore_errors=True)


def available(names):
    kinds = {'gantry': Gantry, 'docker': Docker, 'podman': Podman}
    return [kinds[name]() for name in names]
