"""Every rule is complete, and reruns when code that it uses has changed."""

import re
import shutil

import pytest
from helpers import REPOSITORY, clear_digest_caches

from corelab.provenance import digest

SCRIPTS = REPOSITORY / "workflow" / "scripts"
FILES = sorted((REPOSITORY / "workflow" / "rules").glob("*.smk"))


def _rules(head):
    """Rule -> its text, of the rules that begin with a head."""
    return {
        match.group(1): match.group(0)
        for path in FILES
        for match in re.finditer(rf"^{head}:\n(?:(?:    .*)?\n)+", path.read_text() + "\n", re.M)
    }


RULES = _rules(r"rule (\w+)")
DERIVED = _rules(r"use rule \w+ as (\w+) with")


def test_there_are_rules():
    assert len(RULES) >= 20


@pytest.mark.parametrize("name", sorted(RULES))
def test_rule_is_complete(name):
    block = RULES[name]
    for part in ("log:", "benchmark:", "message:", "conda:", "script:"):
        assert re.search(rf"^    {part}", block, re.M), f"rule {name} has no {part}"
    assert re.search(r'^    """.+"""$', block, re.M), f"rule {name} has no docstring"
    assert f'code=code("{name}")' in block
    assert f'"../scripts/{name}.py"' in block
    assert not re.search(r"^    (run|wrapper|shell):", block, re.M)
    assert "threads: 1" not in block, "one thread is the default"


def test_derived_rules_have_their_own_logs():
    assert "analyse_without_exclusions" in DERIVED
    for name, block in DERIVED.items():
        assert f'log_of("{name}"' in block and f'benchmark_of("{name}"' in block


def test_rule_files_say_what_goes_in_and_out_and_common_is_short():
    for path in FILES:
        text = path.read_text()
        head = re.match(r'"""(.+?)"""', text, re.S)
        assert head and "In: " in head[1] and "Out: " in head[1], path.name
    common = REPOSITORY / "workflow" / "rules" / "common.smk"
    assert len(common.read_text().splitlines()) <= 150


def test_the_profile_of_a_cluster_has_the_limits_that_rules_leave_out():
    text = (REPOSITORY / "profiles" / "slurm" / "config.yaml").read_text()
    assert re.search(r"^default-resources: .*mem_mb=.*runtime=", text, re.M)


def test_every_script_belongs_to_a_rule():
    assert {path.stem for path in SCRIPTS.glob("*.py")} == set(RULES)


@pytest.mark.parametrize("name", sorted(RULES))
def test_script_is_thin(name):
    lines = (SCRIPTS / f"{name}.py").read_text().splitlines()
    code = [line for line in lines if line.strip() and not line.strip().startswith(("#", '"""'))]
    assert len(code) <= 28, f"{name}.py has {len(code)} lines: the library does the work"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    shutil.copytree(
        SCRIPTS, folder / "scripts", ignore=shutil.ignore_patterns("__pycache__", "assets")
    )
    return folder / "scripts"


def _digests(folder):
    clear_digest_caches()
    return {name: digest.digest_of_script(str(folder / f"{name}.py")) for name in RULES}


def test_a_library_edit_changes_exactly_the_rules_that_use_it(copy):
    before = _digests(copy)
    used = {
        name: {
            p.relative_to(copy).as_posix() for p in digest._modules_of(copy / f"{name}.py", copy)
        }
        for name in RULES
    }
    modules = sorted(set().union(*used.values()))
    assert "corelab/agreement/icc.py" in used["analyse"]
    assert "corelab/agreement/icc.py" not in used["prepare"]
    # Every twelfth of the library's modules: each edit means the digests of all rules anew.
    for module in [name for name in modules if not name.endswith("__init__.py")][::12]:
        file = copy / module
        kept = file.read_bytes()
        file.write_bytes(kept + b"\n# edited\n")
        after = _digests(copy)
        file.write_bytes(kept)
        changed = {name for name in RULES if after[name] != before[name]}
        assert changed == {name for name in RULES if module in used[name]}, module


def test_a_script_edit_changes_its_rule_only(copy):
    """Scripts are edited in groups such that any two are apart in one of them."""
    names = sorted(RULES)
    before = _digests(copy)
    for bit in range(len(names).bit_length()):
        for value in (0, 1):
            group = {name for place, name in enumerate(names) if place >> bit & 1 == value}
            kept = {name: (copy / f"{name}.py").read_bytes() for name in group}
            for name, content in kept.items():
                (copy / f"{name}.py").write_bytes(content + b"\n# edited\n")
            after = _digests(copy)
            for name, content in kept.items():
                (copy / f"{name}.py").write_bytes(content)
            assert {name for name in names if after[name] != before[name]} == group


def test_static_imports_cover_what_is_loaded():
    """The digest follows imports in the text; what a package really loads must be among them."""
    import subprocess
    import sys

    program = (
        "import sys\n"
        "from corelab.imaging import prepare_visit\n"
        "from corelab.registration import align_visit\n"
        "from corelab.records.base import write_record\n"
        "print('\\n'.join(sorted(getattr(m, '__file__', '') or '' for n, m in sys.modules.items()"
        " if n.split('.')[0] == 'corelab')))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(SCRIPTS), "PATH": "/usr/bin:/bin"},
    ).stdout.split()
    listed = {str(path) for path in digest._modules_of(SCRIPTS / "prepare.py", SCRIPTS)}
    assert set(loaded) <= listed


def test_no_address_and_no_absolute_path_in_rules_and_scripts():
    for path in [*(REPOSITORY / "workflow" / "rules").glob("*.smk"), *SCRIPTS.glob("*.py")]:
        text = path.read_text()
        assert not re.search(r"https?://|wget|curl ", text), path
        assert not re.search(r"[\"'](/home|/work|/root|/tmp)", text), path
