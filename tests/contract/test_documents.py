"""The documents for developers and the contract name what exists."""

import ast
import inspect
import re
from functools import cache
from importlib import import_module

import pytest
import yaml
from helpers import REPOSITORY

SCRIPTS = REPOSITORY / "workflow" / "scripts"
LIBRARY = SCRIPTS / "corelab"
CONTRACT = (REPOSITORY / "docs" / "contract.md").read_text()
#: Documents whose every path and name is checked.
DOCUMENTS = ("CONTRIBUTING.md", "docs/architecture.md", "docs/glossary.md", "tests/README.md")
RULES = "\n".join(
    path.read_text()
    for path in [REPOSITORY / "Snakefile", *(REPOSITORY / "workflow" / "rules").glob("*.smk")]
)
CONFIG = yaml.safe_load((REPOSITORY / "workflow" / "schemas" / "config.schema.yaml").read_text())
SHEETS = yaml.safe_load((REPOSITORY / "workflow" / "schemas" / "sheets.schema.yaml").read_text())
ANALYSIS = CONFIG["$defs"]["analysis"]["properties"]

_SUFFIXES = "py|smk|yaml|yml|md|toml|tsv|json|lock|rst|j2|sh|R|typ"
_PATH = re.compile(rf"[\w./-]+\.(?:{_SUFFIXES})|[\w.-]+(?:/[\w.-]+)*/|Makefile|Snakefile")
_NAME = re.compile(r"corelab(?:\.\w+)+")


