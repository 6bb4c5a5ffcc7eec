"""Planning ten thousand jobs: what Snakemake looks up for each job and never changes, once.

Every change of :func:`quicken` makes planning faster and leaves the plan as it is; with a Snakemake
whose insides are other than expected, nothing is changed. :func:`plan_by_content` changes the plan.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any


def quicken() -> None:
    """Keep answers that stay the same, and nothing that is empty; collect garbage seldom."""
    # A plan is millions of objects that live to the end; looking through them again and again for
    # garbage costs a fifth of the time.
    gc.set_threshold(200_000, 50, 1000)
    for change in (
        _keep_signatures,
        _check_scripts_once,
        _write_no_unread_messages,
        _ask_for_environments_once,
        _flag_only_what_is_flagged,
        _share_what_is_empty,
        _free_nothing_in_a_dry_run,
        _forget_empty_reasons,
    ):
        with suppress(ImportError, AttributeError):
            change()


def plan_by_content(same: Collection[str], again: Collection[str]) -> None:
    """Let the content of inputs decide what runs again, where Snakemake goes by their times.

    Parameters
    ----------
    same
        Inputs whose content is as every job read it: newer than no product, whatever their time.
    again
        Outputs of jobs that are to run again if the plan has them.

    Raises
    ------
    AttributeError
        With a Snakemake whose insides are other than expected.
    """
    from snakemake.dag import DAG
    from snakemake.io import _IOFile

    ask, make = _IOFile.is_newer, DAG.__init__

    async def is_newer(self: Any, time: Any) -> bool:
        return str(self) not in same and await ask(self, time)

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **named)
        # What is forced by --forcerun becomes a target too; these run only where they are needed.
        self.forcefiles.update(again)

    _IOFile.is_newer = is_newer
    DAG.__init__ = init


def _keep_signatures() -> None:
    import snakemake.common as common
    import snakemake.rules as rules

    if getattr(common.get_function_params, "_kept", None) is not None:
        return
    ask = common.get_function_params
    kept: dict[Any, Any] = {}

    def get_function_params(func: Callable[..., Any]) -> Any:
        # A bound method's function is the same for all instances; a partial has a code of its own.
        key = getattr(func, "__func__", func)
        try:
            found = kept.get((key, func is key))
        except TypeError:  # not hashable
            return ask(func)
        if found is None:
            found = kept[key, func is key] = ask(func)
        return found

    get_function_params._kept = kept  # type: ignore[attr-defined]
    common.get_function_params = get_function_params
    rules.get_function_params = get_function_params


def _check_scripts_once() -> None:
    from snakemake.dag import ScriptProcessor

    if getattr(ScriptProcessor.process_job, "_checked", None) is not None:
        return
    check = ScriptProcessor.process_job
    checked: set[tuple[int, str]] = set()

    def process_job(self: Any, job: Any) -> None:
        # The script of a rule is the same for all its jobs unless its path has wildcards.
        key = (id(self), job.rule.name)
        if key in checked and "{" not in str(getattr(job.rule, self.script_type, "{")):
            return
        check(self, job)
        checked.add(key)

    process_job._checked = checked  # type: ignore[attr-defined]
    ScriptProcessor.process_job = process_job


def _write_no_unread_messages() -> None:
    from snakemake.jobs import Job
    from snakemake.settings.enums import Quietness

    if getattr(Job.log_info, "_asks", None) is not None:
        return
    write = Job.log_info

    def log_info(self: Any, *arguments: Any, **named: Any) -> None:
        # With --quiet rules every handler drops the message, which costs a quarter of a dry run.
        settings = self.dag.workflow.output_settings
        if Quietness.RULES not in (settings.quiet or ()) or settings.log_handler_settings:
            write(self, *arguments, **named)

    log_info._asks = True  # type: ignore[attr-defined]
    Job.log_info = log_info


def _ask_for_environments_once() -> None:
    import snakemake.rules as rules
    from snakemake.jobs import Job

    unknown = rules._NOT_CACHED
    ask = Job.conda_env_spec.fget
    if getattr(ask, "_asks_once", False):
        return

    def conda_env_spec(self: Any) -> Any:
        # The environment of a rule is the same for all its jobs. Snakemake knows, but computes the
        # parameters of each of them first, which are then kept although few are needed.
        found = getattr(self.rule, "_expanded_conda_env", unknown)
        return ask(self) if found is unknown else found

    conda_env_spec._asks_once = True  # type: ignore[attr-defined]
    Job.conda_env_spec = property(conda_env_spec)


def _flag_only_what_is_flagged() -> None:
    """Keep paths without flags as plain text: a second string and two dicts less for each path."""
    import snakemake.io as io
    from snakemake_interface_common.io import AnnotatedStringInterface

    name, path = io.AnnotatedString, io._IOFile
    if getattr(path.clone_flags, "_spares", False):
        return
    clone, ask = path.clone_flags, io.is_flagged

    def clone_flags(self: Any, other: Any, skip_storage_object: bool = False) -> None:
        if getattr(other._file, "_flags", None) or type(self._file) is not str:
            clone(self, other, skip_storage_object)

    class NoFlags(dict[str, Any]):
        """Flags of a path that has none; with the first one written they become the path's own."""

        __slots__ = ("owner",)
        owner: Any

        def _owned(self) -> dict[str, Any]:
            if type(self.owner._file) is str:
                self.owner._file = name(self.owner._file)
            return self.owner._file.flags

        def __setitem__(self, key: str, value: Any) -> None:
            self._owned()[key] = value

        def update(self, *arguments: Any, **named: Any) -> None:
            self._owned().update(*arguments, **named)

        def setdefault(self, key: str, value: Any = None) -> Any:
            return self._owned().setdefault(key, value)

    def flags(self: Any) -> Any:
        if type(self._file) is not str:
            return getattr(self._file, "flags", {})
        empty = NoFlags()
        empty.owner = self
        return empty

    def is_flagged(value: Any, flag: str) -> bool:
        kind = type(value)
        if kind is str or (kind is path and type(value._file) is str):
            return False
        return isinstance(value, AnnotatedStringInterface) and ask(value, flag)

    clone_flags._spares = True  # type: ignore[attr-defined]
    path.clone_flags, path.flags = clone_flags, property(flags)
    for module in [m for n, m in sys.modules.items() if n.split(".")[0] == "snakemake"]:
        if module.__dict__.get("is_flagged") is ask:
            module.is_flagged = is_flagged  # type: ignore[attr-defined]


