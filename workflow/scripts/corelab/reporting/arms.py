"""Arms of the participants, in the order in which tables and figures show them."""

from __future__ import annotations

from corelab.reporting.results import Results


def arms_of(results: Results) -> list[str]:
    """Arms in the order of dose where there is one, else of first appearance."""
    people = results.participants
    if "arm" not in people:
        return []
    known = people.dropna(subset=["arm"])
    if "dose" in known and known["dose"].notna().any():
        order = known.groupby("arm", sort=False)["dose"].min().sort_values(kind="stable")
        return [str(arm) for arm in order.index]
    arms = [str(arm) for arm in dict.fromkeys(known["arm"])]
    return sorted(arms) if results.study.blinded else arms


def arm_of(results: Results) -> dict[str, str]:
    """Participant -> arm, for those whose arm is known."""
    people = results.participants
    if "arm" not in people:
        return {}
    known = people.dropna(subset=["arm"])
    return dict(zip(known["participant_id"], known["arm"].map(str), strict=True))
