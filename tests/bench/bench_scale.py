"""Planning and cohort jobs at scale: CPU seconds and memory against the limits that are promised.

python tests/bench/bench_scale.py [plan|sheets|tables|maps|study|draw] [SIZES ...]

Sizes are participants of ``plan`` and ``maps``, visits of ``sheets``, ``tables`` and ``study``; ``draw``
writes docs/images/scale.svg from docs/images/scale.tsv, which holds what the others measured.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from threadpoolctl import threadpool_limits

REPOSITORY = Path(__file__).resolve().parents[2]
VISITS = ("baseline", "day5", "day90")
SITES = 30
#: What planning one job takes (schema, sheets, digests of the code), CPU s.
FIXED_S = 5.0
#: Peak memory of a job of the whole cohort, at most, up to 10 000 visits.
MEMORY_MIB = 500


def scan_study(folder: Path, subjects: int) -> Path:
    """Sheets of a study with two scans at each of three visits; the scans are a few bytes."""
    people = [f"{n:05d}" for n in range(subjects)]
    rows = ["participant_id\tvisit\tkind\tpath"]
    for person in people:
        (folder / "data" / person).mkdir(parents=True)
        for visit in VISITS:
            for kind in ("dwi", "adc"):
                path = folder / "data" / person / f"{visit}_{kind}.nii.gz"
                path.write_bytes(b"not read while jobs are planned")
                rows.append(f"{person}\t{visit}\t{kind}\t{path}")
    (folder / "scans.tsv").write_text("\n".join(rows) + "\n")
    listed = [f"{person}\tsite-{n % SITES}" for n, person in enumerate(people)]
    (folder / "participants.tsv").write_text("participant_id\tsite\n" + "\n".join(listed) + "\n")
    config = {
        "study": {"id": "scale"},
        "results_dir": str(folder / "results"),
        "inputs": {n: str(folder / f"{n}.tsv") for n in ("participants", "scans")},
        "visits": {"order": list(VISITS), "baseline": "baseline"},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def measured(
    command: list[str], environment: Mapping[str, str] | None = None
) -> tuple[float, float, str]:
    """CPU s, peak memory (MiB) and output of a command."""
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    reported = process.stdout.read() if process.stdout else ""
    _, code, used = os.wait4(process.pid, 0)
    if code:
        raise SystemExit(reported[-3000:])
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, reported


@dataclass(frozen=True)
class Used:
    """What the process of a job took, start of Python included."""

    rule: str
    cpu_s: float
    peak_mib: float


def used_by_jobs(usage: Path) -> list[Used]:
    """Jobs in the order in which they ended, as tests/bench/job_usage notes them."""
    lines = usage.read_text().splitlines() if usage.is_file() else []
    rows = [line.split("\t") for line in lines]
    return [Used(rule, float(cpu), float(peak)) for rule, cpu, peak in rows]


def run_jobs(config: Path, targets: Sequence[str], usage: Path) -> float:
    """Run Snakemake, each job noting what it took; CPU s of Snakemake itself."""
    paths = (REPOSITORY / "tests" / "bench" / "job_usage", REPOSITORY / "workflow" / "scripts")
    noting = {"CORELAB_JOB_USAGE": str(usage), "PYTHONPATH": ":".join(map(str, paths))}
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", str(config)]
    before = len(used_by_jobs(usage))
    cpu, _, _ = measured([*command, "--", *targets], noting)
    return cpu - sum(job.cpu_s for job in used_by_jobs(usage)[before:])


def print_jobs(visits: int, usage: Path) -> None:
    """The most expensive job of each rule, and whether it takes more memory than is promised."""
    jobs = used_by_jobs(usage)
    for rule in dict.fromkeys(job.rule for job in jobs):
        of_rule = [job for job in jobs if job.rule == rule]
        cpu, peak = max(job.cpu_s for job in of_rule), max(job.peak_mib for job in of_rule)
        more = f"  more than {MEMORY_MIB} MiB" * (peak > MEMORY_MIB)
        print(f"{visits:>6} visits, {rule:<20} {cpu:8.1f} CPU s {peak:6.0f} MiB{more}", flush=True)


def cohort_files() -> list[str]:
    """Products of the whole study, from the plan of a study of one subject, in its order."""
    with tempfile.TemporaryDirectory() as name:
        config = scan_study(Path(name), 1)
        command = [sys.executable, "-m", "snakemake", "--summary", "--configfile", str(config)]
        _, _, reported = measured(command)
        folder = f"{name}/results/scale/"
        files = [line.split("\t")[0] for line in reported.splitlines() if line.startswith(folder)]
        return [file.removeprefix(folder) for file in files if "/derivatives/" not in file]


def pretend_done(results: Path, subjects: int) -> None:
    """Empty files in the place of all products, in the order in which they are made."""
    people = [f"{n:05d}" for n in range(subjects)]
    for name in ("prepare", "segment"):
        for person in people:
            for visit in VISITS:
                path = results / "derivatives" / f"sub-{person}" / f"ses-{visit}" / f"{name}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    for name in ("normalise", "quality", "measure"):
        for person in people:
            (results / "derivatives" / f"sub-{person}" / f"{name}.json").touch()
    moment = time.time() + 10
    for file in cohort_files():
        path = results / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if not path.suffix else path.touch()
        os.utime(path, (moment, moment))


#: The same jobs with the same files and nothing else: no params, resources, messages or logs.
BARE = """
PEOPLE, VISITS = [f"{{n:05d}}" for n in range({subjects})], {visits}

