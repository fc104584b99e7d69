"""Tables from stored runs, with what must be reached beside them."""
import json, math, os, statistics

import engines

BEGIN, END = '<!-- tables: bench/run --table -->', '<!-- end of tables -->'
TARGETS = f'{engines.HERE}/targets.json'
REPORT = f'{engines.HERE}/../docs/benchmarks.md'


def text(metric, value):
    """A value with its unit."""
    if value is None:
        return '–'
    if metric.endswith(']'):
        return f'{value:.2f}' if value < 100 else f'{value:.0f}'
    return f'{value * 1000:.1f} ms' if value < 1 else f'{value:.2f} s'


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


def column(run, engine, metric):
    return [sample[metric] for sample in run['results'].get(engine, []) if metric in sample]


# Student's t for a two-sided 95 % interval, by degrees of freedom.
STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 10: 2.23, 14: 2.14, 19: 2.09, 29: 2.05}


def lower_bound(ours, theirs):
    """The lower end of the 95 % interval of the mean ratio of pairs that were measured in one round."""
    ratios = [one / other for one, other in zip(ours, theirs)]
    if len(ratios) < 2:
        return None
    factor = STUDENT[max(freedom for freedom in STUDENT if freedom < len(ratios))]
    return statistics.mean(ratios) - factor * statistics.stdev(ratios) / math.sqrt(len(ratios))


def better_peer(theirs, more_is_better):
    """The name of the better of the peers that have a median."""
    peers = [peer for peer in ('docker', 'podman') if theirs.get(peer)]
    return (max if more_is_better else min)(peers, key=theirs.get, default=None)


def verdict(target, ours, theirs, samples):
    """Compares our median with a target {"of": engine, "at_most" or "at_least": ratio} or {"at_most" or "at_least": value}.

    The engine `best` is the better of the peers. With "bound": true it is the lower end of the interval of the ratios, round
    by round, that must reach the target; `samples` are the values of each engine."""
    if target is None or ours is None:
        return ''
    other = target.get('of')
    if other == 'best':
        other = better_peer(theirs, 'at_least' in target)
        if other is None:
            return ''
    if target.get('bound'):
        bound = lower_bound(samples['gantry'], samples[other]) if samples.get(other) else None
        return '' if bound is None else f"{bound:.3f} {'reached' if bound >= target['at_least'] else 'MISSED'}"
    if other is not None and not theirs.get(other):
        return ''
    base = theirs[other] if other else 1
    if 'at_most' in target:
        return 'reached' if ours <= target['at_most'] * base else 'MISSED'
    return 'reached' if ours >= target['at_least'] * base else 'MISSED'


def words(target, metric):
    if target is None:
        return ''
    sign, number = ('≤', target['at_most']) if 'at_most' in target else ('≥', target['at_least'])
    bound = ', lower bound' if target.get('bound') else ''
    return f"{sign} {number:g} × {target['of']}{bound}" if 'of' in target else f'{sign} {text(metric, number)}'


def table(name, run):
    targets = json.load(open(TARGETS)).get(name, {})
    order = [engine for engine in run['order'] if run['results'].get(engine)]
    metrics = list(dict.fromkeys(metric for samples in run['results'].values() for sample in samples for metric in sample))
    heads = ['', *(f'{engine}: median / p95' if run['rounds'] >= 5 else engine for engine in order), 'must', 'then']
    lines = [f"### {name}: {run['text']}", '', '| ' + ' | '.join(heads) + ' |', '|---' * len(heads) + '|']
    for metric in metrics:
        cells, medians, samples = [], {}, {}
        for engine in order:
            values = samples[engine] = column(run, engine, metric)
            medians[engine] = statistics.median(values) if values else None
            cell = text(metric, medians[engine])
            cells.append(f'{cell} / {text(metric, percentile(values, 0.95))}' if len(values) >= 5 else cell)
        for step in ('must', 'then'):
            target = targets.get(metric, {}).get(step)
            cells.append(' '.join(filter(None, [words(target, metric), verdict(target, medians.get('gantry'), medians, samples)])))
        lines.append(f'| {metric} | ' + ' | '.join(cells) + ' |')
    versions = ', '.join(run['versions'])
    lines += ['', f"{run['when']}, {run['rounds']} rounds, load {run['load'][0]:.1f} to {run['load'][1]:.1f}; {versions}."]
    if run['failures']:
        lines += ['', 'Failed: ' + '; '.join(run['failures'])]
    return '\n'.join(lines)


def newest(path):
    """The newest run of each suite that is stored in `path`."""
    runs = {}
    for line in open(path):
        run = json.loads(line)
        runs[run['name']] = run
    return runs


def machine():
    memory = int(open('/proc/meminfo').readline().split()[1]) >> 20
    system = os.uname()
    return f'{os.cpu_count()} cores, {memory} GiB, Linux {system.release}'


def write(path):
    """Puts the tables of `path` into docs/benchmarks.md, in the place of those that stand there."""
    page = open(REPORT).read()
    tables = '\n\n'.join(table(name, run) for name, run in newest(path).items())
    block = f'{BEGIN}\n\nMachine: {machine()}.\n\n{tables}\n\n{END}'
    if BEGIN in page:
        head, rest = page.split(BEGIN, 1)
        page = head + block + rest.split(END, 1)[1]
    else:
        page = page.rstrip() + '\n\n' + block + '\n'
    open(REPORT, 'w').write(page)
    print(f'written: {os.path.normpath(REPORT)}')
