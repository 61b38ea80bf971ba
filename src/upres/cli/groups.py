"""How the command line is parsed and helps: a default command, plain grouped help, one-line errors.

Help is plain text, not boxes: it is the same on every terminal and in the docs, and it is there in
a tenth of a second.
"""

import difflib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from upres.cli.output import ReaderGone, complain
from upres.errors import ResourceError, UpresError

DEFAULT = "upscale"
_TYPE = re.compile(r"(?<=[A-Z]) <[\w\[\]]+>$")
_ORDER = (
    *("Arguments", "Mode", "Data", "Folder", "Recipe", "Size", "Model"),
    *("Execution", "Output", "Options"),
)


class _PlainHelp:
    """Options under the headings that ``rich_help_panel`` names; the epilog as it is written."""

    epilog: str | None

    def format_options(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):  # type: ignore[attr-defined]
            record = param.get_help_record(ctx)
            if record is None:  # hidden
                continue
            usual = "Arguments" if param.param_type_name == "argument" else "Options"
            title = getattr(param, "rich_help_panel", None) or usual
            # The metavar says what it is; Python's name for its type does not.
            panels.setdefault(title, []).append((_TYPE.sub("", record[0]), record[1]))
        for title, rows in sorted(panels.items(), key=lambda item: _ORDER.index(item[0])):
            with formatter.section(title):
                formatter.write_dl(rows)
        if isinstance(self, TyperGroup):
            self.format_commands(ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        del ctx
        if self.epilog:
            formatter.write_paragraph()
            formatter.write(self.epilog.strip("\n") + "\n")


class UpresCommand(_PlainHelp, TyperCommand):
    """A command with plain help."""


class UpresGroup(_PlainHelp, TyperGroup):
    """Commands under one word.

    Attributes:
        default_command: what the word means without any further one.
    """

    default_command = "--help"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See typer."""
        if not ctx.resilient_parsing and (not args or self._is_for_default(ctx, args[0])):
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)

    def _is_for_default(self, ctx: Any, word: str) -> bool:
        """Whether it is an option that the command meant takes, and not the group."""
        meant = self.get_command(ctx, self.default_command) is not None
        return meant and word.startswith("-") and word not in self._own_options(ctx)

    def _own_options(self, ctx: Any) -> set[str]:
        return {o for p in self.get_params(ctx) for o in getattr(p, "opts", ())}


class RootGroup(UpresGroup):
    """``upres``: a first word that is no command is a picture for ``upscale``."""

    def get_params(self, ctx: Any) -> Any:
        """Flags get a default here, so that typer need not import pydantic to work it out."""
        params: list[Any] = list(super().get_params(ctx))
        for param in params:
            if getattr(param, "is_flag", False) and param.default is None:
                param.default = False
        return params

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See typer."""
        return super().parse_args(ctx, self._with_default(ctx, list(args)))

    def _with_default(self, ctx: Any, args: list[str]) -> list[str]:
        if (
            not args
            or args[0] in self._own_options(ctx)
            or self.get_command(ctx, args[0]) is not None
        ):
            return args
        if not ctx.resilient_parsing:
            self._check_word(ctx, args[0])
        return [DEFAULT, *args]

    def _check_word(self, ctx: Any, word: str) -> None:
        """A bare word that is nothing here is more likely a slip than a picture."""
        looks_like_path = word.startswith("-") or Path(word).suffix or os.sep in word or "/" in word
        if looks_like_path or any(c in word for c in "*?[") or os.path.lexists(word):
            return
        near = difflib.get_close_matches(word, self.list_commands(ctx), n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        ctx.fail(f"no such file or command: {word or repr(word)}{meant}")

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete the options of the default command as well."""
        found: list[Any] = super().shell_complete(ctx, incomplete)
        command = self.get_command(ctx, DEFAULT)
        if command is not None and incomplete.startswith("-"):
            with command.make_context(DEFAULT, [], parent=ctx, resilient_parsing=True) as sub:
                found += command.shell_complete(sub, incomplete)
        return found

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and turn every foreseen error into one line and an exit code."""
        del standalone_mode
        try:
            code = super().main(
                args,
                prog_name,
                complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
        except typer.TyperException as error:
            message = error.format_message().replace("Value error, ", "").rstrip(". \n")
            ctx = getattr(error, "ctx", None)
            complain(message + (f"; see '{ctx.command_path} --help'" if ctx else ""))
            sys.exit(2)
        except UpresError as error:
            complain(str(error))
            sys.exit(error.exit_code)
        except MemoryError:
            full = ResourceError("memory is full", "free some, or take a smaller picture or scale")
            complain(str(full))
            sys.exit(full.exit_code)
        except ReaderGone:
            sys.exit(141)
        except (KeyboardInterrupt, typer.Abort):
            complain("interrupted; no unfinished result was left")
            sys.exit(130)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """typer ends silently on Ctrl-C."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            complain("interrupted; no unfinished result was left")
            raise typer.Exit(130) from None