def records(wildcards):
    return [f"out/{{wildcards.p}}/{{v}}/{{n}}.json" for v in VISITS for n in ("prepare", "segment")]

rule all:
    input: [f"out/{{p}}/{{n}}.json" for n in ("measure", "quality") for p in PEOPLE]
rule prepare:
    input: "data/{{p}}/{{v}}_dwi.nii.gz", "data/{{p}}/{{v}}_adc.nii.gz"
    output: "out/{{p}}/{{v}}/prepare.json"
    script: "bare.py"
rule segment:
    input: "out/{{p}}/{{v}}/prepare.json"
    output: "out/{{p}}/{{v}}/segment.json"
    script: "bare.py"
rule normalise:
    input: records
    output: "out/{{p}}/normalise.json"
    script: "bare.py"
rule quality:
    input: records, "out/{{p}}/normalise.json"
    output: "out/{{p}}/quality.json"
    script: "bare.py"
rule measure:
    input: records, "out/{{p}}/normalise.json"
    output: "out/{{p}}/measure.json"
    script: "bare.py"
"""


def bare_rules(folder: Path, subjects: int) -> tuple[float, float]:
    """CPU s and MB of planning the same jobs as bare rules, with the options of the profile."""
    (folder / "bare.smk").write_text(BARE.format(subjects=subjects, visits=VISITS))
    (folder / "bare.py").touch()
    profile = REPOSITORY / "profiles" / "default"
    command = [*(sys.executable, "-m", "snakemake", "-n", "--cores", "4")]
    command += ["--snakefile", str(folder / "bare.smk"), "--directory", str(folder)]
    cpu, memory, _ = measured([*command, "--workflow-profile", str(profile)])
    return cpu, memory


def plan(subjects: int) -> None:
    """Dry run of all, of one subject, and of a tenth; against bare rules of the same jobs."""
    with tempfile.TemporaryDirectory() as name:
        config = scan_study(Path(name), subjects)
        bare, memory = bare_rules(Path(name), subjects)
        print(f"bare rules, {subjects} x 3 {bare:21.1f} CPU s {memory:7.0f} MiB", flush=True)
        base = [
            sys.executable,
            "-m",
            "snakemake",
            "-n",
            "--cores",
            "4",
            "--configfile",
            str(config),
        ]
        results = f"{name}/results/scale"
        one = f"{results}/derivatives/sub-00001/measure.json"
        table = f"{results}/endpoints/measurements.tsv"
        asked = [
            ("everything", []),
            ("one subject", ["--", one]),
            ("one site of 30", ["--config", "site=site-7", "--", "site"]),
            ("a tenth", ["--batch", "collect=1/10", "--", table]),
        ]
        for what, more in asked:
            cpu, memory, _ = measured([*base, *more])
            print(
                f"dry run, {subjects} x 3, {what:<15} {cpu:6.1f} CPU s {memory:7.0f} MiB",
                flush=True,
            )
            if what == "everything" and subjects >= 300:
                print(f"  {cpu / bare:.2f} times the bare rules", flush=True)
                if cpu > 1.5 * bare + FIXED_S:
                    raise SystemExit(f"planning takes {cpu / bare:.2f} times bare rules, not 1.5")
        pretend_done(Path(name) / "results" / "scale", subjects)
        cpu, memory, reported = measured(base)
        if "Nothing to be done" not in reported:
            raise SystemExit(reported[-3000:])
        print(f"nothing to be done, {subjects} x 3 {cpu:13.1f} CPU s {memory:7.0f} MiB", flush=True)


def tables(visits: int) -> None:
    """Collecting a table-level cohort: every visit has values of a pipeline and two readers."""
    from corelab.measurement.collect import collect_measurements
    from corelab.provenance.products import write_json
    from corelab.records.measured import Measured
    from corelab.settings.measurement import MeasurementSettings

    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        records, listed = [], []
        for number in range(visits):
            subject, visit = f"{number // 3:05d}", VISITS[number % 3]
            rows = [
                {
                    "participant_id": subject, "visit": visit, "endpoint": endpoint,
                    "source": source, "repeat": 1, "region": "all",
                    "value": float(rng.gamma(3, 8)), "unit": "mL", "status": "ok",
                    "reason": None, "scan_ids": f"sub-{subject}_ses-{visit}_dwi",
                }
                for endpoint in ("infarct_volume", "core_volume", "hypoperfused_volume")
                for source in ("pipeline", "r1", "r2")
            ]  # fmt: skip
            path = Path(name, f"{number}.json")
            write_json({"stage": "measure", "participant_id": subject, "rows": rows}, path)
            records.append(path)
            listed.append((subject, visit))
        start = time.process_time()
        collect_measurements(
            map(Measured.read, records), reads=None, supplied=None, listed=listed, visit_order=VISITS,
            baseline="baseline", settings=MeasurementSettings(),
        )  # fmt: skip
        cpu = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"collecting {visits:>6} visits {cpu:7.1f} CPU s {peak:7.0f} MB peak", flush=True)


def sheets(visits: int) -> None:
    """Reading and checking the sheets of a study: three scans a visit, 100 000 reads in all."""
    from corelab.study.findings import grouped_lines
    from corelab.study.loading import load_study

    rng = np.random.default_rng(1)
    people = [f"{n:05d}" for n in range(visits // 3)]
    scans, reads = ["participant_id\tvisit\tkind\tpath"], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for person in people:
            for visit in VISITS:
                for kind in ("dwi", "adc", "ncct"):
                    path = folder / f"{person}_{visit}_{kind}.nii.gz"
                    path.touch()
                    scans.append(f"{person}\t{visit}\t{kind}\t{path}")
                for endpoint in (
                    "infarct_volume",
                    "haematoma_volume",
                    "core_volume",
                    "oedema_volume",
                ):
                    reads += [
                        f"{person}\t{visit}\t{endpoint}\t{reader}\t{rng.gamma(2, 10):.3f}\tmL"
                        for reader in ("r1", "r2", "r3")
                    ]
        del reads[100_000:]
        heads = {"participants": ["participant_id"], "scans": scans[:1]}
        heads["reads"] = ["participant_id\tvisit\tendpoint\treader\tvalue\tunit"]
        bodies = {"participants": people, "scans": scans[1:], "reads": reads}
        for sheet, head in heads.items():
            (folder / f"{sheet}.tsv").write_text("\n".join([*head, *bodies[sheet]]) + "\n")
        config = {
            "study": {"id": "scale"},
            "results_dir": str(folder / "results"),
            "inputs": {sheet: str(folder / f"{sheet}.tsv") for sheet in heads},
            "visits": {"order": list(VISITS), "baseline": "baseline"},
        }
        load_study(config | {"inputs": {"participants": config["inputs"]["participants"]}})
        start = time.process_time()
        study = load_study(config)
        grouped_lines(study.findings)
        cpu = time.process_time() - start
        faulty = [
            line.replace("0", "x", 1) if n % 50 == 0 else line for n, line in enumerate(reads)
        ]
        (folder / "reads.tsv").write_text("\n".join([*heads["reads"], *faulty]) + "\n")
        start = time.process_time()
        found = load_study(config).findings
        lines = grouped_lines(found)
        wrong = time.process_time() - start
    print(f"sheets of {len(scans) - 1} scans, {len(reads)} reads {cpu:6.1f} CPU s", flush=True)
    print(f"  with {len(found)} findings in {len(lines)} lines {wrong:6.1f} CPU s", flush=True)
    if visits <= 9000 and max(cpu, wrong) > 2.0:
        raise SystemExit("2 CPU s are promised for 27 000 scans and 100 000 reads")


def study(visits: int) -> None:
    """All jobs of a study of reads, each in its process: two readers, two arms.

    An agreement with 1000 resamples by case and a comparison of the arms.
    """
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        people = [f"{n:05d}" for n in range(visits // 3)]
        listed = [f"{person}\t{'AB'[n % 2]}" for n, person in enumerate(people)]
        (folder / "participants.tsv").write_text("participant_id\tarm\n" + "\n".join(listed) + "\n")
        rows = ["participant_id\tvisit\tendpoint\treader\tvalue\tunit"]
        for person in people:
            for visit in VISITS:
                value = rng.gamma(3, 8)
                rows += [
                    f"{person}\t{visit}\tinfarct_volume\t{reader}\t{value + rng.normal(0, 2):.4f}\tmL"
                    for reader in ("r1", "r2")
                ]
        (folder / "reads.tsv").write_text("\n".join(rows).replace("\t-", "\t") + "\n")
        agreement = {"id": "readers", "type": "agreement", "endpoint": "infarct_volume"}
        comparison = {"id": "arms", "type": "comparison", "endpoint": "infarct_volume", "by": "arm"}
        config = {
            "study": {"id": "scale"},
            "results_dir": str(folder / "results"),
            "inputs": {n: str(folder / f"{n}.tsv") for n in ("participants", "reads")},
            "visits": {"order": list(VISITS), "baseline": "baseline"},
            "analyses": [
                {**agreement, "sources": ["r1", "r2"], "resamples": 1000},
                {**comparison, "source": "r1", "visit": "day90", "reference": "A"},
            ],
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        usage = folder / "usage.tsv"
        run_jobs(folder / "config.yaml", ["all"], usage)
        print_jobs(visits, usage)


def maps(subjects: int) -> None:
    """A frequency map of supplied masks in MNI152, from files to file; a child of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "map", str(subjects)]
    cpu, memory, reported = measured(command)
    cpu -= float(reported)
    print(
        f"frequency map of {subjects:>6} masks {cpu:7.1f} CPU s {memory:7.0f} MiB peak", flush=True
    )
    # Masks of the 1 mm template, one core: what is promised for the largest public cohort.
    if subjects <= 1449 and cpu > 60:
        raise SystemExit(f"the map of {subjects} masks took {cpu:.0f} s; 60 s are promised")


