"""How long payloads are kept: 400 days unless said otherwise, and never less than six months."""

from pathlib import Path

import pytest

from gateway.settings import AuditSection, SettingsError
from gateway.settings import file as settings_file


def test_the_default_and_the_floor() -> None:
    """400 days; 183 are the least."""
    assert AuditSection().retention_days == 400
    assert AuditSection(retention_days=183).retention_days == 183


@pytest.mark.parametrize("days", [182, 1, 0, -1, 36_501])
def test_what_is_too_short_or_absurd_is_refused_by_its_key(tmp_path: Path, days: int) -> None:
    """The key is named, and for what is too short the reason."""
    (tmp_path / "gateway.toml").write_text(f'state = "state"\n[audit]\nretention_days = {days}\n')
    with pytest.raises(SettingsError, match=r"audit\.retention_days") as caught:
        settings_file.load(tmp_path / "gateway.toml")
    assert ("AI Act, articles 19 and 26" in str(caught.value)) is (days < 183)
