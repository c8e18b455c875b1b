"""Files changed together, with copies of what was there kept in the state folder."""

from collections.abc import Sequence
from pathlib import Path

from gateway.cli import home
from gateway.cli.client import changing, receipts
from gateway.cli.client.changing import Change
from gateway.cli.client.housing import House
from gateway.cli.client.receipts import FileKept, Receipt, digest
from gateway.cli.screen import Failed


def carry_out(house: House, label: str, changes: Sequence[Change]) -> Path:
    """Do it; the folder with copies of what was there. ``label`` says what it was for.

    Raises:
        Failed: nothing was changed.
    """
    home.prepare(house.state)
    with receipts.alone(house.state) as folder:
        kept, backups = list[FileKept](), dict[str, bytes]()
        for number, one in enumerate(changes):
            before, name = one.was.content, f"{number}-{one.was.path.name}"
            backups |= {} if before is None else {name: before}
            kept.append(
                FileKept(
                    path=str(one.was.path),
                    backup=None if before is None else name,
                    before=digest(before),
                    after=str(digest(one.content)),
                    mode=one.was.mode,
                )
            )
        receipt = Receipt(client=label, files=kept, settings=str(house.config), block="", added=[], used=[], secrets={})
        own = receipts.keep(folder, receipt, backups)
        try:
            changing.change(changes)
        except Failed:
            receipts.forget(own)
            raise
        return own
