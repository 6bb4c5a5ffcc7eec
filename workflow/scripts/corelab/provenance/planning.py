"""Planning ten thousand jobs: what Snakemake looks up for each job and never changes, once.

Every change here makes planning faster and leaves the plan as it is; with a Snakemake whose insides
are other than expected, nothing is changed.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def quicken() -> None:
    """Keep signatures of functions and checked scripts; collect garbage seldom while planning."""
    # A plan is millions of objects that live to the end; looking through them again and again for
    # garbage costs a fifth of the time.
    gc.set_threshold(200_000, 50, 1000)
    with suppress(ImportError, AttributeError):
        _keep_signatures()
    with suppress(ImportError, AttributeError):
        _check_scripts_once()
    with suppress(ImportError, AttributeError):
        _write_no_unread_messages()


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
        if Quietness.RULES not in settings.quiet or settings.log_handler_settings:
            write(self, *arguments, **named)

    log_info._asks = True  # type: ignore[attr-defined]
    Job.log_info = log_info