def _share_what_is_empty() -> None:
    from snakemake.iocontainers import AttributeGuard, Namedlist
    from snakemake.jobs import Job

    if getattr(Job.__init__, "_shares", False):
        return
    guards: dict[str, Any] = {}
    nothing: frozenset[Any] = frozenset()
    make, make_list = Job.__init__, Namedlist.__init__
    overrides = Namedlist()._allowed_overrides
    kinds = (
        *("temp_output", "protected_output", "touch_output"),
        *("pipe_or_service_output", "_queue_input"),
    )

    def guard(cls: Any, word: str) -> Any:
        # Every list of files and parameters holds one that says that sort() cannot be used.
        return guards.setdefault(word, object.__new__(cls))

    def init_list(self: Any, *arguments: Any, **named: Any) -> None:
        make_list(self, *arguments, **named)
        self._allowed_overrides = overrides  # the same words in each; nobody writes into them

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **named)
        for kind in kinds:
            if not getattr(self, kind):
                setattr(self, kind, nothing)

    init._shares = True  # type: ignore[attr-defined]
    AttributeGuard.__new__ = guard
    Namedlist.__init__ = init_list
    Job.__init__ = init


def _free_nothing_in_a_dry_run() -> None:
    from snakemake.scheduling.job_scheduler import JobScheduler
    from snakemake.settings.enums import Quietness

    free = JobScheduler._free_resources
    if getattr(free, "_asks", False):
        return

    def _free_resources(self: Any, job: Any) -> None:
        # A dry run takes no resources, yet gives those of each job back. They are computed for that
        # alone, where the jobs are not listed.
        quiet = self.workflow.output_settings.quiet or ()
        if not (self.dryrun and Quietness.RULES in quiet):
            free(self, job)

    _free_resources._asks = True  # type: ignore[attr-defined]
    JobScheduler._free_resources = _free_resources


def _forget_empty_reasons() -> None:
    from snakemake.dag import DAG
    from snakemake.jobs import Reason

    kinds = ("_updated_input", "_updated_input_run", "_missing_output", "_incomplete_output")
    update = DAG.update_needrun
    if getattr(update, "_forgets", False):
        return
    if any(not hasattr(Reason(), kind) for kind in kinds):
        return

    async def update_needrun(self: Any, *arguments: Any, **named: Any) -> None:
        await update(self, *arguments, **named)
        for reason in self._reason.values():
            for kind in kinds:
                # Made again, as empty, when it is asked for.
                if not getattr(reason, kind):
                    setattr(reason, kind, None)

    update_needrun._forgets = True  # type: ignore[attr-defined]
    DAG.update_needrun = update_needrun
