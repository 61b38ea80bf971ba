"""Which pictures are learnt from, and which are set apart to measure by."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from upres.data.folders import PictureFile, PictureFolder
from upres.errors import InputError
from upres.hashing import sha256_of
from upres.progress import Progress


@dataclass(frozen=True)
class Pictures:
    """Pictures found, hashed and set apart; nothing is decoded yet.

    Attributes:
        train: by the SHA-256 of their files, in its order; each once however often it was found.
        validation: none of them among ``train``.
        unmeasured: how many more were brought for validation than it takes.
        fingerprint: SHA-256 over the training pictures' contents.
        skipped: files that cannot be read, and why.
    """

    train: Mapping[str, PictureFile]
    validation: tuple[PictureFile, ...]
    fingerprint: str
    skipped: tuple[str, ...]
    unmeasured: int = 0


# Pictures of a set's own validation that are measured, as many as DIV2K has: all of them are held
# in memory.
_MOST = 100


def gather(
    folders: Sequence[PictureFolder], held_out: int, progress: Progress = lambda *_: None
) -> Pictures:
    """Hash every picture, drop doubles, set validation pictures apart.

    Where a layout brings validation pictures they are taken, up to 100, and otherwise the
    ``held_out`` pictures with the smallest SHA-256, at most a tenth: the same ones whatever their
    order and names.

    Raises:
        InputError: no picture can be read, or none is left to train on.
    """
    skipped: list[str] = []
    brought: dict[str, PictureFile] = {}
    train: dict[str, PictureFile] = {}
    found = [
        (kind, file)
        for folder in folders
        for kind, files in ((brought, folder.validation), (train, folder.train))
        for file in files
    ]
    for done, (kind, file) in enumerate(found, 1):
        try:
            digest = sha256_of(file.path)
        except OSError as error:
            skipped.append(f"{file.name} ({error.strerror})")
        else:
            kind.setdefault(digest, file)
        progress("reading", done, len(found))
    if not train:
        raise nothing_readable(skipped)
    train = {k: v for k, v in train.items() if k not in brought}
    if not train:
        raise InputError(
            "every picture to train on is a validation picture too", "give others for one of both"
        )
    if brought:
        validation = {digest: brought[digest] for digest in sorted(brought)[:_MOST]}
    else:
        chosen = sorted(train)[: min(held_out, max(1, len(train) // 10))] if held_out else []
        if len(chosen) == len(train):
            raise InputError(
                "a single picture cannot be held out and trained on",
                "give more pictures, or --set data.held_out=0",
            )
        validation = {digest: train.pop(digest) for digest in chosen}
    ordered = sorted(train)
    return Pictures(
        {digest: train[digest] for digest in ordered},
        tuple(validation[digest] for digest in sorted(validation)),
        hashlib.sha256("".join(ordered).encode()).hexdigest(),
        tuple(skipped),
        max(0, len(brought) - _MOST),
    )


def nothing_readable(skipped: Sequence[str]) -> InputError:
    """The error when there is nothing to learn from."""
    shown = ", ".join(skipped[:3])
    return InputError(f"none of the pictures can be read: {shown}", "check the folder")