def one_map(subjects: int) -> None:
    """Write the map; forty different lesions stand for the cohort, so that writing is brief."""
    import nibabel as nib

    from corelab.measurement.frequency import write_frequency_map
    from corelab.records.images import ScanRow
    from corelab.registration import template_image

    template, rng = template_image(), np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        start = time.process_time()
        distinct = min(subjects, 40)
        for number in range(distinct):
            voxels = np.zeros(template.shape, np.uint8)
            x, y, z = (int(rng.integers(20, size - 50)) for size in template.shape)
            voxels[x : x + 25, y : y + 25, z : z + 20] = rng.random((25, 25, 20)) < 0.9
            nib.save(nib.Nifti1Image(voxels, template.affine), f"{name}/{number}.nii.gz")
        rows = [
            ScanRow("mask-lesion", f"{name}/{n % distinct}.nii.gz", f"s{n}", f"{n:05d}", "v")
            for n in range(subjects)
        ]
        prepared = time.process_time() - start
        write_frequency_map(
            f"{name}/map.nii.gz", label="lesion", records=[], supplied=rows, folder=Path(name),
            enrolled=subjects, denominator="enrolled", visit_order=["v"],
        )  # fmt: skip
    print(f"{prepared:.2f}")


@dataclass(frozen=True)
class Machine:
    """What one core does: copies memory, inflates the masks of ``maps``, multiplies matrices."""

    copied_gb_s: float
    inflated_gb_s: float
    gflop_s: float