def quoted(text):
    """What stands in backticks, code blocks aside."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))


def exists(path):
    return any((folder / path).exists() for folder in (REPOSITORY, LIBRARY))


@cache
def names_of(module):
    """Names that a module defines or imports at its top."""
    names = set()
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        else:
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def is_defined(name):
    """Whether ``corelab.package.module.name`` is a package, a module or a name in one."""
    parts = name.split(".")
    for depth in range(len(parts), 0, -1):
        path = SCRIPTS.joinpath(*parts[:depth])
        module = path.with_suffix(".py")
        module = module if module.is_file() else path / "__init__.py"
        if module.is_file():
            rest = parts[depth:]
            return len(rest) <= 1 and set(rest) <= names_of(module)
    return False


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_names_and_tests_in_documents_exist(document):
    text = (REPOSITORY / document).read_text()
    wrong = []
    commands = re.findall(r"`(\.venv/bin/python -m [^`]+)`", text)
    for token in [*quoted(text), *" ".join(commands).split()]:
        path, _, test = token.partition("::")
        if _PATH.fullmatch(path):
            found = exists(path) and (not test or f"def {test}(" in (REPOSITORY / path).read_text())
            wrong += [] if found else [token]
        elif _NAME.fullmatch(token):
            wrong += [] if is_defined(token) else [token]
        elif match := re.fullmatch(r"make ([\w-]+).*", token):
            wrong += [] if makes(match.group(1)) else [token]
    assert not wrong, f"{document} names what does not exist: {', '.join(wrong)}"
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    folder = (REPOSITORY / document).parent
    pages = {"configuration.md": "config/README.md", "changelog.md": "CHANGELOG.md"}
    assert all(link in pages or (folder / link).exists() for link in links), links


def test_references_exist():
    """Cross-references of docstrings, and names of the library in the pages of the site."""
    wrong = []
    for path in [*sorted(LIBRARY.rglob("*.py")), *sorted((REPOSITORY / "docs").glob("*.md"))]:
        pattern = (
            r"`(corelab(?:\.\w+)+)`" if path.suffix == ".md" else r":\w+:`(corelab(?:\.\w+)+)`"
        )
        names = {n for n in re.findall(pattern, path.read_text()) if n != "corelab.def"}
        # A method is checked by its class.
        owners = {re.sub(r"(\.[A-Z]\w*)\.\w+$", r"\1", name) for name in names}
        wrong += [f"{path}: {name}" for name in sorted(owners) if not is_defined(name)]
    assert not wrong, "\n".join(wrong)


def makes(target):
    return re.search(rf"^{re.escape(target)}:", (REPOSITORY / "Makefile").read_text(), re.M)


def test_these_checks_can_fail():
    assert not exists("workflow/no_such_file.py") and not is_defined("corelab.imaging.no_such_name")
    assert is_defined("corelab.imaging.mask_volume_ml") and not makes("no-such-target")


# --- docs/contract.md --------------------------------------------------------------------------


def section(title):
    """Text of a section of the contract, up to the next one; comments in code are no headings."""
    match = re.search(rf"^##+ {re.escape(title)}.*?\n(.*?)(?=^##+ |\Z)", CONTRACT, re.M | re.S)
    assert match, f"docs/contract.md has no section {title}"
    return match.group(1)


def rows(text):
    """Cells of the tables in a text, without heads and rules."""
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line[:1] == "|"]
    return [[cell.strip() for cell in row] for row in cells if not set(row[0]) <= set("- ")][1:]


def test_commands_and_targets_of_the_contract():
    commands = re.findall(r"`make ([\w-]+)`", CONTRACT)
    assert len(commands) >= 5 and all(map(makes, commands))
    listed = re.search(r"Targets: (.*?)Each can be requested", CONTRACT, re.S).group(1)
    targets = quoted(re.sub(r"\([^)]*\)", "", listed))
    assert len(targets) >= 15
    assert [t for t in targets if not re.search(rf"^rule {t}:", RULES, re.M)] == []


def test_config_blocks_of_the_contract_are_in_the_schema():
    example = re.search(r"```yaml\n(.*?)```", section("Config"), re.S).group(1)
    blocks = re.findall(r"^(\w+):", example, re.M)
    assert len(blocks) >= 12 and set(blocks) <= set(CONFIG["properties"])
    inputs = re.findall(
        r"^  (\w+):", re.search(r"inputs:.*?(?=^\w)", example, re.M | re.S)[0], re.M
    )
    assert set(inputs) <= set(CONFIG["properties"]["inputs"]["properties"])
    for block in ("study", "registration", "brain_extraction", "visits", "perfusion"):
        text = re.search(rf"^{block}: \{{(.*)\}}", example, re.M).group(1)
        keys = re.findall(r"(\w+):", re.sub(r"\{[^{}]*\}", "", text))
        assert set(keys) <= set(CONFIG["properties"][block]["properties"]), block
    assert CONFIG["required"] == ["study", "inputs"]
    assert CONFIG["properties"]["study"]["required"] == ["id"]
    assert CONFIG["properties"]["inputs"]["required"] == ["participants"]


def test_analysis_types_and_keys_of_the_contract():
    table = rows(section("The plan"))
    assert {quoted(row[0])[0] for row in table} <= set(ANALYSIS["type"]["enum"])
    for row in table:
        text = re.sub(r"\([^)]*\)", "", row[1])
        keys = set(re.findall(r"\*\*(\w+)\*\*", text)) | set(re.findall(r"\b[a-z]+_[a-z]+\b", text))
        assert keys <= set(ANALYSIS), row[0]
    assert set(re.findall(r"\*\*(\w+)\*\*", section("The plan").split("|")[0])) <= set(ANALYSIS)


def test_columns_of_sheets_in_the_contract():
    for name, _, text in rows(section("Sheets")):
        if name == "measurements":
            continue
        text = re.sub(r"\([^)]*\)", "", text)
        columns = [re.sub(r"\W", "", part.split()[0]) for part in text.split(",") if part.strip()]
        sheet = SHEETS["properties"][name]
        known = set(sheet["properties"])
        open_ended = name in {"participants", "covariates"}
        assert set(columns) - {"any", "and"} <= known or open_ended, name
        assert set(re.findall(r"\*\*(\w+)\*\*", text)) >= set(sheet["required"]), name


def listed_columns(text):
    """Leading names of a cell: ``**a b c**, ...`` or ``a, b, c; words``."""
    bold = re.match(r"\*\*([^*]+)\*\*", text)
    text = bold.group(1) if bold else re.split(r";", re.sub(r" ?\([^)]*\)", "", text))[0]
    return re.findall(r"[a-z]\w*", text)


def test_columns_of_outputs_in_the_contract():
    from corelab.plan.runner import ANALYSES
    from corelab.provenance.certificate import CERTIFICATE
    from corelab.study import columns

    tables = {
        "preflight/findings.tsv": columns.FINDINGS,
        "endpoints/measurements.tsv": columns.MEASUREMENTS,
        "endpoints/acquisition.tsv": columns.ACQUISITION,
        "endpoints/image_findings.tsv": columns.IMAGE_FINDINGS,
        "endpoints/flow.tsv": columns.FLOW,
        "statistics/{agreement,overlap,pharmacodynamics,survival,radiomics,phantom}.tsv": (
            columns.STATISTICS
        ),
        "statistics/analyses.tsv": ANALYSES,
        "verification/certificate.tsv": CERTIFICATE,
    }
    described = {quoted(row[0])[0]: "|".join(row[1:]) for row in rows(section("Outputs"))}
    for path, known in tables.items():
        listed = [name for name in listed_columns(described[path]) if name not in {"adds", "up"}]
        assert listed == [name for name in known if name in listed], f"{path}: {listed}"
        assert len(listed) >= 5, path


def test_kinds_endpoints_and_statistics_of_the_contract():
    from corelab.terms.endpoints import ENDPOINT_UNITS
    from corelab.terms.kinds import IMAGE_KINDS

    kinds = re.search(r"Kinds of scan: `([^`]+)`", CONTRACT).group(1).split()
    assert set(kinds) - {"aif"} <= set(IMAGE_KINDS)
    listed = re.search(r"Endpoint names: (.*?)Volumes in mL", CONTRACT, re.S).group(1)
    endpoints = {name.split(":")[0] for name in quoted(listed)}
    assert endpoints <= set(ENDPOINT_UNITS)
    code = "\n".join(path.read_text() for path in LIBRARY.rglob("*.py"))
    tokens = re.findall(r"`([^`]+)`", section("Statistics names"))
    names = {name for token in tokens for name in token.split()}
    names = {name for name in names if re.fullmatch(r"[a-z][a-z0-9_]+", name)}
    assert len(names) > 50
    assert sorted(n for n in names if not re.search(rf"[\"']{n}[\"']", code)) == []


def test_library_entry_points_of_the_contract():
    block = re.search(r"```python\n(.*?)```", section("Library entry points"), re.S).group(1)
    for module, names in re.findall(r"from (corelab\.\w+) import ([\w, ]+)", block):
        for name in names.replace(" ", "").split(","):
            assert callable(getattr(import_module(module), name)), name
    from corelab.agreement import bland_altman, intraclass_correlation, weighted_kappa
    from corelab.perfusion import fit_perfusion
    from corelab.perfusion.fit import PerfusionMaps

    inspect.signature(fit_perfusion).bind(
        0, 0, 0, modality="dsc", method="osvd", echo_time_s=0.03, mask=None
    )
    maps = re.findall(r"\.(\w+)", re.search(r"maps\.(?=cbf).*?:", block).group(0))
    assert set(maps) <= set(PerfusionMaps.__dataclass_fields__)
    ratings = [[1.0, 2], [3, 4], [5, 5], [7, 6]]
    fields = re.search(r"object with (estimate, ci_low, ci_high, f.*)", block).group(1).split(", ")
    assert all(hasattr(intraclass_correlation(ratings)["icc_a_1"], name) for name in fields)
    fields = re.search(r"object with (n, bias.*?)\n", block).group(1)
    found = bland_altman([1.0, 2, 4], [1.5, 2, 3])
    assert all(
        hasattr(found, n) for n in re.sub(r"\([^)]*\)", "", fields).replace(" ", "").split(",")
    )
    kappa = weighted_kappa([1, 2, 3, 3], [1, 2, 2, 3], weights="quadratic", categories=None)
    assert all(hasattr(kappa, name) for name in ("estimate", "ci_low", "ci_high"))
