"""What `search` and `fuse` say: the configurations in order, what the first one is worth, the weights of a fusion."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfar.cli.terminal import say, say_json, say_table

if TYPE_CHECKING:
    from nearfar.challenge.fuse import Fused
    from nearfar.challenge.landscape import Table
    from nearfar.challenge.records import Records
    from nearfar.challenge.search import Searched
    from nearfar.challenge.select import Selection
    from nearfar.recipe import Recipe

USES_LABELS = "chosen with the labels of these very test clips: expect the nested score on others"
WORTH_HEADS = ("", "percent", "which is")
RULE_HEADS = ("rule", "picks", "score", "rank correlation", "regret")


@dataclass(frozen=True)
class Ranked:
    """Records in order, best first (`rows`); what the best by labels is worth, None if they are not used; the rules."""

    records: Records
    rows: list[int]
    selection: Selection | None
    rules: Any

    @property
    def recipes(self) -> list[Recipe]:
        """The configurations in that order."""
        return [self.records.recipes[row] for row in self.rows]


def rank(records: Records, *, labels: bool, rounds: int, seed: int) -> Ranked:
    """The configurations by their official score, or by the label-free rules."""
    from nearfar.challenge import select

    selection = select.select(records, rounds=rounds, seed=seed) if labels else None
    marks = records.overall if labels else select.marks(records)
    rules = selection.rules if selection else select.label_free(records)
    return Ranked(records, [int(row) for row in (-marks).argsort(kind="stable")], selection, rules)


def say_search(ranked: Ranked, top: int, table: Path, out: Path) -> None:
    """The table, what the best is worth, what the rules pick."""
    records = ranked.records
    say_table(
        ["configuration", "score"],
        [[_label(records.recipes[row]), _percent(records.overall[row])] for row in ranked.rows[:top]],
    )
    say(f"\nConfigurations tried   {len(records):,} on {len(records.machines)} machine(s)")
    for name, number, note in _worth(ranked):
        say(f"{name:<22} {number}  {note}")
    if ranked.rules:
        say("\nWithout labels:")
        say_table(RULE_HEADS, _rule_rows(ranked), words=2)
    say(f"\nAll configurations     {table}\nBest as a recipe       {out / 'best.json'}")


def tables(ranked: Ranked) -> list[Table]:
    """The same as tables of a page: what the best is worth, what the rules pick."""
    found: list[Table] = [("What the best one is worth", WORTH_HEADS, _worth(ranked))] if ranked.selection else []
    return [*found, ("What rules without labels pick", RULE_HEADS, _rule_rows(ranked))] if ranked.rules else found


def search_json(ranked: Ranked, top: int, table: Path, searched: Searched) -> None:
    """The same as one document."""
    from nearfar.challenge.space import as_row

    records = ranked.records
    say_json(
        {
            "tried": len(records),
            "machines": records.machines,
            "best": [
                as_row(records.recipes[row]) | {"overall": _known(records.overall[row])} for row in ranked.rows[:top]
            ],
            "uses_labels": ranked.selection is not None,
            "selection": _plain(ranked.selection.to_dict()) if ranked.selection else None,
            "rules": {n: _plain(vars(r)) | {"picks": as_row(records.recipes[r.row])} for n, r in ranked.rules.items()},
            "table": table,
            "failures": [{"file": file, "error": error} for file, error in searched.failures.items()],
        }
    )


def say_fused(fused: Fused, out: Path | None, *, chosen_by_labels: bool) -> None:
    """The weights of a fusion, its score beside the nested one and the simpler ones."""
    say_table(
        ["system", "weight"], [[_label(r), f"{w:.2f}"] for r, w in zip(fused.recipes, fused.weights, strict=True)]
    )
    say(f"\nWeightings tried   {fused.tried:,}")
    for what, value in (
        ("Best system alone", fused.single), ("Equal weights", fused.equal), ("Fusion", fused.overall),
        ("Nested", fused.nested), ("Optimism", fused.overall - fused.nested),
    ):  # fmt: skip
        say(f"{what:<18} {_percent(value)}")
    if fused.tried > 1:
        say(f"The weights are {USES_LABELS}.")
    if chosen_by_labels:
        say("The systems were chosen with the labels of these test clips: the search's own optimism comes on top.")
    if out:
        say(f"Fusion             {out}")


def _worth(ranked: Ranked) -> list[list[str]]:
    """The honest table: what the best by labels is, and what is to be expected of it; empty without labels."""
    records, selection = ranked.records, ranked.selection
    if selection is None:
        return []
    alone = len(records.machines) < 2
    way = "chosen on the other machines, scored on each"
    equal = int((records.overall == selection.best).sum())
    shared = f"; {equal:,} configurations share it" if equal > 1 else ""
    return [
        ["Best", _percent(selection.best), f"[{_range(selection.interval)}], {USES_LABELS}{shared}"],
        ["Nested", _percent(selection.nested), f"not possible with one machine: it is {way}" if alone else way],
        ["Optimism", _percent(selection.optimism), "unknown, as nested is" if alone else "best - nested"],
        ["Chosen and scored", _range(selection.procedure), "on different draws of the clips"],
    ]


def _rule_rows(ranked: Ranked) -> list[list[str]]:
    rows = [
        [name, _label(ranked.records.recipes[r.row]), _percent(r.overall), f"{r.spearman:+.2f}", _percent(r.regret)]
        for name, r in ranked.rules.items()
    ]
    return [[cell.replace("+nan", "-") for cell in row] for row in rows]


def _label(recipe: Recipe) -> str:
    from nearfar.challenge.space import Setting

    backend = f"{recipe.method} k={recipe.k}" if recipe.method == "raw" else recipe.method
    backend += f" K={recipe.density_k}" if recipe.density_k else ""
    backend += f" exponent={recipe.exponent:g}" if recipe.exponent != 1 else ""
    backend += " whitened" if recipe.whiten else " one Gaussian" if recipe.ignore_domains else ""
    return f"{recipe.encoder}  {recipe.view}  {Setting.of(recipe).name}  {recipe.metric} {backend}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _range(interval: tuple[float, float]) -> str:
    return f"{_percent(interval[0])} to {_percent(interval[1])}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _plain(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(value) for value in data]
    if hasattr(data, "__dataclass_fields__"):
        return _plain(vars(data))
    return _known(data) if isinstance(data, float) else data
