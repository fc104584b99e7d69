"""The measurements of pull, push and registries, from and to Debian's docker-registry on loopback.

The registry runs beside the engines, with its storage under /var/tmp and no cache but the kernel's. What is pulled was pushed
once by the reference engine, so it is compressed as Docker compresses.
"""
import concurrent.futures, contextlib, hashlib, http.client, io, json, os, shutil, socket, subprocess, tarfile, time, urllib.request

import engines
from engines import Failed
from suites import REST_S, rotated, settle, suite, timed

DIRECTORY = '/var/tmp/gantry-bench-registry'
IMAGES = ('many', 'layers40')
MIB = 1 << 20


class Registry:
    """A registry on a free loopback port; `kind` is docker-registry or gantry."""

    def __init__(self, kind='docker-registry', root=DIRECTORY):
        self.kind, self.root = kind, root
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            self.port = probe.getsockname()[1]
        self.host = f'127.0.0.1:{self.port}'
        os.makedirs(root, exist_ok=True)
        if kind == 'gantry':
            words = [engines.BINARY, 'registry', 'serve', '--root', f'{root}/data', '--addr', self.host]
        else:
            with open(f'{root}/config.yml', 'w') as file:
                file.write(f'version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n'
                           f'storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\nhttp: {{addr: "{self.host}"}}\n')
            words = ['docker-registry', 'serve', f'{root}/config.yml']
        with open(f'{root}/log', 'a') as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        limit = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(f'http://{self.host}/v2/', timeout=2).read()
                return
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > limit:
                    raise Failed(f'{kind} does not answer: {error}')
                time.sleep(0.01)

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(self.host, timeout=600)
        connection.request(method, path.removeprefix(f'http://{self.host}'), body, headers or {})
        answer = connection.getresponse()
        answer.body = answer.read()
        if answer.status >= 300:
            raise Failed(f'{self.kind}: {method} {path}: {answer.status} {answer.body[:200]}')
        return answer

    def put_blob(self, repository, path):
        """Uploads a file; gives its descriptor."""
        with open(path, 'rb') as file:
            digest = 'sha256:' + hashlib.file_digest(file, 'sha256').hexdigest()
        place = self.request('POST', f'/v2/{repository}/blobs/uploads/').headers['Location']
        size = os.path.getsize(path)
        with open(path, 'rb') as file:
            self.request('PUT', f'{place}{"&" if "?" in place else "?"}digest={digest}', file,
                         {'Content-Length': str(size), 'Content-Type': 'application/octet-stream'})
        return {'digest': digest, 'size': size}

    def put_image(self, repository, layer, diff_id, media_type):
        """Makes an image of one layer."""
        config = {'architecture': 'amd64', 'os': 'linux', 'config': {}, 'rootfs': {'type': 'layers', 'diff_ids': [diff_id]}}
        path = f'{self.root}/config.json'
        with open(path, 'w') as file:
            json.dump(config, file)
        manifest = {'schemaVersion': 2, 'mediaType': 'application/vnd.oci.image.manifest.v1+json',
                    'config': {'mediaType': 'application/vnd.oci.image.config.v1+json', **self.put_blob(repository, path)},
                    'layers': [{'mediaType': media_type, **self.put_blob(repository, layer)}]}
        self.request('PUT', f'/v2/{repository}/manifests/1', json.dumps(manifest), {'Content-Type': manifest['mediaType']})

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        shutil.rmtree(self.root, ignore_errors=True)


held = {}


def registry():
    if 'registry' not in held:
        held['registry'] = Registry()
    return held['registry']


def close(engine):
    """Ends the registry with the last engine's turn."""
    engine.clean()
    remove(engine, lambda name: f'{held["registry"].host}/' in name if 'registry' in held else False)
    held['open'].discard(engine.name)
    if not held['open']:
        stop()


def stop():
    """Ends the registry, if there is one, with what it keeps."""
    if 'registry' in held:
        held.pop('registry').stop()
        held.pop('big', None)


