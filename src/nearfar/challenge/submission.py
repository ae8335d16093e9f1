"""A submission as the challenge wants it (since 2022), and a check of any folder that wants to be one.

    anomaly_score_<machine>_section_00_test.csv      NAME.wav,SCORE     no header; higher is more anomalous
    decision_result_<machine>_section_00_test.csv    NAME.wav,0 or 1    no header; 1 = anomaly: score > set-point
    LABEL.meta.yaml, LABEL.zip                       what the organisers ask about the system; all of it packed

Rows are sorted by file name, lines end with one LF, and scores are written with all the digits that a double needs.
The official evaluator pairs its rows with yours by position, so one missing, extra or misplaced row shifts all that
follow: `check` joins by name and says what is wrong, file by file.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nearfar.atomic import write
from nearfar.challenge.validate import Finding, check, name_of
from nearfar.encoders import TABLE
from nearfar.recipe import Fusion, Recipe, System, Watch, leaves

if TYPE_CHECKING:
    from nearfar.challenge.evaluate import Evaluation, MachineEvaluation

LABEL = "Lastname_Institute_task2_1"
METRICS = ("auc_source", "auc_target", "pauc")


def submit(
    folder: str | os.PathLike[str],
    evaluation: Evaluation,
    data: str | os.PathLike[str],
    label: str = LABEL,
    only: Sequence[str] = (),
) -> list[Finding]:
    """Write the submission of an evaluation to `folder` and return what the check of it against DATA finds.

    `only` names the machines that were asked for, if not all.

    Raises ValueError for an evaluation by older rules or with failed clips (a submission has a row for every clip) and
    for a label that is none, FileExistsError if the folder holds CSV files of something else.
    """
    if evaluation.rules in ("2020", "2021"):
        raise ValueError(
            f"submissions are written in the form of 2022 and later; this data set is of {evaluation.rules}"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", label):
        raise ValueError(f"label {label!r} is not of the form {LABEL}: letters, digits, - and _ only")
    _complete(evaluation)
    folder = Path(folder)
    files = {name: text for m in evaluation.machines for name, text in tables(m).items()}
    others = sorted({p.name for p in folder.glob("*.csv")} - set(files)) if folder.is_dir() else []
    if others:
        raise FileExistsError(f"{folder} holds other CSV files ({others[0]}, ...): choose an empty folder")
    by_hand = folder / f"{label}.meta.yaml"  # what was filled in there stays
    files[by_hand.name] = by_hand.read_text("utf-8") if by_hand.is_file() else metadata(evaluation, label)
    for name, text in files.items():
        write(folder / name, text)
    write(folder / f"{label}.zip", packed(files, label))
    return check(folder, data, only=list(only))


def tables(m: MachineEvaluation) -> dict[str, str]:
    """{file name: text} of the two CSVs of a machine; the decision is score > set-point."""
    rows = sorted((r.path.name, s.value, s.value > s.threshold) for r, s in zip(m.recordings, m.scores, strict=True))
    return {
        name_of("anomaly_score", m.machine, m.section): "".join(f"{name},{value!r}\n" for name, value, _ in rows),
        name_of("decision_result", m.machine, m.section): "".join(f"{name},{int(alarm)}\n" for name, _, alarm in rows),
    }


def packed(files: Mapping[str, str], label: str) -> bytes:
    """The zip archive of a submission, task2/LABEL/...; the same files give the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(f"task2/{label}/{name}")  # with the zip format's own first date
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, files[name])
    return out.getvalue()


def metadata(evaluation: Evaluation, label: str) -> str:
    """The metadata file, in YAML: what is known of the system filled in, the rest `!!null` to be filled by hand."""
    system = next(m.detector.system for m in evaluation.machines if m.detector.system is not None)
    recipes = list(leaves(system))
    encoders = list(dict.fromkeys(r.encoder for r in recipes))
    parameters = [TABLE[name].parameters for name in encoders]
    total = None if None in parameters else sum(p for p in parameters if p is not None)
    point = next(m.detector.threshold for m in evaluation.machines if m.detector.system is not None)
    about = {
        "input_sampling_rate": f"{max(TABLE[name].sample_rate for name in encoders) / 1000:g}kHz",
        "data_augmentation": None,
        "front_end": ", ".join(dict.fromkeys(r.view for r in recipes)),
        "acoustic_features": "log-mel energies" if encoders == ["logmel"] else "embeddings of frozen networks",
        "embeddings": ", ".join(encoders),
        "machine_learning_method": ", ".join(dict.fromkeys(r.method for r in recipes)),
        "aggregation_method": _aggregation(system),
        "domain_adaptation_method": None,
        "domain_generalization_method": None,
        "ensemble_method_subsystem_count": len(recipes) if len(recipes) > 1 else None,
        "decision_making": f"{point.method}, {100 * point.rate:g} % of normal clips",
        "attribute_usage": None,
        "external_data_usage": "pre-trained model" if any(TABLE[name].has_weights for name in encoders) else None,
        "development_data_usage": "development",
    }
    lines = ["# Submission information", "submission:", f"  label: {_yaml(label)}", *_SUBMITTER]
    lines += ["# System information", "system:", "  description:", *(f"    {k}: {_yaml(v)}" for k, v in about.items())]
    lines += ["  complexity:", f"    total_parameters: {_yaml(total)}", "    MACS: !!null", "  source_code: !!null"]
    lines += ["# System results, in percent", "results:", *_results(evaluation.machines)]
    return "\n".join(lines) + "\n"


_SUBMITTER = (
    "  name: !!null  # fill in",
    "  abbreviation: !!null  # fill in, at most 10 characters",
    "  authors:",
    "    - firstname: !!null  # fill in",
    "      lastname: !!null  # fill in",
    "      email: !!null  # fill in",
    "      corresponding: true",
    "      affiliation:",
    "        institution: !!null  # fill in",
    "        department: !!null",
    "        location: !!null",
)


def _results(machines: Sequence[MachineEvaluation]) -> list[str]:
    judged = [m for m in machines if m.result is not None]
    if not judged:
        return ["  development_dataset: !!null  # fill in: nearfar evaluate DEVELOPMENT_DATA"]
    lines = ["  development_dataset:"]
    for m in judged:
        lines.append(f"    {_yaml(m.name)}:")
        for key in METRICS:
            value = float(getattr(m.result, key))
            lines.append(f"      {key}: {_yaml(None if value != value else round(100 * value, 2))}")
    return lines


def _aggregation(system: System) -> str | None:
    if isinstance(system, Watch):
        return "rarest part"
    expanded = system.expand() if isinstance(system, Recipe) else system
    return "weighted average of aligned scores" if isinstance(expanded, Fusion) else None


def _complete(evaluation: Evaluation) -> None:
    wrong = [f"{m.name}: {m.error}" for m in evaluation.machines if m.error]
    wrong += [f"{m.name}: {name}" for m in evaluation.machines for name in m.unscored]
    if wrong:
        raise ValueError(
            f"a submission has a row for every test clip, and {len(wrong)} could not be scored; the first: {wrong[0]}"
        )


def _yaml(value: object) -> str:
    """A value as YAML: what JSON writes is YAML too."""
    return "!!null" if value is None else json.dumps(value, ensure_ascii=False)
