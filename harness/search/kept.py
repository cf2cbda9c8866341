"""How much of the base's utility a trial's model keeps: what an attacker asks who wants a model of use afterwards.

The owner's utility has no selection split, so a search that asks this sees the items on which the attacked model is
judged: that favours the attacker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.numbers.scoring import EPS, utilities
from harness.search.study import Dead
from harness.untouched import as_item

if TYPE_CHECKING:
    from harness.plugins import Released
    from harness.spec import Spec
    from harness.utility import UtilityScores
    from harness.workshop import Workshop


class Keeper:
    """Compares models with one base.

    Args:
        workshop: evaluates, and remembers the base's utility.
        spec: says what utility is.
        base: untouched.
    """

    def __init__(self, workshop: Workshop, spec: Spec, base: Released) -> None:
        self._workshop, self._spec = workshop, spec
        self._base = workshop.utility(spec, base)

    def check(self, attacked: Released) -> None:
        """See that a model is of use.

        Raises:
            Dead: it keeps less than 1 - eps of the base's utility, as a record would say.
        """
        kept = share_kept(self._base, self._workshop.evaluated(self._spec, attacked))
        if kept is not None and kept < 1 - EPS:
            raise Dead(f"keeps {kept:.2f} of the base's utility, less than {1 - EPS:g}")


def share_kept(base: UtilityScores, attacked: UtilityScores) -> float | None:
    """Chance-corrected share of the base's utility, the mean over tasks; None where the base has none to lose."""
    items = [as_item(item, "base", None) for item in base.items]
    items += [as_item(item, "attacked", 0) for item in attacked.items]
    found = utilities(items, {name: task.chance for name, task in base.tasks.items()}).attacked
    return found.retention if found else None