def remove(engine, chosen):
    for name in engine.run('images', '--format', '{{.Repository}}:{{.Tag}}').split():
        if chosen(name):
            engine.run('rmi', '-f', name, check=False)


def words(engine, verb):
    return [verb, '-q', '--tls-verify=false'] if engine.name == 'podman' else [verb, '-q']


def filled(engine):
    """Pushes the images of the benchmarks once, by whichever engine comes first, and lets go of them."""
    held.setdefault('open', set()).add(engine.name)
    here = registry()
    for image in IMAGES:
        try:
            here.request('HEAD', f'/v2/bench/{image}/manifests/1', headers={'Accept': '*/*'})
            continue
        except Failed:
            pass
        docker = engines.Docker()
        docker.load_images()
        docker.run('tag', f'localhost/bench/{image}:1', f'{here.host}/bench/{image}:1')
        docker.run('push', '-q', f'{here.host}/bench/{image}:1')
    absent(engine)


def absent(engine):
    """No layer of the images is there, and what was removed is gone from the disk."""
    engine.run('builder', 'prune', '-af', check=False)
    remove(engine, lambda name: any(name.endswith(f'bench/{image}:1') for image in IMAGES))
    settle(engine, engine.residue() | {'trash': 0})
    os.sync()
    time.sleep(REST_S)


@suite(3, before=filled, after=close, floor={'pull many': 'gunzip many', 'pull layers40': 'gunzip layers40'})
def pull(engine):
    "`pull` of the 510 MB image of many files and of the 40-layer image, no layer present; until it returns, and with `sync -f`"
    result = {}
    for image in IMAGES:
        absent(engine)
        name = f'{registry().host}/bench/{image}:1'
        start = time.perf_counter()
        engine.run(*words(engine, 'pull'), name)
        result[f'pull {image}'] = time.perf_counter() - start
        subprocess.run(['sync', '-f', engine.data_root], check=True)
        result[f'pull {image}, synced'] = time.perf_counter() - start
        result[f'pull {image} again'] = engine.time(*words(engine, 'pull'), name)
        engine.run('rmi', name)
    return result


def new_layer(path, megabytes, seed):
    """A tar of real files, those of the image of many files as far as they reach, made new by the file that comes first."""
    with tarfile.open(f'{engines.IMAGES}/many.tar') as image, tarfile.open(path, 'w') as archive:
        layer = next(member for member in image if member.name.endswith('layer.tar'))
        content = str(seed).encode()
        info = tarfile.TarInfo('seed')
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
        with tarfile.open(fileobj=image.extractfile(layer), mode='r|') as files:
            for member in files:
                archive.addfile(member, files.extractfile(member) if member.isreg() else None)
                if archive.offset > megabytes * MIB:
                    return


def opened(engine):
    held.setdefault('open', set()).add(engine.name)
    registry()
    engine.clean()


@suite(3, before=opened, after=close)
def push(engine):
    "`push` of an image with a new 300 MB layer; again under another tag, and what the engine's processes read for it"
    held['seed'] = held.get('seed', 0) + 1
    path = '/var/tmp/gantry-bench-layer.tar'
    new_layer(path, 300, held['seed'])
    here = registry()
    name = f'{here.host}/bench/new{held["seed"]}'
    try:
        engine.run('import', path, f'{name}:1')
        os.sync()
        time.sleep(REST_S / 2)
        result = {'push 300 MB': engine.time(*words(engine, 'push'), f'{name}:1')}
        engine.run('tag', f'{name}:1', f'{name}:2')
        before = bytes_read(engine)
        result['push again, other tag'] = engine.time(*words(engine, 'push'), f'{name}:2')
        if engine.name != 'podman':             # its reading is done by the command itself
            result['read for it [MiB]'] = (bytes_read(engine) - before) / MIB
        engine.run('rmi', '-f', f'{name}:1', f'{name}:2')
    finally:
        os.unlink(path)
    return result


