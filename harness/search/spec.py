"""How the attacker searches: a section of the spec, and what it comes to for one attack and one budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from harness.budget import Budget
from harness.errors import UsageError
from harness.search.space import Space
from harness.settings import Settings, unknown

if TYPE_CHECKING:
    from harness.plugins import Attack


class SearchSpec(Settings):
    """The attacker's hyper-parameter search, the same for the locked model and for the base."""

    trials: int = Field(0, ge=0, le=10_000)
    """Trials, the settings as given among them; 0 is no search. Unset, it is `budget.trials`."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How settings are proposed: Optuna's tree-structured Parzen estimator, after learning rates by powers of ten from
    the one given; or at random."""
    pruner: bool = True
    """Stop a trial whose trajectory is below the median of those that were finished."""
    keep_utility: bool = False
    """A trial whose model keeps less than 1 - eps (0.9) of the base's utility has failed: the attacker wants a model of
    use. Absent from the spec and its hash where it is not asked for."""
    space: Space = Field(default_factory=dict)
    """Distribution by setting of the attack; what is not given is the attack's own."""

    @model_serializer(mode="wrap")
    def _without_what_is_idle(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        if not self.keep_utility:
            del values["keep_utility"]
        return values


def planned(search: SearchSpec, budget: Budget, attack: Attack, name: str) -> SearchSpec:
    """The search with everything filled in: trials that the budget allows, the whole space around `attack`'s settings.

    Raises:
        UsageError: `attack` has nothing to search, the space names a setting it does not have or a value it does not
            take, or the budget has not one step for each trial and for the attack after them.
    """
    trials = search.trials if "trials" in search.model_fields_set else budget.trials or 0
    trials = min(trials, budget.trials or trials)
    if not trials:
        return SearchSpec(trials=0)
    budget.part(trials + 1)
    space = {**attack.search_space(), **search.space}
    if not space:
        raise UsageError(f"search.trials={trials}: attack {name!r} declares nothing to search")
    given = attack.settings.model_dump()
    for key in space:
        if key not in given:
            raise UsageError(unknown(key, given, "setting of the attack in search.space"))
        space[key] = space[key].including(given[key])
        for value in space[key].examples():
            type(attack).Settings.parse({**given, key: value}, "search.space: attack")
    return search.model_copy(update={"trials": trials, "space": space})
