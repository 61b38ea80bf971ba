"""``upres models``: what there is, where it is, whether it is whole, what is added. Knows no
torch."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from upres.cli import options
from upres.cli.groups import UpresCommand, UpresGroup
from upres.cli.output import Output
from upres.errors import UsageError, VerificationError, WeightsError
from upres.progress import downloading
from upres.weights.header import read_facts, read_training
from upres.weights.known import known_models
from upres.weights.manifest import KERNELS, PHOTO_BELOW, WeightsEntry
from upres.weights.store import fetch, local_path, remedy, verify

_HELP = "List, inspect, download, verify, add and publish weights; alone, it lists them."


class _ModelsGroup(UpresGroup):
    default_command = "list"


app = typer.Typer(cls=_ModelsGroup, help=_HELP, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A model, or one file of it (NAME-x4).")]
NameOrFile = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE", help="A model, one file of it (NAME-x4), or a .safetensors file."
    ),
]


@app.command("list", cls=UpresCommand)
def list_(json: options.Json = False) -> None:
    """List all models, their measured quality, and where they are."""
    output = Output(json=json)
    manifest = known_models()
    for _, why in manifest.unusable:
        output.note(f"note: {why}")
    if json:
        for entry in manifest.entries:
            output.value("", **_facts(entry))
        return
    rows = [
        [
            entry.facts.name,
            ",".join(f"x{s}" for s in entry.facts.scales),
            entry.facts.architecture,
            _figure(entry, "set5"),
            _figure(entry, "set14"),
            entry.facts.licence,
            _where(entry),
        ]
        for entry in manifest.entries
    ]
    rows += [[name, "any", "interpolation", "", "", "", "built in"] for name in KERNELS]
    output.table(["model", "scale", "architecture", "Set5", "Set14", "licence", "where"], rows)
    output.note(
        f"Without --model: the first of {', '.join(manifest.default)} that has the scale; "
        f"{', '.join(manifest.photo)} for JPEGs of a quality below {PHOTO_BELOW}. "
        "PSNR in dB, Y channel, scale shaved."
    )


@app.command(cls=UpresCommand)
def show(name: NameOrFile, json: options.Json = False) -> None:
    """Everything known about a model, or about a .safetensors file."""
    output = Output(json=json)
    if name.endswith(".safetensors"):
        facts = {"path": name, **read_facts(Path(name)).to_mapping()}
        training = read_training(Path(name))
        _print(output, facts | ({"training": training} if training else {}))
        return
    for entry in known_models().family(name):
        facts, path = _facts(entry), local_path(entry)
        if path is not None and path.suffix == ".safetensors" and (story := read_training(path)):
            facts["training"] = story
        _print(output, facts)


@app.command(cls=UpresCommand)
def pull(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A model.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All models.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Download weights and verify them, for offline use."""
    if (name is None) == (not everything):
        raise UsageError("pull takes a model's name or --all", "'upres models' lists them")
    output = Output(json=json, quiet=quiet)
    manifest = known_models()
    entries = manifest.entries if name is None else manifest.family(name)
    with output.progress() as progress:
        for entry in entries:
            path = fetch(entry, partial(downloading(progress.transfer), entry.name))
            output.value(str(path), model=entry.name, path=str(path))


@app.command(name="verify", cls=UpresCommand)
def verify_(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A model.")] = None,
    json: options.Json = False,
) -> None:
    """Compare the files on this machine with their SHA-256."""
    output = Output(json=json)
    manifest = known_models()
    wrong: list[str] = []
    for entry in manifest.entries if name is None else manifest.family(name):
        path = local_path(entry)
        if path is None:
            state = "missing" if entry.hub is None else "not downloaded"
        else:
            try:
                verify(entry, path)
                state = "ok"
            except WeightsError as error:
                output.error(error)
                state = "damaged"
        if state in ("missing", "damaged"):
            wrong.append(entry.name)
        output.value(f"{entry.name}: {state}", model=entry.name, state=state)
    if name is None:
        for stem, why in manifest.unusable:
            output.error(why)
            output.value(f"{stem}: unusable", model=stem, state="unusable")
            wrong.append(stem)
    if wrong:
        raise VerificationError(
            f"not as published or added: {', '.join(wrong)}", "see above for each"
        )