def machine() -> Machine:
    """Rates by CPU time, the best of five."""
    import zlib

    def seconds(work: Callable[[], object]) -> float:
        taken = []
        for _ in range(5):
            start = time.process_time()
            work()
            taken.append(time.process_time() - start)
        return min(taken)

    rng, size = np.random.default_rng(1), 1500
    source, target = np.ones(2**25), np.empty(2**25)
    mask = np.zeros(4_000_000, np.uint8)
    mask[1_000_000:1_012_500] = rng.random(12_500) < 0.9
    packed = zlib.compress(mask.tobytes())
    left, right = rng.random((2, size, size))
    with threadpool_limits(1):
        return Machine(
            2 * source.nbytes / 1e9 / seconds(lambda: np.copyto(target, source)),
            mask.nbytes / 1e9 / seconds(lambda: zlib.decompress(packed, bufsize=mask.nbytes)),
            2 * size**3 / 1e9 / seconds(lambda: left @ right),
        )


@dataclass(frozen=True)
class Growth:
    """A row of docs/images/scale.tsv: what a job took, and what its data and arithmetic are.

    ``mb_read`` are bytes of its inputs, ``mb_inflated`` of compressed images; ``gflop`` what its
    statistics need: 20 operations for each pair of reads and resample, 2 for each voxel of a map.
    """

    what: str
    visits: int
    cpu_s: float
    peak_mib: float
    mb_read: float
    mb_inflated: float
    gflop: float

    def bound_s(self, machine: Machine) -> float:
        """Least time on this machine, if nothing is done twice and nothing waits."""
        inflated = self.mb_inflated / 1000 / machine.inflated_gb_s
        return self.mb_read / 1000 / machine.copied_gb_s + inflated + self.gflop / machine.gflop_s


