"""Published numbers on DCASE 2026 Task 2, as printed, in percent, with their sources.

    TABLE_3   best single system per encoder                     the report, section 4.1
    TABLE_4   averages of the baselines, of EAT-large and of the fusion
    TABLE_5   per machine: baselines and fusion                  the report, section 4.1
    SYSTEMS   official scores of other systems on the development and the evaluation set

`REMARKS` lists where the report's tables contradict themselves. No number is corrected; `official` computes the score
from Table 5 by the official formula.
"""

from __future__ import annotations

from dataclasses import dataclass

from nearfar.metrics import MachineResult, overall

REPORT = "technical report, section 4.1"
ORGANISERS = "organisers' baseline results, DCASE 2026 Task 2"
MAHALA, MSE, OURS = "MAHALA", "MSE", "Ours"
TITLES = {MSE: "AE-MSE (official)", MAHALA: "AE-MAHALA (official)", OURS: "best fusion"}


@dataclass(frozen=True)
class Single:
    """A row of Table 3."""

    title: str
    view: str
    pooling: str
    backend: str
    score: float


@dataclass(frozen=True)
class Average:
    """A row of Table 4: the first three are arithmetic means over machines, the score is harmonic."""

    auc_source: float
    auc_target: float
    pauc: float
    score: float


@dataclass(frozen=True)
class PublishedSystem:
    """A published system: official scores (None: not published), whether it trains a network, and the source."""

    name: str
    dev: float | None
    eval: float | None
    trained: bool
    source: str


TABLE_3 = {
    "eat-large": Single("EAT-large", "near_only", "RDP+GeM(α=1, p=3)", "Cos k=1 raw", 60.93),
    "dasheng": Single("Dasheng", "sfsoft_a05f07", "RDP(α=20)", "Euc k=3 LDN", 60.06),
    "openl3": Single("OpenL3", "sfsoft_a03f05", "GeM(p=9)", "Cos k=3 LDN", 59.48),
    "eat-as2m": Single("EAT-AS2M", "near_only", "RDP+GeM(α=1, p=3)", "Euc k=1 raw", 59.33),
    "sslam": Single("SSLAM", "absdif_0.5", "RDP+GeM(α=9, p=3)", "Cos k=5 LDN", 59.06),
    "ced-base": Single("CED-base", "sfsoft_a05f07", "RDP+GeM(α=9, p=3)", "Cos k=20 LDN", 58.46),
    "m2d-clap": Single("M2D-CLAP", "sfsoft_a05f07", "RDP+GeM(α=9, p=3)", "Cos k=20 LDN", 58.28),
    "beats": Single("BEATs", "n_0.5f", "RDP(α=19)", "Cos k=3 LDN", 57.65),
}

TABLE_4 = {
    MSE: Average(67.46, 52.74, 54.50, 56.41),
    MAHALA: Average(67.16, 55.08, 54.14, 57.33),
    "eat-large": Average(68.95, 64.19, 54.72, 60.93),
    OURS: Average(71.53, 65.74, 59.16, 63.41),
}

TABLE_5: dict[str, dict[str, tuple[float, float, float]]] = {  # AUC source, AUC target, pAUC
    "ToyCarEmu": {MAHALA: (69.49, 66.62, 53.47), MSE: (69.62, 61.20, 55.89), OURS: (66.70, 69.82, 50.11)},
    "ToyCar": {MAHALA: (77.28, 53.17, 58.25), MSE: (75.62, 37.87, 54.03), OURS: (80.98, 79.72, 62.11)},
    "bearingEmu": {MAHALA: (65.92, 62.28, 60.42), MSE: (62.34, 59.56, 59.85), OURS: (63.18, 63.88, 61.26)},
    "fan": {MAHALA: (60.00, 45.09, 52.29), MSE: (61.45, 46.94, 53.33), OURS: (59.70, 49.88, 51.37)},
    "gearboxEmu": {MAHALA: (74.48, 52.74, 53.97), MSE: (68.23, 49.78, 52.94), OURS: (72.12, 48.30, 52.89)},
    "sliderEmu": {MAHALA: (66.36, 49.18, 50.36), MSE: (67.25, 45.05, 50.38), OURS: (73.54, 61.32, 56.84)},
    "valveEmu": {MAHALA: (56.60, 56.50, 50.20), MSE: (67.74, 68.78, 55.08), OURS: (84.48, 87.26, 79.53)},
}

