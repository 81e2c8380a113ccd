"""Groups of commands whose help says what each is in whole sentences."""

from __future__ import annotations

import click

_LONGEST = 200


class Group(click.Group):
    """click's own cuts sentences off where a line ends; these go on in the next."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, command.get_short_help_str(_LONGEST)) for name, command in commands if command is not None
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
