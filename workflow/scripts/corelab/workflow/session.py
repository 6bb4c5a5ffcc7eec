"""A run of Snakemake on a study: checks before its jobs are planned, messages before and after.

One :class:`Session` belongs to the process that a person started. Jobs that parse the Snakefile
again (on a cluster) do not check or quarantine anything.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError
from snakemake.io import ancient
from snakemake.logging import logger

from corelab.plan.failures import failed_products, failure_words
from corelab.provenance.contents import compare
from corelab.provenance.ledger import (
    QUERIES,
    FolderLock,
    clamp_future_mtimes,
    clear_leftovers,
    corrupted_outputs,
    failures,
    quarantine,
    standing,
    wait_for_others,
)
from corelab.provenance.progress import Progress, closing_lines, expected, scan_failures
from corelab.records.measured import Measured
from corelab.reporting.summary import summary_lines
from corelab.workflow.cluster import status_command_warnings
from corelab.workflow.targets import Targets

#: Arguments of a run that computes nothing, so nothing is compared or quarantined before it.
_READ_ONLY = {"verify", "status", "--unlock"}


def is_dry_run(arguments: Sequence[str]) -> bool:
    """Whether Snakemake's arguments request a dry run; ``-np`` is ``-n -p``."""
    return any(
        word in {"--dry-run", "--dryrun"} or re.fullmatch("-[a-zA-Z]*n[a-zA-Z]*", word)
        for word in arguments
    )


def _shown_by_snakemake(record: Any) -> bool:
    """Whether a message of Snakemake says more than the progress bar and the failure lines."""
    event = str(getattr(record, "event", None) or "")
    counted = event.endswith(("job_finished", "progress", "job_error"))
    return not (counted or str(record.msg).startswith(("Select jobs", "Execute ")))