def bytes_read(engine):
    """What the engine's processes have read by system calls so far, sockets included."""
    total = 0
    for pid in engine.processes():
        with contextlib.suppress(OSError):
            total += int(open(f'/proc/{pid}/io').readline().split()[1])
    return total


BIG_BYTES = 2_000_000_000
COMPRESSIONS = {'gzip': ['gzip', '-1'], 'zstd': ['zstd', '-q', '-1']}


def big_layers(engine):
    """A file of random bytes and one of zeros, 2 GB each, gzip and zstd, as images of one layer."""
    opened(engine)
    here = registry()
    for kind, block in (('random', os.urandom), ('zeros', bytes)):
        if any(name.startswith(f'{kind}-') for name in held.setdefault('big', set())):
            continue
        files = {name: open(f'{here.root}/{name}', 'wb') for name in COMPRESSIONS}
        outputs = {name: subprocess.Popen(words, stdin=subprocess.PIPE, stdout=files[name]) for name, words in COMPRESSIONS.items()}
        digest = hashlib.sha256()
        def put(data):
            digest.update(data)
            for output in outputs.values():
                output.stdin.write(data)
        info = tarfile.TarInfo(kind)
        info.size = BIG_BYTES
        put(info.tobuf())
        for _ in range(BIG_BYTES // 500_000):
            put(block(500_000))
        put(bytes(-BIG_BYTES % 512 + 1024))
        for name, output in outputs.items():
            output.stdin.close()
            if output.wait():
                raise Failed(f'{name} ended with {output.returncode}')
            files[name].close()
            here.put_image(f'bench/{kind}-{name}', files[name].name, 'sha256:' + digest.hexdigest(),
                           f'application/vnd.oci.image.layer.v1.tar+{name}')
            os.unlink(files[name].name)
            held['big'].add(f'{kind}-{name}')


@suite(1, before=big_layers, after=close)
def memory(engine):
    "the daemon's peak memory during a pull of a 2 GB layer, above what it had before (VmHWM, reset)"
    if engine.name == 'podman':
        return {}
    pid = engine.daemon.pid if engine.name == 'gantry' else int(open('/run/peers/dockerd.pid').read())
    def status(key):
        return next(int(line.split()[1]) / 1024 for line in open(f'/proc/{pid}/status') if line.startswith(key))
    result = {}
    for kind in ('random', 'zeros'):
        for compression in ('gzip', 'zstd'):
            name = f'{registry().host}/bench/{kind}-{compression}:1'
            with open(f'/proc/{pid}/clear_refs', 'w') as file:
                file.write('5')
            before = status('VmHWM')
            engine.run(*words(engine, 'pull'), name)
            result[f'{kind}, {compression} [MiB]'] = status('VmHWM') - before
            engine.run('rmi', name)
            settle(engine, engine.residue() | {'trash': 0})
    return result


def registries(rounds):
    "registries alone: GET of a 500 MB blob by one client and by four at once (curl to /dev/null)"
    kinds = ['gantry', 'docker-registry']
    here = {kind: Registry(kind, f'{DIRECTORY}-{kind}') for kind in kinds}
    results = {kind: [] for kind in kinds}
    blob = '/var/tmp/gantry-bench-blob'
    try:
        subprocess.run(['bash', '-c', f'head -c 500000000 /dev/urandom > {blob}'], check=True)
        digests = {kind: here[kind].put_blob('bench/blob', blob)['digest'] for kind in kinds}
        def fetch(kind):
            subprocess.run(['curl', '-sSf', '-o', '/dev/null', f'http://{here[kind].host}/v2/bench/blob/blobs/{digests[kind]}'], check=True)
        def four(kind):
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                list(pool.map(fetch, [kind] * 4))
        for kind in kinds:
            fetch(kind)
        for number in range(rounds):
            for kind in rotated(kinds, number):
                results[kind].append({'one client [MB/s]': 500 / timed(fetch, kind), 'four clients [MB/s]': 2000 / timed(four, kind)})
    finally:
        for one in here.values():
            one.stop()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(blob)
    return results
