"""Uploading weights to the Hugging Face Hub, with a model card made from their facts."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from upres.errors import WeightsError
from upres.weights.facts import ModelFacts
from upres.weights.header import read_facts, read_training
from upres.weights.hub import hub
from upres.weights.store import checked_sha256

_CARD = """---
license: {licence_id}
library_name: upres
pipeline_tag: image-to-image
tags:
- super-resolution
- {architecture}
---

# {name}

{architecture} for super-resolution at {scales}. Licence: {licence}.

```
{commands}
```
"""

_FILE = """
## {file}

- {architecture} ({numbers}), {colour}
- Trained by: {trained_by}
- Trained on: {trained_on}
- SHA-256: `{sha256}`
{story}
{measured}"""


# What the Hub takes for a licence; anything else it wants to be called "other", with a name beside.
_LICENCES = {
    *("afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause"),
    *("bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "cc", "cc-by-2.0", "cc-by-2.5"),
    *("cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0"),
    *("cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0"),
    *("cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0"),
    *("cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "ecl-2.0"),
    *("epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2", "gfdl", "gpl"),
    *("gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lppl-1.3c", "mit"),
    *("mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1", "openrail", "osl-3.0"),
    *("pddl", "postgresql", "unlicense", "wtfpl", "zlib"),
}


class Api(Protocol):
    """The part of ``huggingface_hub.HfApi`` that is used."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any:
        """Make a model repository, unless it is there."""
        ...

    def repo_info(self, repo_id: str) -> Any:
        """What the Hub tells of it: whether it is ``private``, among others."""
        ...

    def create_commit(self, repo_id: str, operations: Any, *, commit_message: str) -> Any:
        """Upload files in one commit."""
        ...


def model_card(paths: Sequence[Path]) -> str:
    """README.md for the Hub, from what the files of one model say about themselves.

    Raises:
        WeightsError: not weights files of ours, or not of one model.
    """
    known = _one_model(paths)
    first = known[0][1]
    scales = sorted((scale, facts) for _, facts in known for scale in facts.scales)
    card = _CARD.format(
        licence=first.licence,
        licence_id=_licence_id(first.licence),
        architecture=first.architecture,
        name=first.name,
        scales=", ".join(f"x{scale}" for scale, _ in scales),
        commands="\n".join(
            f"upres photo.jpg --scale {scale} --model {_published_as(facts)}"
            for scale, facts in scales
        ),
    )
    return card + "".join(_about(path, facts) for path, facts in known)


def _one_model(paths: Sequence[Path]) -> list[tuple[Path, ModelFacts]]:
    """Each file with its facts, by scale."""
    known = [(path, read_facts(path)) for path in paths]
    (first, facts), *others = known
    for path, other in others:
        for what in ("name", "architecture", "licence"):
            one, two = getattr(facts, what), getattr(other, what)
            if one != two:
                raise WeightsError(
                    f"{first.name} and {path.name} are not of one model: {what} {one}, and {two}",
                    "publish each model in a repository of its own",
                )
    served = [scale for _, facts in known for scale in facts.scales]
    if twice := next((scale for scale in served if served.count(scale) > 1), None):
        raise WeightsError(f"two of the files serve x{twice}", "give one file for each scale")
    return sorted(known, key=lambda one: one[1].scales)


def _about(path: Path, facts: ModelFacts) -> str:
    training = read_training(path)
    return _FILE.format(
        file=_published_as(facts),
        architecture=facts.architecture,
        numbers=", ".join(f"{key} {value}" for key, value in facts.numbers) or "usual numbers",
        colour="RGB" if facts.colour == "rgb" else "luma only",
        trained_by=facts.trained_by,
        trained_on=facts.trained_on,
        sha256=checked_sha256(path),
        story=_story(training) if training else "",
        measured=_measured(facts),
    )


def _licence_id(licence: str) -> str:
    if licence.lower() in _LICENCES:
        return licence.lower()
    return f"other\nlicense_name: {json.dumps(licence, ensure_ascii=False)}"


def _published_as(facts: ModelFacts) -> str:
    """One repository holds a model's files for all scales, and training calls each the same."""
    # "upres train --name" takes any line of text, which a command or a folder would take apart.
    name = re.sub(r"[^\w.-]+", "-", facts.file_name).lstrip(".-")
    return f"{name}.safetensors"


def _story(training: dict[str, Any]) -> str:
    data = training["data"]
    lines = [
        f"- Recipe: {training['recipe']['name']}, seed {training['seed']}",
        f"- Steps: {training['steps']:,} in {training['hours']} hours on {training['device']}"
        + ("" if training.get("finished", True) else ", not finished"),
        f"- With: upres {training['version']}",
        f"- Started from: {training['start']}",
        *([f"- Taught by: {training['teacher'].get('name')}"] if "teacher" in training else []),
        f"- Data: {data['pictures']} pictures, {data['megapixels']} megapixels",
        f"- SHA-256 of the pictures' SHA-256: `{data['sha256']}`",
    ]
    lines += [
        f"- Held-out pictures x{q['scale']}: {q['psnr']:.2f} dB / {q['ssim']:.4f}, bicubic "
        f"{q['bicubic_psnr']:.2f} / {q['bicubic_ssim']:.4f} (Y channel, {q['scale']} pixels shaved)"
        for q in training["validation"]
    ]
    return "\n".join(lines) + "\n"


def _measured(facts: ModelFacts) -> str:
    if not facts.measured:
        return ""
    rows = [f"| {m.set} | x{m.scale} | {m.psnr:.2f} | {m.ssim:.4f} |" for m in facts.measured]
    head = ["| set | scale | PSNR, dB (Y, scale shaved) | SSIM |", "|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def publish(paths: Sequence[Path], repository: str, *, private: bool, api: Api, add: Any) -> str:
    """Upload the files of one model and their card in one commit.

    Args:
        paths: at most one for each scale.
        repository: "owner/name"; made if it is not there.
        api: ``huggingface_hub.HfApi()``.
        add: ``huggingface_hub.CommitOperationAdd``.

    Returns:
        The address of the commit.

    Raises:
        WeightsError: not weights files of ours, not of one model, or the Hub refuses; a public
            repository is there already, and a private one was asked for.
    """
    card, known = model_card(paths), _one_model(paths)
    files = [add(_published_as(facts), str(path)) for path, facts in known]
    with _refusals(f"{repository} cannot be published", "check the name"):
        api.create_repo(repository, private=private, exist_ok=True)
        # The Hub leaves one that is there as it is.
        shown = private and not api.repo_info(repository).private
    if shown:
        raise WeightsError(
            f"{repository} is there already and is public: nothing was uploaded",
            "leave out --private, make it private on the Hub, or choose another name",
        )
    with _refusals(f"nothing was uploaded to {repository}", "try again"):
        commit = api.create_commit(
            repository,
            [*files, add("README.md", card.encode())],
            commit_message=f"upres: {known[0][1].name}",
        )
    return str(commit.commit_url)


@contextmanager
def _refusals(problem: str, last: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, hub().errors.HTTPError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(
            f"{problem} ({why})",
            f"see that the Hub can be reached, log in with 'hf auth login', and {last}",
        ) from error
