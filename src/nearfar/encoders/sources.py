"""Where each encoder's weights are published: file, address, size, hash and authors.

Addresses, sizes and hashes are the publishers'. Where no hash is published here, `weights.pull` asks the Hub for it, or
trusts the first download and remembers its hash. A file on OneDrive or Google Drive is for browsers alone: a person
downloads it and brings it with `nearfar weights NAME --from FILE`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

HUB = "https://huggingface.co"
BEATS_PAGE = "https://github.com/microsoft/unilm/tree/master/beats"
BEATS_COPY = "Bencr/beats-checkpoints"
EAT = "EAT, Chen et al. 2024, github.com/cwx-worst-one/EAT"
SSLAM = "SSLAM, Alex et al. 2025, github.com/ta012/SSLAM"
CED = "CED, Dinkel et al. 2024, github.com/RicherMans/CED"
FISHER = "FISHER, Fan et al. 2025, github.com/jianganbai/FISHER"
ECHO = "ECHO, Zhang et al. 2025, github.com/yucongzh/ECHO"
M2D_2025 = "m2d_clap_vit_base-80x1001p16x16p16kpBpTI-2025"


@dataclass(frozen=True)
class Source:
    """A published file.

    rough_size   size in bytes, roughly; `size` is the exact one, where it is published
    page         where a person reads about the file
    url          "" where a publisher gives the file to browsers alone
    credit       the authors; most licences ask to name them
    member       the file to take, where `file` is a zip
    repository   on the Hugging Face Hub, where the file is published there
    """

    file: str
    rough_size: int | None
    page: str
    url: str = ""
    credit: str = ""
    size: int | None = None
    sha256: str | None = None
    member: str = ""
    repository: str = ""

    @property
    def megabytes(self) -> str:
        """The size as text in MB."""
        if self.size:
            return f"{self.size / 1e6:,.0f} MB"
        return f"~{self.rough_size / 1e6:,.0f} MB" if self.rough_size else "unknown"

    @property
    def where(self) -> str:
        """The host of `url`, or "by hand"."""
        return urlsplit(self.url).hostname or "by hand"


def _hub(repository: str, rough_size: int, credit: str) -> Source:
    page, file = f"{HUB}/{repository}", "model.safetensors"
    return Source(file, rough_size, page, f"{page}/resolve/main/{file}", credit, repository=repository)


def _dasheng(file: str, rough_size: int) -> Source:
    page = "https://zenodo.org/records/11511780"
    credit = "Dasheng, Dinkel et al. 2024, github.com/XiaoMi/dasheng"
    return Source(file, rough_size, page, f"{page}/files/{file}", credit)


def _beats(file: str) -> Source:
    return Source(file, 361_500_000, BEATS_PAGE, credit="BEATs, Chen et al. 2023, github.com/microsoft/unilm")


def _openbeats(size: str, rough_size: int) -> Source:
    credit = "OpenBEATs, Bharadwaj et al. 2025, github.com/espnet/espnet"
    return Source("epoch_latest.pt", rough_size, f"{HUB}/shikhar7ssu/OpenBEATs-{size}-i3", credit=credit)


def _openl3(bands: str, content: str, dim: int) -> Source:
    file = f"torchopenl3_{bands}_{content}_{dim}.pth.tar"
    page = "https://github.com/torchopenl3/torchopenl3-models"
    rough_size = {"mel128": 36_100_000, "mel256": 36_600_000, "linear": 19_800_000}[bands]
    credit = "OpenL3, Cramer et al. 2019 (CC-BY-4.0: name them); torch port by torchopenl3, Apache-2.0"
    return Source(file, rough_size, page, f"{page}/raw/master/{file}", credit)


SOURCES = {
    "eat-large": _hub("worstchan/EAT-large_epoch20_pretrain", 1_235_500_000, EAT),
    "eat-as2m": _hub("worstchan/EAT-base_epoch30_finetune_AS2M", 361_500_000, EAT),
    # Published on OneDrive. The Hub has another person's copy: it is accepted by the hash of the published file.
    "beats": replace(
        _beats("BEATs_iter3_plus_AS2M.pt"),
        url=f"{HUB}/{BEATS_COPY}/resolve/main/BEATs_iter3_plus_AS2M.pt",
        size=361_499_833,
        sha256="d43cbfad4d7b56381c061d7a24774f908d4d94c72961f6eb1d9090ff18cd8d34",
        repository=BEATS_COPY,
    ),
    "ced-base": _hub("mispeech/ced-base", 342_900_000, CED),
    "m2d-clap": Source(
        f"{M2D_2025}.zip",
        None,
        "https://github.com/nttcslab/m2d",
        f"https://github.com/nttcslab/m2d/releases/download/v0.5.0/{M2D_2025}.zip",
        "M2D-CLAP, Niizumi et al. 2025, github.com/nttcslab/m2d",
        member=f"{M2D_2025}/checkpoint-30.pth",
    ),
    "sslam": _hub("ta012/SSLAM_pretrain", 359_900_000, SSLAM),
    "openl3": _openl3("mel128", "env", 512),
    "dasheng": _dasheng("dasheng_base.pt", 341_900_000),
    "eat-base": _hub("worstchan/EAT-base_epoch30_pretrain", 359_900_000, EAT),
    "eat-large-as2m": _hub("worstchan/EAT-large_epoch20_finetune_AS2M", 1_237_600_000, EAT),
    "sslam-as2m": _hub("ta012/SSLAM_AS2M_Finetuned", 361_500_000, SSLAM),
    "beats-iter3": _beats("BEATs_iter3.pt"),
    "beats-as2m-cpt1": _beats("BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt1.pt"),
    "beats-as2m-cpt2": _beats("BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt"),
    "ced-tiny": _hub("mispeech/ced-tiny", 22_000_000, CED),
    "ced-mini": _hub("mispeech/ced-mini", 38_800_000, CED),
    "ced-small": _hub("mispeech/ced-small", 86_500_000, CED),
    "dasheng-0.6b": _dasheng("dasheng_06b.pt", 2_520_000_000),
    "dasheng-1.2b": _dasheng("dasheng_12b.pt", 4_520_000_000),
    **{
        f"{name}{suffix}": source
        for name, source in {
            "fisher-tiny": _hub("jiangab/FISHER-tiny-0723", 26_500_000, FISHER),
            "fisher-mini": _hub("jiangab/FISHER-mini-0723", 44_700_000, FISHER),
            "fisher-small": _hub("jiangab/FISHER-small-0723", 95_400_000, FISHER),
            "echo-small": _hub("yucongzh/echo-small-0824", 86_200_000, ECHO),
        }.items()
        for suffix in ("", "-44k", "-48k")
    },
    "openbeats-base": _openbeats("Base", 361_300_000),
    "openbeats-large": _openbeats("Large", 1_246_000_000),
    **{
        f"openl3-{bands}-{content}-{dim}": _openl3(bands, content, dim)
        for bands in ("mel128", "mel256", "linear")
        for content in ("env", "music")
        for dim in (512, 6144)
    },
}