_NA_SSL = "Fujimura et al., noise-aware self-supervised learning (MERL), paper and README"
_KASAHART = "kasahart/asd-experiments (GitHub, commits 0c24fec4, 17ab3171, 49a92ea8)"
_SCOPE = "SCOPE, report on DCASE 2026 Task 2"
SYSTEMS = (
    PublishedSystem("AE-MSE", 56.66, 59.80, True, ORGANISERS),
    PublishedSystem("AE-MAHALA", 57.66, 54.76, True, ORGANISERS),
    PublishedSystem("EAT-large, best single of the report", 60.93, None, False, REPORT),
    PublishedSystem("five-encoder fusion of the report", 63.41, None, False, REPORT),
    PublishedSystem("BEATs, mean over all patches", 57.16, None, False, _NA_SSL),
    PublishedSystem("BEATs, per frequency", 57.94, None, False, _NA_SSL),
    PublishedSystem("BEATs, per frequency, BEAM and VarMin", 60.28, None, False, _NA_SSL + "; reproduced by kasahart"),
    PublishedSystem("the same with RDP 4", 61.32, None, False, _NA_SSL + "; reproduced by kasahart"),
    PublishedSystem("the same with RDP 8", 62.02, None, False, _NA_SSL + "; reproduced by kasahart"),
    PublishedSystem("BEATs, near alone, RDP 4", 61.33, 62.84, False, _KASAHART),
    PublishedSystem("BEATs, far alone (control)", None, 58.36, False, _KASAHART),
    PublishedSystem("BEATs, magnitude spectral subtraction", None, 62.33, False, _KASAHART),
    PublishedSystem("BEATs, W1: full complex subtraction of far", 67.48, 66.84, False, _KASAHART),
    PublishedSystem("BEATs, LoRA, near alone", 63.05, 67.92, True, _KASAHART),
    PublishedSystem("BEATs, LoRA, W1", 69.53, 70.66, True, _KASAHART),
    PublishedSystem("NA-BEATs", 63.18, None, True, _NA_SSL),
    PublishedSystem("best of MERL on the development set", 66.20, None, True, _NA_SSL),
    PublishedSystem(
        "Fujimura_MERL_task2_3, first of the challenge", None, 70.24, True, _NA_SSL + ", quoting the official results"
    ),
    PublishedSystem("second of the challenge", None, 65.46, True, _NA_SSL + ", quoting the official results"),
    PublishedSystem("AST, max of nearest neighbours", 58.56, None, False, _SCOPE),
    PublishedSystem("AST, scaled per domain", 57.91, 56.75, False, _SCOPE),
)

REMARKS = (
    "Table 4, Score of the baselines: 56.41 and 57.33 follow from no reading of the table. The harmonic mean of the 21 "
    "numbers of Table 5 is 56.66 for MSE and 57.66 for MAHALA, which is what the organisers published.",
    "Table 4, AUC and pAUC columns: arithmetic means over machines; the Score column is the harmonic mean of all 21.",
    '"All eight single systems exceed the strongest baseline": against the true 57.66, BEATs with 57.65 does not.',
    '"Cos k=1 raw" and "Euc k=1 raw" rank alike, since embeddings are L2-normalised.',
)


def machine_results(system: str) -> dict[str, MachineResult]:
    """{machine: result} of MAHALA, MSE or Ours in Table 5, in [0, 1]."""
    return {machine: MachineResult(*(v / 100 for v in rows[system])) for machine, rows in TABLE_5.items()}


def official(system: str) -> float:
    """The official score, in percent, that Table 5 gives MAHALA, MSE or Ours."""
    return 100 * overall(machine_results(system))