def growth() -> list[Growth]:
    """What was measured."""
    lines = (REPOSITORY / "docs" / "images" / "scale.tsv").read_text().splitlines()[1:]
    cells = [line.split("\t") for line in lines]
    return [Growth(what, int(visits), *map(float, rest)) for what, visits, *rest in cells]


def draw() -> None:
    """Chart and table of the measured growth, beside what this machine needs at least."""
    from matplotlib import pyplot as plt

    plt.rcParams |= {"svg.hashsalt": "scale", "svg.fonttype": "none"}
    core, rows = machine(), growth()
    print(f"{core.copied_gb_s:.1f} GB/s copied, {core.inflated_gb_s:.2f} GB/s inflated, "
          f"{core.gflop_s:.0f} GFLOP/s")  # fmt: skip
    print("| job | visits | CPU s | peak, MiB | MB read | GFLOP | bound, s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    figure, axes = plt.subplots(figsize=(8.0, 5.0), layout="constrained")
    for what in dict.fromkeys(row.what for row in rows):
        own = [row for row in rows if row.what == what]
        visits, cpu = np.array([(row.visits, row.cpu_s) for row in own]).T
        bounds = [row.bound_s(core) for row in own]
        exponent = np.polyfit(np.log(visits), np.log(cpu), 1)[0]
        (line,) = axes.loglog(visits, cpu, marker="o", label=f"{what}, exponent {exponent:.2f}")
        axes.loglog(visits, bounds, color=line.get_color(), linewidth=0.7, linestyle=":")
        for row, bound in zip(own, bounds, strict=True):
            peak = "" if np.isnan(row.peak_mib) else f"{row.peak_mib:.0f}"
            print(f"| {what} | {row.visits} | {row.cpu_s:.1f} | {peak} | {row.mb_read:.1f} "
                  f"| {row.gflop:.2g} | {bound:.2g} |")  # fmt: skip
    axes.set_xlabel("Visits")
    axes.set_ylabel("CPU time, s (dotted: what the machine needs at least)")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    chart = REPOSITORY / "docs" / "images" / "scale.svg"
    figure.savefig(chart, metadata={"Date": None})


def main() -> None:
    """What was asked for, else all at a small size."""
    what, *sizes = sys.argv[1:] or ["all"]
    numbers = [int(size) for size in sizes]
    if what in {"plan", "all"}:
        for subjects in numbers or [100]:
            plan(subjects)
    if what in {"tables", "all"}:
        for visits in numbers or [1000, 3000]:
            tables(visits)
    if what in {"sheets", "all"}:
        for visits in numbers or [9000]:
            sheets(visits)
    if what in {"study", "all"}:
        for visits in numbers or [1000]:
            study(visits)
    if what in {"maps", "all"}:
        for subjects in numbers or [1449]:
            maps(subjects)
    if what == "draw":
        draw()
    if what == "map":
        one_map(numbers[0])


if __name__ == "__main__":
    main()
