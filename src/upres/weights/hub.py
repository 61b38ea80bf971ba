"""Files on the Hugging Face Hub, at pinned commits, through the Hub's own cache."""

import os
from pathlib import Path
from typing import Any, Literal

from upres.errors import ResourceError, WeightsError, is_disk_full
from upres.progress import BytesProgress


def download(
    repository: str,
    file: str,
    revision: str,
    *,
    progress: BytesProgress | None,
    again: bool,
    offline_remedy: str,
    remedy: str,
    kind: Literal["model", "dataset"] = "model",
) -> Path:
    """A file in the Hub's cache, not verified.

    Args:
        again: ask for all of it even if the cache holds something.
        offline_remedy, remedy: what the reader can do.

    Raises:
        WeightsError: it cannot be had.
        ResourceError: the disk is full.
    """
    library = hub()
    where = f"{repository}/{file}"
    if library.constants.HF_HUB_OFFLINE:
        found = library.try_to_load_from_cache(repository, file, revision=revision, repo_type=kind)
        if isinstance(found, str) and not again:
            return Path(found)
        state = "is damaged in the cache" if again else "is not in the cache"
        raise WeightsError(
            f"{where} {state} and HF_HUB_OFFLINE forbids to download it",
            f"unset it, or {offline_remedy}",
        )
    try:
        return Path(
            library.hf_hub_download(
                repository,
                file,
                repo_type=kind,
                revision=revision,
                force_download=again,
                tqdm_class=_progress_class(progress),
            )
        )
    # An ImportError: a proxy that needs a package which is not there.
    except (OSError, ValueError, RuntimeError, ImportError, library.errors.HTTPError) as error:
        if is_disk_full(error):
            raise ResourceError(
                f"the disk is full, {where} cannot be stored", "free disk space, or set HF_HOME"
            ) from error
        cause = error.__cause__ or error
        reason = str(cause).strip().partition("\n")[0].rstrip(":.") or type(cause).__name__
        raise WeightsError(f"{where} cannot be downloaded ({reason})", remedy) from error


def hub() -> Any:
    """huggingface_hub, imported when first needed: it takes a seventh of a second.

    Raises:
        WeightsError: it does not start, most often because an address in HF_ENDPOINT is none.
    """
    # Neither is part of a download: a daily request about the program, and a second transfer
    # protocol that mirrors rarely speak and that waits minutes where it is blocked.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils.logging as hub_logging
    except ValueError as error:
        raise WeightsError(
            f"huggingface_hub does not start ({error})", "check HF_ENDPOINT and the proxies"
        ) from error

    set_level: Any = hub_logging.set_verbosity_error
    set_level()
    return huggingface_hub


def _progress_class(progress: BytesProgress | None) -> type[Any]:
    """A bar in the shape that huggingface_hub expects, which only passes numbers on."""
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.arrived = int(kwargs.get("initial") or 0)
            self.expected = int(kwargs.get("total") or 0)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self.arrived += int(n or 0)
            if progress is not None:
                progress(self.arrived, self.expected)

    return Bar