@dataclass
class Session:
    """The run of one Snakemake process.

    Attributes
    ----------
    targets
        Paths of the study.
    workflow
        Snakemake's workflow.
    code_of
        Digest of the code of a rule's script.
    arguments
        Of the command line.
    """

    targets: Targets
    workflow: Any
    code_of: Callable[[str], str]
    arguments: Sequence[str] = ()
    #: Outputs of jobs whose inputs have other content than when they were read -> these inputs.
    changed: dict[str, list[str]] = field(default_factory=dict)
    #: Inputs whose content is as every job read it.
    same: set[str] = field(default_factory=set)
    #: Outputs of jobs that run again if the plan has them.
    _again: set[str] = field(default_factory=set)
    #: The plan that knows them.
    _informed: Any = None
    _rules: set[str] = field(default_factory=set)
    _progress: Progress | None = None

    def __post_init__(self) -> None:
        self.study, self.folder = self.targets.study, self.targets.study.folder
        self.lock = FolderLock(self.folder)

    @property
    def findings(self) -> str:
        """Table of the findings about the input."""
        return self.targets.under("preflight", "findings.tsv")

    @property
    def _plans(self) -> bool:
        """Whether this process plans jobs: the one that a person started, not that of a job."""
        return self.workflow.is_main_process and not _READ_ONLY & set(self.arguments)

    def recover(self) -> None:
        """Before the jobs are planned: quarantine corrupted outputs.

        If Snakemake's metadata of a study is lost, check its products against the ledger.

        Snakemake then takes any existing file for complete. Files that differ from what their job
        wrote are quarantined, so that the job runs again.
        """
        if not self._plans or is_dry_run(self.arguments) or not (self.folder / "jobs").is_dir():
            return
        failed = failed_products(self.folder)
        if failed:
            again = sorted(failed)
            logger.info(f"{len(again)} analyses or figures failed in an earlier run and run again.")
            quarantine(again, self.folder)
        ahead = clamp_future_mtimes(self.folder)
        if ahead:
            logger.info(
                f"The clock was set back: {ahead} files in {self.folder}/ had a modification time "
                "in the future; it is set to now."
            )
        metadata = Path(".snakemake") / "metadata"
        if metadata.is_dir() and any(metadata.iterdir()):
            return
        codes = {
            rule.name: self.code_of(Path(rule.script).stem)
            for rule in self.workflow.rules
            if rule.script
        }
        wrong = corrupted_outputs(self.folder, codes)
        if wrong:
            logger.info(
                f"Snakemake has no metadata of {self.folder}/; {len(wrong)} of its files differ "
                "from what their jobs wrote, or were made by other code, and are made again."
            )
            quarantine(wrong, self.folder)

    def compare_inputs(self) -> None:
        """Compare what jobs read with the present inputs, before the rules are parsed.

        Sizes and times of all inputs are looked up; only a file where these differ is read.
        """
        if not self._plans:
            return
        readers, unfinished = standing(self.folder)
        found = compare(
            readers,
            self.folder,
            workers=self.workflow.resource_settings.cores or 1,
            report=logger.info,
        )
        self.changed.update(found.outputs)
        if found.changed.keys() & {row.path for row in self.study.scans}:
            # The check of the headers has no scan among its inputs, which would be all scans.
            self.changed[self.findings] = []
        self.same, self._again = found.same, {*self.changed, *unfinished}

    def given(self, paths: Iterable[str]) -> list[str]:
        """Input files of the study for a rule, of which at least one input is a function.

        A file whose content is as jobs read it is older than every product. Jobs whose inputs have
        other content, and those that did not end well, run again where the plan has them: unlike
        files of ``--forcerun``, theirs do not become targets.
        """
        plan = self.workflow.dag
        if plan is not None and plan is not self._informed:
            plan.forcefiles.update(self._again)
            self._informed = plan
            # A limit of submissions is for clusters. Here it would make the scheduler look at all
            # ready jobs once a second for every job that has ended so far (schedule, Snakemake
            # 9.27).
            if self.workflow.local_exec and self.workflow.scheduling_settings:
                self.workflow.scheduling_settings.max_jobs_per_timespan = None
        return [ancient(path) if path in self.same else path for path in paths]

    def is_query(self) -> bool:
        """Whether the run only prints something; its own output is then enough."""
        return bool(self._rules) and self._rules <= QUERIES

    def on_start(self) -> None:
        """Lock the study's folder, and print what is about to be computed."""
        other = self.lock.acquire()
        if other:
            raise WorkflowError(
                f"{other} is writing into {self.folder}/ at this moment. Wait until it has ended, "
                "then give the same command again; two runs never write into one folder."
            )
        wait_for_others(self.folder, logger.info)
        clear_leftovers(self.folder)
        for line in status_command_warnings(self.workflow.executor_settings):
            logger.warning(line)
        waiting: Counter[str] = Counter()
        changed: set[str] = set()
        for job in self.workflow.dag.needrun_jobs():
            waiting[job.rule.name] += not job.is_norun
            for output in job.output:
                changed.update(self.changed.get(output, ()))
        self._rules.update(name for name, number in waiting.items() if number)
        if not self.is_query():
            logger.info("\n".join(self._plan_lines(waiting, sorted(changed))))
        self._progress = Progress(waiting.total())
        logger.addHandler(self._progress)
        for handler in self._snakemake_handlers():
            # The bar redraws itself below everything that is written to the new stderr.
            handler.setStream(sys.stderr)
            handler.addFilter(_shown_by_snakemake)

    def _plan_lines(self, waiting: Mapping[str, int], changed: Sequence[str]) -> list[str]:
        study, cohort = self.study, self.targets.cohort
        limits = self.workflow.resource_settings
        jobs = sum(waiting.values())
        done = sum(1 for job in self.workflow.dag.jobs if not job.is_norun) - jobs
        at_once = min(limits.nodes or limits.cores or 1, jobs or 1)
        lines = [
            f"Study {study.id}: {len(study.participants)} participants, {len(study.scans)} scans "
            f"of {len(cohort.subjects)} participants at {len(cohort.visits)} visits, "
            f"{len(self.targets.analyses)} analyses.",
            f"Jobs: {jobs} to do, {done} done; {expected(self.folder, waiting, at_once)}.",
            f"Results: {self.folder}/. One log per job: {self.folder}/logs/.",
        ]
        lines += [
            f"Without {' '.join(key)}: {cause}" for key, cause in sorted(cohort.excluded.items())
        ]
        if changed:
            first = ", ".join(changed[:3]) + ", ..." * (len(changed) > 3)
            lines.append(
                f"Inputs whose content has changed since they were read: {first} ({len(changed)})."
            )
        return lines

    @staticmethod
    def _snakemake_handlers() -> list[Any]:
        return [one for one in logger.handlers if one.name == "DefaultStreamHandler"]

    def _stop_progress(self) -> None:
        """Remove the progress bar before the last message."""
        if self._progress is None:
            return
        self._progress.stop()
        logger.removeHandler(self._progress)
        for handler in self._snakemake_handlers():
            handler.setStream(sys.__stderr__)

    def command(self) -> tuple[list[str], dict[str, str]]:
        """Config files and ``--config`` options of the run, for commands to be given again."""
        settings = self.workflow.config_settings
        given = settings.config.items()
        options = {k: str(v) for k, v in given if not isinstance(v, (dict, list))}
        return [os.path.relpath(path) for path in settings.configfiles], options

    def on_success(self) -> None:
        """Print where the results are and what needs attention."""
        self._stop_progress()
        if self.is_query():
            return
        if not self.study.sound or not (self.folder / "endpoints" / "measurements.tsv").is_file():
            logger.info(f"Done. Findings about the input: {self.findings}")
            return
        found = [
            *failures(self.folder),
            *scan_failures(self.folder, self.targets.stage_records()),
        ]
        closing = closing_lines(self.folder, self.study.participants, found, *self.command())
        summary = summary_lines(self.folder, exhibits=self.targets.exhibits())
        logger.info("\n".join([*summary, *closing]))
        failed = failed_products(self.folder)
        words = [failure_words(failed)] if failed else []
        if unmeasured := [one for one in found if one.step == Measured.stage and not one.hard]:
            who = "\n".join(f"  {one.subject} {one.visit}: {one.cause}" for one in unmeasured)
            words.append(
                "The measurement of these visits ended in an unexpected error; every other visit "
                f"is measured, and the report is made:\n{who}\nPlease report the log."
            )
        if words:
            raise WorkflowError("\n".join(words))

    def on_error(self) -> None:
        """Print what failed and how to continue."""
        self._stop_progress()
        if self.is_query():
            return
        if not self.study.sound:
            logger.error(
                "The input has errors, so nothing was computed. They are listed above and in "
                f"{self.findings}."
            )
            return
        found = failures(self.folder)
        lines = closing_lines(self.folder, self.study.participants, found, *self.command())
        lines.append(
            "Incomplete files never count as results. Fix the cause and give the same command "
            "again: finished jobs are not repeated."
        )
        if any(one.subject for one in found):
            lines.append(
                "To finish the study without them (they are listed as failed, with the cause): "
                "the same command with --config without_failed=true"
            )
        logger.error("\n".join(lines))