@app.command(cls=UpresCommand)
def path(name: Name) -> None:
    """Print where the files of a model are; fails if they are missing."""
    output = Output()
    for entry in known_models().family(name):
        found = local_path(entry)
        if found is None:
            raise WeightsError(f"{entry.name} is not on this machine", remedy(entry))
        output.value(str(found))


@app.command(cls=UpresCommand)
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors file of upres.")],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name to add it by.  [default: as the file says]"),
    ] = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Copy weights where --model finds them by name."""
    from upres.weights import added

    if name == "":  # as of an empty variable in a script
        raise UsageError("--name is empty", "name the model, or leave it out")
    entry = added.add(file, name or "", overwrite=overwrite)
    Output(json=json).value(entry.name, **_facts(entry))


@app.command(cls=UpresCommand)
def remove(name: Name, json: options.Json = False) -> None:
    """Forget a model that was added."""
    from upres.weights import added

    for stem in added.remove(name):
        Output(json=json).value(stem, model=stem, state="removed")


@app.command(cls=UpresCommand, short_help="Upload weights to the Hugging Face Hub.")
def publish(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help=".safetensors files of one model, one for each scale."),
    ],
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hugging Face Hub.")
    ],
    private: Annotated[
        bool, typer.Option("--private", help="If the repository is created, make it private.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the model card, and stop.")
    ] = False,
) -> None:
    """Upload a model's files to the Hugging Face Hub, with a card made from their metadata.

    Give the files of all scales at once: the card describes only the files given, and replaces
    the existing card.
    """
    from upres.weights.hub import hub
    from upres.weights.publish import model_card
    from upres.weights.publish import publish as upload

    output = Output()
    if dry_run:
        output.value(model_card(files))
        return
    library = hub()
    api, add = library.HfApi(), library.CommitOperationAdd
    output.value(upload(files, repository, private=private, api=api, add=add))


def _facts(entry: WeightsEntry) -> dict[str, Any]:
    found = local_path(entry)
    source = {} if entry.hub is None else vars(entry.hub)
    return {
        "id": entry.name,
        **entry.facts.to_mapping(),
        "source": {"where": _where(entry), **source, "file": entry.file},
        "size": entry.size,
        "sha256": entry.sha256,
        "path": None if found is None else str(found),
    }


def _figure(entry: WeightsEntry, dataset: str) -> str:
    return " / ".join(f"{m.psnr:.2f}" for m in entry.facts.measured if m.set == dataset)


def _where(entry: WeightsEntry) -> str:
    if entry.hub is None:
        return "bundled" if entry.local is None else "added"
    return "downloaded" if local_path(entry) else "Hub"


def _print(output: Output, facts: dict[str, Any]) -> None:
    if output.json:
        output.value("", **facts)
        return
    labels: dict[str, Callable[[Any], str]] = {"measured": _measured, "training": _training}
    for key, value in facts.items():
        text = labels.get(key, _text)(value)
        output.value(f"{key + ':':<14}{text}")
    output.value("")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return "not on this machine" if value is None else str(value)


def _training(story: dict[str, Any]) -> str:
    """The story of a run in lines that continue the label's."""
    data = story.get("data", {})
    recipe = story.get("recipe", {})
    teacher = story.get("teacher", {})
    looks = [
        f"x{q['scale']} {q['psnr']:.2f} dB / {q['ssim']:.4f}, bicubic "
        f"{q['bicubic_psnr']:.2f} / {q['bicubic_ssim']:.4f}"
        for q in story.get("validation", ())
    ]
    lines = [
        f"recipe {recipe.get('name')}, {story.get('steps')} steps in {story.get('hours')} hours"
        + ("" if story.get("finished", True) else ", not finished"),
        f"on {story.get('device')}, seed {story.get('seed')}, upres {story.get('version')}",
        f"{data.get('pictures')} pictures, {data.get('megapixels')} megapixels",
        f"from {', '.join(data.get('names', ()))}; sha256 {str(data.get('sha256'))[:16]}...",
        f"started from {story.get('start')}",
        *([f"taught by {teacher.get('name')}"] if teacher else []),
        f"validation: {'; '.join(looks)} (Y, scale shaved)" if looks else "validation: none",
    ]
    return f"\n{'':<14}".join(lines)


def _measured(values: list[dict[str, Any]]) -> str:
    rows = (f"{m['set']} x{m['scale']} {m['psnr']:.2f} dB / {m['ssim']:.4f}" for m in values)
    return f"{'; '.join(rows)} (Y, scale shaved)" if values else "not measured by us"
